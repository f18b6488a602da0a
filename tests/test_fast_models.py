"""The fast path against Keras on networks of others and on forms of graph that its shortcuts could get wrong."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from fast_steps import (
    Built,
    Calls,
    Step,
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
from torch import Tensor

from braintumor_kit.model.fast import Program, graph_of

# isort: split
# What stands above has put Keras on torch.
import keras
import keras_hub
from keras import layers

pytestmark = pytest.mark.usefixtures("one_thread")


def inner() -> keras.Model:
    inputs = keras.Input((None, None, 8))
    x = layers.ReLU()(normed(layers.ZeroPadding2D(1)(inputs), padding="valid"))
    return stir(keras.Model(inputs, layers.Add()([x, layers.Dropout(0.0)(inputs)])))


def two_outputs() -> keras.Model:
    inputs = [keras.Input((12, 12, 8)), keras.Input((12, 12, 8))]
    total = layers.Add()(inputs)
    return keras.Model(inputs, [layers.ReLU()(total), conv()(total)])


class Doubling(keras.Sequential):
    """Not what its graph says alone."""

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        return 2 * super().call(inputs, training=training)


def in_whole_numbers() -> keras.Model:
    inputs = keras.Input((12, 12, 8), dtype="int32")
    return keras.Model(inputs, layers.Rescaling(0.5)(inputs))


def twice(x: Any, layer: Any) -> Any:
    return layer(layer(x))


def fan(join: Built) -> Built:
    """`join` of what a normalised convolution gives."""
    return lambda x: join(normed(x))


FORMS: dict[str, Built] = {
    # A value that something else reads must stay as it is.
    "a value and its rectified self": fan(lambda y: layers.Concatenate()([y, layers.ReLU()(y)])),
    "a value and its activation": fan(lambda y: layers.Concatenate()([layers.Activation("relu")(y), y])),
    "an activation that needs what it made": lambda x: layers.Add()([conv(activation="tanh")(x), normed(x)]),
    "a value twice in a sum": fan(lambda y: layers.ReLU()(layers.Add()([y, y]))),
    "a value thrice in a sum": fan(lambda y: layers.Add()([y, y, y])),
    "outputs along the way": fan(lambda y: [y, r := layers.ReLU()(y), s := layers.Add()([r, y]), layers.ReLU()(s)]),
    "an output twice": fan(lambda y: [y, y, layers.ReLU()(y)]),
    "a sum of one": fan(lambda y: layers.Concatenate()([layers.ReLU()(layers.Add()([y])), y])),
    "a sum of three": lambda x: layers.ReLU()(layers.Add()([layers.ReLU()(x), normed(x), conv()(x)])),
    "sums of sums": lambda x: layers.Add()([s := layers.Add()([conv()(x), x]), layers.Add()([conv()(s), s])]),
    "a sum that broadcasts first": fan(lambda y: layers.Add()([conv(8, 12, padding="valid")(y), y])),
    "a sum that broadcasts last": fan(lambda y: layers.Add()([y, conv(8, 12, padding="valid")(y), conv()(y)])),
    "a sum of two dtypes": fan(lambda y: layers.Add()([conv()(y), keras.ops.cast(y > 0, "int32")])),
    "a padding of nothing": fan(lambda y: layers.Add()([layers.ReLU()(layers.ZeroPadding2D(0)(y)), y])),
    "an identity": fan(lambda y: layers.Add()([layers.ReLU()(i := layers.Identity()(y)), i])),
    "an activation read twice": lambda x: layers.Add()([y := conv(activation="relu")(x), conv()(y)]),
    "a view that is rectified": fan(lambda y: layers.ReLU()(layers.Reshape((12, 96))(y))),
    # Paddings are taken in where zeros are what the next layer would add itself.
    "uneven padding": lambda x: conv(padding="valid")(layers.ZeroPadding2D(((0, 1), (2, 1)))(x)),
    "padding of two widths": lambda x: conv(padding="valid", strides=2)(layers.ZeroPadding2D((1, 2))(x)),
    "padding of padding": lambda x: conv(padding="valid")(layers.ZeroPadding2D(1)(layers.ZeroPadding2D(2)(x))),
    "padding before padding": lambda x: conv()(layers.ZeroPadding2D(1)(x)),
    "padding before holes": lambda x: conv(padding="valid", dilation_rate=2)(layers.ZeroPadding2D(1)(x)),
    "padding before a softmax": lambda x: conv(padding="valid", activation="softmax")(layers.ZeroPadding2D(1)(x)),
    "padding as output": lambda x: [p := layers.ZeroPadding2D(1)(x), conv(padding="valid")(p)],
    "padding read by two": lambda x: [conv()(p := layers.ZeroPadding2D(1)(x)), layers.DepthwiseConv2D(3)(p)],
    "padding by name": lambda x: layers.MaxPooling2D(3)(inputs=layers.ZeroPadding2D(1)(layers.ReLU()(x))),
    "padding, largest of signed": lambda x: layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(normed(x) - 3)),
    "padding, largest of leaky": lambda x: layers.MaxPooling2D(3, 2)(
        layers.ZeroPadding2D(1)(layers.ReLU(negative_slope=0.3)(normed(x) - 3))
    ),
    "padding, largest": lambda x: layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(layers.ReLU()(normed(x)))),
    "padding, largest of four": lambda x: layers.MaxPooling2D(2, 2)(layers.ZeroPadding2D(1)(layers.ReLU(2.0)(x))),
    "padding wider than the pool": lambda x: layers.MaxPooling2D(2)(layers.ZeroPadding2D(2)(layers.ReLU()(x))),
    "padding, mean": lambda x: layers.AveragePooling2D(3, 2)(layers.ZeroPadding2D(1)(layers.ReLU()(x))),
    "pooling with its own padding": lambda x: layers.MaxPooling2D(3, 2, padding="same")(layers.ReLU()(normed(x))),
    "mean with its own padding": lambda x: layers.AveragePooling2D(3, 2, padding="same")(x),
    # Rectifiers of every kind.
    "relu6": fan(lambda y: layers.ReLU(6.0)(y * 6)),
    "relu6 by name": fan(lambda y: layers.Activation("relu6")(y * 6)),
    "bounded": fan(lambda y: layers.ReLU(max_value=0.5)(y)),
    "sloped": fan(lambda y: layers.ReLU(negative_slope=0.2)(y)),
    "thresholded": fan(lambda y: layers.ReLU(max_value=1.0, negative_slope=0.1, threshold=0.2)(y)),
    "a layer for an activation": lambda x: layers.BatchNormalization()(conv(activation=layers.LeakyReLU())(x)),
    # Layers with and without words in torch.
    "a multiplied depthwise": lambda x: layers.ReLU()(layers.DepthwiseConv2D(3, 2, "same", depth_multiplier=2)(x)),
    "an oblong depthwise": lambda x: layers.ReLU()(layers.DepthwiseConv2D((2, 3), depth_multiplier=2)(x)),
    "a depthwise with holes": lambda x: layers.BatchNormalization()(layers.DepthwiseConv2D(3, dilation_rate=2)(x)),
    "groups": lambda x: layers.ReLU()(normed(x, filters=12, groups=4)),
    "a separable convolution": lambda x: layers.ReLU()(layers.SeparableConv2D(6, 3)(x)),
    "a transposed convolution": lambda x: layers.ReLU()(layers.Conv2DTranspose(6, 3, 2)(conv()(x))),
    "spatial dropout": fan(lambda y: layers.SpatialDropout2D(0.5)(y)),
    "normalised layers": fan(lambda y: layers.UnitNormalization()(layers.LayerNormalization()(y))),
    "renormalised": lambda x: layers.ReLU()(layers.BatchNormalization(renorm=True)(conv()(x))),
    "normalised twice": fan(lambda y: layers.BatchNormalization()(y)),
    "squeeze and excite": fan(gate),
    "attention": fan(lambda y: layers.MultiHeadAttention(2, 4)(r := layers.Reshape((144, 8))(y), r)),
    "a mask": lambda x: layers.LSTM(3)(
        layers.Activation("relu")(layers.Masking()(layers.ZeroPadding1D(2)(layers.Reshape((12, 96))(x))))
    ),
    "operations": fan(lambda y: keras.ops.relu(y * 2 + conv()(y)) - keras.ops.transpose(y, (0, 2, 1, 3))),
    "reshaped pictures": fan(lambda y: layers.ReLU()(conv()(keras.ops.reshape(y, (-1, 6, 24, 8))))),
    "pieces": fan(lambda y: layers.Concatenate()([layers.ReLU()(part) for part in keras.ops.split(y, 2, axis=-1)])),
    "double precision": fan(lambda y: layers.Dense(3, dtype="float64")(layers.GlobalAveragePooling2D()(y))),
    "a loss of activity": fan(lambda y: conv(activity_regularizer="l2")(y)),
    "grey with three offsets": lambda x: layers.Rescaling(0.1, [1.0, 2.0, 3.0])(keras.ops.mean(x, -1, keepdims=True)),
    # Models in models, layers in two places.
    "a layer in two places": lambda x: twice(x, conv()),
    "a normalisation in two places": lambda x: twice(conv()(x), layers.BatchNormalization(momentum=0.8)),
    "a model in a model": fan(lambda y: layers.ReLU()(inner()(y))),
    "a model in two places": lambda x: twice(x, inner()),
    "a model in training": lambda x: inner()(x, training=True),
    "a model not in training": lambda x: inner()(x, training=False),
    "a dropout in training": lambda x: layers.Dropout(0.0)(normed(x), training=True),
    "a model in a model in a model": lambda x: keras.Sequential([keras.Input((12, 12, 8)), inner(), conv()])(x),
    "a model of two and two": lambda x: layers.Add()(two_outputs()([conv()(x), layers.ReLU()(x)])),
    "a model of named values": lambda x: keras.Model(
        [a := keras.Input((12, 12, 8), name="a"), b := keras.Input((12, 12, 8), name="b")],
        layers.Subtract()([b, a]),
    )({"b": conv()(x), "a": x}),
    "a model that casts": lambda x: layers.Add()([x, in_whole_numbers()(x * 3)]),
    "a model that says more": lambda x: layers.ReLU()(Doubling([keras.Input((12, 12, 8)), conv()])(x)),
    "the same": lambda x: [x, x],
}  # fmt: skip
"""Graphs of (12, 12, 8) pictures. Where two layers could take each other's place, a mistake changes numbers."""


