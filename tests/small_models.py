"""A classifier of two layers, made and saved in no time, and its file with something in it changed."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
from keras import layers

SIDE = 32


def network(*middle: Any) -> keras.Model:
    """Pictures (N, 32, 32, 3) to probabilities of two classes, with other layers in its middle."""
    pictures = x = keras.Input((SIDE, SIDE, 3))
    for layer in (layers.Conv2D(2, 3, name="c"), *middle, layers.GlobalAveragePooling2D()):
        x = layer(x)
    return keras.Model(pictures, layers.Dense(2, activation="softmax", name="d")(x))


def saved(folder: Path, model: keras.Model) -> Path:
    """The model's file."""
    model.save(folder / "m.keras")
    return folder / "m.keras"


def rewritten(path: Path, change: Callable[[dict[str, bytes]], object], method: int = zipfile.ZIP_STORED) -> Path:
    """The same archive with its members changed."""
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", method) as new:
        for name, content in members.items():
            new.writestr(name, content)
    return path


def with_config(path: Path, change: Callable[[Any], object]) -> Path:
    def edit(members: dict[str, bytes]) -> None:
        config = json.loads(members["config.json"])
        change(config)
        members["config.json"] = json.dumps(config).encode()

    return rewritten(path, edit)


def with_weights(path: Path, change: Callable[[h5py.File], object]) -> Path:
    def edit(members: dict[str, bytes]) -> None:
        content = io.BytesIO(members["model.weights.h5"])
        with h5py.File(content, "r+") as file:
            change(file)
        members["model.weights.h5"] = content.getvalue()

    return rewritten(path, edit)


def layer(config: Any, kind: str) -> Any:
    return next(item for item in config["config"]["layers"] if item["class_name"] == kind)
