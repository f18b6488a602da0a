"""The fast path computes what Keras computes: same weights, same numbers, forward and backward; and in few calls."""

import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from btkit_plugins.backbones.resnet import ResNet
from keras import layers
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from braintumor_kit.model.build import build_classifier
from braintumor_kit.model.fast import Program
from braintumor_kit.model.fast.lowerings import same_padding
from braintumor_kit.registry import Registry

Built = Callable[[Any], Any]


pytestmark = pytest.mark.usefixtures("one_thread")


def mixed_model() -> keras.Model:
    """Every lowered layer in a small graph, and some (LayerNormalization, Resizing) that have no lowering."""
    inputs = keras.Input((33, 29, 3))
    x = layers.Rescaling([1 / 255, 1 / 200, 1 / 180], [0.0, -0.1, 0.2])(inputs)
    x = layers.ZeroPadding2D(((1, 2), (0, 3)))(x)
    x = layers.Conv2D(8, 5, strides=2, use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.8)(x)
    x = layers.Activation("relu")(x)
    y = layers.Conv2D(8, 3, strides=2, padding="same", activation="silu")(x)
    z = layers.MaxPooling2D(2, strides=2, padding="same")(layers.DepthwiseConv2D(3, padding="same", strides=1)(x))
    x = layers.Add()([y, z, layers.BatchNormalization(scale=False, center=False)(y)])
    x = layers.Concatenate()([x, layers.Conv2D(6, 3, padding="same", groups=2)(x)])
    x = layers.LayerNormalization()(x)
    x = layers.ReLU(max_value=6)(layers.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2)(x))
    x = layers.AveragePooling2D(2)(layers.MaxPooling2D(2, strides=1)(x))
    x = layers.GlobalAveragePooling2D()(layers.Resizing(7, 5)(x))
    x = layers.Dropout(0.0)(x)
    outputs = layers.Dense(4, activation="softmax")(layers.Dense(12, activation="relu")(x))
    return keras.Model(inputs, outputs)


def stir(model: keras.Model, seed: int = 0) -> keras.Model:
    """Gives normalisation layers statistics and weights that make a difference."""
    random = np.random.default_rng(seed)
    for weight in model.weights:
        if any(name in weight.path for name in ("gamma", "variance")):
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
        elif any(name in weight.path for name in ("beta", "mean", "bias")):
            weight.assign(random.normal(0, 0.2, weight.shape))
    return model


@dataclass(frozen=True)
class Step:
    """What one step gives.

    Attributes:
        outputs: of the model.
        gradients: of a weighted sum of the outputs, by path of the weight or "input" and its place.
        state: variables that are not trained, after the step.
    """

    outputs: list[Tensor]
    gradients: dict[str, Tensor]
    state: dict[str, Tensor]


def step(model: keras.Model, forward: Callable[..., Any], inputs: tuple[Tensor, ...], training: bool) -> Step:
    """One step, after which the model is as it was."""
    before = [variable.value.detach().clone() for variable in model.variables]
    torch.manual_seed(0)
    for variable in model.variables:
        variable.value.grad = None
    leaves = [value.clone().requires_grad_() for value in inputs]
    outputs = keras.tree.flatten(forward(*leaves, training=training))
    draws = torch.Generator().manual_seed(3)
    sum((output.float() * torch.randn(output.shape, generator=draws)).sum() for output in outputs).backward()
    gradients = {variable.path: variable.value.grad for variable in model.trainable_variables}
    gradients |= {f"input {place}": leaf.grad for place, leaf in enumerate(leaves)}
    state = {variable.path: variable.value.detach().clone() for variable in model.non_trainable_variables}
    for variable, value in zip(model.variables, before, strict=True):
        variable.assign(value)
    present = {path: value.float() for path, value in gradients.items() if value is not None}
    return Step([output.detach() for output in outputs], present, state)


def by_keras(model: keras.Model) -> Callable[..., Any]:
    return lambda *inputs, training: model(list(inputs) if len(inputs) > 1 else inputs[0], training=training)


def assert_near(ours: Tensor, theirs: Tensor, tolerance: float, least: float = 0.0) -> None:
    """Within `tolerance` of the largest entry, or `least` where that is more."""
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max()) <= max(tolerance * float(theirs.abs().max()), least)


