"""torch.compile by recipe: the same training, and only where it is asked for or pays."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from test_features import classifier

from braintumor_kit.contracts import InputError
from braintumor_kit.model.fast import Program
from braintumor_kit.recipe.tables import AugmentTable
from braintumor_kit.training import compiled
from braintumor_kit.training.compiled import Trial, compile_where_it_pays
from braintumor_kit.training.trainee import Trainee

needs_compiler = pytest.mark.skipif(
    not (shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")),
    reason="torch.compile needs a C++ compiler",
)


def trainee() -> Trainee:
    network = classifier()
    return Trainee(network, Program(network.logits), AugmentTable(), seed=0)


def pictures() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 32, 32, 1), np.uint8))


@needs_compiler
def test_compiled_steps_compute_what_steps_compute_and_the_trial_leaves_no_trace(tmp_path: Path) -> None:
    plain, fast = trainee(), trainee()
    before = [weight.numpy().copy() for weight in fast.network.weights]
    told: list[str] = []
    trial = compile_where_it_pays(fast, pictures(), True, 100, told.append)
    assert trial
    assert trial.first > trial.compiled
    assert fast.is_compiled
    assert told[0].endswith("training runs compiled")
    for weight, value in zip(fast.network.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)
        assert weight.value.grad is None
    for one in (plain, fast):
        (one.call(pictures(), training=True) ** 2).sum().backward()
    for mine, theirs in zip(fast.network.weights, plain.network.weights, strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-6)  # statistics
        if mine.trainable:
            torch.testing.assert_close(mine.value.grad, theirs.value.grad, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(fast.call(pictures()[:3]), plain.call(pictures()[:3]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("asked", [False, "auto"])
def test_on_a_cpu_nothing_is_compiled_unasked(asked: compiled.Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", None)  # calling it would raise
    assert compile_where_it_pays(trainee(), pictures(), asked, 10**9, print) is None


def test_where_torch_cannot_compile_the_user_hears_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no working C++ compiler found\nand more")

    monkeypatch.setattr(torch, "compile", lambda *args, **kwargs: refuse)
    with pytest.raises(InputError, match="does not work here: no working C"):
        compile_where_it_pays(trainee(), pictures(), True, 10, print)


def test_a_trial_pays_by_more_than_the_noise() -> None:
    assert Trial(eager=1.0, compiled=0.9, first=30).pays
    assert not Trial(eager=1.0, compiled=0.99, first=30).pays
    assert str(Trial(1.0, 0.5, 30)) == "compiling took 30 s; a step is 2.00 times as fast compiled as not"
