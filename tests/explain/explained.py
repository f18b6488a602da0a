"""What tests of `btkit explain` share."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from braintumor_kit.files import read_csv

CLASSES = ["glioma", "meningioma", "notumor", "pituitary"]
PHANTOM = ("source.patients=32", "source.size=64")
SMALL = [f"--set={value}" for value in
         (*PHANTOM, "pixels.image_size=64", "training.epochs=1", "training.precision=float32")]  # fmt: skip
IG = ("--set", "integrated_gradients.steps=4")


def load(path: Path) -> dict:
    return json.loads(path.read_text())


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def table(folder: Path) -> list[dict[str, str]]:
    return [dict(row) for row in read_csv(folder / "explanations.csv")]


def variant(run: Path, folder: Path, model: keras.Model | None = None, **resolved: dict[str, Any]) -> Path:
    """A copy of what a run needs to be explained, with another model or other tables of its recipe."""
    folder.mkdir()
    for name in ("record.json", "resolved.json", "split.csv", "predictions.csv", "model.keras"):
        shutil.copy(run / name, folder / name)
    if model is not None:
        model.save(folder / "model.keras")
        (folder / "predictions.csv").unlink()
        record = load(folder / "record.json")
        (folder / "record.json").write_text(json.dumps({**record, "explain_layer": None}))
    values = load(folder / "resolved.json")
    for name, changes in resolved.items():
        values[name] |= changes
    (folder / "resolved.json").write_text(json.dumps(values))
    return folder


def flat_model() -> keras.Model:
    """A classifier without a layer that has rows and columns."""
    return keras.Sequential(
        [keras.Input((64, 64, 3)), keras.layers.Flatten(), keras.layers.Dense(4, activation="softmax")]
    )


def explain_few(btkit: Callable, run: Path, out: Path, *more: object) -> list[dict[str, str]]:
    ended = btkit("explain", run, "--limit", 3, "--out", out, *more)
    assert ended.status == 0, ended.err
    return table(out)
