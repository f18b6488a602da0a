"""A classifier of two layers, made and saved in no time; its file with something in it changed; a run around one."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
from keras import layers

from braintumor_kit.evaluation.certainty import fit_certainty, save_certainty
from braintumor_kit.files import write_json
from braintumor_kit.model.infer import Predictor

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


def run_of(folder: Path, classes: list[str]) -> Path:
    """A finished run with a certainty, as far as a model's use needs one: a network of two convolutions that tells
    pictures apart."""
    folder.mkdir()
    keras.utils.set_random_seed(3)
    pictures = keras.Input((SIDE, SIDE, 3))
    x = layers.Conv2D(8, 5, strides=2, padding="same", use_bias=False)(layers.Rescaling(1 / 127.5, -1)(pictures))
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.0)(x))
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.Dense(len(classes))(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(pictures, layers.Softmax()(x))
    random = np.random.default_rng(1)
    seen = random.integers(0, 256, (60, 4, 4, 1)).repeat(8, 1).repeat(8, 2).repeat(3, 3).astype(np.uint8)
    model(seen.astype(np.float32), training=True)  # normalisation takes their averages
    head = model.layers[-2]
    head.set_weights([8 * weights for weights in head.get_weights()])  # as sure as a trained one
    model.save(folder / "model.keras")
    probabilities, features = Predictor(model, watch=True).observed(seen)
    labels = probabilities.argmax(axis=1)
    labels[::4] = 0
    certainty = fit_certainty(
        labels[40:],
        probabilities[40:].astype(np.float64),
        [str(number) for number in range(20)],
        ([layer[:40] for layer in features], [layer[40:] for layer in features]),
        0.05,
        0.2,
    )
    save_certainty(certainty, folder)
    write_json(folder / "record.json", {"format": 1, "status": "finished", "classes": classes})
    write_json(folder / "resolved.json", {"pixels": {"image_size": SIDE}})
    return folder