@pytest.mark.parametrize("name", FORMS)
def test_forms_compute_and_learn_as_in_keras(name: str) -> None:
    assert_computes_and_learns_as_in_keras(built(FORMS[name], (12, 12, 8)))


def assert_computes_and_learns_as_in_keras(model: keras.Model) -> None:
    inputs = batch(model)
    for training in (False, True):
        expected = step(model, by_keras(model), inputs, training)
        assert_same_steps(step(model, Program(model), inputs, training), expected, 1e-4)
    assert_same_inference(model, inputs, 1e-5)


def first(kind: Callable[..., Any], *sizes: Any, **options: Any) -> Any:
    return kind(*sizes, data_format="channels_first", **options)


def unit_first(x: Any, filters: int = 8, **options: Any) -> Any:
    return layers.BatchNormalization(axis=1, momentum=0.8)(first(layers.Conv2D, filters, 3, **options)(x))


CHANNELS_FIRST: dict[str, Built] = {
    "residual": lambda x: layers.ReLU()(layers.Add()([unit_first(x, padding="same"), x])),
    "depthwise": lambda x: layers.ReLU(6.0)(unit_first(first(layers.DepthwiseConv2D, 3, depth_multiplier=2)(x))),
    "padded": lambda x: unit_first(first(layers.ZeroPadding2D, (1, 2))(x), strides=2),
    "pooled": lambda x: first(layers.MaxPooling2D, 3, 2)(first(layers.ZeroPadding2D, 1)(layers.ReLU()(unit_first(x)))),
    "meaned": lambda x: first(layers.AveragePooling2D, 2)(unit_first(x)),
    "joined": lambda x: layers.Concatenate(axis=1)([x, unit_first(x, padding="same")]),
    "averaged": lambda x: layers.Dense(3)(first(layers.GlobalAveragePooling2D)(unit_first(x))),
    "gated": lambda x: layers.Multiply()([x, first(layers.GlobalAveragePooling2D, keepdims=True)(unit_first(x))]),
    "flattened": lambda x: layers.Dense(3)(layers.Flatten()(unit_first(x))),
    "flattened its own way": lambda x: layers.Dense(3)(first(layers.Flatten)(unit_first(x))),
    "scaled": lambda x: unit_first(layers.Rescaling(0.5, -1.0)(x)),
    "normalised by columns": lambda x: layers.BatchNormalization(axis=-1)(unit_first(x)),
    "softmax of columns": lambda x: layers.Activation("softmax")(unit_first(x)),
}


