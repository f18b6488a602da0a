"""What explainers see of a model is the same in whatever form the model comes, and looking leaves nothing behind."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import keras
import keras_hub
import numpy as np
import pytest
import torch
from btkit_plugins.explainers.gradcam import GradCam
from btkit_plugins.explainers.integrated_gradients import IntegratedGradients
from keras import layers
from torch import Tensor, nn

from braintumor_kit import explain
from braintumor_kit.contracts import InputError, PluginError
from braintumor_kit.explanation.graph_network import GraphNetwork
from braintumor_kit.explanation.hooked_network import HookedNetwork
from braintumor_kit.explanation.network import Network
from braintumor_kit.explanation.open import network_of as open_network

pytestmark = pytest.mark.usefixtures("one_thread")

SIDE, CELLS = 32, 8 * 8
CLASSES = 3


def network_of(model: keras.Model, dtype: torch.dtype = torch.float32, layer: str | None = None) -> Network:
    return open_network(model, dtype, layer, (SIDE, SIDE, 3))


# One network, with one set of weights, in many forms: two strided convolutions, a residual branch, a pooled head.


def weights() -> dict[str, list[np.ndarray]]:
    """By name of the layer."""
    draws = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return draws.normal(0, 0.2, shape).astype("float32")

    return {
        "first": [normal(3, 3, 3, 8), normal(8)],
        "second": [normal(3, 3, 8, 12), normal(12)],
        "branch": [normal(3, 3, 12, 12)],
        "normal": [draws.uniform(0.5, 1.5, 12), normal(12), normal(12), draws.uniform(0.5, 1.5, 12)],
        "scores": [normal(12, CLASSES), normal(CLASSES)],
        "score": [normal(12, 1), normal(1)],
    }


WEIGHTS = weights()


def with_weights(model: keras.Model) -> keras.Model:
    for layer in model._flatten_layers(include_self=False):
        if layer.name in WEIGHTS:
            values = WEIGHTS[layer.name]
            layer.set_weights([value.reshape(w.shape) for value, w in zip(values, layer.weights, strict=True)])
    return model


def features(x: Any, data_format: str | None = None) -> Any:
    way: dict[str, Any] = {"padding": "same", "data_format": data_format}
    x = layers.Rescaling(1 / 127.5, -1)(x)
    x = layers.Conv2D(8, 3, strides=2, activation="relu", name="first", **way)(x)
    x = layers.Conv2D(12, 3, strides=2, name="second", **way)(x)
    y = layers.Conv2D(12, 3, use_bias=False, name="branch", **way)(x)
    y = layers.BatchNormalization(axis=1 if data_format == "channels_first" else -1, name="normal")(y)
    return layers.ReLU(name="last")(layers.Add(name="sum")([x, y]))


def head(x: Any, end: str | None = None, data_format: str | None = None) -> Any:
    return layers.Dense(CLASSES, activation=end, name="scores")(
        layers.GlobalAveragePooling2D(data_format=data_format)(x)
    )


def picture_input() -> Any:
    return keras.Input((SIDE, SIDE, 3))


def flat(end: str | None = "softmax") -> keras.Model:
    inputs = picture_input()
    return keras.Model(inputs, head(features(inputs), end))


def trunk(name: str = "trunk") -> keras.Model:
    inputs = picture_input()
    return keras.Model(inputs, features(inputs), name=name)


def nested() -> keras.Model:
    inputs = picture_input()
    return keras.Model(inputs, head(trunk()(inputs), "softmax"))


def doubly_nested() -> keras.Model:
    inputs, between = picture_input(), picture_input()
    outer = keras.Model(between, trunk()(between), name="outer")
    return keras.Model(inputs, head(outer(inputs), "softmax"))


def sequential() -> keras.Model:
    pool, dense = layers.GlobalAveragePooling2D(), layers.Dense(CLASSES, activation="softmax", name="scores")
    return keras.Sequential([picture_input(), trunk(), pool, dense])


def channels_first() -> keras.Model:
    inputs = keras.Input((3, SIDE, SIDE))
    return keras.Model(inputs, head(features(inputs, "channels_first"), "softmax", "channels_first"))


def any_size() -> keras.Model:
    inputs = keras.Input((None, None, 3))
    return keras.Model(inputs, head(features(inputs), "softmax"))


class Subclassed(keras.Model):
    """Ends in what it is told to: an activation of its dense layer, a layer, or a function."""

    def __init__(self, end: Any = "softmax", outputs: int = CLASSES) -> None:
        super().__init__()
        self.trunk, self.pool = trunk(), layers.GlobalAveragePooling2D()
        name, activation = "score" if outputs == 1 else "scores", end if isinstance(end, str) else None
        self.dense = layers.Dense(outputs, activation=activation, name=name)
        self.end = end if callable(end) else None

    def call(self, x: Any, training: bool = False) -> Any:
        x = self.dense(self.pool(self.trunk(x, training=training)))
        return self.end(x) if self.end else x


def subclassed(end: Any = "softmax") -> keras.Model:
    model = Subclassed(end)
    model(pictures(1))
    return model


def ended_by(end: Callable[[Any], Any]) -> keras.Model:
    inputs = picture_input()
    return keras.Model(inputs, end(head(features(inputs))))


def convolution_head() -> keras.Model:
    inputs = picture_input()
    x = layers.Conv2D(CLASSES, 1, name="scores")(features(inputs))
    return keras.Model(inputs, layers.Softmax()(layers.GlobalAveragePooling2D()(x)))


def frozen(model: keras.Model) -> keras.Model:
    for layer in model.layers[:-1]:
        layer.trainable = False
    return model


def wholly_frozen(model: keras.Model) -> keras.Model:
    model.trainable = False
    return model


FORMS: dict[str, Callable[[], keras.Model]] = {
    "flat": flat,
    "nested": nested,
    "doubly nested": doubly_nested,
    "sequential": sequential,
    "channels first": channels_first,
    "any size": any_size,
    "subclassed": subclassed,
    "logits": lambda: flat(None),
    "softmax layer": lambda: ended_by(layers.Softmax()),
    "softmax activation": lambda: ended_by(layers.Activation("softmax", dtype="float32")),
    "softmax operation": lambda: ended_by(keras.ops.softmax),
    "convolution head": convolution_head,
    "subclassed logits": lambda: subclassed(None),
    "subclassed softmax layer": lambda: subclassed(layers.Softmax()),
    "subclassed softmax activation": lambda: subclassed(layers.Activation("softmax")),
    "frozen": lambda: frozen(flat()),
    "frozen nested": lambda: frozen(nested()),
    "frozen subclassed": lambda: frozen(subclassed()),
    "wholly frozen": lambda: wholly_frozen(flat()),
    "wholly frozen subclassed": lambda: wholly_frozen(subclassed()),
}


def pictures(count: int = 3) -> Tensor:
    return 255 * torch.rand(count, SIDE, SIDE, 3, generator=torch.Generator().manual_seed(0))


TARGETS = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, -1.0]])


class Expected:
    """A of a layer by Keras alone; of the last one g = W t / cells and y = W mean(A) t + b t, worked out by hand."""

    def __init__(self, layer: str = "last") -> None:
        model = with_weights(flat(None))
        inside = keras.Model(model.inputs, [model.get_layer(layer).output, model.output])
        with torch.no_grad():
            a, logits = inside(pictures(), training=False)
        kernel = torch.tensor(WEIGHTS["scores"][0])
        self.a, self.logits = a.permute(0, 3, 1, 2), logits
        self.y = (logits * TARGETS).sum(dim=1)
        self.g = ((TARGETS @ kernel.T) / CELLS)[:, :, None, None].expand(self.a.shape)
        self.map = torch.einsum("nkij,nk->nij", self.a, self.g[:, :, 0, 0]).relu()


@pytest.fixture(scope="module")
def expected() -> Expected:
    return Expected()


def assert_near(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    """Within `tolerance` of the largest entry, which is not zero."""
    assert ours.shape == theirs.shape
    assert ours.dtype == torch.float32
    assert float(theirs.abs().max()) > 0
    assert float((ours - theirs).abs().max()) <= tolerance * float(theirs.abs().max())


def gradcam(network: Network, images: Tensor, targets: Tensor) -> Tensor:
    return GradCam(GradCam.Options()).maps(network, images, targets)


def assert_as_expected(network: Network, expected: Expected, tolerance: float = 1e-5) -> None:
    images = pictures()
    a, g, y = network.activations_and_gradients(images, TARGETS)
    for ours, theirs in ((a, expected.a), (g, expected.g), (y, expected.y)):
        assert_near(ours, theirs, tolerance)
    assert_near(network.activations(images), expected.a, tolerance)
    assert_near(gradcam(network, images, TARGETS), expected.map, tolerance)
    assert_near(network.logits(images), expected.logits, tolerance)
    probabilities = expected.logits.softmax(dim=1)
    assert_near(network.probabilities(images), probabilities, tolerance)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_network_shows_the_same(form: str, expected: Expected) -> None:
    model = with_weights(FORMS[form]())
    network = network_of(model, layer="last" if "head" in form else None)
    assert network.layer in ("last", "trunk")
    assert network.score == "logit"
    assert network.classes == CLASSES
    assert isinstance(network, HookedNetwork if "subclassed" in form else GraphNetwork)
    assert_as_expected(network, expected)


def test_of_probabilities_whose_logits_cannot_be_had_the_logarithm_is_explained(expected: Expected) -> None:
    network = network_of(with_weights(subclassed(keras.ops.softmax)))
    assert network.score == "log-probability"
    assert_near(network.logits(pictures()), expected.logits.log_softmax(dim=1))
    assert_near(network.probabilities(pictures()), expected.logits.softmax(dim=1))
    share = expected.logits.softmax(dim=1)[:, 0]
    target = torch.tensor([[1.0, 0.0, 0.0]] * 3)
    _, g, _ = network.activations_and_gradients(pictures(), target)
    kernel = torch.tensor(WEIGHTS["scores"][0])
    mean = expected.logits.softmax(dim=1) @ kernel.T  # d log p_0 = W_0 - sum of p W
    assert float(share.max() - share.min()) > 1e-3
    assert_near(g[:, :, 0, 0], (kernel[:, 0] - mean) / CELLS, 1e-4)


@pytest.mark.parametrize("form", ["functional", "layer", "subclassed"])
def test_one_sigmoid_is_the_second_of_two_classes(form: str, expected: Expected) -> None:
    inputs = picture_input()
    x = layers.GlobalAveragePooling2D()(features(inputs))
    dense = layers.Dense(1, activation=None if form == "layer" else "sigmoid", name="score")
    model = keras.Model(inputs, layers.Activation("sigmoid")(dense(x)) if form == "layer" else dense(x))
    if form == "subclassed":
        model = Subclassed("sigmoid", outputs=1)
        model(pictures(1))
    with_weights(model)
    network = network_of(model)
    kernel, bias = (torch.tensor(values) for values in WEIGHTS["score"])
    z = expected.a.mean(dim=(2, 3)) @ kernel + bias
    assert network.classes == 2
    assert_near(network.logits(pictures()), torch.cat([0 * z, z], dim=1))
    p = model.predict(pictures().numpy(), verbose=0)
    np.testing.assert_allclose(network.probabilities(pictures()), np.hstack([1 - p, p]), atol=1e-6)
    for row, sign in (([0.0, 1.0], 1), ([1.0, 0.0], 0), ([-1.0, 1.0], 1)):
        _, g, _ = network.activations_and_gradients(pictures(), torch.tensor([row] * 3))
        assert torch.allclose(g[0, :, 0, 0], sign * kernel[:, 0] / CELLS, atol=1e-7)


def test_networks_of_keras_hub_and_keras_applications() -> None:
    backbones = [
        keras_hub.models.ResNetBackbone(
            input_conv_filters=[64], input_conv_kernel_sizes=[7], stackwise_num_filters=[64, 16],
            stackwise_num_blocks=[1, 1], stackwise_num_strides=[1, 2], block_type="basic_block",
            image_shape=(SIDE, SIDE, 3),
        ),
        keras.applications.MobileNetV2((64, 64, 3), alpha=0.35, include_top=False, weights=None),
    ]  # fmt: skip
    for backbone in backbones:
        backbone.trainable = False
        side = backbone.input_shape[1]
        inputs = keras.Input((side, side, 3))
        x = layers.Dropout(0.5)(layers.GlobalAveragePooling2D()(backbone(layers.Rescaling(1 / 255)(inputs))))
        model = keras.Model(inputs, layers.Dense(CLASSES, activation="softmax", name="scores")(x))
        images = 255 * torch.rand(2, side, side, 3, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            by_keras = backbone(images / 255, training=False).permute(0, 3, 1, 2)
        a, g, _ = network_of(model).activations_and_gradients(images, TARGETS[:2])
        assert_near(a, by_keras)
        cells = a.shape[2] * a.shape[3]
        slope = TARGETS[:2] @ torch.tensor(model.get_layer("scores").get_weights()[0]).T / cells
        assert_near(g, slope[:, :, None, None].expand(a.shape))


@contextmanager
def policy(name: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("form", ["flat", "nested", "channels first", "subclassed", "softmax activation"])
def test_models_of_mixed_precision_show_nearly_the_same(form: str, expected: Expected) -> None:
    with policy("mixed_bfloat16"):
        model = with_weights(FORMS[form]())
    assert_as_expected(network_of(model), expected, 0.03)


@pytest.mark.parametrize("form", ["flat", "nested", "channels first", "frozen"])
def test_in_bfloat16_nearly_the_same_is_seen(form: str, expected: Expected) -> None:
    network = network_of(with_weights(FORMS[form]()), torch.bfloat16)
    assert_as_expected(network, expected, 0.03)
    assert not torch.equal(network.activations(pictures()), expected.a)


# Which layer


@pytest.mark.parametrize("name", ["last", "trunk/last", "outer/trunk/last", "trunk", "outer/trunk", "outer"])
def test_a_layer_is_found_by_name_by_path_and_by_its_models_name(name: str, expected: Expected) -> None:
    model = with_weights(doubly_nested())
    if name == "trunk/last":
        model = with_weights(nested())
    network = network_of(model, layer=name)
    assert network.layer == name
    assert_as_expected(network, expected)


@pytest.mark.parametrize("form", ["flat", "nested", "channels first", "subclassed"])
def test_a_layer_in_the_middle_of_a_residual_branch(form: str) -> None:
    """Of the branch's convolution g passes the normalisation and the ReLU behind the sum."""
    network = network_of(with_weights(FORMS[form]()), layer="branch")
    expected = Expected("branch")
    gamma, _, _, variance = (torch.tensor(values, dtype=torch.float32) for values in WEIGHTS["normal"])
    open_ = Expected("last").a > 0
    scale = (gamma / (variance + 1e-3).sqrt()).reshape(1, -1, 1, 1)
    a, g, y = network.activations_and_gradients(pictures(), TARGETS)
    assert_near(a, expected.a)
    assert_near(g, expected.g * scale * open_)
    assert_near(y, expected.y)


