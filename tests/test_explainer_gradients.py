"""Explainers that take gradients through a whole network, against other people's implementations, against numpy, and
by hand."""

from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import torch
from btkit_plugins.explainers.gradcam import GradCam
from btkit_plugins.explainers.guided_gradcam import GuidedGradCam
from btkit_plugins.explainers.integrated_gradients import IntegratedGradients, quadrature
from btkit_plugins.explainers.smoothgrad import SmoothGrad
from keras import layers
from numpy.typing import NDArray
from test_explainers import SIDE, assert_near, made, maps_of, one_hot, pictures, pooled
from torch import Tensor, nn

from braintumor_kit import explain
from braintumor_kit.backend import import_torchvision
from braintumor_kit.contracts import InputError
from braintumor_kit.contracts.baselines import baseline_of
from braintumor_kit.explanation.network import Network
from braintumor_kit.explanation.open import network_of

pytestmark = pytest.mark.usefixtures("one_thread")


# Peers, on one torch network


class TorchNet(nn.Module):
    """Convolutions with a normalisation and in-place ReLUs, a pooled head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True),
            nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.ReLU(inplace=True),
        )  # fmt: skip
        self.head = nn.Linear(12, 4)
        nn.init.uniform_(self.features[1].running_var, 0.5, 1.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x / 255).mean(dim=(2, 3)))


@pytest.fixture(scope="module")
def torch_net() -> TorchNet:
    return TorchNet().eval()


@pytest.fixture(scope="module")
def wrapped(torch_net: TorchNet) -> keras.Model:
    wrapper = layers.TorchModuleWrapper(torch_net, output_shape=(None, 4))
    return keras.Sequential([keras.Input((3, SIDE, SIDE)), wrapper])


def test_gradcam_is_that_of_pytorch_grad_cam_end_to_end(torch_net: TorchNet, wrapped: keras.Model) -> None:
    import_torchvision()
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    x = pictures().permute(0, 3, 1, 2).contiguous()
    with GradCAM(model=torch_net, target_layers=[torch_net.features]) as cam:
        theirs = cam(input_tensor=x, targets=[ClassifierOutputTarget(2)] * len(x))
    ours = explain(wrapped, x.numpy(), target="class_2", layer="features", align="grid", precision="float32").maps
    least = ours.min(axis=(1, 2), keepdims=True)  # they bring each map to 0..1
    assert_near((ours - least) / (ours - least).max(axis=(1, 2), keepdims=True), theirs, 1e-4)


def test_integrated_gradients_are_those_of_captum(torch_net: TorchNet, wrapped: keras.Model) -> None:
    from captum.attr import IntegratedGradients as Theirs

    x = pictures().permute(0, 3, 1, 2).contiguous()
    by_captum = Theirs(torch_net).attribute(x, 0.0, target=1, n_steps=20, method="gausslegendre").sum(dim=1)
    ours = explain(wrapped, x.numpy(), "integrated_gradients", target="class_1", steps=20, precision="float32")
    assert_near(ours.maps, by_captum.detach(), 1e-4)


@pytest.mark.parametrize("baseline", ["black", "mean", "blurred"])
def test_integrated_gradients_of_a_keras_graph_are_those_of_captum(trained: keras.Model, baseline: Any) -> None:
    from captum.attr import IntegratedGradients as Theirs

    x = pictures()
    logits = keras.Model(trained.inputs, trained.get_layer("logits").output)
    begin = baseline_of(x, baseline).contiguous()
    by_captum = Theirs(lambda x: logits(x)).attribute(x, begin, target=1, n_steps=20, method="gausslegendre")
    ours = maps_of(
        IntegratedGradients, network_of(trained), x, one_hot(1, 1, 1, classes=2), steps=20, baseline=baseline
    )
    assert_near(ours, by_captum.detach().sum(dim=3), 1e-4)


# Gradients by pixel


def test_smoothgrad_without_noise_is_the_gradient(trained: keras.Model) -> None:
    x = pictures(2)
    leaf = x.clone().requires_grad_()
    logits = keras.Model(trained.inputs, trained.get_layer("logits").output)(leaf, training=False)
    (gradient,) = torch.autograd.grad(logits[0, 1] + logits[1, 0], leaf)
    ours = maps_of(SmoothGrad, network_of(trained), x, one_hot(1, 0, classes=2), noise=0.0, samples=3)
    assert_near(ours, gradient.sum(dim=3).abs(), 1e-5)


def test_smoothgrad_averages_what_gradients_are_around_the_image() -> None:
    """Of y = x^3 the gradient 3 x^2 averages to 3 (x^2 + s^2) under noise of deviation s."""
    image = torch.full((1, 4, 4, 1), 10.0)
    image[0, 0, 0] = 20.0  # a range of 10
    model = SimpleNamespace(gradients=lambda images, targets: (3 * images**2, None))
    ours = maps_of(SmoothGrad, model, image, one_hot(0), samples=4000, noise=0.2)[0]
    np.testing.assert_allclose(ours, 3 * (image[0, ..., 0] ** 2 + 2.0**2), rtol=0.04)


GUIDED = {
    "built in": lambda x, c: layers.Conv2D(2, 1, activation="relu", name=c)(x),
    "layer": lambda x, c: layers.ReLU()(layers.Conv2D(2, 1, name=c)(x)),
    "activation": lambda x, c: layers.Activation("relu")(layers.Conv2D(2, 1, name=c)(x)),
    "spread": lambda x, c: layers.Conv2D(2, 1, dilation_rate=2, activation="relu", name=c)(x),
}


@pytest.mark.parametrize("form", GUIDED)
def test_guided_gradients_by_hand(form: str) -> None:
    """h = ReLU(x, 10 - x), k = ReLU(2 h1 - h2, 3 h2 - h1), score 0 = mean of k1 - k2, each pixel by itself."""
    inputs = keras.Input((2, 2, 1))
    k = GUIDED[form](GUIDED[form](inputs, "h"), "k")
    model = keras.Model(inputs, layers.Dense(2, name="scores")(layers.GlobalAveragePooling2D()(k)))
    model.get_layer("h").set_weights([np.array([[[[1.0, -1.0]]]]), np.array([0.0, 10.0])])
    model.get_layer("k").set_weights([np.array([[[[2.0, -1.0], [-1.0, 3.0]]]]), np.zeros(2)])
    model.get_layer("scores").set_weights([np.array([[1.0, 0.0], [-1.0, 1.0]]), np.zeros(2)])
    x = torch.tensor([[4.0, 0.0], [20.0, 2.0]])[None, ..., None]
    network = network_of(model)
    # At 4: h = (4, 6), k = (2, 14). dy/dk = (1/4, -1/4), dy/dh = (3/4, -1), dy/dx = 3/4 + 1.
    plain, y = network.gradients(x, one_hot(0, classes=2))
    assert plain[0, 0, 0, 0] == pytest.approx(1.75)
    # Guided, -1/4 stops at k's ReLU and -1/4 at h's: 1/4 times 2. Elsewhere k1 is 0 but at 20.
    guided, same = network.gradients(x, one_hot(0, classes=2), guided=True)
    assert guided[0, ..., 0].tolist() == [[0.5, 0.0], [0.5, 0.0]]
    assert float(same) == float(y) == pytest.approx(((2 - 14) + (0 - 30) + (40 - 0) + (0 - 22)) / 4)


def test_guided_gradients_of_dense_layers_against_numpy() -> None:
    keras.utils.set_random_seed(6)
    dense = [layers.Dense(7, activation="relu"), layers.Dense(5, activation="relu"), layers.Dense(2)]
    model = keras.Sequential([keras.Input((4, 4, 1)), layers.Flatten(), *dense])
    x = pictures(3, side=4, channels=1) / 255
    (w0, b0), (w1, b1), (w2, _) = (layer.get_weights() for layer in dense)
    h = np.maximum(x.numpy().reshape(3, 16) @ w0 + b0, 0)
    k = np.maximum(h @ w1 + b1, 0)
    at_k = np.maximum(w2[:, 1], 0) * (k > 0)
    at_h = np.maximum(at_k @ w1.T, 0) * (h > 0)
    guided, _ = network_of(model).gradients(x, one_hot(1, 1, 1, classes=2), guided=True)
    assert_near(guided.reshape(3, 16), at_h @ w0.T, 1e-5)


@pytest.mark.parametrize(
    "bend", [layers.Activation("silu"), layers.ReLU(6.0), layers.ReLU(negative_slope=0.1), layers.LeakyReLU()]
)
def test_guided_gradients_are_refused_for_other_activations(bend: layers.Layer) -> None:
    inputs = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(bend(layers.Conv2D(4, 3)(inputs)))
    network = network_of(keras.Model(inputs, layers.Dense(4)(x)))
    with pytest.raises(InputError) as caught:
        maps_of(GuidedGradCam, network, pictures(1, side=8), one_hot(0))
    assert str(caught.value) == (
        f"guided gradients are defined for networks of ReLUs; layer '{bend.name}' is another activation or cannot be "
        "looked into. smoothgrad and integrated_gradients take any network."
    )


def test_guided_gradcam_is_the_product_of_its_two_parts() -> None:
    model, x, targets = pooled(), pictures(2), one_hot(3, 1)
    network = network_of(model)
    detail, _ = network.gradients(x, targets, guided=True)
    region = network.enlarge(maps_of(GradCam, network, x, targets), (SIDE, SIDE))
    assert_near(maps_of(GuidedGradCam, network, x, targets), detail.sum(dim=3).abs() * region, 1e-6)


# Integrated Gradients


def halves(count: int, random: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Noise with a bright square in its left (0) or right (1) half."""
    x, y = random.uniform(0, 80, (count, SIDE, SIDE, 3)), random.integers(0, 2, count)
    for image, side in zip(x, y, strict=True):
        top, left = random.integers(2, SIDE - 10), random.integers(2, 6) + side * SIDE // 2
        image[top : top + 8, left : left + 8] += 150
    return x.astype("float32"), y


