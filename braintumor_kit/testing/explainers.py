"""Checks of what an explainer promises, on small models whose answers are known."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from braintumor_kit.contracts import Maps
from braintumor_kit.contracts import explainers as contract
from braintumor_kit.contracts.randomness import seeded
from braintumor_kit.explanation.engine import Method, explain_batch
from braintumor_kit.explanation.network import Network
from braintumor_kit.explanation.open import network_of
from braintumor_kit.explanation.targets import Targets
from braintumor_kit.testing import models
from braintumor_kit.testing.check import BrokenPromiseError, expect, holds_to, in_order
from braintumor_kit.testing.models import BLOB, COLUMNS, ROWS
from braintumor_kit.testing.state import changes, model_state, process_state
from braintumor_kit.testing.subject import ExplainerSubject, maps_of, pictures, targets

SAME = 1e-4
"""Of a map's largest value: what other batches may change, as other kernels of torch round otherwise."""

ALIKE = 0.95
HITS, PLANTED = 6, 8
NEAR = models.SIDE // 8
UNLIKELY_SEED = 1_730_529_461

_FIRST = Targets(("first",) * 3, np.eye(3, dtype=np.float32)[[0, 0, 0]], np.zeros(3, np.int64), alone=True)
_EVEN = np.full((3, 3), 1 / 3)


@cache
def _stripes() -> Network:
    return network_of(models.stripes_model())


@holds_to(contract, "has_example")
def shape_and_dtype(subject: ExplainerSubject) -> None:
    device = subject.network.device
    images = pictures().to(device)
    with subject.made() as explainer:
        given = explainer.maps(subject.network, images, targets(0, 1, 2).to(device))
    values = given.values if isinstance(given, Maps) else given
    expect(isinstance(values, Tensor), f"`maps` gave {type(values).__name__}")
    saw = f"maps of {len(images)} images are {values.dtype} {tuple(values.shape)}"
    expect(values.dtype == torch.float32 and values.ndim == 3 and len(values) == len(images) and values.numel(), saw)
    if isinstance(given, Maps) and given.completeness is not None:
        shape = tuple(given.completeness.shape)
        expect(shape == (len(images),), f"completeness of {len(images)} images is {shape}")


@holds_to(contract, "shape_and_dtype")
def finite(subject: ExplainerSubject) -> None:
    whole = torch.ones(1, models.SIDE, models.SIDE, 3)
    for name, images in (("noise", pictures()), ("a black picture", 0 * whole), ("a white picture", 255 * whole)):
        for wanted in (targets(0), targets(0) - targets(1)):
            with subject.made() as explainer:
                maps = maps_of(explainer, subject.network, images, wanted.expand(len(images), -1))
            lost = int((~maps.isfinite()).sum())
            expect(lost == 0, f"{lost} of {maps.numel()} values of maps of {name} are not finite")


@holds_to(contract, "shape_and_dtype")
def deterministic(subject: ExplainerSubject) -> None:
    given = []
    with subject.made() as explainer:
        for seed in (1, 2):
            with seeded(seed):
                given.append(maps_of(explainer, subject.network, pictures()))
    differ = _apart(given[0], given[1])
    exact = subject.network.device.type == "cpu"  # a GPU adds in whatever order it comes to
    expect(
        differ <= (0 if exact else SAME),
        f"asked twice, it gave maps that differ by {differ:.2g} of their largest value",
    )


@holds_to(contract, "shape_and_dtype")
def batch_equals_single(subject: ExplainerSubject) -> None:
    images, wanted = pictures(), targets(0, 1, 2)
    with subject.made() as explainer:
        together = maps_of(explainer, subject.network, images, wanted)
        alone = [maps_of(explainer, subject.network, images[i : i + 1], wanted[i : i + 1]) for i in range(len(images))]
    differ = max(_apart(one, together[i : i + 1]) for i, one in enumerate(alone))
    expect(differ <= SAME, f"a map alone and the same map in a batch differ by {differ:.2g} of its largest value")


def _apart(one: Tensor, other: Tensor) -> float:
    """The greatest difference, as a share of the greatest value."""
    if one.shape != other.shape:
        return float("inf")
    return float((one - other).abs().max() / one.abs().max().clamp_min(1e-30))


@holds_to(contract, "shape_and_dtype")
def target_changes_the_map(subject: ExplainerSubject) -> None:
    picture = torch.from_numpy(models.blobs((6, 6, ROWS), (42, 38, COLUMNS)))[None]
    with subject.made() as explainer:
        rows, columns = (maps_of(explainer, _stripes(), picture, targets(which)) for which in (ROWS, COLUMNS))
    expect(
        _apart(rows, columns) > SAME,
        "of a picture with one blob of each of two classes, the maps for the two are the same",
    )


@holds_to(contract, "shape_and_dtype")
def constant_model(subject: ExplainerSubject) -> None:
    network = network_of(models.random_model(constant=True))
    with subject.made() as explainer:
        maps = maps_of(explainer, network, pictures())
        done = explain_batch(
            network, Method(subject.info.name, explainer, subject.info), pictures().to(network.device), _FIRST, _EVEN
        )
    lost = int((~maps.isfinite()).sum())
    expect(lost == 0, f"{lost} of {maps.numel()} values are not finite")
    bare = sum(not {"constant", "empty"} & set(flags) for flags in done.flags)
    expect(not bare, f"{bare} maps are neither empty nor flagged")


