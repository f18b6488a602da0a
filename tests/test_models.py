"""The classifier around a trunk, trunks that break the contract, and model files of all kinds."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

from braintumor_kit.contracts import Backbone, InputError, NoOptions, PluginError, Trunk
from braintumor_kit.model.build import build_classifier
from braintumor_kit.model.load import load_model


def backbone_of(make: Callable[[keras.KerasTensor], keras.KerasTensor], **changes: object) -> Backbone:
    """A backbone whose trunk is what `make` does to its input."""

    class Made(Backbone[NoOptions]):
        api_version = 1
        Options = NoOptions

        def build(self, image_size: int, channels: int) -> Trunk:
            inputs = keras.Input((image_size, image_size, channels))
            model = keras.Model(inputs, make(inputs))
            last = model.layers[-1].name
            return Trunk(**{"model": model, "scale": (0.5,), "offset": (-1.0,), "explain_layer": last, **changes})

    return Made(NoOptions())


def test_the_classifier_is_scaling_trunk_pool_and_softmax() -> None:
    keras.utils.set_random_seed(0)
    built = build_classifier(backbone_of(lambda x: layers.Conv2D(5, 1, name="conv")(x)), 3, 8)
    kernel, bias, dense, shift = built.model.get_weights()
    pictures = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype(np.float32)
    pooled = ((pictures * 0.5 - 1) @ kernel[0, 0] + bias).mean(axis=(1, 2))
    scores = pooled @ dense + shift
    expected = np.exp(scores - scores.max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(built.model.predict(pictures, verbose=0), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(built.logits.predict(pictures, verbose=0), scores, rtol=1e-4, atol=1e-3)
    assert [layer.name for layer in built.model.layers] == [
        "pictures", "pixel_scaling", "conv", "pool", "logits", "probabilities"]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (
            lambda x: layers.Conv2D(2, 1)(x),
            {"explain_layer": "nothing"},
            "names layer 'nothing'",
        ),
        (lambda x: layers.GlobalAveragePooling2D()(x), {}, "output is (None, 3), not (N, h, w, features)"),
        (lambda x: layers.Lambda(lambda y: y)(x), {}, "(Lambda) is no ordinary Keras layer"),
        (lambda x: layers.Conv2D(2, 1, name="pool")(x), {}, "layer 'pool' needs another name"),
        (lambda x: layers.Conv2D(2, 1, dtype="mixed_bfloat16")(x), {}, "has dtype policy mixed_bfloat16"),
        (lambda x: layers.Activation(lambda y: y)(x), {}, "has an activation that is not one of Keras' own"),
        (lambda x: layers.Conv2D(2, 1, name="c")(x), {"stages": {"head": "c"}}, "stage 'head' needs another name"),
    ],
)
def test_trunks_that_break_the_contract(make: Callable, changes: dict, message: str) -> None:
    with pytest.raises(PluginError) as caught:
        build_classifier(backbone_of(make, **changes), 2, 8)
    assert message in str(caught.value)


def saved(folder: Path, model: keras.Model) -> Path:
    model.save(folder / "model.keras")
    return folder / "model.keras"


def test_sequential_and_nested_classifiers_predict(tmp_path: Path, btkit: Callable) -> None:
    body = keras.Sequential([keras.Input((32, 32, 3)), layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()])
    model = keras.Sequential([keras.Input((32, 32, 3)), body, layers.Dense(3, activation="softmax")])
    picture = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    ended = btkit("predict", saved(tmp_path, model), tmp_path / "a.png", "--csv")
    assert ended.status == 0
    expected = model.predict(picture[None].astype(np.float32), verbose=0)[0]
    found = [float(cell) for cell in ended.out.splitlines()[1].split(",")[2:]]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: keras.Sequential([keras.Input((8, 8, 3)), layers.Flatten(), layers.Dense(2)]),
            "no probabilities",
        ),
        (lambda: keras.Sequential([keras.Input((8, 8, 2)), layers.Flatten(), layers.Softmax()]), "1 or 3 channels"),
        (lambda: keras.Sequential([keras.Input((8, 9, 3)), layers.Flatten(), layers.Softmax()]), "not square pictures"),
        (lambda: keras.Sequential([keras.Input((3, 8, 8)), layers.Flatten(), layers.Softmax()]), "not square pictures"),
        (lambda: keras.Sequential([keras.Input((8,)), layers.Softmax()]), "not square pictures"),
        (lambda: keras.Sequential([keras.Input((8, 8, 3)), layers.Softmax()]), "not (N, classes)"),
    ],
)
def test_models_that_are_no_picture_classifier(make: Callable[[], keras.Model], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_model(saved(tmp_path, make()))
    assert message in str(caught.value)


def test_a_model_that_would_run_code_is_refused(tmp_path: Path) -> None:
    inputs = keras.Input((8, 8, 3))
    path = saved(tmp_path, keras.Model(inputs, layers.Lambda(lambda x: x)(inputs)))
    with pytest.raises(InputError, match=r"holds 'Lambda' of keras\.layers"):
        load_model(path)
