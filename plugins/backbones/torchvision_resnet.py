"""torchvision's ResNets, rebuilt in Keras layers."""

from pathlib import Path
from typing import Any, Literal

import keras
import torch
from pydantic import Field

from braintumor_kit.contracts import InputError, import_torchvision
from braintumor_kit.contracts.backbones import Backbone, Trunk
from braintumor_kit.contracts.options import NameOrPath
from braintumor_kit.contracts.porting import StateDict, fit_first_kernel, port_state_dict, read_state_dict
from braintumor_kit.contracts.pretrained import (
    IMAGENET_OFFSET,
    IMAGENET_SCALE,
    RGB,
    DownloadedWeightsOptions,
    WeightsUnavailableError,
    download,
    fit_scaling,
    random_instead,
)

_LAYERS = ("layer1", "layer2", "layer3", "layer4")
_FLOAT = {"dtype": "float32"}
_SPATIAL = {"dtype": "float32", "data_format": "channels_last"}


class TorchvisionResNetOptions(DownloadedWeightsOptions):
    """Which ResNet, and where its weights come from."""

    arch: Literal[
        "resnet18",
        "resnet34",
        "resnet50",
        "resnet101",
        "resnet152",
        "resnext50_32x4d",
        "resnext101_32x8d",
        "resnext101_64x4d",
        "wide_resnet50_2",
        "wide_resnet101_2",
    ] = Field("resnet18", description="The architecture, by torchvision's name.")
    weights: NameOrPath = Field(
        "none",
        description='"none" for random ones, "imagenet" for torchvision\'s best, one of its names such as '
        '"IMAGENET1K_V1", or a .pth file that holds a state dict.',
    )


class TorchvisionResNet(Backbone[TorchvisionResNetOptions]):
    """torchvision's ResNets, ResNeXts and wide ResNets, with random, torchvision's or a .pth file's weights.

    The Keras network mirrors torchvision's own module by module and takes its weights. Random weights are
    torchvision's own initialisation (He et al. 2015, fan out), drawn from torch's global generator, which
    `keras.utils.set_random_seed` seeds too. With pretrained weights and other than three channels, the first
    kernel is summed over colours (`fit_channels`) and scale and offset are their means over colours.

    Sources: He et al., Deep Residual Learning for Image Recognition, CVPR 2016; Xie et al.,
    Aggregated Residual Transformations for Deep Neural Networks, CVPR 2017; Zagoruyko and Komodakis, Wide
    Residual Networks, BMVC 2016.
    """

    api_version = 1
    Options = TorchvisionResNetOptions

    def build(self, image_size: int, channels: int) -> Trunk:
        arch = self.options.arch
        network = import_torchvision().models.get_model(arch, weights=None)
        state, origin = self._weights(network, channels)
        model = _mirror(network, image_size, channels, arch)
        weighted = (torch.nn.Conv2d, torch.nn.BatchNorm2d)
        modules = {_name(path): path for path, module in network.named_modules() if isinstance(module, weighted)}
        port_state_dict(state, model, modules, ignored=("fc",), origin=origin)
        stages = {"stem": "maxpool"} | {
            f"stage{i}": f"{layer}_{len(getattr(network, layer)) - 1}_out" for i, layer in enumerate(_LAYERS, start=1)
        }
        return Trunk(
            model,
            scale=fit_scaling(IMAGENET_SCALE, channels),
            offset=fit_scaling(IMAGENET_OFFSET, channels),
            explain_layer=stages["stage4"],
            stages=stages,
            weights=origin,
        )

    def _weights(self, network: torch.nn.Module, channels: int) -> tuple[StateDict, str]:
        """The state dict for that many channels, and where it comes from."""
        weights = self.options.weights
        if weights == "none":
            return _random(network, channels), "random"
        if Path(weights).is_absolute():
            return _read(Path(weights), channels), weights
        published = _published(self.options.arch, weights)
        try:
            file = download(published.url, f"torchvision's {published}", local="a local .pth file")
        except WeightsUnavailableError as error:
            return _random(network, channels), random_instead(error, self.options.if_unavailable)
        return _read(file, channels), f"torchvision's {published}"


