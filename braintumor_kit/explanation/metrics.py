"""The content of `explanation_metrics.json`, from the figures of single maps, and what to say about it."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from braintumor_kit.evaluation.intervals import mean_intervals
from braintumor_kit.explanation.localisation import OF_HEAD, OF_MASK

VALUES = (*OF_MASK, *OF_HEAD, "insertion_auc", "deletion_auc", "road")
BASELINES = ("chance", "centre_blob")

ALARM = 0.25
"""Share of the slices of a class whose peak lies outside of the head, from which it is worth a sentence."""

FEWEST = 5
"""Slices of a class that such a sentence needs."""


@dataclass(frozen=True)
class Measured:
    """The figures of one map of one slice.

    Attributes:
        id: of the slice.
        group: its patient, None where not known.
        label: its true class, None where not known.
        predicted: the class that the network gives it.
        method: explainer, or `chance` or `centre_blob`.
        values: some of VALUES; those that were not measured are absent.
        peak: the place of the maximum, as `localisation.peak_place` names it.
    """

    id: str
    group: str | None
    label: str | None
    predicted: str
    method: str
    values: Mapping[str, float]
    peak: str


def summarise(
    measured: Sequence[Measured], baselines: Sequence[Measured], classes: Sequence[str], split: str
) -> dict[str, Any]:
    """Means and 95 % intervals over patients (over slices where patients are not known).

    Args:
        measured: maps of explainers, any number of methods.
        baselines: the same slices scored for chance and the centre blob.
        classes: names of all classes.
        split: what the slices are of.

    Returns:
        The JSON value of `explanation_metrics.json`. Each method has `n`, `n_with_mask`, `interval_over`, the mean of
        each of VALUES and its `<value>_ci`, and the same again in `by_class` (by true class) and, for explainers, in
        `by_outcome` (`correct`, `wrong`). What was not measured is None, as is an interval over one patient alone.

    Raises:
        ValueError: where a value is not finite or has a name not in VALUES.
    """
    _check([*measured, *baselines])
    by_method, of_baseline = _by_method(measured), _by_method(baselines)
    return {
        "split": split,
        "n": len({one.id for one in measured}),
        "methods": {
            name: {**_section(of), "by_class": _by_class(of, classes), "by_outcome": _by_outcome(of)}
            for name, of in by_method.items()
        },
        "baselines": {
            name: {**_section(of_baseline[name]), "by_class": _by_class(of_baseline[name], classes)}
            for name in BASELINES
        },
    }


def findings(metrics: Mapping[str, Any], measured: Sequence[Measured]) -> list[str]:
    """What a reader should know, in plain sentences.

    Args:
        metrics: what `summarise` gave; a method may have been given `randomisation_passed` since.
        measured: what it was given.
    """
    sentences: list[str] = []
    by_method = _by_method(measured)
    for name, figures in metrics["methods"].items():
        sentences += _of_places(name, by_method[name])
        sentences += _of_blob(name, figures, metrics["baselines"]["centre_blob"])
        if figures.get("randomisation_passed") is False:
            sentences.append(
                f"{name}: the maps hardly change when the network's weights are randomised: they show the picture, "
                "not what the network has learnt from it."
            )
    return sentences


def _of_places(name: str, measured: Iterable[Measured]) -> Iterable[str]:
    """Of classes whose maps often have their peak outside of the head."""
    by_class: dict[str, list[Measured]] = defaultdict(list)
    for one in measured:
        if "peak_outside_head" in one.values:
            by_class[one.predicted if one.label is None else one.label].append(one)
    for label, of in by_class.items():
        share = float(np.mean([one.values["peak_outside_head"] for one in of]))
        if share >= ALARM and len(of) >= FEWEST:
            places = Counter(one.peak for one in of if one.values["peak_outside_head"] >= 0.5)
            where = "".join(f", mostly {place}" for place, count in places.items() if 2 * count > places.total())
            yield (
                f"{name}, {label}: the peak of relevance lies outside of the head in {100 * share:.0f} % of "
                f"{len(of)} slices{where}: what decides there may be a mark, the border or the background."
            )


def _of_blob(name: str, figures: Mapping[str, Any], blob: Mapping[str, Any]) -> Iterable[str]:
    interval, bar = figures["pointing_game_ci"], blob["pointing_game"]
    if interval is not None and bar is not None and interval[0] <= bar:
        yield (
            f"{name}: the pointing game, {figures['pointing_game']:.2f} [{interval[0]:.2f}, {interval[1]:.2f}], is not "
            f"above the {bar:.2f} of a blob at the centre of the picture, which has seen neither slice nor network: "
            "these maps are no evidence that the network looks at the tumour."
        )


def _section(measured: Sequence[Measured]) -> dict[str, Any]:
    """Numbers of slices, means and intervals of some maps of one method."""
    means: dict[str, float | None] = dict.fromkeys(VALUES)
    intervals: dict[str, list[float] | None] = dict.fromkeys(VALUES)
    for names, of in _measured_together(measured):
        table = np.array([[one.values[name] for name in names] for one in of], dtype=float)
        for name, mean, interval in zip(names, table.mean(axis=0), mean_intervals(table, _units(of)), strict=True):
            means[name], intervals[name] = float(mean), interval
    figures: dict[str, Any] = {
        "n": len({one.id for one in measured}),
        "n_with_mask": len({one.id for one in measured if any(name in one.values for name in OF_MASK)}),
        "interval_over": "patients" if any(one.group is not None for one in measured) else "slices",
    }
    for name in VALUES:
        figures |= {name: means[name], f"{name}_ci": intervals[name]}
    return figures


def _measured_together(measured: Sequence[Measured]) -> Iterable[tuple[list[str], list[Measured]]]:
    """Names of values that the same maps have, and these maps: one resampling serves them all."""
    together: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for name in VALUES:
        together[tuple(place for place, one in enumerate(measured) if name in one.values)].append(name)
    for places, names in together.items():
        if places:
            yield names, [measured[place] for place in places]


def _units(measured: Iterable[Measured]) -> list[str]:
    return [f"group {one.group}" if one.group is not None else f"slice {one.id}" for one in measured]


def _by_method(measured: Iterable[Measured]) -> defaultdict[str, list[Measured]]:
    methods: defaultdict[str, list[Measured]] = defaultdict(list)
    for one in measured:
        methods[one.method].append(one)
    return methods


def _by_class(measured: Sequence[Measured], classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    return {name: _section([one for one in measured if one.label == name]) for name in classes}


def _by_outcome(measured: Sequence[Measured]) -> dict[str, dict[str, Any]]:
    known = [one for one in measured if one.label is not None]
    return {
        "correct": _section([one for one in known if one.label == one.predicted]),
        "wrong": _section([one for one in known if one.label != one.predicted]),
    }


def _check(measured: Iterable[Measured]) -> None:
    for one in measured:
        for name, value in one.values.items():
            if name not in VALUES:
                raise ValueError(f"'{name}' of '{one.id}' by {one.method}: expected one of {', '.join(VALUES)}.")
            if not math.isfinite(value):
                raise ValueError(f"{name} of '{one.id}' by {one.method} is {value}: expected a finite number.")
