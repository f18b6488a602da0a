"""Layers and models that explainers cannot look into are refused, and the message names what there is instead."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from network_forms import CLASSES, SIDE, TARGETS, flat, head, network_of, picture_input, pictures, subclassed

from braintumor_kit import explain
from braintumor_kit.contracts import InputError

pytestmark = pytest.mark.usefixtures("one_thread")


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