@holds_to(contract, "shape_and_dtype")
def weights_matter(subject: ExplainerSubject) -> None:
    images = pictures()
    with subject.made() as explainer:
        ours, others = (maps_of(explainer, network_of(models.random_model(seed)), images) for seed in (0, 1))
    alike = float(np.mean([_rank_correlation(one, other) for one, other in zip(ours, others, strict=True)]))
    expect(alike < ALIKE, f"the mean rank correlation of maps of two networks with different weights is {alike:.3f}")


def _rank_correlation(one: Tensor, other: Tensor) -> float:
    """|rho|; 1 where both are constant, 0 where one is."""
    if one.min() == one.max() or other.min() == other.max():
        return float(one.min() == one.max() and other.min() == other.max())
    return abs(float(spearmanr(one.flatten().numpy(), other.flatten().numpy()).statistic))


@holds_to(contract, "shape_and_dtype")
def finds_planted_blob(subject: ExplainerSubject) -> None:
    random = np.random.default_rng(3)
    places = [(*random.integers(2, models.SIDE - BLOB - 2, 2).tolist(), i % 2) for i in range(PLANTED)]
    images = torch.from_numpy(np.stack([models.blobs(place) for place in places]))
    network = _stripes()
    with subject.made() as explainer:
        maps = maps_of(explainer, network, images, targets(*(way for _, _, way in places)))
        if maps.shape[1:] != images.shape[1:3]:
            maps = network.enlarge(maps.to(network.device), (models.SIDE, models.SIDE)).cpu()
    hits = sum(_is_hit(one, top, left) for one, (top, left, _) in zip(maps, places, strict=True))
    expect(hits >= HITS, f"the highest value lies on the blob in {hits} pictures of {PLANTED}")


def _is_hit(values: Tensor, top: int, left: int) -> bool:
    """Whether all of the highest values lie on the blob or near it: a constant map finds nothing."""
    highest = (values == values.max()).nonzero()
    first, last = torch.tensor([top - NEAR, left - NEAR]), torch.tensor([top + BLOB + NEAR, left + BLOB + NEAR])
    return bool(((highest >= first) & (highest < last)).all())


@holds_to(contract, "shape_and_dtype")
def leaves_inputs(subject: ExplainerSubject) -> None:
    device = subject.network.device
    images, wanted = pictures().to(device), targets(0, 1, 2).to(device)
    kept = images.clone(), wanted.clone()
    with subject.made() as explainer:
        maps_of(explainer, subject.network, images, wanted)
    for name, now, before in (("images", images, kept[0]), ("targets", wanted, kept[1])):
        expect(torch.equal(now, before), f"{name} were changed in place")
        expect(not now.requires_grad and now.grad is None, f"{name} were made to hold gradients")


@holds_to(contract, "shape_and_dtype")
def leaves_model(subject: ExplainerSubject) -> None:
    model = models.random_model()
    network = network_of(model)
    # From where no seed of a plugin leads: random numbers that it seeds and leaves so cannot be what they were.
    with seeded(UNLIKELY_SEED), subject.made() as explainer:
        before, at_first = model_state(model), process_state()
        maps_of(explainer, network, pictures())
        _expect_unchanged("it changed", before, model_state(model))
        settled = process_state()
        always = changes(at_first, settled)  # without an error too, which is another promise's affair
        for call in (1, 2, 3):
            failing = _Failing(network, call)
            try:
                explainer.maps(failing, pictures().to(network.device), targets(0, 1, 2).to(network.device))
            except _ModelError:
                pass
            except Exception as error:
                if failing.raised:
                    said = f"{type(error).__name__}: {error}"
                    raise BrokenPromiseError(f"after an error of the model it raised another one: {said}") from error
                raise
            saw = f"after an error in call {call} of the model it left changed"
            _expect_unchanged(saw, {**settled, **before}, {**process_state(), **model_state(model)}, always)


def _expect_unchanged(
    saw: str, before: dict[str, object], after: dict[str, object], apart_from: Sequence[str] = ()
) -> None:
    changed = [name for name in changes(before, after) if name not in apart_from]
    expect(not changed, f"{saw} {', '.join(sorted(changed)[:5])}")


class _ModelError(RuntimeError):
    """What a model may raise on the way, such as lack of memory."""


class _Failing:
    """A model's view whose so manieth call fails."""

    def __init__(self, network: Network, call: int) -> None:
        self._network, self._calls, self._fails = network, 0, call
        self.raised = False

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._network, name)
        return self._counted(value) if callable(value) and name != "enlarge" else value

    def _counted(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self._calls += 1
            if self._calls == self._fails:
                self.raised = True
                raise _ModelError("the model failed")
            return method(*arguments, **named)

        return call


CHECKS = in_order(contract, globals())
