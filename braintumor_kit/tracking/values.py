"""What a run's files say, in the flat names and short texts that MLflow keeps: functions of values alone."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from braintumor_kit.notice import NOTICE

LONGEST_NAME = 250
LONGEST_PARAMETER = 500
LONGEST_TAG = 5000
"""Letters: the least that MLflow 2 and 3 take."""

UNKNOWN = re.compile(r"[^\w. -]")
"""Letters that names of metrics cannot have everywhere: they become files."""


def parameters(resolved: Mapping[str, Any]) -> dict[str, str]:
    """A resolved recipe as flat names and texts: `training.learning_rate`, `explain.0.method`; what has no value is
    left out."""
    return {name: _short(_text(value), LONGEST_PARAMETER) for name, value in _leaves(resolved) if value is not None}


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for number, item in enumerate(value):
            yield from _leaves(item, f"{name}.{number}")
    else:
        yield name, value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def figures(metrics: Mapping[str, Any]) -> dict[str, float]:
    """`metrics.json` as flat names and numbers: `test.accuracy`, `test.accuracy_ci_low`, `test.per_class.glioma.f1`.

    Confusion matrices and the figures of single folds, which are runs of their own, are left out.
    """
    found: dict[str, float] = {}
    for name, value in _numbers(metrics):
        plain = UNKNOWN.sub("_", name)[:LONGEST_NAME]
        while plain in found:  # classes that differ in such letters alone
            plain = f"{plain[: LONGEST_NAME - 1]}_"
        found[plain] = value
    return found


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and name.endswith("_ci") and len(value) == 2:
        yield from zip((f"{name}_low", f"{name}_high"), map(float, value), strict=True)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, float(value)


def tags(record: Mapping[str, Any], folder: str) -> dict[str, str]:
    """What a run's record says of where it comes from.

    Args:
        folder: the name of the run's folder.
    """
    code = record.get("code") or {}
    leaks = record.get("leaks")
    said: dict[str, Any] = {
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": " ".join(record.get("argv", [])),
        "mlflow.source.git.commit": code.get("commit"),
        "mlflow.note.content": NOTICE,
        "btkit.notice": NOTICE,
        "btkit.run": folder,
        "btkit.recipe": record.get("recipe_name"),
        "btkit.version": (record.get("packages") or {}).get("braintumor-kit"),
        "btkit.dirty": code.get("dirty"),
        "btkit.recipe_digest": record.get("recipe_digest"),
        "btkit.data_digest": record.get("data_digest"),
        "btkit.split_digest": record.get("split_digest") or record.get("split_digests"),
        "btkit.precision": record.get("precision"),
        "btkit.reported_on": record.get("reported_on"),
        "btkit.leaks": leaks["warning"] if leaks else None,
        "btkit.changes": [change for time in record.get("resumed", []) for change in time.get("changes", [])] or None,
    }
    return {name: _short(_text(value), LONGEST_TAG) for name, value in said.items() if value not in (None, "")}
