"""The fast path computes what Keras computes: same weights, same numbers, forward and backward."""

import keras
import numpy as np
import pytest
import torch
from fast_steps import assert_near, assert_same_steps, batch, built, by_keras, normed, step, stir
from keras import layers

from braintumor_kit.model.fast import Program
from braintumor_kit.model.fast.lowerings import same_padding
from braintumor_kit.registry import Registry

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


def test_a_sum_in_bfloat16_is_no_less_exact_than_its_terms() -> None:
    model = built(lambda x: layers.Add()([normed(x), layers.LayerNormalization()(x)]), (12, 12, 8))
    inputs = batch(model)
    with torch.no_grad():
        total = Program(model, torch.bfloat16)(*inputs)
        assert total.dtype == torch.float32
        assert_near(total, model(*inputs, training=False), 0.02)


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
