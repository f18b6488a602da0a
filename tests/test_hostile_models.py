"""Model files made to run code, to fill memory or to lead elsewhere: nothing of them is carried out."""

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image
from small_models import SIDE, layer, network, rewritten, saved, with_config, with_weights

from braintumor_kit.errors import InputError
from braintumor_kit.model import archive
from braintumor_kit.model.load import load_model

import keras  # isort: skip  (after what puts it on torch)
from keras import layers  # isort: skip


# .keras


def test_a_lambda_layer(tmp_path: Path, btkit: Callable) -> None:
    path = saved(tmp_path, network(layers.Lambda(lambda x: x)))
    Image.new("L", (SIDE, SIDE)).save(tmp_path / "a.png")
    ended = btkit("predict", path, tmp_path / "a.png")
    assert ended.status == 2
    assert "holds 'Lambda' of keras.layers, which is none of Keras' ordinary layers" in ended.err
    assert ended.err.count("btkit:") == 1


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("subprocess", "Popen"),
        ("builtins", "eval"),
        ("keras.utils", "get_file"),
        ("keras.src.utils.file_utils", "get_file"),
        ("keras.layers", "TFSMLayer"),
        ("keras.layers", "TorchModuleWrapper"),
        ("keras.layers", "StringLookup"),
        ("keras.layers", "JaxLayer"),
        ("keras.models", "load_model"),
        ("keras_hub.models", "ResNetBackbone"),
        ("keras.src.backend.tensorflow.core", "Variable"),
        ("keras.src.ops.core", "Map"),
        (None, "Conv2D"),
        ("keras.layers", ["Conv2D"]),
        ({}, "Conv2D"),
    ],
)
def test_a_foreign_class(module: Any, name: Any, tmp_path: Path) -> None:
    path = with_config(
        saved(tmp_path, network()), lambda config: layer(config, "Conv2D").update(module=module, class_name=name)
    )
    with pytest.raises(InputError, match=r"ordinary layers|is no text"):
        load_model(path)


@pytest.mark.parametrize("function", ["eval", "get", "deserialize", "os.system", "load_model"])
def test_a_foreign_function(function: str, tmp_path: Path) -> None:
    said = {"class_name": "function", "config": function, "module": "builtins", "registered_name": function}
    path = with_config(
        saved(tmp_path, network()), lambda config: layer(config, "Conv2D")["config"].update(activation=said)
    )
    with pytest.raises(InputError, match=f"holds '{function}' of builtins"):
        load_model(path)


def test_a_class_of_ones_own_opens_once_it_is_registered(tmp_path: Path) -> None:
    @keras.saving.register_keras_serializable("mine", "Twice")
    class Twice(layers.Layer):
        def call(self, x: Any) -> Any:
            return 2 * x

    try:
        path = saved(tmp_path, network(Twice()))
        assert load_model(path).count_params() == network().count_params()
    finally:
        keras.saving.get_custom_objects().pop("mine>Twice")
    with pytest.raises(InputError, match="A plugin that registers it has to be named"):
        load_model(path)


def test_a_bomb_in_a_model(tmp_path: Path) -> None:
    path = rewritten(
        saved(tmp_path, network()),
        lambda members: members.update({"config.json": b" " * (archive.MAX_CONFIG + 1)}),
        zipfile.ZIP_DEFLATED,
    )
    assert path.stat().st_size < archive.MAX_CONFIG / 500
    with pytest.raises(InputError, match="has more than 8,388,608 bytes"):
        load_model(path)


@pytest.mark.parametrize("name", ["../../evil", "/evil", "assets/vocabulary.txt", "a\nb"])
def test_another_file_in_a_model(name: str, tmp_path: Path) -> None:
    path = rewritten(saved(tmp_path, network()), lambda members: members.update({name: b"x"}))
    with pytest.raises(InputError, match="which no saved classifier does"):
        load_model(path)
    assert [item.name for item in tmp_path.iterdir()] == ["m.keras"]


