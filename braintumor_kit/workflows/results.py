"""What a run came to, kept in its `record.json`, so that another run can be held to it."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from braintumor_kit.evaluation.metrics import CALIBRATION, HEADLINES
from braintumor_kit.files import read_csv, read_json
from braintumor_kit.runs import Run, fold_runs

TIMES = ("seconds", "images_per_second")
"""Columns of `history.csv` that no two runs share."""

FIGURES = (*HEADLINES, *CALIBRATION)


def results_of(run: Run, model: keras.Model) -> dict[str, Any]:
    """Of one training: its history without times, digests of its weights and predictions, and its figures."""
    history = [
        {name: float(value) for name, value in row.items() if name not in TIMES}
        for row in read_csv(run.folder / "history.csv")
    ]
    return {"history": history, "weights": weights_digest(model), **_judged(run)}


def pooled_results(run: Run) -> dict[str, Any]:
    """Of a cross-validation: those of its folds, and its own predictions and figures."""
    return {"folds": [dict(fold.record.get("results") or {}) for fold in fold_runs(run)], **_judged(run)}


def weights_digest(model: keras.Model) -> str:
    """SHA-256 of all variables, bit for bit, in the model's order."""
    digest = hashlib.sha256()
    for variable in model.variables:
        value = np.ascontiguousarray(keras.ops.convert_to_numpy(variable.value))
        digest.update(f"{value.dtype} {value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def lacking(results: Mapping[str, Any], folds: int | None) -> str | None:
    """What results in a record lack for another run to be held to them; None where they are complete.

    Args:
        folds: how many there are; None of one training.
    """
    wanted = ("predictions", "metrics", *(("folds",) if folds else ("history", "weights")))
    if missing := next((name for name in wanted if not results.get(name)), None):
        return missing
    if folds and len(results["folds"]) != folds:
        return f"folds.{len(results['folds'])}"
    inner = ((number, lacking(fold, None)) for number, fold in enumerate(results.get("folds") or ()))
    return next((f"folds.{number}.{name}" for number, name in inner if name), None)


def _judged(run: Run) -> dict[str, Any]:
    metrics = read_json(run.folder / "metrics.json")
    figures = {
        part: {name: values[name] for name in FIGURES if name in values}
        for part, values in metrics.items()
        if isinstance(values, dict) and "accuracy" in values
    }
    return {"predictions": _file_digest(run.folder / "predictions.csv"), "metrics": figures}


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """What differs between two records, a phrase each, in the order in which a run comes to it."""
    for key, words in INPUTS.items():
        if before.get(key) != now.get(key):
            yield f"{words} {_short(before.get(key))} and is {_short(now.get(key))}"
    yield from _results(before["results"], now["results"])


INPUTS = {
    "data_digest": "the digest of the data was",
    "split_digest": "the digest of the split was",
    "split_digests": "the digests of the folds were",
    "backbone_weights": "what the backbone began with was",
}


def _results(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    folds = [results.get("folds", []) for results in (before, now)]
    if len(folds[0]) != len(folds[1]):
        yield f"there were {len(folds[0])} folds and are {len(folds[1])}"
    for number, (old, new) in enumerate(zip(*folds, strict=False), start=1):
        yield from (f"fold {number}: {phrase}" for phrase in _results(old, new))
    yield from _histories(before.get("history", []), now.get("history", []))
    if before.get("weights") != now.get("weights"):
        yield f"the digest of the weights was {_short(before.get('weights'))} and is {_short(now.get('weights'))}"
    yield from _figures(before.get("metrics", {}), now.get("metrics", {}))
    if before.get("predictions") != now.get("predictions"):
        yield (
            f"the digest of predictions.csv was {_short(before.get('predictions'))} "
            f"and is {_short(now.get('predictions'))}"
        )


def _histories(before: list[dict[str, float]], now: list[dict[str, float]]) -> Iterator[str]:
    for number, (old, new) in enumerate(zip(before, now, strict=False), start=1):
        for name in {**old, **new}:
            if old.get(name) != new.get(name):
                yield f"epoch {number}: {name} was {old.get(name)!r} and is {new.get(name)!r}"
    if len(before) != len(now):
        yield f"there were {len(before)} epochs and are {len(now)}"


def _figures(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for part in {**before, **now}:
        old, new = before.get(part, {}), now.get(part, {})
        for name in {**old, **new}:
            if old.get(name) != new.get(name):
                yield f"{name} on {part} was {old.get(name)!r} and is {new.get(name)!r}"


def _short(value: Any) -> str:
    """As much of a digest as tells it from another."""
    if isinstance(value, list):
        return ", ".join(map(_short, value))
    return str(value)[:12] if isinstance(value, str) and len(value) == 64 else str(value)
