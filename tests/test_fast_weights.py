"""The fast path computes what Keras computes with weights folded, laid out in another order, frozen or changed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from fast_steps import (
    Built,
    Calls,
    assert_near,
    assert_same_inference,
    assert_same_steps,
    batch,
    built,
    by_keras,
    conv,
    gate,
    normed,
    step,
    stir,
)
from keras import layers

from braintumor_kit.model.fast import Program

pytestmark = pytest.mark.usefixtures("one_thread")


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