@pytest.mark.parametrize("form", ["functional", "subclassed"])
def test_of_a_layer_that_is_used_twice_the_last_use_is_explained(form: str) -> None:
    class Twice(keras.Model):
        def __init__(self, conv: Any, dense: Any) -> None:
            super().__init__()
            self.conv, self.dense = conv, dense

        def call(self, x: Any) -> Any:
            return self.dense(keras.ops.mean(self.conv(self.conv(x / 255.0)), axis=(1, 2)))

    keras.utils.set_random_seed(3)
    conv, dense = layers.Conv2D(3, 3, padding="same", activation="tanh", name="shared"), layers.Dense(CLASSES)
    model: Any = Twice(conv, dense)
    if form == "functional":
        inputs = picture_input()
        y = conv(conv(layers.Rescaling(1 / 255)(inputs)))
        model = keras.Model(inputs, dense(layers.GlobalAveragePooling2D()(y)))
    model(pictures(1))
    a, g, _ = network_of(model, layer="shared").activations_and_gradients(pictures(), TARGETS)
    with torch.no_grad():
        assert_near(a, conv(conv(pictures() / 255)).permute(0, 3, 1, 2))
    slope = TARGETS @ torch.tensor(dense.get_weights()[0]).T / SIDE**2
    assert_near(g, slope[:, :, None, None].expand(a.shape))