def assert_same_steps(ours: Step, theirs: Step, tolerance: float) -> None:
    for mine, other in zip(ours.outputs, theirs.outputs, strict=True):
        assert_near(mine, other, tolerance)
    assert ours.state.keys() == theirs.state.keys()
    for path, value in theirs.state.items():
        assert_near(ours.state[path], value, tolerance)
    assert ours.gradients.keys() == theirs.gradients.keys()
    largest = max(float(value.abs().max()) for value in theirs.gradients.values())
    for path, value in theirs.gradients.items():  # some are zero but for rounding: a bias before a normalisation's
        assert_near(ours.gradients[path], value, tolerance, least=1e-5 * largest)


def assert_same_inference(model: keras.Model, inputs: tuple[Tensor, ...], tolerance: float) -> None:
    with torch.no_grad():
        expected = keras.tree.flatten(by_keras(model)(*inputs, training=False))
        for frozen in (False, True):
            ours = keras.tree.flatten(Program(model, frozen=frozen)(*inputs))
            for mine, other in zip(ours, expected, strict=True):
                assert_near(mine, other, tolerance)


def built(build: Built, shape: tuple[int, ...]) -> keras.Model:
    """The model that `build` makes of an input."""
    keras.utils.set_random_seed(5)
    inputs = keras.Input(shape)
    return stir(keras.Model(inputs, build(inputs)))


def batch(model: keras.Model, count: int = 4) -> tuple[Tensor, ...]:
    draws = torch.Generator().manual_seed(1)
    return tuple(torch.randn(count, *value.shape[1:], generator=draws) for value in model.inputs)


def conv(filters: int = 8, size: int = 3, **options: Any) -> layers.Layer:
    return layers.Conv2D(filters, size, **{"padding": "same", **options})


def normed(x: Any, axis: int = -1, **options: Any) -> Any:
    return layers.BatchNormalization(axis=axis, momentum=0.8)(conv(**options)(x))


def gate(x: Any) -> Any:
    """Squeeze and excite."""
    squeezed = layers.GlobalAveragePooling2D(keepdims=True)(x)
    return layers.Multiply()([x, conv(8, 1, activation="sigmoid")(conv(4, 1, activation="silu")(squeezed))])


@pytest.fixture
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    return stir(mixed_model())


@pytest.fixture
def pictures() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).uniform(0, 255, (6, 33, 29, 3)).astype(np.float32))


def test_inference_equals_keras(model: keras.Model, pictures: torch.Tensor) -> None:
    with torch.no_grad():
        expected, ours = model(pictures, training=False), Program(model)(pictures)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


def test_training_equals_keras_statistics_and_gradients_included(model: keras.Model, pictures: torch.Tensor) -> None:
    before = [weight.numpy().copy() for weight in model.weights]

    def one_step(forward) -> tuple[torch.Tensor, list[np.ndarray], list[torch.Tensor]]:  # type: ignore[no-untyped-def]
        for weight, value in zip(model.weights, before, strict=True):
            weight.assign(value)
        model.zero_grad()
        y = forward(pictures)
        (y**2 @ torch.arange(1.0, 5.0)).sum().backward()
        gradients = [weight.value.grad.clone() for weight in model.trainable_weights]
        return y.detach(), [weight.numpy().copy() for weight in model.weights], gradients

    expected = one_step(lambda x: model(x, training=True))
    ours = one_step(lambda x: Program(model)(x, training=True))
    torch.testing.assert_close(ours[0], expected[0], rtol=1e-4, atol=1e-6)
    moved = 0.0
    for mine, theirs, start in zip(ours[1], expected[1], before, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)
        moved = max(moved, np.abs(theirs - start).max())
    assert moved > 0.01  # the statistics did move, so that their equality means something
    for mine, theirs in zip(ours[2], expected[2], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=2e-3, atol=1e-4 * float(theirs.abs().max()))


def test_a_frozen_normalisation_keeps_its_statistics(model: keras.Model, pictures: torch.Tensor) -> None:
    frozen = next(layer for layer in model.layers if isinstance(layer, layers.BatchNormalization))
    frozen.trainable = False
    before = [weight.numpy().copy() for weight in frozen.weights]
    other = next(layer for layer in reversed(model.layers) if isinstance(layer, layers.BatchNormalization))
    moving = other.moving_mean.numpy().copy()
    Program(model)(pictures, training=True)
    for weight, value in zip(frozen.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)
    assert not np.array_equal(other.moving_mean.numpy(), moving)


