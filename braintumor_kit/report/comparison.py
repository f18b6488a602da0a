"""Several runs beside each other on one page: what was different, who did better, and whether that may be luck."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from braintumor_kit.evaluation.metrics import HEADLINES
from braintumor_kit.report.page import rendered
from braintumor_kit.report.run_page import PARTS, Told, validation_curves


def comparison_page(runs: Sequence[Told], paired: Sequence[Mapping[str, Any] | str]) -> str:
    """The page, as HTML.

    Args:
        runs: two or more; the others are held against the first.
        paired: of each other run, its comparison with the first on the slices that both judged, as
            `evaluation.paired.compare` gives it (the first's figures less the other's), or why there is none.
    """
    histories = {told.name: told.histories[""] for told in runs if told.histories.get("")}  # of single trainings
    labels = list(dict.fromkeys(name for told in runs for name in told.metrics[told.part]["labels"]))
    return rendered(
        "comparison.html",
        runs=runs,
        judged=[told.metrics[told.part] for told in runs],
        parts=PARTS,
        headlines=list(HEADLINES),
        labels=labels,
        paired=list(zip(runs[1:], paired, strict=True)),
        settings=list(different_settings([told.record["recipe"] for told in runs])),
        curves=validation_curves(histories, "run") if histories else [],
    )


def different_settings(recipes: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """Keys of recipes, `table.key`, that do not have one value in all of them, with the value in each."""
    flat = [dict(_flattened(recipe)) for recipe in recipes]
    for key in dict.fromkeys(key for values in flat for key in values):
        found = [values.get(key, "") for values in flat]
        if len(set(found)) > 1:
            yield key, found


def _flattened(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    items = value.items() if isinstance(value, Mapping) else enumerate(value, start=1)
    for key, inner in items:
        name = f"{place}.{key}" if place else str(key)
        if isinstance(inner, Mapping) or (isinstance(inner, list) and inner and isinstance(inner[0], Mapping)):
            yield from _flattened(inner, name)
        else:
            yield name, "" if inner is None else str(inner)
