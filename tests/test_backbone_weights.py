"""Weights of the built-in backbones: presets, downloads without a network, files of torch, and refusals."""

from pathlib import Path
from typing import Any

import kagglehub
import numpy as np
import pytest
import torch
from btkit_plugins.backbones.efficientnet_lite0 import EfficientNetLite0
from btkit_plugins.backbones.resnet import ResNet
from btkit_plugins.backbones.torchvision_resnet import TorchvisionResNet
from test_backbones import SMALL, build, features, pictures, torchvision_network

from braintumor_kit.contracts import Backbone, InputError, porting, presets

# isort: split
# What stands above has put Keras on torch.
import keras
import keras_hub

pytestmark = pytest.mark.usefixtures("one_thread")


# keras-hub's presets


def preset(folder: Path, block: str = "basic_block", converter: Any = None, **changes: Any) -> Any:
    """Saves a small keras-hub preset there and returns its backbone."""
    arguments = {
        "input_conv_filters": [64],
        "input_conv_kernel_sizes": [7],
        "stackwise_num_filters": [64, 128, 256, 512],
        "stackwise_num_blocks": [2, 2, 2, 2],
        "stackwise_num_strides": [1, 2, 2, 2],
        "block_type": block,
    }
    backbone = keras_hub.models.ResNetBackbone(**arguments | changes)
    backbone.save_to_preset(str(folder))
    if converter:
        converter.save_to_preset(str(folder))
    return backbone


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_pre_activation": True},
        {"block": "basic_block_vd", "input_conv_filters": [32, 32, 64], "input_conv_kernel_sizes": [3, 3, 3]},
    ],
    ids=["version 1", "version 2", "vd"],
)
def test_resnet_reads_a_preset_folder(changes: dict[str, Any], tmp_path: Path) -> None:
    backbone = preset(tmp_path, **changes)
    version = 2 if backbone.use_pre_activation else 1
    trunk = build(ResNet, depth=18, version=version, weights=str(tmp_path))
    x = pictures(SMALL)
    with torch.no_grad():
        expected = backbone(x, training=False).numpy()
    np.testing.assert_allclose(features(trunk, x), expected, atol=1e-5)
    assert trunk.weights == str(tmp_path)
    assert len(trunk.scale) == (3 if version == 1 else 1)


def test_resnet_takes_the_scaling_that_the_preset_states(tmp_path: Path) -> None:
    converter = keras_hub.layers.ResNetImageConverter(scale=[0.1, 0.2, 0.3], offset=-0.5)
    preset(tmp_path, converter=converter)
    trunk = build(ResNet, weights=str(tmp_path))
    assert trunk.scale == (0.1, 0.2, 0.3)
    assert trunk.offset == (-0.5,)
    assert build(ResNet, channels=1, weights=str(tmp_path)).scale == pytest.approx((0.2,))


def test_resnet_refuses_another_architecture(tmp_path: Path) -> None:
    preset(tmp_path)
    with pytest.raises(
        InputError,
        match=r"holds a ResNet of version 1 with 2-2-2-2 basic blocks, and depth = 50, version = 1 asks "
        r"for a ResNet of version 1 with 3-4-6-3 bottleneck blocks",
    ):
        build(ResNet, depth=50, weights=str(tmp_path))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has no config.json"),
        ({"config.json": "{"}, "cannot be read as a keras-hub preset or timm checkpoint"),
        ({"config.json": '{"architecture": "vgg16"}'}, "cannot be read as"),
        ({"config.json": '{"architecture": "resnet18"}'}, "cannot be read as"),
        (
            {"config.json": '{"architecture": "resnet18"}', "model.safetensors": "nonsense"},
            "cannot be read as",
        ),
    ],
)
def test_resnet_refuses_folders_that_hold_no_weights(files: dict[str, str], message: str, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        build(ResNet, weights=str(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 34, "weights": "imagenet"}, r'use weights = "hf://timm/resnet34.a1_in1k"'),
        ({"depth": 18, "version": 2, "weights": "imagenet"}, r"a depth that has them \(50, 101\)"),
        ({"weights": "imagnet"}, r'"imagnet" .* neither a folder .* "imagenet"'),
        ({"weights": "/no/such/folder"}, "there is no such folder"),
        ({"weights": "kaggle://resnet"}, "is not the address of a preset"),
    ],
)
def test_resnet_says_which_weights_there_are(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(ResNet, **options)


# No network


def no_network(*_: Any, **__: Any) -> None:
    try:
        raise OSError(-2, "Name or service not known")
    except OSError as error:
        raise ConnectionError("HTTPSConnectionPool(host='api', port=443): Max retries exceeded") from error


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kagglehub, "model_download", no_network)
    monkeypatch.setattr(presets, "snapshot_download", no_network)
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))