@pytest.mark.parametrize("name", CHANNELS_FIRST)
def test_channels_first_models_compute_and_learn_as_in_keras(name: str) -> None:
    assert_computes_and_learns_as_in_keras(built(CHANNELS_FIRST[name], (8, 12, 10)))


@pytest.mark.parametrize("name", [name for name in FORMS if name.startswith(("a model in", "a model not in"))])
def test_models_in_models_are_written_out(name: str) -> None:
    kinds = {type(call.layer) for call in graph_of(built(FORMS[name], (12, 12, 8))).calls}
    assert layers.BatchNormalization in kinds
    assert not any(issubclass(kind, keras.Model) for kind in kinds)


def several() -> keras.Model:
    """Two pictures and a row of numbers in; pictures, features and probabilities out."""
    keras.utils.set_random_seed(2)
    left, right, row = keras.Input((12, 12, 8)), keras.Input((12, 12, 8)), keras.Input((5,))
    shared = conv()
    total = layers.Add()([layers.BatchNormalization()(shared(left)), shared(right)])
    rectified = layers.ReLU()(total)
    features = layers.Concatenate()([layers.GlobalAveragePooling2D()(rectified), row])
    return stir(keras.Model([left, right, row], [rectified, features, layers.Dense(3, activation="softmax")(features)]))


