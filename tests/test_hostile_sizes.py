"""Model files of few bytes that ask for much memory or time: refused before anything is built or computed."""

import time
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import pytest
from keras import layers
from small_models import SIDE, layer, network, rewritten, saved, with_config, with_weights

from braintumor_kit.errors import InputError
from braintumor_kit.model.load import load_model
from braintumor_kit.model.ordinary import is_ordinary

BOMB = {"class_name": "AUC", "module": "keras.metrics", "registered_name": None, "config": {"num_thresholds": 2**24}}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"class_name": "__numpy__", "config": {"value": ["a"] * 16, "dtype": "U100000000"}}, "no kind of number"),
        (BOMB, "ordinary layers"),
        ([[] for _ in range(1_100_000)], "more than 1,000,000 lists and tables"),
    ],
    ids=["wide", "metric", "lists"],
)
def test_arguments_of_calls_that_fill_memory(value: Any, message: str, tmp_path: Path) -> None:
    path = with_config(
        saved(tmp_path, network()), lambda c: layer(c, "Dense")["inbound_nodes"][0]["kwargs"].update(zz=value)
    )
    with pytest.raises(InputError, match=message):
        load_model(path)


def test_what_a_model_was_compiled_with_is_not_looked_at(tmp_path: Path) -> None:
    model = network()
    model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
    assert load_model(saved(tmp_path, model)).name == model.name
    compiled = {"optimizer": "adam", "loss": "mse", "metrics": [BOMB] * 10}
    path = with_config(tmp_path / "m.keras", lambda config: config.update(compile_config=compiled))
    begun = time.monotonic()
    load_model(path)
    assert time.monotonic() - begun < 10


def test_models_that_call_each_other(tmp_path: Path) -> None:
    """Eight models, each of which calls the one inside four times: 4 ** 8 calls, in a file of a few kilobytes."""
    inner = keras.Sequential([keras.Input((SIDE, SIDE, 3)), layers.ReLU()])
    config = keras.saving.serialize_keras_object(keras.Model(inner.inputs, inner.outputs))
    for _ in range(8):
        outer = keras.saving.serialize_keras_object(network(layers.ReLU()))
        item = layer(outer, "ReLU")
        nodes = item["inbound_nodes"] * 4
        item.clear()
        item.update(config, inbound_nodes=nodes)
        config = outer
    path = with_config(saved(tmp_path, network()), lambda old: (old.clear(), old.update(config)))
    assert path.stat().st_size < 100_000
    with pytest.raises(InputError, match="calls more than 100,000 layers"):
        load_model(path)


@pytest.mark.parametrize(
    ("middle", "message"),
    [
        ([layers.UpSampling2D(30), layers.AveragePooling2D(1023, strides=1, padding="same")], "multiplications"),
        ([layers.UpSampling2D(100), *(layers.ReLU() for _ in range(120))], "its layers make"),
        ([layers.UpSampling2D(20), layers.Reshape((360_000, 2)), layers.LSTM(2), layers.Reshape((1, 1, 2))], "steps"),
        ([layers.UpSampling2D(1000)], "makes more than"),
    ],
    ids=["pool", "sum", "steps", "one"],
)
def test_layers_that_compute_for_ever(middle: list[Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        load_model(saved(tmp_path, network(*middle)))


def test_what_a_wrapper_holds_is_measured_too(tmp_path: Path) -> None:
    pictures = keras.Input((8, 8, 3))
    grows = keras.Model(pictures, layers.GlobalMaxPooling2D()(layers.UpSampling2D(1000)(pictures)))
    inputs = keras.Input((8, 8, 3))
    x = layers.TimeDistributed(grows)(layers.Reshape((1, 8, 8, 3))(inputs))
    x = layers.Dense(2, activation="softmax")(layers.Flatten()(x))
    with pytest.raises(InputError, match="makes more than"):
        load_model(saved(tmp_path, keras.Model(inputs, x)))


def test_attention_between_all_pixels(tmp_path: Path) -> None:
    pictures = keras.Input((128, 128, 3))
    x = layers.Reshape((16384, 3))(pictures)
    x = layers.GlobalAveragePooling1D()(layers.Attention()([x, x]))
    with pytest.raises(InputError, match="compares more than"):
        load_model(saved(tmp_path, keras.Model(pictures, layers.Dense(2, activation="softmax")(x))))


@pytest.mark.parametrize("kind", ["ExtractPatches", "GaussianBlur", "Tile", "Repeat", "Map"])
def test_operations_that_make_much_of_little(kind: str) -> None:
    assert not any(is_ordinary(kind, f"keras.src.ops.{name}", kind) for name in ("image", "numpy", "core", "nn"))


def test_operations_that_networks_are_made_of(tmp_path: Path) -> None:
    pictures = keras.Input((SIDE, SIDE, 3))
    x = keras.ops.relu((pictures / 255.0 - 0.5) * 2)
    x = keras.ops.mean(keras.ops.concatenate([x, keras.ops.square(x)], axis=-1), axis=(1, 2))
    model = keras.Model(pictures, layers.Dense(2, activation="softmax")(x))
    assert load_model(saved(tmp_path, model)).count_params() == model.count_params()


def test_too_many_classes(tmp_path: Path) -> None:
    pictures = keras.Input((64, 64, 1))
    path = saved(tmp_path, keras.Model(pictures, layers.Softmax()(layers.Flatten()(pictures))))
    with pytest.raises(InputError, match="4,096 classes, more than 2,000"):
        load_model(path)


def test_a_chunk_of_weights_that_unpacks_to_a_gigabyte(tmp_path: Path) -> None:
    def pack(file: h5py.File) -> None:
        held = file["layers"]["conv2d"]["vars"]
        del held["1"]
        held.create_dataset("1", (2,), "f4", maxshape=(None,), chunks=(300_000_000,), compression="gzip")

    with pytest.raises(InputError, match="chunks far larger than itself"):
        load_model(with_weights(saved(tmp_path, network()), pack))


def test_weights_packed_a_thousandfold(tmp_path: Path) -> None:
    path = rewritten(
        saved(tmp_path, network()),
        lambda members: members.update({"model.weights.h5": bytes(2**26)}),
        zipfile.ZIP_DEFLATED,
    )
    assert path.stat().st_size * 900 < 2**26
    with pytest.raises(InputError, match=r"model\.weights\.h5 has more than"):
        load_model(path)


def test_a_number_of_four_hundred_digits(tmp_path: Path) -> None:
    path = with_config(saved(tmp_path, network()), lambda c: layer(c, "Dense")["config"].update(units=10**400))
    with pytest.raises(InputError, match="asks for a units above"):
        load_model(path)
