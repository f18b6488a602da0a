"""timm's RegNets, rebuilt in Keras layers."""

from pathlib import Path
from typing import Any, ClassVar, Literal

import keras
import torch
from pydantic import Field

from braintumor_kit.contracts import InputError, import_torchvision
from braintumor_kit.contracts.backbones import Backbone, Trunk
from braintumor_kit.contracts.options import NameOrPath, PluginOptions
from braintumor_kit.contracts.porting import StateDict, fit_first_kernel, port_state_dict, read_state_dict
from braintumor_kit.contracts.pretrained import IMAGENET_OFFSET, IMAGENET_SCALE, fit_scaling

_STAGES = ("s1", "s2", "s3", "s4")
_FLOAT = {"dtype": "float32"}
_SPATIAL = {"dtype": "float32", "data_format": "channels_last"}


class TimmRegNetOptions(PluginOptions):
    """Which RegNet, and where its weights come from."""

    arch: Literal["regnetx_002", "regnetx_004", "regnetx_008"] = Field(
        "regnetx_002", description="The architecture, by timm's name."
    )
    weights: NameOrPath = Field(
        "none", description='"none" for random ones, or a file that holds the state dict of timm\'s network.'
    )


class TimmRegNet(Backbone[TimmRegNetOptions]):
    """timm's RegNets X, with random weights or those of a file.

    Radosavovic et al., Designing Network Design Spaces, CVPR 2020. Random weights are timm's own initialisation.
    """

    api_version: ClassVar[int] = 1
    Options = TimmRegNetOptions

    def build(self, image_size: int, channels: int) -> Trunk:
        network = _timm().create_model(self.options.arch, pretrained=False)
        state, origin = self._weights(network)
        model = _mirror(network, image_size, channels, self.options.arch)
        weighted = (torch.nn.Conv2d, torch.nn.BatchNorm2d)
        modules = {_name(path): path for path, module in network.named_modules() if isinstance(module, weighted)}
        state = fit_first_kernel(state, "stem.conv.weight", channels)
        port_state_dict(state, model, modules, ignored=("head.fc",), origin=origin)
        stages = {f"stage{i}": _end(network, stage) for i, stage in enumerate(_STAGES, start=1)}
        return Trunk(
            model,
            scale=fit_scaling(IMAGENET_SCALE, channels),
            offset=fit_scaling(IMAGENET_OFFSET, channels),
            explain_layer=stages["stage4"],
            stages={"stem": "stem_act"} | stages,
            weights=origin,
        )

    def _weights(self, network: torch.nn.Module) -> tuple[StateDict, str]:
        """The state dict for three channels, and where it comes from."""
        weights = self.options.weights
        if weights == "none":
            return network.state_dict(), "random"
        if not Path(weights).is_absolute():
            raise InputError(
                f'weights = "{weights}" of the backbone timm_regnet is neither "none" nor a path such as '
                '"./weights.pth"'
            )
        return read_state_dict(Path(weights)), weights


def _timm() -> Any:
    import_torchvision()  # timm imports it, and may meet one that was built for another torch
    try:
        import timm
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise
        raise InputError("the backbone timm_regnet needs timm: pip install 'btkit-timm[timm]'") from error
    return timm


def _mirror(network: Any, image_size: int, channels: int, name: str) -> keras.Model:
    """The functional Keras model of what timm calls `forward_features`, its layers named as `_name` says."""
    x = inputs = keras.Input((image_size, image_size, channels), dtype="float32", name="pixels")
    x = _relu(_conv_norm(x, network.stem, "stem"), "stem_act")
    for stage in _STAGES:
        for block, module in getattr(network, stage).named_children():
            x = _bottleneck(x, module, f"{stage}_{block}")
    return keras.Model(inputs, x, name=name)


def _bottleneck(x: Any, block: Any, name: str) -> Any:
    shortcut = x
    if hasattr(block.downsample, "conv"):
        shortcut = _conv_norm(x, block.downsample, f"{name}_downsample")
    x = _relu(_conv_norm(x, block.conv1, f"{name}_conv1"), f"{name}_conv1_act")
    x = _relu(_conv_norm(x, block.conv2, f"{name}_conv2"), f"{name}_conv2_act")
    x = _conv_norm(x, block.conv3, f"{name}_conv3")
    return _relu(keras.layers.Add(**_FLOAT, name=f"{name}_add")([x, shortcut]), f"{name}_act3")


def _conv_norm(x: Any, module: Any, name: str) -> Any:
    """A convolution, padded as torch does it, the same on all sides, and its normalisation."""
    conv, norm = module.conv, module.bn
    (size, _), (stride, _), (pad, _) = conv.kernel_size, conv.stride, conv.padding
    if pad:
        x = keras.layers.ZeroPadding2D(pad, **_SPATIAL, name=f"{name}_pad")(x)
    x = keras.layers.Conv2D(
        conv.out_channels, size, strides=stride, groups=conv.groups, use_bias=False, **_SPATIAL, name=f"{name}_conv"
    )(x)
    kept = 1 - norm.momentum  # torch's momentum is the share that is new
    return keras.layers.BatchNormalization(axis=-1, momentum=kept, epsilon=norm.eps, **_FLOAT, name=f"{name}_bn")(x)


def _relu(x: Any, name: str) -> Any:
    return keras.layers.ReLU(**_FLOAT, name=name)(x)


def _end(network: Any, stage: str) -> str:
    """The layer that ends a stage."""
    *_, (last, _) = getattr(network, stage).named_children()
    return f"{stage}_{last}_act3"


def _name(module: str) -> str:
    """The Keras layer that stands for a torch module: s1.b1.conv1.conv is s1_b1_conv1_conv."""
    return module.replace(".", "_")