@pytest.fixture(scope="module")
def trained() -> keras.Model:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((SIDE, SIDE, 3))
    x = layers.Rescaling(1 / 127.5, -1)(inputs)
    x = layers.BatchNormalization()(layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(x))
    x = layers.Conv2D(24, 3, strides=2, padding="same", activation="relu")(layers.ReLU()(x))
    x = layers.Dense(2, name="logits")(layers.Flatten()(layers.AveragePooling2D(2)(x)))
    model = keras.Model(inputs, layers.Softmax()(x))
    model.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy", metrics=["accuracy"])
    x, y = halves(512, np.random.default_rng(0))
    model.fit(x, y, batch_size=64, epochs=8, verbose=0)
    x, y = halves(64, np.random.default_rng(1))
    assert (model.predict(x, verbose=0).argmax(axis=1) == y).mean() > 0.9
    return model


@pytest.mark.parametrize("baseline", ["black", "mean", "blurred"])
@pytest.mark.parametrize(("rule", "steps"), [("gauss_legendre", 50), ("gauss_legendre", 300), ("trapezoid", 300)])
def test_integrated_gradients_add_up_to_the_change_of_the_score(
    trained: keras.Model, baseline: Any, rule: str, steps: int
) -> None:
    """Within 0.5 % of it: on average at 50 steps, for each image at 300. What is left are ReLUs that switch midway."""
    images, labels = halves(16, np.random.default_rng(2))
    x, targets = torch.tensor(images), one_hot(*labels.tolist(), classes=2)
    made_of = made(IntegratedGradients, baseline=baseline, rule=rule, steps=steps).maps(network_of(trained), x, targets)
    logits = keras.Model(trained.inputs, trained.get_layer("logits").output)
    after, before = (logits.predict(v.contiguous().numpy(), verbose=0) for v in (x, baseline_of(x, baseline)))
    change = ((after - before) * targets.numpy()).sum(axis=1)
    missing = np.abs(made_of.values.sum(dim=(1, 2)).numpy() / change - 1)
    assert (missing.mean() if steps == 50 else missing.max()) < 0.005
    np.testing.assert_allclose(made_of.completeness, missing, atol=1e-4)