def test_the_model_is_left_as_it_was(model: keras.Model, pictures: torch.Tensor) -> None:
    config, weights = model.get_config(), [weight.numpy().copy() for weight in model.weights]
    with torch.no_grad():
        Program(model, torch.bfloat16)(pictures)
    assert model.get_config() == config
    for weight, value in zip(model.weights, weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)
        assert weight.value.dtype == torch.float32


def test_weights_assigned_later_are_seen(model: keras.Model, pictures: torch.Tensor) -> None:
    program = Program(model)
    for weight in model.weights:
        weight.assign(weight.numpy() * 0.5)
    with torch.no_grad():
        torch.testing.assert_close(program(pictures), model(pictures, training=False), rtol=1e-5, atol=1e-6)


def test_bfloat16_is_near_and_answers_in_float32(model: keras.Model, pictures: torch.Tensor) -> None:
    with torch.no_grad():
        fast, exact = Program(model, torch.bfloat16)(pictures), Program(model)(pictures)
    assert fast.dtype == torch.float32
    torch.testing.assert_close(fast, exact, rtol=0.05, atol=0.02)
    assert not torch.equal(fast, exact)


@pytest.mark.parametrize("name", ["resnet", "torchvision_resnet", "efficientnet_lite0"])
def test_backbones_run_the_same_on_the_fast_path(name: str) -> None:
    plugin = Registry().load("backbone", name)
    keras.utils.set_random_seed(3)
    trunk = plugin(plugin.Options.model_validate({"weights": "none"})).build(96, 3)  # type: ignore[attr-defined]
    model = stir(trunk.model)
    scaled = torch.randn(2, 96, 96, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, ours = model(scaled, training=False), Program(model)(scaled)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_dropout_drops_in_training_alone() -> None:
    inputs = keras.Input((8,))
    program = Program(keras.Model(inputs, layers.Dropout(0.5)(inputs)))
    ones = torch.ones(64, 8)
    assert torch.equal(program(ones, training=False), ones)
    assert sorted(program(ones, training=True).unique().tolist()) == [0.0, 2.0]


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [(224, 3, 2, (0, 1)), (225, 3, 2, (1, 1)), (7, 3, 1, (1, 1)), (10, 5, 2, (1, 2)), (4, 1, 2, (0, 0))],
)
def test_same_padding_by_hand(size: int, kernel: int, stride: int, expected: tuple[int, int]) -> None:
    assert same_padding(size, kernel, stride) == expected


def test_models_of_another_form_are_refused() -> None:
    class Own(keras.Model):
        pass

    with pytest.raises(ValueError, match="'own' is not functional"):
        Program(Own(name="own"))
    pictures = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, name="last")(pictures)
    with pytest.raises(ValueError, match="layers 'last' and 'first' differ in data format"):
        Program(keras.Model(pictures, layers.Conv2D(4, 3, data_format="channels_first", name="first")(x)))


