"""Maps that depend on the weights pass the sanity check, an edge filter fails it, the user's model stays as it is."""

from collections.abc import Callable

import keras
import numpy as np
import pytest
import torch
from keras import layers
from numpy.typing import NDArray
from scipy.stats import spearmanr

from braintumor_kit.explanation.randomisation import Cascade, cascade, randomised_copies
from braintumor_kit.explanation.similarity import agreement, averaged_down, mean_agreement, spearman

pytestmark = pytest.mark.usefixtures("one_thread")

SIDE = 24


@pytest.fixture(scope="module")
def network() -> keras.Model:
    """A small network with a model inside, a branch, a shared layer and statistics."""
    keras.utils.set_random_seed(3)
    inner_inputs = keras.Input((SIDE, SIDE, 8))
    y = layers.Conv2D(8, 3, padding="same", use_bias=False, name="inner_conv")(inner_inputs)
    y = layers.BatchNormalization(name="inner_bn")(y)
    inner = keras.Model(inner_inputs, layers.Add()([inner_inputs, layers.Activation("relu")(y)]), name="inner")
    inputs = keras.Input((SIDE, SIDE, 1))
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="first")(layers.Rescaling(1 / 255)(inputs))
    x = inner(x)
    shared = layers.DepthwiseConv2D(3, padding="same", name="shared")
    x = shared(layers.Activation("relu")(shared(x)))
    x = layers.Flatten()(layers.AveragePooling2D(2)(x))
    x = layers.Dense(16, activation="relu", name="hidden")(x)
    model = keras.Model(inputs, layers.Dense(3, name="scores")(x))
    random = np.random.default_rng(0)
    for weight in model.weights:
        if len(weight.shape) == 1:
            weight.assign(random.uniform(0.5, 1.5, weight.shape) * (0.1 if "bias" in weight.path else 1))
    return model


@pytest.fixture(scope="module")
def slices() -> torch.Tensor:
    random = np.random.default_rng(1)
    return torch.tensor(random.uniform(0, 255, (6, SIDE, SIDE, 1)), dtype=torch.float32)


@pytest.fixture(scope="module")
def gradients(slices: torch.Tensor) -> Callable[[keras.Model], NDArray[np.float32]]:
    def maps(model: keras.Model) -> NDArray[np.float32]:
        x = slices.clone().requires_grad_()
        (g,) = torch.autograd.grad(model(x)[:, 0].sum(), x)
        return g[..., 0].numpy()

    return maps


def test_layers_lose_their_weights_from_the_output_back(network: keras.Model) -> None:
    before = [weight.copy() for weight in network.get_weights()]
    names, changed = [], []
    for name, copy in randomised_copies(network, groups=10):
        names.append(name)
        pairs = zip(network.weights, before, copy.get_weights(), strict=True)
        changed.append({weight.path.split("/")[-2] for weight, old, new in pairs if not np.array_equal(old, new)})
    assert names == ["scores", "hidden", "shared", "inner_bn", "inner_conv", "first"]
    assert changed == [set(names[: count + 1]) for count in range(len(names))]
    for old, now in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(old, now)


def test_groups_are_of_about_equal_number_and_the_classifying_layer_stands_alone(network: keras.Model) -> None:
    assert [name for name, _ in randomised_copies(network, groups=3)] == ["scores", "hidden", "inner_bn"]
    assert [name for name, _ in randomised_copies(network, groups=2)] == ["scores", "hidden"]


def test_filters_keep_their_values_and_statistics_their_place(network: keras.Model) -> None:
    *_, (_, copy) = randomised_copies(network)
    for weight, old, new in zip(network.weights, network.get_weights(), copy.get_weights(), strict=True):
        if weight.name.startswith("moving"):
            np.testing.assert_array_equal(old, new)
        else:
            filters = {"shared/kernel": 8}.get(weight.path, old.shape[-1])
            columns = filters if old.ndim > 1 else 1
            was, now = (np.sort(values.reshape(-1, columns), axis=0) for values in (old, new))
            np.testing.assert_array_equal(was, now, err_msg=weight.path)
            assert old.size < 8 or not np.array_equal(old, new), weight.path  # three may fall as they lay