def test_a_member_that_says_too_little_of_its_size(tmp_path: Path) -> None:
    path = rewritten(saved(tmp_path, network()), lambda members: None, zipfile.ZIP_DEFLATED)
    content = path.read_bytes()
    with zipfile.ZipFile(path) as whole:
        size = struct.pack("<I", whole.getinfo("config.json").file_size)
    path.write_bytes(content.replace(size, struct.pack("<I", 10)))
    with pytest.raises(InputError, match="cannot be loaded as a Keras model"):
        load_model(path)


@pytest.mark.parametrize(
    "link", [h5py.ExternalLink("/etc/passwd", "/x"), h5py.SoftLink("/layers")], ids=["external", "soft"]
)
def test_a_link_in_the_weights(link: Any, tmp_path: Path) -> None:
    def put(file: h5py.File) -> None:
        del file["layers"]["conv2d"]["vars"]["0"]
        file["layers"]["conv2d"]["vars"]["0"] = link

    with pytest.raises(InputError, match="is a link to elsewhere"):
        load_model(with_weights(saved(tmp_path, network()), put))


def test_weights_that_lie_in_another_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(4 * 3 * 3 * 3 * 2))

    def external(file: h5py.File) -> None:
        held = file["layers"]["conv2d"]["vars"]
        del held["0"]
        held.create_dataset("0", (3, 3, 3, 2), "f4", external=str(tmp_path / "secret"))

    def virtual(file: h5py.File) -> None:
        held = file["layers"]["conv2d"]["vars"]
        del held["0"]
        layout = h5py.VirtualLayout((3, 3, 3, 2), "f4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "secret"), "x", (3, 3, 3, 2))
        held.create_virtual_dataset("0", layout)

    for change in (external, virtual):
        with pytest.raises(InputError, match="points at another file"):
            load_model(with_weights(saved(tmp_path, network()), change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.create_group("a").__setitem__("b", file), "stands in it twice"),
        (lambda file: file.create_dataset("a", (2**20, 2**20), "f4", chunks=(64, 64)), "times its size"),
        (lambda file: file.__setitem__("a", "text"), "no numbers"),
        (lambda file: file.create_group("/".join("a" * 80)), "more groups than any network"),
    ],
    ids=["circle", "huge", "text", "deep"],
)
def test_weights_that_are_none(change: Callable, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        load_model(with_weights(saved(tmp_path, network()), change))


def test_a_line_of_text_that_asks_for_memory(tmp_path: Path) -> None:
    """Ten million outputs of 512 features would take 20 GB before their weights are found to be missing."""
    wide = network(layers.Conv2D(512, 1))
    path = with_config(saved(tmp_path, wide), lambda config: layer(config, "Dense")["config"].update(units=10**7))
    with pytest.raises(InputError, match="describes a network of"):
        load_model(path)
    path = with_config(saved(tmp_path, network()), lambda c: layer(c, "Dense")["config"].update(units=10**12))
    with pytest.raises(InputError, match="asks for a units above"):
        load_model(path)


def test_a_layer_that_makes_too_much_of_a_picture(tmp_path: Path) -> None:
    path = saved(tmp_path, network(layers.UpSampling2D(1000)))
    with pytest.raises(InputError, match="makes more than"):
        load_model(path)


def test_a_deep_configuration(tmp_path: Path) -> None:
    deep: Any = 1
    for _ in range(500):
        deep = [deep]
    path = with_config(saved(tmp_path, network()), lambda config: config.update(deep=deep))
    with pytest.raises(InputError, match="nested more than 128 deep"):
        load_model(path)


def test_weights_that_are_not_numbers(tmp_path: Path) -> None:
    model = network()
    model.get_layer("c").set_weights([np.full((3, 3, 3, 2), np.nan, np.float32), np.zeros(2, np.float32)])
    with pytest.raises(InputError, match="not finite"):
        load_model(saved(tmp_path, model))