def test_several_inputs_and_outputs() -> None:
    model = several()
    inputs = batch(model)
    expected = step(model, by_keras(model), inputs, training=True)
    assert len(expected.outputs) == 3
    assert "input 2" in expected.gradients
    assert_same_steps(step(model, Program(model), inputs, training=True), expected, 1e-4)
    assert_same_inference(model, inputs, 1e-5)


def test_a_part_of_a_model_that_begins_in_the_middle() -> None:
    inputs = keras.Input((12, 12, 8))
    middle = normed(inputs)
    model = stir(keras.Model(middle, layers.ReLU()(normed(layers.ReLU()(middle)))))
    pictures = batch(model)
    expected = step(model, by_keras(model), pictures, training=True)
    assert_same_steps(step(model, Program(model), pictures, training=True), expected, 1e-4)


def test_a_sequential_model() -> None:
    model = stir(keras.Sequential([keras.Input((12, 12, 8)), conv(), layers.BatchNormalization(), layers.ReLU()]))
    assert_same_inference(model, batch(model), 1e-5)


def test_a_functional_model_with_a_call_of_its_own_is_refused() -> None:
    class Halving(keras.Model):
        def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
            return super().call(inputs, training=training) / 2

    inputs = keras.Input((12, 12, 8))
    with pytest.raises(ValueError, match="'halving' is not functional"):
        Program(Halving(inputs, conv()(inputs), name="halving"))


def test_channels_first_normalisation_is_folded_too() -> None:
    model = built(lambda x: layers.ReLU()(unit_first(x)), (8, 12, 10))
    program = Program(model, frozen=True)
    with torch.no_grad(), Calls() as calls:
        program(*batch(model))
    assert not [call for call in calls.count if "batch_norm" in call]


def resnet(**options: Any) -> keras.Model:
    usual = {
        "input_conv_filters": [64],
        "input_conv_kernel_sizes": [7],
        "stackwise_num_filters": [64, 32],
        "stackwise_num_blocks": [2, 2],
        "stackwise_num_strides": [1, 2],
        "block_type": "bottleneck_block",
        "image_shape": (48, 48, 3),
    }
    return keras_hub.models.ResNetBackbone(**usual | options)


def efficientnet() -> keras.Model:
    """With blocks that are layers of its own kind, and so without words in torch."""
    return keras_hub.models.EfficientNetBackbone(
        stackwise_kernel_sizes=[3, 5],
        stackwise_num_repeats=[2, 2],
        stackwise_input_filters=[8, 16],
        stackwise_output_filters=[16, 24],
        stackwise_expansion_ratios=[1, 4],
        stackwise_squeeze_and_excite_ratios=[0.25, 0.25],
        stackwise_strides=[1, 2],
        stackwise_block_types=["v1", "fused"],
        stackwise_force_input_filters=[0, 0],
        stackwise_nores_option=[False, False],
        stackwise_width_coefficients=[1.0, 1.0],
        stackwise_depth_coefficients=[1.0, 1.0],
        input_shape=(48, 48, 3),
    )


def application(name: str, size: int = 64) -> Callable[[], keras.Model]:
    make = getattr(keras.applications, name)
    return lambda: make(include_top=False, weights=None, input_shape=(size, size, 3), pooling="avg")


NETWORKS = {
    "ResNet50V2": application("ResNet50V2"),
    "MobileNetV2": application("MobileNetV2"),
    "MobileNetV3Small": application("MobileNetV3Small"),
    "EfficientNetB0": application("EfficientNetB0"),
    "DenseNet121": application("DenseNet121"),
    "VGG16": application("VGG16", 32),
    "InceptionV3": application("InceptionV3", 75),
    "Xception": application("Xception", 71),
    "ConvNeXtTiny": application("ConvNeXtTiny"),
    "keras_hub ResNet": resnet,
    "keras_hub ResNet, pre-activated": lambda: resnet(use_pre_activation=True),
    "keras_hub ResNet, channels first": lambda: resnet(data_format="channels_first", image_shape=(3, 48, 48)),
    "keras_hub ResNet, deep stem": lambda: resnet(
        input_conv_filters=[16, 16, 64], input_conv_kernel_sizes=[3, 3, 3], block_type="basic_block_vd"
    ),
    "keras_hub EfficientNet": efficientnet,
}
"""Networks of others, with random weights."""