class Wrapped(nn.Module):
    """A torch network whose ReLU writes over what its convolution gives."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.relu = nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(inplace=True)
        self.normal, self.head = nn.BatchNorm2d(6), nn.Linear(6, CLASSES)
        self.broken = False

    def forward(self, x: Tensor) -> Tensor:
        a = self.relu(self.conv(self.normal_of(x)))
        if self.broken:
            raise ArithmeticError("the model breaks")
        return self.head(self.normal(a).mean(dim=(2, 3)))

    @staticmethod
    def normal_of(x: Tensor) -> Tensor:
        return x / 255 - 0.5


def wrapped() -> tuple[Wrapped, keras.Model]:
    net = Wrapped()
    wrapper = layers.TorchModuleWrapper(net, output_shape=(None, CLASSES))
    return net, keras.Sequential([keras.Input((3, SIDE, SIDE)), wrapper])


def test_an_in_place_relu_after_the_layer_in_a_torch_module() -> None:
    net, model = wrapped()
    a, g, y = network_of(model, layer="conv").activations_and_gradients(pictures(), TARGETS)
    x = (pictures() / 255 - 0.5).permute(0, 3, 1, 2)
    by_torch = nn.functional.conv2d(x, net.conv.weight, net.conv.bias, 2, 1).detach()
    assert float(by_torch.min()) < -0.1
    assert_near(a, by_torch)
    slope = TARGETS @ net.head.weight.detach() / (1 + 1e-5) ** 0.5 / (SIDE // 2) ** 2
    assert_near(g, slope[:, :, None, None] * (by_torch > 0))
    assert_near(y, (net.eval()(pictures().permute(0, 3, 1, 2)).detach() * TARGETS).sum(dim=1))


# Batches


@pytest.mark.parametrize("form", ["flat", "subclassed"])
def test_an_image_alone_shows_what_it_shows_in_a_batch(form: str, expected: Expected) -> None:
    network = network_of(with_weights(FORMS[form]()))
    for place in range(3):
        one = pictures()[place : place + 1]
        a, g, y = network.activations_and_gradients(one, TARGETS[place : place + 1])
        assert_near(a, expected.a[place : place + 1])
        assert_near(g, expected.g[place : place + 1])
        assert_near(y, expected.y[place : place + 1])


@pytest.mark.parametrize("form", ["flat", "channels first", "subclassed"])
def test_gradients_by_pixel_are_those_of_autograd_through_keras(form: str) -> None:
    logits = with_weights(flat(None))
    leaf = pictures().requires_grad_()
    (by_keras,) = torch.autograd.grad((logits(leaf, training=False) * TARGETS).sum(), leaf)
    network = network_of(with_weights(FORMS[form]()))
    for at_once in (2, 32):
        network.batch_size = at_once
        gradient, y = network.gradients(pictures(), TARGETS)
        assert_near(gradient, by_keras)
        assert_near(y, (logits(pictures(), training=False) * TARGETS).sum(dim=1).detach())
    asked = pictures().requires_grad_()
    (through,) = torch.autograd.grad((network.logits(asked) * TARGETS).sum(), asked)
    assert_near(through, by_keras)
    assert not network.logits(pictures()).requires_grad


def test_a_pass_is_shared_by_explainers_of_the_same_images_and_by_no_others() -> None:
    network = network_of(with_weights(flat()))
    images = pictures()
    first = network.activations(images)
    assert network.activations(images).data_ptr() == first.data_ptr()
    other = network.activations(images.clone())
    assert other.data_ptr() != first.data_ptr()
    network.forget()
    assert_near(network.activations(255 - images), network.activations((255 - images).clone()))
    assert not torch.equal(network.activations(255 - images), first)


# Nothing is left behind


def state_of(model: keras.Model) -> dict[str, Any]:
    """Everything that looking might change."""
    for layer in model._flatten_layers():
        list(layer.parameters())  # Keras makes torch's record of them when it is first asked
    modules = [module for layer in model._flatten_layers() for module in layer.modules()]
    tensors = [*(weight.value for weight in model.weights), *(p for module in modules for p in module.parameters())]
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "hooks": [[len(getattr(module, name)) for name in hooks] for module in modules],
        "global hooks": [len(getattr(nn.modules.module, f"_global{name}")) for name in hooks],
        "modes": [module.training for module in modules],
        "trainable": [layer.trainable for layer in model._flatten_layers()],
        "flags": [tensor.requires_grad for tensor in tensors],
        "grad": [tensor.grad is None or tensor.grad.tolist() for tensor in tensors],
        "strides": [tensor.stride() for tensor in tensors],
        "values": [tensor.tolist() for tensor in (*tensors, *(b for module in modules for b in module.buffers()))],
        "policies": [layer.dtype_policy.name for layer in model._flatten_layers()],
        "autograd": torch.is_grad_enabled(),
        "torch random": torch.get_rng_state().tolist(),
        "random": random.getstate(),
        "numpy random": np.random.get_state()[1].tolist(),
        "keras": [keras.config.image_data_format(), keras.config.dtype_policy().name, keras.config.floatx()],
        "cudnn": [torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic],
        "torch": [torch.backends.cudnn.enabled, torch.get_default_dtype(), torch.get_num_threads()],
    }


class Fragile(layers.Layer):
    """Does nothing until it breaks."""

    broken = False

    def call(self, x: Any) -> Any:
        if self.broken:
            raise ArithmeticError("the model breaks")
        return x


class FragileModel(Subclassed):
    def __init__(self) -> None:
        super().__init__()
        self.fragile = Fragile()

    def call(self, x: Any, training: bool = False) -> Any:
        return self.dense(self.pool(self.trunk(self.fragile(x), training=training)))


def fragile_graph() -> tuple[Any, keras.Model]:
    fragile, inputs = Fragile(), picture_input()
    return fragile, frozen(keras.Model(inputs, head(features(fragile(inputs)), "softmax")))


def fragile_subclassed() -> tuple[Any, keras.Model]:
    model = FragileModel()
    model(pictures(1))
    return model.fragile, model


FRAGILE = {"graph": fragile_graph, "subclassed": fragile_subclassed, "wrapped": wrapped}

FAILING = '''
from braintumor_kit.contracts import Explainer, NoOptions

class Failing(Explainer[NoOptions]):
    """Looks at everything, then fails."""
    api_version = 1
    Options = NoOptions
    def maps(self, model, images, targets):
        model.activations_and_gradients(images, targets)
        model.gradients(images, targets)
        raise KeyError("no such thing")
'''


@pytest.fixture
def failing(tmp_path: Path) -> Path:
    (tmp_path / "explainers").mkdir()
    (tmp_path / "explainers" / "failing.py").write_text(FAILING)
    return tmp_path


METHODS: dict[str, dict[str, Any]] = {
    "gradcam": {}, "gradcampp": {}, "hirescam": {}, "layercam": {}, "eigencam": {}, "scorecam": {"channels": 2},
    "guided_gradcam": {}, "integrated_gradients": {"steps": 3}, "smoothgrad": {"samples": 2},
    "occlusion": {"patch": 0.5}, "rise": {"masks": 2},
}  # fmt: skip


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("form", ["flat", *FRAGILE])
def test_explaining_leaves_nothing_behind(form: str, training: bool) -> None:
    model = flat() if form == "flat" else FRAGILE[form]()[1]
    shape = (3, SIDE, SIDE) if form == "wrapped" else (SIDE, SIDE, 3)
    for module in (module for layer in model._flatten_layers() for module in layer.modules()):
        module.training = training
    for weight in model.trainable_weights[:1]:
        weight.value.grad = torch.ones_like(weight.value)  # the user's own, from a step half done
    before = state_of(model)
    images = pictures().reshape(3, *shape).numpy()
    for method, options in METHODS.items():
        refused = method == "guided_gradcam" and form != "flat"
        with pytest.raises(InputError, match="guided gradients") if refused else nullcontext():
            explain(model, images, method, precision="float32", **options)
        assert state_of(model) == before, method
    with torch.no_grad():
        explain(model, images)
        assert not torch.is_grad_enabled()


@pytest.mark.parametrize("form", FRAGILE)
def test_an_explainer_that_fails_leaves_nothing_behind(form: str, failing: Path) -> None:
    model = FRAGILE[form]()[1]
    before = state_of(model)
    images = pictures().permute(0, 3, 1, 2) if form == "wrapped" else pictures()
    with pytest.raises(PluginError) as caught:
        explain(model, images.numpy(), "failing", plugins=[failing])
    path = failing / "explainers" / "failing.py"
    assert str(caught.value) == f"explainer 'failing' ({path}) failed while explaining: KeyError: 'no such thing'"
    assert state_of(model) == before


@pytest.mark.parametrize("form", FRAGILE)
def test_a_model_that_fails_leaves_nothing_behind(form: str) -> None:
    fragile, model = FRAGILE[form]()
    network = network_of(model, layer="conv" if form == "wrapped" else "last")
    before = state_of(model)
    fragile.broken = True
    images = pictures()
    for look in (network.activations, network.logits, lambda images: network.gradients(images, TARGETS)):
        with pytest.raises(ArithmeticError, match="the model breaks"):
            look(images)
        assert state_of(model) == before
    fragile.broken = False
    gradcam(network, images, TARGETS)
    fragile.broken = True
    with pytest.raises(ArithmeticError, match="the model breaks"):
        network.enlarge(torch.ones(3, *network.activations(images).shape[2:]), (SIDE, SIDE))
    assert state_of(model) == before


# Refusals


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(InputError) as caught:
        call()
    return str(caught.value)


def test_an_unknown_layer_names_the_candidates_and_the_nearest() -> None:
    candidates = "Candidates, last first: last, sum, normal, branch, second, first, rescaling"
    for model in (flat(), subclassed()):
        message = refusal(lambda model=model: network_of(model, layer="lost"))
        assert message.startswith("the model has no layer 'lost'; did you mean 'last'? Candidates, last first: ")
        assert "last, sum, normal, branch, second, first, rescaling" in message
    far = refusal(lambda: network_of(flat(), layer="zzz"))
    assert far.startswith(f"the model has no layer 'zzz'; {candidates}")


def test_a_layer_without_rows_and_columns_is_refused() -> None:
    for model in (flat(), subclassed()):
        message = refusal(lambda model=model: network_of(model, layer="scores"))
        assert message.startswith("layer 'scores' gives no maps of rows and columns that the scores depend on. ")
        assert "Candidates, last first: " in message


class Aside(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.way, self.off = layers.Conv2D(4, 3, name="way"), layers.Conv2D(4, 3, name="off")
        self.dense = layers.Dense(CLASSES)

    def call(self, x: Any) -> Any:
        self.off(x)
        return self.dense(keras.ops.mean(self.way(x), axis=(1, 2)))


@pytest.mark.parametrize("trainable", [True, False])
def test_a_layer_that_the_scores_do_not_depend_on_is_refused(trainable: bool) -> None:
    model = Aside()
    model(pictures(1))
    model.trainable = trainable
    network = network_of(model, layer="off")
    message = refusal(lambda: network.activations_and_gradients(pictures(), TARGETS))
    assert message == "the scores do not depend on what layer 'off' gives."
    network_of(model, layer="way").activations_and_gradients(pictures(), TARGETS)


def no_rows() -> keras.Model:
    inputs = picture_input()
    return keras.Model(inputs, layers.Dense(CLASSES)(layers.Flatten()(inputs)))


class NoRows(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.flat, self.dense = layers.Flatten(), layers.Dense(CLASSES)

    def call(self, x: Any) -> Any:
        return self.dense(self.flat(x))


def no_rows_subclassed() -> keras.Model:
    model = NoRows()
    model(pictures(1))
    return model


@pytest.mark.parametrize("build", [no_rows, no_rows_subclassed])
def test_a_model_without_rows_is_for_methods_on_pixels_alone(build: Callable[[], keras.Model]) -> None:
    model = build()
    message = refusal(lambda: explain(model, pictures().numpy()))
    assert "which this method looks at; methods on pixels need none (integrated_gradients, smoothgrad," in message
    ours = explain(model, pictures().numpy(), "integrated_gradients", target="class_1", precision="float32")
    kernel = next(layer for layer in model.layers if layer.weights).get_weights()[0]
    linear = (pictures().numpy() * kernel[:, 1].reshape(SIDE, SIDE, 3)).sum(axis=3)  # x times its weight, exactly
    np.testing.assert_allclose(ours.maps, linear, atol=1e-4 * np.abs(linear).max())
    assert ours.layer is None


def test_models_that_are_no_classifiers_of_pictures_are_refused() -> None:
    a, b = picture_input(), picture_input()
    two_in = keras.Model([a, b], head(layers.Add()([a, b])), name="two_in")
    two_out = keras.Model(a, [head(a), layers.GlobalAveragePooling2D()(a)], name="two_out")
    rows = keras.Input((16,))
    segments = keras.Model(a, layers.Conv2D(3, 3)(a), name="segments")
    assert refusal(lambda: network_of(two_in)) == "model 'two_in' must have one input to be explained."
    assert refusal(lambda: network_of(two_out)) == "model 'two_out' must have one input and one output to be explained."
    flat_rows = keras.Model(rows, layers.Dense(2)(rows), name="rows")
    assert refusal(lambda: network_of(flat_rows)) == "model 'rows' takes (None, 16), not pictures (N, H, W, C)."
    one_row = "model 'segments' must give one row of class scores a picture to be explained."
    assert refusal(lambda: network_of(segments)) == one_row

    class Segments(keras.Model):
        def call(self, x: Any) -> Any:
            return x

    assert refusal(lambda: network_of(Segments(name="segments"))) == one_row


def test_a_subclassed_model_is_given_pictures_in_the_layout_that_it_was_built_with() -> None:
    class First(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.conv = layers.Conv2D(4, 3, activation="relu", data_format="channels_first")
            self.dense = layers.Dense(CLASSES)

        def call(self, x: Any) -> Any:
            return self.dense(keras.ops.mean(self.conv(x), axis=(2, 3)))

    model = First()
    x = pictures().permute(0, 3, 1, 2).contiguous()
    with torch.no_grad():
        logits, a = model(x), model.conv(x)
    network = network_of(model)
    assert_near(network.logits(pictures()), logits)
    assert_near(network.activations(pictures()), a)
    small = explain(model, x[:, :, :20, :24].numpy())  # any size will do
    assert small.maps.shape == (3, 20, 24)


def test_integrated_gradients_of_a_model_as_keras_runs_it_are_those_of_the_graph() -> None:
    maps = []
    for form in ("flat", "channels first", "subclassed"):
        network = network_of(with_weights(FORMS[form]()))
        made = IntegratedGradients(IntegratedGradients.Options(steps=8)).maps(network, pictures(), TARGETS)
        maps.append(made.values)
    assert_near(maps[1], maps[0])
    assert_near(maps[2], maps[0])
