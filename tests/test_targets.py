"""What is explained, what is said of a map, and `braintumor_kit.explain`, which puts both together."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers
from numpy.typing import NDArray
from torch import Tensor

from braintumor_kit import Explanation, explain
from braintumor_kit.contracts import Explainer, InputError, Maps, NoOptions, PluginError
from braintumor_kit.explanation.engine import FLAGS, Explained, Method, explain_batch, unique_names
from braintumor_kit.explanation.open import network_of
from braintumor_kit.explanation.targets import Targets, parse_target
from braintumor_kit.registry import PluginInfo
from braintumor_kit.testing.models import noise, random_model

pytestmark = pytest.mark.usefixtures("one_thread")

CLASSES = ("glioma", "meningioma", "no_tumor")
SIDE = 16


def refusal(call: Callable[[], Any], kind: type[Exception] = InputError) -> str:
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


# Targets

PREDICTED, LABELS = np.array([2, 0]), np.array([1, 1])


def chosen(text: str, classes: tuple[str, ...] = CLASSES) -> list[Targets]:
    return [choose(PREDICTED, LABELS) for choose in parse_target(text, classes)]


@pytest.mark.parametrize(
    ("text", "names", "weights", "speaks_for", "alone"),
    [
        ("predicted", ("no_tumor", "glioma"), [[0, 0, 1], [1, 0, 0]], [2, 0], True),
        ("label", ("meningioma", "meningioma"), [[0, 1, 0], [0, 1, 0]], [1, 1], True),
        ("glioma", ("glioma", "glioma"), [[1, 0, 0], [1, 0, 0]], [0, 0], True),
        ("no_tumor-vs-glioma", ("no_tumor-vs-glioma",) * 2, [[-1, 0, 1], [-1, 0, 1]], [2, 2], False),
    ],
)
def test_targets_by_hand(text: str, names: Any, weights: Any, speaks_for: Any, alone: bool) -> None:
    (targets,) = chosen(text)
    assert targets.names == names
    assert targets.weights.dtype == np.float32
    assert targets.weights.tolist() == weights
    assert targets.classes.tolist() == speaks_for
    assert targets.alone == alone


def test_all_is_each_class_in_turn() -> None:
    every = chosen("all")
    assert [targets.names for targets in every] == [(name,) * 2 for name in CLASSES]
    assert [targets.weights.tolist() for targets in every] == [[row] * 2 for row in np.eye(3).tolist()]


def test_a_class_whose_name_holds_the_word_between_two_is_that_class() -> None:
    (targets,) = chosen("a-vs-b", ("a", "a-vs-b", "b"))
    assert targets.alone
    assert targets.classes.tolist() == [1, 1]


def test_targets_that_are_refused() -> None:
    known = "Targets: glioma, meningioma, no_tumor, predicted, label, all, or two classes as 'glioma-vs-meningioma'."
    assert refusal(lambda: chosen("gliom")) == (
        f"the model has no class 'gliom' to explain; did you mean 'glioma'? {known}"
    )
    assert refusal(lambda: chosen("zz")) == f"the model has no class 'zz' to explain; {known}"
    assert refusal(lambda: chosen("glioma-vs-zz")) == f"the model has no class 'zz' to explain; {known}"
    itself = "target 'glioma-vs-glioma': a class cannot be explained against itself."
    assert refusal(lambda: chosen("glioma-vs-glioma")) == itself
    (choose,) = parse_target("label", CLASSES)
    unknown = "target 'label' needs slices whose true class is known; take 'predicted' or name a class."
    assert refusal(lambda: choose(PREDICTED, None)) == unknown


# One batch, and its flags


class Giving(Explainer[NoOptions]):
    """Gives what it is told to."""

    api_version = 1
    Options = NoOptions
    given: Any = None
    looks = False

    def maps(self, model: Any, images: Tensor, targets: Tensor) -> Any:
        if self.looks:
            model.activations(images)
        if isinstance(self.given, Exception):
            raise self.given
        return self.given


def classifier(first: str = "relu", side: int = SIDE) -> keras.Model:
    keras.utils.set_random_seed(2)
    inputs = keras.Input((side, side, 3))
    x = layers.Conv2D(6, 3, strides=2, padding="same", activation=first)(layers.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling2D()(x)))


MODEL = classifier()
IMAGES = 255 * torch.rand(2, SIDE, SIDE, 3, generator=torch.Generator().manual_seed(0))
EVEN = np.full((2, 3), 1 / 3)
GOOD = torch.ones(2, SIDE, SIDE)


def explained(
    given: Any = GOOD, *, target: str = "glioma", probabilities: Any = None, looks: bool = False, model: Any = MODEL
) -> Explained:
    explainer = Giving(NoOptions())
    explainer.given, explainer.looks = given, looks
    p = np.array([[0.8, 0.1, 0.1], [0.7, 0.2, 0.1]]) if probabilities is None else np.array(probabilities)
    (choose,) = parse_target(target, CLASSES)
    method = Method("giving", explainer, PluginInfo("explainer", "giving", "file", "giving.py"))
    return explain_batch(network_of(model), method, IMAGES, choose(p.argmax(axis=1), None), p)


def one_different(value: float) -> Tensor:
    """The second map is that value throughout."""
    return torch.stack([GOOD[0], torch.full((SIDE, SIDE), value)])


def test_a_map_like_any_other_has_no_flags() -> None:
    done = explained()
    assert done.flags == ((), ())
    assert done.maps.dtype == np.float32
    assert done.maps.tolist() == GOOD.tolist()
    assert (done.method, done.layer, done.completeness) == ("giving", None, None)


def test_an_empty_map_is_flagged() -> None:
    assert explained(one_different(0.0)).flags == ((), ("empty",))
    assert explained(one_different(-1.0)).flags == ((), ())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_no_numbers_count_as_zero_and_are_flagged(value: float) -> None:
    some = GOOD.clone()
    some[1, 3, 4] = value
    done = explained(some)
    assert done.flags == ((), ("not_finite",))
    assert done.maps[1, 3, 4] == 0
    assert done.maps.sum() == 2 * SIDE**2 - 1
    assert explained(one_different(value)).flags == ((), ("empty", "not_finite"))
    small = torch.ones(2, 4, 4)
    small[0, 1, 1] = value
    assert np.isfinite(explained(small).maps).all()


def test_a_saturated_probability_is_flagged_for_a_class_alone() -> None:
    p = [[0.99991, 0.00009, 0], [0.9999, 0.0001, 0]]
    assert explained(probabilities=p).flags == (("saturated",), ())
    assert explained(probabilities=p, target="glioma-vs-meningioma").flags == ((), ())
    other = explained(probabilities=p, target="meningioma")  # of the class that is explained, not of the winner
    assert other.flags == (("target_differs",), ("target_differs",))


def test_another_class_than_the_predicted_one_is_flagged() -> None:
    p = [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]]
    assert explained(probabilities=p).flags == ((), ("target_differs",))
    assert explained(probabilities=p, target="predicted").flags == ((), ())
    assert explained(probabilities=p, target="meningioma-vs-glioma").flags == (("target_differs",), ())


def test_sums_that_are_off_are_flagged() -> None:
    done = explained(Maps(GOOD, torch.tensor([0.0099, 0.0101])))
    assert done.flags == ((), ("incomplete",))
    assert done.completeness == pytest.approx([0.0099, 0.0101])


def test_a_layer_before_its_relu_is_flagged_where_it_was_looked_at() -> None:
    before = classifier(first="linear")
    assert explained(model=before, looks=True).flags == (("before_relu",), ("before_relu",))
    assert explained(model=before).flags == ((), ())
    done = explained(looks=True)
    assert done.flags == ((), ())
    assert done.layer == MODEL.layers[2].name


def test_every_flag_can_be_set_and_flags_keep_their_order() -> None:
    constant = classifier(first="linear")
    constant.layers[-1].set_weights([0 * weight for weight in constant.layers[-1].get_weights()])
    everything = explained(
        Maps(torch.full((2, SIDE, SIDE), float("nan")), torch.ones(2)),
        looks=True,
        model=constant,
        probabilities=[[0.99995, 1.0, 0.0]] * 2,
    )
    assert everything.flags == (tuple(FLAGS),) * 2


def test_small_maps_are_enlarged() -> None:
    done = explained(torch.tensor([[[1.0, 3.0]], [[0.0, 0.0]]]))  # not the layer's 8 by 8 cells: stretched
    assert done.maps.shape == (2, SIDE, SIDE)
    np.testing.assert_allclose(done.maps[0, :, [0, 7, 8, 15]].T, [[1, 1.875, 2.125, 3]] * SIDE)
    assert done.flags == ((), ("empty",))


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (torch.ones(2, SIDE, SIDE, 3), "(2, 16, 16, 3)"),
        (torch.ones(1, SIDE, SIDE), "(1, 16, 16)"),
        (torch.ones(2, 0, SIDE), "(2, 0, 16)"),
        (np.ones((2, SIDE, SIDE)), "ndarray"),
        (Maps(None, None), "NoneType"),  # type: ignore[arg-type]
        (None, "NoneType"),
    ],
)
def test_maps_of_another_shape_are_the_explainers_fault(given: Any, found: str) -> None:
    message = f"explainer 'giving' (giving.py) gave {found} for 2 images; its contract asks for a tensor (N, h, w)."
    assert refusal(lambda: explained(given), PluginError) == message


@pytest.mark.parametrize(
    ("shares", "found"), [(torch.ones(1), "(1,)"), (torch.ones(2, 1), "(2, 1)"), ([0.0, 0.0], "list")]
)
def test_completeness_of_another_shape_is_the_explainers_fault(shares: Any, found: str) -> None:
    message = (
        f"explainer 'giving' (giving.py) gave completeness {found} for 2 images; its contract asks for a tensor (N,)."
    )
    assert refusal(lambda: explained(Maps(GOOD, shares)), PluginError) == message


def test_what_an_explainer_raises_is_told_as_its_fault() -> None:
    message = "explainer 'giving' (giving.py) failed while explaining: ZeroDivisionError: of all things"
    assert refusal(lambda: explained(ZeroDivisionError("of all things")), PluginError) == message
    assert refusal(lambda: explained(InputError("as it is"))) == "as it is"
    with pytest.raises(MemoryError):
        explained(MemoryError())


def test_methods_of_one_name_are_told_apart() -> None:
    assert unique_names(["rise", "occlusion", "rise", "rise"]) == ["rise", "occlusion", "rise-2", "rise-3"]


# `from braintumor_kit import explain`


def pictures(count: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def done(
    images: NDArray[Any] | None = None, method: str = "gradcam", model: Any = MODEL, **options: Any
) -> Explanation:
    images = pictures() if images is None else images
    return explain(model, images, method, **{"classes": CLASSES, "precision": "float32", **options})


def test_an_explanation_says_what_was_explained() -> None:
    ours = done()
    p = MODEL.predict(pictures().astype("float32"), verbose=0)
    assert len(ours) == 3
    assert (ours.maps.shape, ours.maps.dtype) == ((3, SIDE, SIDE), np.float32)
    assert ours.image.tolist() == [0, 1, 2]
    assert ours.targets == ours.predicted == tuple(CLASSES[number] for number in p.argmax(axis=1))
    np.testing.assert_allclose(ours.probabilities, p, atol=1e-6)
    assert (ours.layer, ours.method, ours.signed) == (MODEL.layers[2].name, "gradcam", False)
    assert ours.completeness is None
    assert np.array_equal(ours.pictures, pictures())


@pytest.mark.parametrize("method", ["gradcam", "integrated_gradients"])
def test_for_all_classes_the_maps_of_one_picture_are_adjacent(method: str) -> None:
    images = pictures(35)  # more than one batch
    ours = done(images, method, target="all")
    assert ours.image.tolist() == [number for number in range(35) for _ in CLASSES]
    assert ours.targets == CLASSES * 35
    assert np.array_equal(ours.pictures, images[ours.image])
    assert all(len(column) == 105 for column in (ours.predicted, ours.flags, ours.probabilities))
    for place, name in enumerate(CLASSES):
        alone = done(images, method, target=name)
        np.testing.assert_allclose(ours.maps[place::3], alone.maps, atol=1e-6)
        assert ours.flags[place::3] == alone.flags
        assert ours.predicted[place::3] == alone.predicted
        if method == "integrated_gradients":
            np.testing.assert_allclose(ours.completeness[place::3], alone.completeness, atol=1e-3)


def test_labels_are_explained_where_they_are_given() -> None:
    ours = done(target="label", labels=[2, 0, 1])
    assert ours.targets == ("no_tumor", "glioma", "meningioma")
    one = done(pictures()[1:2], target="glioma")
    np.testing.assert_allclose(ours.maps[1], one.maps[0], atol=1e-6 * one.maps.max() + 1e-12)
    many = done(pictures(40), target="label", labels=np.arange(40) % 3)  # cut into batches with their pictures
    assert many.targets == tuple(CLASSES[number % 3] for number in range(40))


def test_options_are_those_of_the_method() -> None:
    few, many = (done(method="integrated_gradients", steps=steps).completeness for steps in (2, 200))
    assert few.max() > many.max()
    steps = "integrated_gradients.steps: should be greater than or equal to 2, not 1."
    assert refusal(lambda: done(method="integrated_gradients", steps=1)) == steps
    stepz = "integrated_gradients.stepz: unknown key; did you mean 'steps'?"
    assert refusal(lambda: done(method="integrated_gradients", stepz=3)) == stepz
    assert refusal(lambda: done(method="gradcamm"), PluginError).startswith(
        "there is no explainer plugin named 'gradcamm'; did you mean 'gradcam'? Known: eigencam, gradcam, "
    )


def test_numbers_of_any_kind_and_grey_pictures_give_the_same() -> None:
    ours = done()
    for kind in ("float32", "float64", "int64"):
        same = done(pictures().astype(kind))
        assert np.array_equal(same.maps, ours.maps)
        assert np.array_equal(same.pictures, ours.pictures)
    grey = pictures()[..., 0]
    threefold = done(np.repeat(grey[..., None], 3, axis=3))
    for images in (grey, grey[..., None]):
        assert np.array_equal(done(images).maps, threefold.maps)


def test_a_model_from_a_file_is_explained_as_the_model_itself(tmp_path: Path) -> None:
    model, images = classifier(side=32), np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3))
    model.save(tmp_path / "model.keras")
    for path in (tmp_path / "model.keras", str(tmp_path / "model.keras")):
        assert np.array_equal(done(images, model=path).maps, done(images, model=model).maps)


def test_classes_that_nobody_names_have_numbers() -> None:
    ours = explain(MODEL, pictures(), target="class_1", precision="float32")
    assert ours.targets == ("class_1",) * 3


def test_an_overlay_is_a_picture_with_words() -> None:
    ours = done(target="glioma-vs-meningioma", method="integrated_gradients", steps=3)
    heat, lines = ours.overlay(1), ours.overlay(1, style="contours")
    masked = ours.overlay(1, mask=np.eye(SIDE, dtype=bool))
    assert heat.mode == "RGB"
    assert heat.size == lines.size == masked.size
    assert len({image.tobytes() for image in (heat, lines, masked, ours.overlay(0))}) == 4


def test_pictures_of_a_wrong_size_are_refused() -> None:
    taken = "the model takes pictures (N, 16, 16, 3); these are"
    assert refusal(lambda: done(pictures()[:, :8])) == f"{taken} (3, 8, 16, 3)."
    assert refusal(lambda: done(pictures()[:0])) == f"{taken} (0, 16, 16, 3)."
    assert refusal(lambda: done(pictures().transpose(0, 3, 1, 2))) == f"{taken} (3, 3, 16, 16)."
    two = "the model takes 3 channels; these pictures have 2."
    assert refusal(lambda: done(pictures()[..., :2])) == two
    flat = "the model takes pictures (N, H, W) or (N, H, W, C); these are (16, 16)."
    assert refusal(lambda: done(pictures()[0, ..., 0])) == flat


@pytest.mark.parametrize("side", [SIDE, None])
def test_models_that_take_channels_first_are_given_either(side: int | None) -> None:
    inputs = keras.Input((3, side, side))
    x = layers.Conv2D(6, 3, strides=2, padding="same", activation="relu", data_format="channels_first")(inputs / 255.0)
    x = layers.GlobalAveragePooling2D(data_format="channels_first")(x)
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(x))
    model.set_weights(MODEL.get_weights())
    ours = done()
    for images in (pictures(), pictures().transpose(0, 3, 1, 2)):
        first = done(images, model=model)
        np.testing.assert_allclose(first.maps, ours.maps, atol=1e-5 * ours.maps.max())
        assert np.array_equal(first.pictures, pictures())


def test_labels_that_do_not_fit_are_refused() -> None:
    one_each = "labels must be 3 class numbers, one a picture; these are"
    assert refusal(lambda: done(target="label", labels=[0])) == f"{one_each} int64 (1,)."
    assert refusal(lambda: done(target="label", labels=[0.5, 1, 2])) == f"{one_each} float64 (3,)."
    outside = "labels must be in 0..2; these are in -1..3."
    assert refusal(lambda: done(target="label", labels=[-1, 0, 3])) == outside
    assert refusal(lambda: done(target="label")).startswith("target 'label' needs slices whose true class is known")


def test_words_that_do_not_fit_are_refused() -> None:
    precision = "precision 'float64' is unknown: expected auto, float32 or bfloat16."
    assert refusal(lambda: done(precision="float64")) == precision
    assert refusal(lambda: done(align="left")) == "align 'left' is unknown: expected receptive_field or grid."
    names = "the model has 3 classes; 2 names were given."
    assert refusal(lambda: done(classes=("a", "b"))) == names


def test_alignment_moves_maps_by_what_the_receptive_field_says() -> None:
    ours, grid = done(), done(align="grid")
    assert not np.allclose(ours.maps, grid.maps, atol=0.01 * grid.maps.max())
    # Of 16 pixels "same" pads the 3 by 3 convolution after them alone: cell i sees 2 i .. 2 i + 2, centred at 2 i + 1,
    # half a pixel after where stretching puts it.
    np.testing.assert_allclose(ours.maps[:, 1::2, 1::2], grid_cells(ours), atol=1e-6 * ours.maps.max())


def grid_cells(ours: Explanation) -> NDArray[np.float32]:
    """The layer's own cells, worked out by Keras: ReLU of the class activation map, over the number of cells."""
    inside = keras.Model(MODEL.inputs, MODEL.layers[2].output)
    a = inside.predict(ours.pictures.astype("float32"), verbose=0)
    kernel = MODEL.layers[-1].get_weights()[0]
    numbers = [CLASSES.index(name) for name in ours.targets]
    maps = np.stack([cells @ kernel[:, number] / 64 for cells, number in zip(a, numbers, strict=True)])
    return np.clip(maps, 0, None)


@pytest.mark.parametrize("method", ["gradcam", "eigencam", "scorecam"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_model_that_says_the_same_of_every_picture_is_flagged(method: str, precision: str) -> None:
    for constant in (True, False):
        model = random_model(constant=constant)
        flags = explain(model, noise(2), method, precision=precision).flags
        assert [("constant" in of_map) for of_map in flags] == [constant] * 2