UNUSUAL = {
    "dense on pictures": lambda x: layers.Dense(5, activation="relu")(x),
    "dense gate": lambda x: layers.Multiply()([x, layers.Dense(8)(layers.GlobalAveragePooling2D(keepdims=True)(x))]),
    "softmax over channels": lambda x: layers.Conv2D(8, 1, activation="softmax")(x),
    "log softmax layer": lambda x: layers.Activation("log_softmax")(x),
    "glu": lambda x: layers.Activation("glu")(x),
    "normalised over rows": lambda x: layers.BatchNormalization(axis=1)(x),
    "normalised over columns": lambda x: layers.BatchNormalization(axis=2)(x),
    "normalised sequences": lambda x: layers.BatchNormalization()(layers.Reshape((8, 64))(x)),
    "sum of two ranks": lambda x: layers.Add()([x, layers.Reshape((1, 8))(layers.GlobalAveragePooling2D()(x))]),
    "sum with a gate": lambda x: layers.Add()([x, layers.GlobalAveragePooling2D(keepdims=True)(x)]),
    "concatenated rows": lambda x: layers.Concatenate(axis=1)([x, x]),
    "concatenated sequences": lambda x: layers.Concatenate()([layers.Reshape((8, 64))(x)] * 2),
    "concatenated features": lambda x: layers.Concatenate()([layers.GlobalAveragePooling2D()(x)] * 2),
    "scaled features": lambda x: layers.Rescaling([1.0, 2.0] * 4)(layers.GlobalAveragePooling2D()(x)),
    "dilated": lambda x: layers.Conv2D(4, 3, dilation_rate=2, padding="same")(x),
    "gelu": lambda x: layers.Conv2D(4, 3, activation="gelu")(x),
    "leaky": lambda x: layers.Activation("leaky_relu")(x),
    "elu": lambda x: layers.Activation("elu")(x),
    "hard silu": lambda x: layers.Activation("hard_silu")(layers.Activation("hard_sigmoid")(x)),
    "tanh of sigmoid": lambda x: layers.Activation("tanh")(layers.Activation("sigmoid")(x)),
    "a layer called twice": lambda x: (lambda layer: layer(layer(x)))(layers.Conv2D(8, 3, padding="same")),
    "a model in the model": lambda x: stir(keras.Sequential([keras.Input((8, 8, 8)), layers.Conv2D(8, 3)]))(x),
}  # fmt: skip
"""Ordinary layers in forms that a shortcut could get wrong; height, width and channels are all 8, so that a mix-up of
axes raises nothing."""


@pytest.mark.parametrize("name", UNUSUAL)
@pytest.mark.parametrize("training", [False, True])
def test_unusual_calls_equal_keras(name: str, training: bool) -> None:
    model = built(UNUSUAL[name], (8, 8, 8))
    inputs = batch(model)
    expected = step(model, by_keras(model), inputs, training)
    assert_same_steps(step(model, Program(model), inputs, training), expected, 1e-4)


def test_a_function_that_is_only_called_relu_is_not_taken_for_it() -> None:
    def relu(x: torch.Tensor) -> torch.Tensor:
        return x - 1

    inputs = keras.Input((4, 4, 2))
    model = keras.Model(inputs, layers.Activation(relu)(inputs))
    x = torch.randn(1, 4, 4, 2)
    torch.testing.assert_close(Program(model)(x), x - 1)


def test_one_value_a_channel_is_normalised_as_keras_does() -> None:
    inputs = keras.Input((1, 1, 6))
    model = stir(keras.Model(inputs, layers.BatchNormalization()(inputs)))
    x, before = torch.randn(1, 1, 1, 6), model.get_weights()
    expected = model(x, training=True)
    after = model.get_weights()
    model.set_weights(before)
    torch.testing.assert_close(Program(model)(x, training=True), expected)
    for mine, theirs in zip(model.get_weights(), after, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5)


