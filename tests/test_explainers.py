"""Explainers of a layer and explainers that mask pixels, against other people's implementations, against their
equations written out, and by hand."""

from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import torch
from btkit_plugins.explainers import gradcampp
from btkit_plugins.explainers.eigencam import EigenCam
from btkit_plugins.explainers.gradcam import GradCam
from btkit_plugins.explainers.hirescam import HiResCam
from btkit_plugins.explainers.layercam import LayerCam
from btkit_plugins.explainers.occlusion import Occlusion
from btkit_plugins.explainers.rise import Rise
from btkit_plugins.explainers.scorecam import ScoreCam
from keras import layers
from torch import Tensor

from braintumor_kit.backend import import_torchvision
from braintumor_kit.contracts.explainers import Explainer, Maps
from braintumor_kit.explanation.open import network_of

pytestmark = pytest.mark.usefixtures("one_thread")

SIDE = 32


def made(plugin: type[Explainer[Any]], **options: Any) -> Explainer[Any]:
    return plugin(plugin.Options(**options))


def maps_of(plugin: type[Explainer[Any]], model: Any, images: Tensor, targets: Tensor, **options: Any) -> Tensor:
    given = made(plugin, **options).maps(model, images, targets)
    return given.values if isinstance(given, Maps) else given


def assert_near(ours: Any, theirs: Any, tolerance: float) -> None:
    """Within `tolerance` of the largest entry, which is not zero."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert np.abs(theirs).max() > 0
    assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


def pictures(count: int = 3, side: int = SIDE, channels: int = 3, seed: int = 0) -> Tensor:
    return 255 * torch.rand(count, side, side, channels, generator=torch.Generator().manual_seed(seed))


def one_hot(*numbers: int, classes: int = 4) -> Tensor:
    return torch.eye(classes)[list(numbers)]


# Methods on a layer, given (A, g)


def given(a: Tensor, g: Tensor | None = None) -> Any:
    """A model of which only the layer is known."""
    return SimpleNamespace(activations=lambda images: a, activations_and_gradients=lambda images, targets: (a, g, None))


def layer_values(scale: float = 1.0) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(7)
    a = torch.randn(3, 5, 6, 4, generator=draws).relu()
    return a, scale * torch.randn(a.shape, generator=draws)


def cam(plugin: type[Explainer[Any]], a: Tensor, g: Tensor | None = None) -> Tensor:
    return maps_of(plugin, given(a, g), torch.empty(0), torch.empty(0))


@pytest.mark.parametrize("scale", [1.0, 4e-4])
def test_gradcampp_weights_are_those_of_pytorch_grad_cam(scale: float) -> None:
    import_torchvision()
    from pytorch_grad_cam import GradCAMPlusPlus

    a, g = layer_values(scale)
    theirs = GradCAMPlusPlus.get_cam_weights(None, None, None, None, a.numpy(), g.numpy())
    np.testing.assert_allclose(gradcampp.weights(a, g, epsilon=1e-6).numpy(), theirs, rtol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 4e-4])
def test_gradcampp_weights_are_equation_19_written_out(scale: float) -> None:
    a, g = (values.double().numpy() for values in layer_values(scale))
    expected = np.zeros(a.shape[:2])
    for n, k in np.ndindex(*expected.shape):
        total = sum(a[n, k, i, j] for i, j in np.ndindex(*a.shape[2:]))
        for i, j in np.ndindex(*a.shape[2:]):
            d = g[n, k, i, j]
            expected[n, k] += d**2 / (2 * d**2 + total * d**3) * max(d, 0)
    ours = gradcampp.weights(*(torch.tensor(values, dtype=torch.float32) for values in (a, g)))
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-5)


def test_gradcampp_of_four_cells_by_hand() -> None:
    a, g = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.tensor([[[[1.0, -1.0], [0.5, 0.0]]]])
    weight = 1 / (2 + 10 * 1) * 1 + 1 / (2 + 10 * 0.5) * 0.5  # cells with g > 0; the sum of A is 10
    assert gradcampp.weights(a, g).item() == pytest.approx(weight)
    np.testing.assert_allclose(cam(gradcampp.GradCamPlusPlus, a, g)[0], weight * a[0, 0], rtol=1e-6)


def test_gradcampp_stands_gradients_whose_square_is_lost() -> None:
    a = torch.ones(1, 1, 2, 2)
    g = torch.tensor([[[[1e-30, 0.0], [0.0, 0.0]]]])
    assert gradcampp.weights(a, g).item() == pytest.approx(0.5e-30, rel=1e-5)


def test_gradcam_hirescam_and_layercam_of_two_channels_by_hand() -> None:
    a = torch.tensor([[[[1.0, 2.0]], [[3.0, 1.0]]]])  # one row of two cells
    g = torch.tensor([[[[2.0, 0.0]], [[-1.0, 0.5]]]])
    # mean g: 1 and -1/4; sums over channels cell by cell
    assert cam(GradCam, a, g).tolist() == [[[1 - 0.75, 2 - 0.25]]]
    assert cam(HiResCam, a, g).tolist() == [[[0.0, 0.5]]]  # 2 - 3 < 0; 0 + 0.5
    assert cam(LayerCam, a, g).tolist() == [[[2.0, 0.5]]]  # the negative gradient does not count


def test_hirescam_and_layercam_against_numpy() -> None:
    a, g = layer_values()
    both = a.numpy() * g.numpy()
    assert_near(cam(HiResCam, a, g), np.clip(both.sum(axis=1), 0, None), 1e-6)
    assert_near(cam(LayerCam, a, g), np.where(g.numpy() > 0, both, 0).sum(axis=1), 1e-6)


def test_eigencam_is_the_first_principal_component_without_its_sign() -> None:
    """Of the activations as they are: neither centred nor signed, which pytorch-grad-cam's is."""
    a, _ = layer_values()
    for ours, values in zip(cam(EigenCam, a), a.double().numpy(), strict=True):
        u, s, _ = np.linalg.svd(values.reshape(5, 24).T)
        np.testing.assert_allclose(ours.numpy().ravel(), np.abs(u[:, 0] * s[0]), rtol=1e-5, atol=1e-6)