def _published(arch: str, name: str) -> Any:
    """torchvision's record of the weights of that name."""
    known = import_torchvision().models.get_model_weights(arch).__members__
    try:
        return known["DEFAULT" if name == "imagenet" else name]
    except KeyError:
        raise InputError(
            f'weights = "{name}" of the backbone torchvision_resnet is neither a file that exists nor a name '
            f'that torchvision knows for {arch}: "none", "imagenet", {", ".join(known)}'
        ) from None


def _read(file: Path, channels: int) -> StateDict:
    return fit_first_kernel(read_state_dict(file), "conv1.weight", channels)


def _random(network: Any, channels: int) -> StateDict:
    if channels != RGB:
        old = network.conv1
        network.conv1 = torch.nn.Conv2d(
            channels, old.out_channels, old.kernel_size, old.stride, old.padding, bias=False
        )
        torch.nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    return network.state_dict()


def _mirror(network: Any, image_size: int, channels: int, name: str) -> keras.Model:
    """The functional Keras model of a torchvision ResNet's trunk, its layers named as `_name` says."""
    x = inputs = keras.Input((image_size, image_size, channels), dtype="float32", name="pixels")
    x = _relu(_norm(_conv(x, network.conv1, "conv1"), network.bn1, "bn1"), "relu")
    # torch pads with minus infinity before pooling; after a ReLU zero never wins either.
    x = keras.layers.ZeroPadding2D(1, **_SPATIAL, name="maxpool_pad")(x)
    x = keras.layers.MaxPooling2D(3, strides=2, **_SPATIAL, name="maxpool")(x)
    for layer in _LAYERS:
        for i, block in enumerate(getattr(network, layer)):
            x = _block(x, block, f"{layer}_{i}")
    return keras.Model(inputs, x, name=name)


def _block(x: Any, block: Any, name: str) -> Any:
    """A basic block (two convolutions) or a bottleneck (three), with its shortcut."""
    shortcut = x
    if block.downsample is not None:
        conv, norm = block.downsample
        shortcut = _norm(_conv(x, conv, f"{name}_downsample_0"), norm, f"{name}_downsample_1")
    last = 3 if hasattr(block, "conv3") else 2
    for i in range(1, last + 1):
        x = _conv(x, getattr(block, f"conv{i}"), f"{name}_conv{i}")
        x = _norm(x, getattr(block, f"bn{i}"), f"{name}_bn{i}")
        if i < last:
            x = _relu(x, f"{name}_relu{i}")
    x = keras.layers.Add(**_FLOAT, name=f"{name}_add")([shortcut, x])
    return _relu(x, f"{name}_out")


def _conv(x: Any, conv: Any, name: str) -> Any:
    """A convolution with torch's padding, the same on all sides; Keras' "same" is that for stride 1 alone."""
    (size, _), (stride, _), (pad, _) = conv.kernel_size, conv.stride, conv.padding
    padded_inside = stride == 1
    if pad and not padded_inside:
        x = keras.layers.ZeroPadding2D(pad, **_SPATIAL, name=f"{name}_pad")(x)
    return keras.layers.Conv2D(
        conv.out_channels,
        size,
        strides=stride,
        padding="same" if padded_inside else "valid",
        groups=conv.groups,
        use_bias=False,
        **_SPATIAL,
        name=name,
    )(x)


def _norm(x: Any, norm: torch.nn.BatchNorm2d, name: str) -> Any:
    """Batch normalisation; Keras' momentum is the share that is kept, torch's the share that is new."""
    return keras.layers.BatchNormalization(axis=-1, momentum=0.9, epsilon=norm.eps, **_FLOAT, name=name)(x)


def _relu(x: Any, name: str) -> Any:
    return keras.layers.ReLU(**_FLOAT, name=name)(x)


def _name(module: str) -> str:
    """The Keras layer that stands for a torch module: layer1.0.conv1 is layer1_0_conv1."""
    return module.replace(".", "_")