class Calls(TorchDispatchMode):
    """Counts torch's calls by name, such as "convolution", and notes the shapes of what each is given first."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        self.shapes: dict[str, list[tuple[int, ...]]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.name().split("::")[1].split(".")[0]
        self.count[name] += 1
        if args and isinstance(args[0], Tensor):
            self.shapes.setdefault(name, []).append(tuple(args[0].shape))
        return function(*args, **(kwargs or {}))


def unit(x: Any, convolution: layers.Layer, axis: int = -1, **options: Any) -> Any:
    return layers.ReLU()(layers.BatchNormalization(axis, **options)(convolution(x)))


FOLDS: dict[str, tuple[Built, int]] = {
    "with a bias": (lambda x: unit(x, conv()), 0),
    "without": (lambda x: unit(x, conv(use_bias=False)), 0),
    "no gamma": (lambda x: unit(x, conv(), scale=False), 0),
    "no beta": (lambda x: unit(x, conv(use_bias=False), center=False), 0),
    "neither": (lambda x: unit(x, conv(use_bias=False), center=False, scale=False), 0),
    "groups": (lambda x: unit(x, conv(groups=2)), 0),
    "depthwise": (lambda x: unit(x, layers.DepthwiseConv2D(3)), 0),
    "multiplied depthwise": (lambda x: unit(x, layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)), 0),
    "padded": (lambda x: unit(layers.ZeroPadding2D(1)(x), conv(padding="valid")), 0),
    "one after another": (lambda x: unit(unit(x, conv()), conv()), 0),
    "one convolution, two normalisations": (lambda x: [unit(x, c := conv()), unit(layers.ReLU()(x), c)], 0),
    "one normalisation, two convolutions": (lambda x: [(n := layers.BatchNormalization())(conv()(x)), n(conv()(x))], 0),
    "a normalisation as output": (lambda x: [n := normed(x), layers.ReLU()(n)], 0),
    "normalised twice": (lambda x: layers.BatchNormalization()(unit(x, conv())), 1),
    "before": (lambda x: conv()(layers.BatchNormalization()(x)), 1),
    "an activation between": (lambda x: unit(x, conv(activation="relu")), 1),
    "a convolution read twice": (lambda x: layers.Add()([layers.BatchNormalization()(c := conv()(x)), c]), 1),
    "a convolution as output": (lambda x: [c := conv()(x), layers.BatchNormalization()(c)], 1),
    "holes": (lambda x: unit(x, conv(dilation_rate=2)), 1),
    "rows": (lambda x: unit(x, conv(), axis=1), 0),  # Keras' own arithmetic, which is not this call
}
"""Graphs, and how many normalisations of theirs stay when they are frozen."""


@pytest.mark.parametrize("name", FOLDS)
def test_normalisation_becomes_part_of_the_convolution_before_it(name: str) -> None:
    build, left = FOLDS[name]
    model = built(build, (12, 12, 8))
    inputs = batch(model)
    assert_same_inference(model, inputs, 1e-5)
    program = Program(model, frozen=True)
    with torch.no_grad(), Calls() as calls:
        program(*inputs)
    assert sum(count for call, count in calls.count.items() if "batch_norm" in call) == left


def test_a_frozen_program_is_for_inference_and_for_the_weights_of_the_moment() -> None:
    model = built(lambda x: layers.ReLU()(normed(conv()(layers.BatchNormalization()(x)))), (12, 12, 8))
    inputs = batch(model)
    live, frozen = Program(model), Program(model, frozen=True)
    with torch.no_grad():
        before = frozen(*inputs)
        assert_near(frozen(*inputs, training=True), before, 0.0)  # by moving averages, which stay as they are
        for layer in model.layers[2:]:  # the normalisation before is not folded
            stir(layer, seed=9)
        assert torch.equal(frozen(*inputs), before)
        assert_near(live(*inputs), model(*inputs, training=False), 1e-5)
        assert float((live(*inputs) - before).abs().max()) > 0.1


def every_kernel() -> keras.Model:
    return built(
        lambda x: layers.Dense(3)(
            layers.GlobalAveragePooling2D()(
                conv(groups=2)(layers.DepthwiseConv2D(3, depth_multiplier=2)(conv(5, 1)(gate(conv(8, (2, 3))(x)))))
            )
        ),
        (12, 12, 8),
    )


def test_weights_keep_values_and_shapes_in_another_order_in_memory(tmp_path: Path) -> None:
    model = every_kernel()
    inputs = batch(model)
    values, shapes = model.get_weights(), [weight.shape for weight in model.weights]
    expected = step(model, by_keras(model), inputs, training=True)
    for _ in range(2):  # the second finds the order that the first has made
        program = Program(model)
        assert [weight.shape for weight in model.weights] == shapes
        for weight, value in zip(model.weights, values, strict=True):
            assert np.array_equal(weight.numpy(), value)
            assert tuple(weight.value.shape) == value.shape
            assert weight.value.requires_grad
        assert_same_steps(step(model, program, inputs, training=True), expected, 1e-5)
        assert_same_steps(step(model, by_keras(model), inputs, training=True), expected, 1e-5)
    places = {layers.Conv2D: (3, 2, 0, 1), layers.DepthwiseConv2D: (2, 3, 0, 1)}
    kernels = [layer.kernel.value.permute(places[type(layer)]) for layer in model.layers if type(layer) in places]
    assert len(kernels) == 6
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for mine, value in zip(loaded.get_weights(), values, strict=True):
        assert np.array_equal(mine, value)
    doubled = [2 * value for value in values]
    model.set_weights(doubled)
    loaded.set_weights(doubled)
    for mine, value in zip(model.get_weights(), doubled, strict=True):
        assert np.array_equal(mine, value)
    with torch.no_grad():
        assert_near(program(*inputs), loaded(*inputs, training=False), 1e-5)


def test_optimizers_take_the_same_steps() -> None:
    after = []
    for fast in (False, True):
        model = every_kernel()
        inputs = batch(model)
        forward = Program(model) if fast else by_keras(model)
        optimizer = keras.optimizers.AdamW(0.01)
        optimizer.build(model.trainable_variables)
        for _ in range(3):
            for weight in model.trainable_variables:
                weight.value.grad = None
            forward(*inputs, training=True).square().sum().backward()
            gradients = [weight.value.grad for weight in model.trainable_variables]
            with torch.no_grad():
                optimizer.apply(gradients)
        after.append(model.get_weights())
    for mine, other in zip(after[1], after[0], strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-3, atol=1e-4)


def test_gradients_flow_through_frozen_layers() -> None:
    model = built(lambda x: conv()(layers.ReLU()(normed(layers.ReLU()(normed(x))))), (12, 12, 8))
    kinds = [layer for layer in model.layers if isinstance(layer, layers.Conv2D | layers.BatchNormalization)]
    for layer in kinds[2:4]:
        layer.trainable = False
    inputs = batch(model)
    expected = step(model, by_keras(model), inputs, training=True)
    names = {path.split("/")[0] for path in expected.gradients if not path.startswith("input")}
    assert names == {kinds[place].name for place in (0, 1, 4)}
    assert_same_steps(step(model, Program(model), inputs, training=True), expected, 1e-4)


def test_layers_that_are_frozen_and_thawed_later() -> None:
    model = built(lambda x: conv()(layers.ReLU()(normed(x))), (12, 12, 8))
    program, inputs = Program(model), batch(model)
    for trainable in (False, True):
        for layer in model.layers[:3]:
            layer.trainable = trainable
        expected = step(model, by_keras(model), inputs, training=True)
        assert_same_steps(step(model, program, inputs, training=True), expected, 1e-4)


def test_losses_of_activity_are_kept() -> None:
    class Run(keras.Model):
        def __init__(self, forward: Callable[..., Any]) -> None:
            super().__init__()
            self.inside, self.forward = model, forward

        def call(self, x: Any, training: bool = False) -> Any:
            return self.forward(x, training=training)

    model = built(lambda x: layers.ReLU()(conv(activity_regularizer="l2")(x)), (12, 12, 8))
    losses, gradients = [], []
    for forward in (by_keras(model), Program(model)):
        run = Run(forward)
        output = run(*batch(model), training=True)
        assert len(run.losses) == 1
        losses.append(float(run.losses[0].detach()))
        kernel = model.trainable_variables[0].value
        gradients.append(torch.autograd.grad(output.sum() + run.losses[0], kernel)[0])
    assert losses[1] == pytest.approx(losses[0])
    assert_near(gradients[1], gradients[0], 1e-4)


def low_rank(model: keras.Model) -> None:
    for layer in (model.layers[1], model.layers[3]):
        layer.enable_lora(2)
        layer.lora_kernel_b.assign(np.full(layer.lora_kernel_b.shape, 0.3))


@pytest.mark.parametrize("change", [low_rank, lambda model: model.layers[3].quantize("int8")])
def test_layers_that_are_changed_afterwards(change: Callable[[keras.Model], None]) -> None:
    model = built(lambda x: layers.Dense(3)(layers.GlobalAveragePooling2D()(conv()(x))), (12, 12, 8))
    change(model)
    assert_same_inference(model, batch(model), 1e-5)


def test_a_sum_in_bfloat16_is_no_less_exact_than_its_terms() -> None:
    model = built(lambda x: layers.Add()([normed(x), layers.LayerNormalization()(x)]), (12, 12, 8))
    inputs = batch(model)
    with torch.no_grad():
        total = Program(model, torch.bfloat16)(*inputs)
        assert total.dtype == torch.float32
        assert_near(total, model(*inputs, training=False), 0.02)


def test_a_step_of_a_resnet_makes_few_calls() -> None:
    """Counted, since a count does not depend on the machine; each call costs its start on a GPU, each copy of an
    activation its time in memory. ResNet-18: 20 convolutions with a normalisation each, 17 ReLUs, 8 sums, 5 paddings.
    """
    model = build_classifier(ResNet(ResNet.Options(depth=18, weights="none")), 4, 64).logits
    program, pictures = Program(model, torch.bfloat16), 255 * torch.rand(2, 64, 64, 3)
    for weight in model.weights:
        weight.value.grad = None
    with Calls() as forward:
        logits = program(pictures, training=True)
    with Calls() as backward:
        logits.sum().backward()

    assert forward.count["convolution"] == backward.count["convolution_backward"] == 20
    assert forward.count["native_batch_norm"] == backward.count["native_batch_norm_backward"] == 20
    assert forward.count["relu_"] == backward.count["threshold_backward"] == 17  # all in place
    assert forward.count["add_"] == 9  # 8 sums in place, and pixel scaling
    assert backward.count["add"] == 8  # where a shortcut's gradient joins
    # Paddings, pictures of zeros and copies to another order in memory have no place in a step: convolutions and the
    # pooling pad, kernels lie as torch reads them, and gradients of kernels as the kernels do.
    for name in ("constant_pad_nd", "relu", "clone", "copy_", "contiguous", "cat", "add"):
        assert not forward.count[name], name
    for name in ("constant_pad_nd", "clone", "copy_", "contiguous"):
        assert not backward.count[name], name
    # Changes of dtype: each kernel to bfloat16 and its gradient back; of activations only the scaled pictures and, on
    # the way back, what the global average (float32) hands to the last sum.
    kernels = {tuple(weight.shape[place] for place in (3, 2, 0, 1)) for weight in model.weights if weight.ndim == 4}
    for calls, odd in ((forward, (2, 3, 64, 64)), (backward, (2, 512, 2, 2))):
        shapes = calls.shapes["_to_copy"]
        assert len(shapes) == 21
        assert [shape for shape in shapes if shape not in kernels] == [odd]
    # A normalisation's moving averages cost 5 small calls, a kernel's views 2; in all 271 calls forward, and backward
    # 223, of which 79 are torch's own handles on what forward kept.
    assert forward.count.total() <= 275
    assert backward.count.total() <= 230


def test_inference_of_a_frozen_resnet_makes_fewer() -> None:
    model = build_classifier(ResNet(ResNet.Options(depth=18, weights="none")), 4, 64).model
    program, pictures = Program(model, torch.bfloat16, frozen=True), 255 * torch.rand(2, 64, 64, 3)
    with torch.no_grad(), Calls() as calls:
        program(pictures)
    assert calls.count["convolution"] == 20
    assert calls.count["relu_"] == 17
    assert calls.count["_to_copy"] == 1  # the scaled pictures: kernels are kept in bfloat16
    assert not [name for name in calls.count if "batch_norm" in name]
    # 20 convolutions, 17 ReLUs, 8 sums; 2 calls of pixel scaling, 1 of pooling, a handful for the head.
    assert calls.count.total() <= 60


@pytest.mark.parametrize("frozen", [False, True])
def test_rectifiers_write_over_what_nobody_else_reads(frozen: bool) -> None:
    model = built(
        lambda x: layers.ReLU()(
            layers.Add()([conv(activation="relu")(layers.ReLU(6.0)(conv()(x))), layers.Activation("relu")(normed(x))])
        ),
        (12, 12, 8),
    )
    with torch.no_grad(), Calls() as calls:
        Program(model, frozen=frozen)(*batch(model))
    found = {name: count for name, count in calls.count.items() if "relu" in name or "hardtanh" in name}
    assert found == {"relu_": 3, "hardtanh_": 1}


def test_inference_holds_what_is_still_needed_and_no_more() -> None:
    class Held(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.made: list[weakref.ref[Tensor]] = []
            self.most = 0

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.most = max(self.most, sum(tensor() is not None for tensor in self.made))
            result = function(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                self.made.append(weakref.ref(result))
            return result

    names = ["tanh", "sigmoid", "silu", "elu"] * 5
    model = built(
        lambda x: keras.Sequential([keras.Input((12, 12, 8)), *map(layers.Activation, names)])(x), (12, 12, 8)
    )
    with torch.no_grad(), Held() as held:
        Program(model)(*batch(model))
    assert len(held.made) >= 20
    assert held.most <= 3  # a view of the input, and what a call reads
