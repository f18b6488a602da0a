"""What explainers see of a model is the same in whatever form the model comes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import keras_hub
import numpy as np
import pytest
import torch
from btkit_plugins.explainers.integrated_gradients import IntegratedGradients
from keras import layers
from network_forms import (
    CELLS,
    CLASSES,
    FORMS,
    SIDE,
    TARGETS,
    WEIGHTS,
    Expected,
    Subclassed,
    assert_as_expected,
    assert_near,
    doubly_nested,
    features,
    flat,
    nested,
    network_of,
    picture_input,
    pictures,
    subclassed,
    with_weights,
    wrapped,
)
from torch import nn

from braintumor_kit import explain
from braintumor_kit.explanation.graph_network import GraphNetwork
from braintumor_kit.explanation.hooked_network import HookedNetwork

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def expected() -> Expected:
    return Expected()


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