def test_eigencam_of_centred_channels_is_that_of_pytorch_grad_cam_but_for_the_sign() -> None:
    import_torchvision()
    from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection

    a, _ = layer_values()
    a = a - a.mean(dim=(2, 3), keepdim=True)
    assert_near(cam(EigenCam, a), np.abs(get_2d_projection(a.numpy())), 1e-5)


def test_eigencam_of_nothing_is_nothing() -> None:
    assert not cam(EigenCam, torch.zeros(2, 3, 4, 4)).any()


# The oracle: a pooled linear head


def pooled() -> keras.Model:
    keras.utils.set_random_seed(2)
    inputs = keras.Input((SIDE, SIDE, 3))
    x = layers.Conv2D(6, 3, strides=2, padding="same", activation="relu")(layers.Rescaling(1 / 255)(inputs))
    x = layers.Conv2D(9, 3, strides=2, padding="same", activation="relu", name="last")(x)
    return keras.Model(inputs, layers.Dense(4, name="scores")(layers.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize("plugin", [GradCam, HiResCam])
def test_behind_a_pooled_head_the_map_is_the_class_activation_map(plugin: type[Explainer[Any]]) -> None:
    model, x = pooled(), pictures()
    a = keras.Model(model.inputs, model.get_layer("last").output).predict(x.numpy(), verbose=0).astype("float64")
    kernel = model.get_layer("scores").get_weights()[0].astype("float64")
    for number in range(4):
        expected = np.clip(a @ kernel[:, number] / (8 * 8), 0, None)
        ours = maps_of(plugin, network_of(model), x, one_hot(number, number, number))
        np.testing.assert_allclose(ours.numpy(), expected, atol=1e-6 * expected.max())


# Score-CAM, occlusion, RISE: few pixels


def linear(weights: Any, bias: float = 0.0, batch_size: int = 32) -> Any:
    """A view of a model of two classes, whose second score is a weighted sum of pixels (H, W)."""
    w = torch.tensor(weights)

    def logits(images: Tensor) -> Tensor:
        score = (images.sum(dim=3) * w).sum(dim=(1, 2)) + bias
        return torch.stack([torch.zeros_like(score), score], dim=1)

    return SimpleNamespace(logits=logits, batch_size=batch_size, enlarge=lambda maps, size: maps)


@pytest.mark.parametrize("batch_size", [1, 32])
def test_scorecam_of_two_channels_by_hand(batch_size: int) -> None:
    a = torch.tensor([[[[0.0, 2.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 4.0]], [[3.0, 3.0], [3.0, 3.0]]]])
    image = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, ..., None]
    model = linear([[0.0, 1.0], [0.0, 0.25]], bias=5.0, batch_size=batch_size)
    model.activations = lambda images: a
    # Masked by the first the image scores 2 more than black, by the second 1; the third, constant, masks nothing.
    first, second = np.exp([2, 1]) / np.exp([2, 1]).sum()
    ours = maps_of(ScoreCam, model, image, one_hot(1, classes=2))
    np.testing.assert_allclose(ours[0], [[0, 2 * first], [0, 4 * second]], rtol=1e-6)
    only = maps_of(ScoreCam, model, image, one_hot(1, classes=2), channels=1)  # the second varies most
    assert only.tolist() == a[:, 1].tolist()


def test_scorecam_of_constant_channels_is_empty() -> None:
    model = linear(np.ones((2, 2), "float32"))
    model.activations = lambda images: torch.ones(1, 3, 2, 2)
    assert not maps_of(ScoreCam, model, torch.ones(1, 2, 2, 1), one_hot(1, classes=2)).any()


def test_occlusion_of_four_pixels_by_hand() -> None:
    image = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, ..., None]
    model = linear([[1.0, -1.0], [2.0, 0.5]])
    ours = maps_of(Occlusion, model, image, one_hot(1, classes=2), patch=0.5, stride=1.0)
    assert ours.tolist() == [[[1.0, -2.0], [6.0, 2.0]]]  # weight times pixel: what black takes away
    filled = maps_of(Occlusion, model, image, one_hot(1, classes=2), patch=0.5, stride=1.0, fill="mean")
    assert filled.tolist() == [[[1 - 2.5, -2 + 2.5], [6 - 5, 2 - 1.25]]]
    against = maps_of(Occlusion, model, image, torch.tensor([[1.0, -1.0]]), patch=0.5, stride=1.0)
    assert against.tolist() == (-ours).tolist()


