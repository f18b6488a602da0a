"""Where a layer's cells lie: by hand, against what gradients reach, against torch; and maps enlarged accordingly."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import torch
from btkit_plugins.explainers.gradcam import GradCam
from keras import layers
from torch import Tensor, nn

from braintumor_kit.backend import import_torchvision
from braintumor_kit.explanation.network import Network
from braintumor_kit.explanation.open import network_of
from braintumor_kit.explanation.receptive_field import Cells, Tracing, enlarge

pytestmark = pytest.mark.usefixtures("one_thread")

F = nn.functional


def traced(compute: Callable[[Tensor], Tensor], shape: tuple[int, ...] = (1, 3, 32, 24), rows: int = 2) -> Cells | None:
    picture = torch.rand(shape)
    with torch.no_grad(), Tracing(picture, rows, rows + 1) as tracing:
        value = compute(picture)
    return tracing.cells(value)


def both(step: float, start: float) -> Cells:
    return Cells((step, start), (step, start))


def conv(size: int, **options: Any) -> nn.Module:
    return nn.Conv2d(3, 3, size, **options)


# Enlarging


def test_without_cells_maps_are_stretched_as_torch_does() -> None:
    maps = torch.rand(2, 5, 7)
    assert torch.equal(enlarge(maps, (5, 7)), maps)
    assert torch.equal(enlarge(maps, (32, 30)), F.interpolate(maps[:, None], (32, 30), mode="bilinear")[:, 0])


@pytest.mark.parametrize("stride", [2, 4])
def test_cells_of_pooling_lie_where_stretching_puts_them(stride: int) -> None:
    maps = torch.rand(2, 6, 5)
    size = (6 * stride, 5 * stride)
    cells = both(stride, (stride - 1) / 2)  # cell i is pixels stride * i .. stride * i + stride - 1
    expected = F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(enlarge(maps, size, cells), expected)


def test_a_map_by_hand() -> None:
    maps = torch.tensor([[[0.0, 4.0], [8.0, 12.0]]])
    ours = enlarge(maps, (4, 5), Cells(rows=(2, 1), columns=(4, 0)))  # rows at 1 and 3, columns at 0 and 4
    row = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])
    expected = torch.stack([row, row, row + 4, row + 8])  # above the first centre it goes on as it is there
    assert ours[0].tolist() == expected.tolist()
    one = enlarge(torch.full((1, 1, 1), 3.0), (2, 3), both(32, 0))
    assert one.tolist() == [[[3.0] * 3] * 2]


# Tracing, by hand


BY_HAND: dict[str, tuple[Callable[[Tensor], Tensor], Cells | None]] = {
    "odd kernel": (conv(5), both(1, 2)),
    "padded": (conv(5, padding=2), both(1, 0)),
    "even kernel": (conv(4, padding=1), both(1, 0.5)),
    "stride": (conv(3, stride=2, padding=1), both(2, 0)),
    "rows and columns": (
        conv((3, 5), stride=(2, 3), padding=(0, 1), dilation=(2, 1)),
        Cells((2, (3 - 1) * 2 / 2), (3, 2 - 1)),
    ),
    "same by torch": (conv(4, padding="same"), both(1, 0.5)),  # one pixel before and two after
    "one after another": (nn.Sequential(conv(7, stride=2, padding=3), conv(2, stride=2)), both(4, 0.5 * 2)),
    "max pooling": (nn.MaxPool2d(3, stride=2, padding=1), both(2, 0)),
    "spread max pooling": (nn.MaxPool2d(3, stride=1, dilation=2), both(1, 2)),
    "pooling by its size": (nn.AvgPool2d(2), both(2, 0.5)),
    "average pooling with all it takes": (nn.AvgPool2d(2, 2, 1, True, False), both(2, -0.5)),
    "padding": (lambda x: F.pad(x, (3, 0, 1, 5)), Cells((1, -1), (1, -3))),
    "cropping": (lambda x: F.pad(x, (-3, 0, -1, 0)), Cells((1, 1), (1, 3))),
    "slices": (lambda x: x[:, :, 2:, -10::2], Cells((1, 2), (2, 14))),
    "permuted": (lambda x: conv(3)(x.permute(0, 1, 3, 2)).permute(0, 1, 3, 2), both(1, 1)),
    "transposed": (lambda x: x.transpose(1, 3).transpose(-2, -1), both(1, 0)),
    "pointwise": (lambda x: torch.relu_(x * 2 + 1).sigmoid(), both(1, 0)),
    "concatenated": (lambda x: torch.cat([conv(3, padding=1)(x), x], dim=1), both(1, 0)),
    "gated": (lambda x: x.mean(dim=(2, 3), keepdim=True).sigmoid() * x, both(1, 0)),
    "normalised": (nn.BatchNorm2d(3).eval(), both(1, 0)),
    "flipped": (lambda x: x.flip(2), None),
    "pooled to one": (lambda x: x.mean(dim=(2, 3)), None),
    "flattened": (lambda x: x.flatten(2), None),
    "resized": (lambda x: F.interpolate(x, (50, 50)), None),
    "transposed convolution": (nn.ConvTranspose2d(3, 3, 2, stride=2), None),
    "constant": (lambda x: torch.ones(1, 3, 32, 24), None),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_cells_by_hand(name: str) -> None:
    compute, expected = BY_HAND[name]
    assert traced(compute) == expected


# Tracing, against what gradients reach


def reached(compute: Callable[[Tensor], Tensor], shape: tuple[int, ...], rows: int) -> tuple[Any, Any, Any]:
    """Row and column of an inner cell, and of the middle of all pixels that it depends on."""
    picture = torch.rand(shape, requires_grad=True)
    value = compute(picture)
    cell = [value.shape[rows] // 2, value.shape[rows + 1] // 2]
    (gradient,) = torch.autograd.grad(value.select(rows + 1, cell[1]).select(rows, cell[0]).sum(), picture)
    seen = gradient.abs().movedim(rows, 0).movedim(rows + 1, 1).flatten(2).sum(dim=2)
    places = [torch.nonzero(seen.sum(dim=1 - axis)).flatten() for axis in (0, 1)]
    sides = [(int(at[0]), int(at[-1])) for at in places]
    for (first, last), length in zip(sides, (shape[rows], shape[rows + 1]), strict=True):
        assert 0 < first <= last < length - 1, "the border is seen"
    return cell, [(first + last) / 2 for first, last in sides], value


def assert_traced_where_reached(compute: Callable[[Tensor], Tensor], shape: tuple[int, ...], rows: int) -> None:
    cells = traced(compute, shape, rows)
    assert cells is not None
    cell, centre, _ = reached(compute, shape, rows)
    for (step, start), at, expected in zip((cells.rows, cells.columns), cell, centre, strict=True):
        assert start + at * step == expected


@pytest.mark.parametrize("seed", range(8))
def test_random_torch_networks_see_what_is_traced(seed: int) -> None:
    random, parts = np.random.default_rng(seed), []
    torch.manual_seed(seed)
    for _ in range(4):
        size, stride, dilation = (int(random.integers(low, high)) for low, high in ((1, 6), (1, 3), (1, 3)))
        parts += [conv(size, stride=stride, dilation=dilation, padding=int(random.integers(0, 3))), nn.Softplus()]
    parts.append(nn.AvgPool2d(int(random.integers(1, 3))))
    assert_traced_where_reached(nn.Sequential(*parts), (1, 3, 200, 180), 2)


KERAS_LAYERS: dict[str, Callable[[str], list[Any]]] = {
    "same": lambda way: [layers.Conv2D(3, 3, padding="same", data_format=way)],
    "same, strides": lambda way: [layers.Conv2D(3, 3, strides=2, padding="same", data_format=way)],
    "same, even": lambda way: [layers.Conv2D(3, 4, padding="same", data_format=way)],
    "same, even, strides": lambda way: [layers.Conv2D(3, (4, 2), strides=(2, 3), padding="same", data_format=way)],
    "dilated": lambda way: [layers.Conv2D(3, 3, dilation_rate=2, padding="same", data_format=way)],
    "depthwise": lambda way: [layers.DepthwiseConv2D(5, strides=2, padding="same", data_format=way)],
    "padded": lambda way: [
        layers.ZeroPadding2D(((0, 3), (2, 1)), data_format=way),
        layers.Conv2D(3, 5, strides=2, data_format=way),
    ],
    "pooled": lambda way: [
        layers.Conv2D(3, 3, strides=2, data_format=way),
        layers.AveragePooling2D(3, strides=2, padding="same", data_format=way),
        layers.AveragePooling2D(2, data_format=way),
    ],
    "permuted": lambda way: [layers.Permute((2, 1, 3) if way == "channels_last" else (1, 3, 2))] * 2,
}


@pytest.mark.parametrize("way", ["channels_last", "channels_first"])
@pytest.mark.parametrize("name", KERAS_LAYERS)
def test_keras_layers_see_what_is_traced(name: str, way: str) -> None:
    keras.utils.set_random_seed(0)
    shape = (60, 48, 3) if way == "channels_last" else (3, 60, 48)
    model = keras.Sequential([keras.Input(shape), *KERAS_LAYERS[name](way)])
    rows = 1 if way == "channels_last" else 2
    assert_traced_where_reached(lambda x: model(x, training=False), (1, *shape), rows)


# Whole networks


def shown(model: keras.Model, layer: str | None = None) -> tuple[Network, Cells | None]:
    network = network_of(model, layer=layer, shape=(64, 64, 3))
    return network, network.cells


@pytest.mark.parametrize("way", ["channels_last", "channels_first"])
def test_a_network_centres_its_cells_where_gradients_reach(way: str) -> None:
    """The centre of what a cell of the explained layer sees, rows and columns apart, with the beginning folded."""
    keras.utils.set_random_seed(1)
    shape = (96, 80, 3) if way == "channels_last" else (3, 96, 80)
    axis = -1 if way == "channels_last" else 1
    inputs = keras.Input(shape)
    x = layers.ZeroPadding2D(((1, 0), (0, 2)), data_format=way)(layers.Rescaling(1 / 255)(inputs))
    x = layers.Conv2D(4, (3, 5), strides=2, use_bias=False, data_format=way)(x)
    x = layers.Activation("sigmoid")(layers.BatchNormalization(axis=axis)(x))
    y = layers.Conv2D(4, 2, strides=(2, 1), padding="same", activation="sigmoid", name="seen", data_format=way)(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D(data_format=way)(y)))
    part = keras.Model(inputs, y)
    _, cells = shown(model)
    cell, centre, _ = reached(lambda x: part(x, training=False), (1, *shape), 1 if way == "channels_last" else 2)
    assert cells is not None
    assert [start + at * step for (step, start), at in zip((cells.rows, cells.columns), cell, strict=True)] == centre


def test_cells_of_torchvision_networks() -> None:
    """A ResNet's cells lie half a cell up and left of where stretching puts them, a VGG's just there."""
    models = import_torchvision().models
    resnet, vgg = models.resnet18(weights=None), models.vgg.make_layers(models.vgg.cfgs["D"])
    assert traced(nn.Sequential(*list(resnet.children())[:-2]).eval(), (1, 3, 96, 96)) == both(32, 0)
    assert traced(vgg, (1, 3, 96, 96)) == both(32, 15.5)
    wrapper = layers.TorchModuleWrapper(resnet, output_shape=(None, 1000))
    model = keras.Sequential([keras.Input((3, 64, 64)), wrapper])
    assert shown(model, "layer4")[1] == shown(model)[1] == both(32, 0)


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.conv = layers.Conv2D(4, 3, strides=4, padding="same", activation="relu", name="conv")
        self.dense = layers.Dense(2)

    def call(self, x: Any) -> Any:
        return self.dense(keras.ops.mean(self.conv(x), axis=(1, 2)))


def test_maps_of_the_layer_are_laid_where_its_cells_see_and_stretched_on_demand() -> None:
    """Of 64 pixels a 3 by 3 convolution of stride 4 with "same" pads none: cell i sees 4 i .. 4 i + 2."""
    inputs = keras.Input((64, 64, 3))
    graph = keras.Model(inputs, Subclassed().call(inputs))
    for model in (graph, Subclassed()):
        network, cells = shown(model)
        assert cells == both(4, 1)
        images, targets = torch.rand(1, 64, 64, 3), torch.eye(2)[:1]
        maps = GradCam(GradCam.Options()).maps(network, images, targets)
        assert torch.equal(network.enlarge(maps, (64, 64)), enlarge(maps, (64, 64), cells))
        other = torch.rand(1, 9, 9)  # cells of something else
        assert torch.equal(network.enlarge(other, (64, 64)), enlarge(other, (64, 64)))
        network.align = "grid"
        assert torch.equal(network.enlarge(maps, (64, 64)), enlarge(maps, (64, 64)))


def test_maps_of_a_method_that_did_not_look_at_the_layer_are_stretched() -> None:
    """Even where another method did, just before, and they happen to have as many cells."""
    network, _ = shown(Subclassed())
    network.activations(torch.rand(1, 64, 64, 3))
    maps = torch.rand(1, 16, 16)
    network.looked_at_layer = False
    assert torch.equal(network.enlarge(maps, (64, 64)), enlarge(maps, (64, 64)))