def test_quadrature_is_exact_where_its_rule_is() -> None:
    for rule, steps, degree in (("gauss_legendre", 4, 7), ("trapezoid", 4, 1)):
        nodes, weights = quadrature(rule, steps)
        assert len(nodes) == len(weights) == steps
        for power in range(degree + 1):
            assert float((weights * nodes**power).sum()) == pytest.approx(1 / (power + 1), rel=1e-12)
        assert float((weights * nodes ** (degree + 1)).sum()) != pytest.approx(1 / (degree + 2), rel=1e-6)


def test_black_pixels_get_nothing_from_a_black_baseline(trained: keras.Model) -> None:
    x = pictures(1)
    x[:, 4:9, 7:20] = 0
    for baseline, nothing in (("black", True), ("mean", False)):
        ours = maps_of(IntegratedGradients, network_of(trained), x, one_hot(0, classes=2), baseline=baseline)
        assert (not ours[:, 4:9, 7:20].any()) == nothing


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("batch_size", [5, 32])
def test_gradients_on_a_path_are_the_same_with_the_linear_beginning_done_once(
    trained: keras.Model, images: int, batch_size: int
) -> None:
    network = network_of(trained)
    network.batch_size = batch_size
    nodes, weights = quadrature("gauss_legendre", 9)
    arguments = (pictures(images, seed=1), pictures(images), one_hot(*range(images), classes=3)[:, :2] - 0.5, nodes)
    fast = network.path_gradients(*arguments, weights)
    plain = Network.path_gradients(network, *arguments, weights)
    for ours, theirs in zip(fast, plain, strict=True):
        assert_near(ours, theirs, 1e-5)