def test_occlusion_averages_over_the_patches_that_cover_a_pixel() -> None:
    random = np.random.default_rng(3)
    w, image = random.normal(size=(5, 5)).astype("float32"), random.uniform(0, 255, (5, 5)).astype("float32")
    ours = maps_of(Occlusion, linear(w), torch.tensor(image)[None, ..., None], one_hot(1, classes=2), patch=0.4)
    lost = {place: (w * image)[place[0] : place[0] + 2, place[1] : place[1] + 2].sum() for place in np.ndindex(4, 4)}
    for i, j in np.ndindex(5, 5):
        covering = [value for (top, left), value in lost.items() if top <= i <= top + 1 and left <= j <= left + 1]
        assert float(ours[0, i, j]) == pytest.approx(np.mean(covering), rel=1e-4, abs=1e-2)


def test_rise_of_one_decisive_pixel_is_what_its_expectation_says() -> None:
    """Masks of single pixels: p is 1 where the pixel is shown, so the map is 1 there, and P(shown) elsewhere."""
    w = np.zeros((8, 8), "float32")
    w[2, 5] = 1.0
    model, image = linear(100 * w, bias=-50.0), torch.ones(1, 8, 8, 1)
    shown, masks = 0.3, 4000
    ours = maps_of(Rise, model, image, one_hot(1, classes=2), masks=masks, cells=8, shown=shown)[0].numpy()
    error = np.sqrt(shown * (1 - shown) / masks) / shown  # standard, of the share of masks that show a pixel
    assert ours[2, 5] == pytest.approx(1, abs=4 * error)
    assert np.abs(np.delete(ours.ravel(), 2 * 8 + 5) - shown).max() < 4 * error
    assert ours.argmax() == 2 * 8 + 5


def test_rise_of_a_model_that_looks_at_nothing_is_its_probability_everywhere() -> None:
    model = linear(np.zeros((9, 9), "float32"), bias=np.log(3))
    ours = maps_of(Rise, model, torch.ones(2, 9, 9, 1), one_hot(1, 1, classes=2), masks=3000, cells=4)
    np.testing.assert_allclose(ours, 0.75, atol=0.75 * 0.1)
    again = maps_of(Rise, model, torch.ones(1, 9, 9, 1), one_hot(1, classes=2), masks=3000, cells=4)
    assert torch.equal(again[0], ours[1])  # the same masks, whatever else is in the batch