FOLDER = "a local folder (a keras-hub preset or a timm checkpoint)"
DOWNLOADS = [
    pytest.param(ResNet, "imagenet", "keras-hub's resnet_18_imagenet", FOLDER, id="keras preset"),
    pytest.param(ResNet, "hf://timm/resnet18.a1", "hf://timm/resnet18.a1", FOLDER, id="timm"),
    pytest.param(
        TorchvisionResNet,
        "imagenet",
        "torchvision's ResNet18_Weights.IMAGENET1K_V1",
        "a local .pth file",
        id="torchvision",
    ),
]


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(("plugin", "weights", "named", "instead"), DOWNLOADS)
def test_without_a_network_the_message_says_what_to_do(
    plugin: type[Backbone[Any]], weights: str, named: str, instead: str
) -> None:
    with pytest.raises(InputError) as caught:
        build(plugin, weights=weights)
    assert str(caught.value) == (
        f"{named} could not be downloaded (Name or service not known): that needs a network once; without "
        f'one, give {instead} as weights, set weights = "none", or use the backbone efficientnet_lite0, '
        "whose ImageNet weights are installed with btkit"
    )


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(("plugin", "weights", "named", "_"), DOWNLOADS)
def test_without_a_network_random_weights_if_asked(
    plugin: type[Backbone[Any]], weights: str, named: str, _: str, caplog: pytest.LogCaptureFixture
) -> None:
    trunk = build(plugin, weights=weights, if_unavailable="none")
    assert trunk.weights == f"random ({named} could not be had: Name or service not known)"
    assert f"{named} could not be downloaded" in caplog.text


# Weights from torch files


def test_torchvision_downloads_are_kept_and_read_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    network = torchvision_network("resnet18")
    fetched = []

    def fetch(url: str, file: str, hash_prefix: str) -> None:
        fetched.append((url, hash_prefix))
        torch.save(network.state_dict(), file)

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("imagenet", "IMAGENET1K_V1"):
        trunk = build(TorchvisionResNet, weights=name)
        np.testing.assert_array_equal(trunk.model.get_layer("bn1").gamma.numpy(), network.bn1.weight.detach().numpy())
        assert trunk.weights == "torchvision's ResNet18_Weights.IMAGENET1K_V1"
    assert fetched == [("https://download.pytorch.org/models/resnet18-f37072fd.pth", "f37072fd")]


class Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"conv1.weight": Payload(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match=r"evil.pth cannot be read as weights \(UnpicklingError\)"):
        build(TorchvisionResNet, weights=str(tmp_path / "evil.pth"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("plugin", [TorchvisionResNet, EfficientNetLite0])
@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04 cut short"])
def test_a_damaged_file_is_refused(plugin: type[Backbone[Any]], content: bytes, tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(InputError, match=r"weights.pth cannot be read as weights"):
        build(plugin, weights=str(tmp_path / "weights.pth"))


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}])
def test_a_file_without_a_state_dict_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(InputError, match="holds no state dict: expected names and tensors"):
        build(EfficientNetLite0, weights=str(tmp_path / "weights.pth"))


@pytest.mark.parametrize(
    ("plugin", "name", "message"),
    [
        (TorchvisionResNet, "IMAGENET1K_V9", r'for resnet18: "none", "imagenet", IMAGENET1K_V1'),
        (TorchvisionResNet, "/no/such.pth", "there is no such file"),
        (EfficientNetLite0, "imagnet", r'neither a file that exists nor "imagenet" nor "none"'),
    ],
)
def test_unknown_weights_are_refused(plugin: type[Backbone[Any]], name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(plugin, weights=name)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    state = torchvision_network("resnet18").state_dict()
    kernel = state.pop("layer1.0.conv1.weight")
    state["bn1.weight"] = torch.ones(3)
    state["extra.weight"] = kernel
    torch.save({"state_dict": state}, tmp_path / "other.pth")
    with pytest.raises(InputError) as caught:
        build(TorchvisionResNet, weights=str(tmp_path / "other.pth"))
    assert str(caught.value) == (
        f"{tmp_path / 'other.pth'} does not fit resnet18: 1 missing (layer1.0.conv1.weight); 1 unexpected "
        "(extra.weight); 1 of another shape (bn1.weight (3,) for (64,))"
    )


def test_porting_turns_axes_by_hand() -> None:
    inputs = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(2, (1, 2), use_bias=False, data_format="channels_last", name="conv")(inputs)
    x = keras.layers.DepthwiseConv2D(1, data_format="channels_last", name="each")(x)
    model = keras.Model(inputs, x, name="toy")
    dense = torch.arange(12.0).reshape(2, 3, 1, 2)
    state = {
        "a.weight": dense,
        "b.weight": torch.tensor([5.0, 7.0]).reshape(2, 1, 1, 1),
        "b.bias": torch.tensor([3.0, 4.0]),
        "fc.bias": torch.ones(1),
    }
    porting.port_state_dict(state, model, {"conv": "a", "each": "b"}, ignored=("fc",), origin="a test")
    kernel = model.get_layer("conv").get_weights()[0]
    assert kernel.shape == (1, 2, 3, 2)
    assert kernel[0, 1, 2, 0] == dense[0, 2, 0, 1] == 5
    each, bias = model.get_layer("each").get_weights()
    assert each[0, 0].tolist() == [[5.0], [7.0]]
    assert bias.tolist() == [3.0, 4.0]
    del state["b.bias"]
    with pytest.raises(InputError, match=r"a test does not fit toy: 1 missing \(b.bias\)"):
        porting.port_state_dict(state, model, {"conv": "a", "each": "b"}, ignored=("fc",), origin="a test")