def network(name: str) -> tuple[keras.Model, tuple[Tensor, ...]]:
    """The network and pictures as it wants them."""
    keras.utils.set_random_seed(0)
    model = stir(NETWORKS[name]())
    scales = any(isinstance(layer, layers.Rescaling) for layer in model.layers)
    pictures = batch(model, 8)[0]
    return model, (60 * pictures + 128 if scales else pictures,)


def assert_alike(ours: Step, theirs: Step, each: float, whole: float) -> None:
    """Gradients that differ by no more than these shares of their length, each weight's and all as one."""
    assert ours.gradients.keys() == theirs.gradients.keys()
    lengths = {path: float(value.norm()) for path, value in theirs.gradients.items()}
    longest = max(lengths.values())
    for path, value in theirs.gradients.items():
        assert float((ours.gradients[path] - value).norm()) <= each * max(lengths[path], 1e-3 * longest), path
    assert float((_joined(ours) - _joined(theirs)).norm() / _joined(theirs).norm()) <= whole


def _joined(one: Step) -> Tensor:
    return torch.cat([one.gradients[path].flatten().double() for path in sorted(one.gradients)])


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_others_compute_and_learn_as_in_keras(name: str) -> None:
    """Rounding turns a few ReLUs over in networks this deep, and each changes gradients by what it lets through: many
    more where batches are normalised by their own statistics. What is wrong changes them by all of their length."""
    model, inputs = network(name)
    program = Program(model)
    for training, far, each, whole in ((False, 1e-4, 0.1, 0.03), (True, 0.02, 0.4, 0.2)):
        theirs, ours = (step(model, forward, inputs, training) for forward in (by_keras(model), program))
        for mine, other in zip(ours.outputs, theirs.outputs, strict=True):
            assert_near(mine, other, far)
        for path, value in theirs.state.items():
            assert_near(ours.state[path], value, 1e-3)
        assert_alike(ours, theirs, each, whole)
    assert_same_inference(model, inputs, 1e-4)


@pytest.mark.parametrize(
    ("name", "training"),
    [("MobileNetV3Small", False), ("keras_hub EfficientNet", True), ("keras_hub ResNet, pre-activated", False)],
)
def test_bfloat16_is_near_and_learns_in_the_same_direction(name: str, training: bool) -> None:
    """Not so near that a ReLU network with its batches' own statistics could be held to it: there Keras' own
    mixed_bfloat16 is as far from float32."""
    model, inputs = network(name)
    exact, fast = (step(model, Program(model, dtype), inputs, training) for dtype in (torch.float32, torch.bfloat16))
    for mine, other in zip(fast.outputs, exact.outputs, strict=True):
        assert_near(mine.float(), other, 0.05)
    for path, value in exact.state.items():
        assert_near(fast.state[path], value, 0.05)
    assert fast.gradients.keys() == exact.gradients.keys()
    assert all(bool(value.isfinite().all()) for value in fast.gradients.values())
    assert float(torch.cosine_similarity(_joined(fast), _joined(exact), dim=0)) > 0.99


def residual() -> keras.Model:
    def block(x: Any) -> Any:
        y = normed(layers.ReLU()(normed(layers.ZeroPadding2D(1)(x), padding="valid")))
        return layers.ReLU()(layers.Add()([x, y]))

    return built(
        lambda x: layers.Dense(3)(
            layers.GlobalAveragePooling2D()(
                block(inner()(layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(layers.ReLU()(conv()(x))))))
            )
        ),
        (12, 12, 8),
    )


def test_both_parts_of_a_divided_graph_make_the_whole() -> None:
    model = residual()
    inputs, graph = batch(model), graph_of(model)
    expected = step(model, by_keras(model), inputs, training=True)
    divisions = 0
    for count in range(len(graph.calls) + 1):
        begin, rest = graph.divided(count)
        if len(begin.outputs) > 1:
            continue
        divisions += 1
        front, back, frozen = Program(begin), Program(rest), Program(begin, frozen=True)

        def whole(x: Tensor, training: bool, front: Program = front, back: Program = back) -> Tensor:
            return back(front(x, training=training), training=training)

        assert_same_steps(step(model, whole, inputs, training=True), expected, 1e-4)
        with torch.no_grad():
            assert_near(back(frozen(*inputs)), model(*inputs, training=False), 1e-5)
    assert divisions == 10  # 5 before the first shortcut begins, 1 between the two, 4 after the second