def test_the_seed_decides(network: keras.Model) -> None:
    def last(seed: int) -> list[NDArray[np.float32]]:
        *_, (_, copy) = randomised_copies(network, seed=seed)
        return copy.get_weights()

    assert all(np.array_equal(a, b) for a, b in zip(last(1), last(1), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(last(1), last(2), strict=True))


def test_gradients_pass(network: keras.Model, gradients: Callable[[keras.Model], NDArray[np.float32]]) -> None:
    result = cascade(gradients, network)
    assert result.groups[0] == "scores"
    assert len(result.groups) == len(result.similarity) == 6
    assert result.n == 6
    assert result.similarity[-1] < 0.3
    assert result.passed is True


def test_an_edge_filter_fails(network: keras.Model, slices: torch.Tensor) -> None:
    edges = np.abs(np.gradient(slices[..., 0].numpy(), axis=2))
    result = cascade(lambda model: edges, network)
    assert result.similarity == pytest.approx([1.0] * 6)
    assert result.passed is False


def test_a_network_that_only_its_first_layer_moves_passes_at_the_end_alone(network: keras.Model) -> None:
    """Maps that look at one layer alone: unchanged until that one is reached."""
    kernel = network.get_layer("first").get_weights()[0]

    def maps(model: keras.Model) -> NDArray[np.float32]:
        return model.get_layer("first").get_weights()[0].reshape(1, 9, 8)

    assert kernel.size == 72
    result = cascade(maps, network)
    assert result.similarity[:5] == pytest.approx([1.0] * 5)
    assert result.similarity[5] < 0.5


def test_empty_maps_neither_pass_nor_fail(network: keras.Model) -> None:
    result = cascade(lambda model: np.zeros((2, 4, 4)), network)
    assert result.n == 0
    assert result.passed is None


def test_the_limit() -> None:
    assert Cascade(("a", "b"), (0.1, 0.5), 3).passed is True
    assert Cascade(("a", "b"), (0.1, 0.51), 3).passed is False


def test_sequential_models_and_others() -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="a"), layers.Dense(2, name="b")])
    assert [name for name, _ in randomised_copies(model)] == ["b", "a"]

    class Own(keras.Model):
        def call(self, x: torch.Tensor) -> torch.Tensor:
            return x

    with pytest.raises(ValueError, match="own"):
        next(iter(randomised_copies(Own(name="own"))))


def test_spearman_agrees_with_scipy_ties_and_all() -> None:
    random = np.random.default_rng(0)
    a, b = random.integers(0, 6, (2, 3, 7, 5)).astype(np.float32)
    found = spearman(a, b)
    for place in range(3):
        assert found[place] == pytest.approx(spearmanr(a[place].ravel(), b[place].ravel()).statistic)
    assert spearman(a[0], 3 * a[0] ** 3 + 1) == pytest.approx(1.0)
    assert spearman(a[0], -a[0]) == pytest.approx(-1.0)


def test_spearman_of_a_constant_or_broken_map_is_zero() -> None:
    rising = np.arange(6.0).reshape(2, 3)
    assert spearman(np.stack([np.ones((2, 3)), rising]), np.stack([rising, rising])).tolist() == [0.0, 1.0]
    assert spearman(rising, np.where(rising == 2, np.nan, rising)) == 0.0
    with pytest.raises(ValueError, match="expected the same"):
        spearman(rising, rising.T)


def test_averaged_down_by_hand() -> None:
    small = averaged_down(np.arange(15, dtype=np.float32).reshape(3, 5), side=2)
    # rows 0-1 and 2; columns 0-2 and 3-4
    np.testing.assert_allclose(small, [[3.5, 6.0], [11.0, 13.5]])
    assert averaged_down(np.zeros((224, 200), np.float32)).shape == (56, 50)
    assert averaged_down(np.zeros((30, 56), np.float32)).shape == (30, 56)


def test_agreement_of_methods() -> None:
    random = np.random.default_rng(0)
    first = random.random((64, 64)).astype(np.float32)
    found = agreement({"a": first, "b": 5 * first, "c": random.random((64, 64)).astype(np.float32)})
    assert list(found) == ["a/b", "a/c", "b/c"]
    assert found["a/b"] == pytest.approx(1.0)
    assert abs(found["a/c"]) < 0.1
    assert mean_agreement([{"a/b": 1.0}, {"a/b": 0.5, "a/c": 0.2}]) == {"a/b": 0.75, "a/c": 0.2}
    assert mean_agreement([]) == {}