def test_gradients_on_a_path_are_weighted_sums_of_gradients(trained: keras.Model) -> None:
    network, start, end = network_of(trained), pictures(2, seed=1), pictures(2)
    targets = one_hot(0, 1, classes=2)
    total, y0, y1 = network.path_gradients(start, end, targets, torch.tensor([0.25, 1.0]), torch.tensor([0.3, 0.7]))
    quarter, _ = network.gradients(0.75 * start + 0.25 * end, targets)
    whole, y = network.gradients(end, targets)
    assert_near(total, 0.3 * quarter + 0.7 * whole, 1e-5)
    assert_near(y1, y, 1e-6)
    assert_near(y0, network.gradients(start, targets)[1], 1e-6)


def test_baselines_by_hand() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 6.0]])[None, ..., None] * torch.tensor([1.0, 10.0])
    assert not baseline_of(x, "black").any()
    assert baseline_of(x, "mean").tolist() == [[[[3.0, 30.0]] * 2] * 2]
    flat = torch.full((1, 20, 20, 3), 7.0)
    assert_near(baseline_of(flat, "blurred"), flat, 1e-6)
    dot = torch.zeros(1, 41, 41, 1)
    dot[0, 20, 20] = 1.0
    line = np.exp(-((np.arange(-20, 21) / 4.1) ** 2) / 2)  # a tenth of the side
    blurred = baseline_of(dot, "blurred")[0, ..., 0]
    assert_near(blurred, np.outer(line, line) / line.sum() ** 2, 2e-3)  # which is cut off at four deviations
    assert all(baseline_of(dot, kind).shape == dot.shape for kind in ("black", "mean", "blurred"))
