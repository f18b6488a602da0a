"""Several workers take the steps of one: their gradients, statistics, metrics and weights are those of one process on
the whole step, and one that is lost stops the training in plain words."""

import signal
import threading
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from joint import (
    COUNT,
    Counts,
    Dies,
    Fits,
    Gradients,
    Refuses,
    Stumbles,
    gradients,
    network,
    small_task,
    without_dropout,
)
from test_training import material
from works import Heard

from braintumor_kit.engines.choose import engine_of
from braintumor_kit.engines.together import do_together
from braintumor_kit.errors import InputError, WorkError
from braintumor_kit.training.batches import Batches, Labels
from braintumor_kit.training.fit import fit
from braintumor_kit.training.randomness import AUGMENT, epoch_order, state
from braintumor_kit.training.store import Mapped
from braintumor_kit.training.task import Watch

pytestmark = pytest.mark.usefixtures("one_thread")


def told(work: Any, workers: int = 2) -> list[Any]:
    heard: list[Any] = []
    do_together(work, workers, 1, heard.append)
    return heard


# Parts of steps


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [1, 6, 20])
def test_parts_are_the_step_and_each_sample_is_seen_once_an_epoch(workers: int, size: int) -> None:
    _, labels = material(COUNT)
    store = Mapped(np.arange(COUNT)[:, None], torch.device("cpu"))
    parts = [Batches([store], Labels(labels, 2), size, 7, rank=rank, parts=workers) for rank in range(workers)]
    order = epoch_order(7, 0, COUNT)
    for step in range(parts[0].steps):
        whole = order[step * size : (step + 1) * size]
        own = [part[step][0].flatten().tolist() if part.share(step) else [] for part in parts]
        assert [row for rows in own for row in rows] == whole.tolist()
        assert [part.share(step) for part in parts] == [len(rows) / len(whole) for rows in own]
        assert max(map(len, own)) - min(map(len, own)) <= 1
        assert all(len(part[step][0]) for part in parts)  # an empty one takes another's, which counts nothing


def test_each_worker_draws_its_own_and_the_first_what_one_alone_would() -> None:
    alone = int(np.random.SeedSequence([4, AUGMENT, 2, 3]).generate_state(1, np.uint64)[0] >> np.uint64(1))
    assert state(4, AUGMENT, 2, 3) == state(4, AUGMENT, 2, 3, 0) == alone
    assert len({state(4, AUGMENT, 2, 3, rank) for rank in range(8)}) == 8


# Steps


@pytest.mark.parametrize("sync", [False, True], ids=["frozen statistics", "synchronised statistics"])
def test_gradients_are_those_of_one_process_on_the_joined_step(sync: bool) -> None:
    """One process computes by Keras itself: its layers, its loss, torch's autograd."""
    found = {(rank, step): values for rank, step, values in told(Gradients(sync, frozen_statistics=not sync))}
    made, (slices, labels) = network(frozen_statistics=not sync), material(COUNT)
    order, loss = epoch_order(1, 0, COUNT), keras.losses.CategoricalCrossentropy(from_logits=True)
    steps = [order[first : first + 6] for first in range(0, COUNT, 6)]
    assert len(found) == 2 * len(steps)
    for step, rows in enumerate(steps):
        if sync and len(rows) == 1:
            continue  # Keras normalises one slice by its own statistics as well; nothing is shared there
        made.logits.zero_grad()
        pictures = torch.from_numpy(slices.array[rows]).float().repeat(1, 1, 1, made.channels)
        loss(torch.eye(2)[labels[rows]], made.logits(pictures, training=True)).backward()
        for name, expected in gradients(made).items():
            for rank in (0, 1):
                np.testing.assert_allclose(found[rank, step][name], expected, rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_training_with_synchronised_statistics_is_that_of_one_process(tmp_path: Path) -> None:
    """The same history but for rounding, and the same weights in each worker; the last step of an epoch is uneven."""
    (tmp_path / "two").mkdir()
    (tmp_path / "one").mkdir()
    values = {"sync_batch_norm": True, "workers": 2, "ema": 0.9, "optimizer": "sgd"}
    (first, second) = sorted(told(Fits(tmp_path / "two", tuple(values.items()))), key=lambda item: item[0])
    alone = without_dropout()
    task = small_task(
        {"ema": 0.9, "optimizer": "sgd"}, callbacks={"reduce_lr_on_plateau": {"patience": 0, "min_delta": 1.0}}
    )
    fitted = fit(alone, task, tmp_path / "one", Watch(lambda row: None))
    for mine, other in zip(first[1].history, fitted.history, strict=True):
        assert (mine.accuracy, mine.val_accuracy) == pytest.approx((other.accuracy, other.val_accuracy), abs=1e-6)
        assert (mine.loss, mine.val_loss) == pytest.approx((other.loss, other.val_loss), rel=1e-5)
        assert mine.learning_rate == other.learning_rate
    for theirs, own in zip(first[2], [item.numpy() for item in alone.model.variables], strict=True):
        np.testing.assert_allclose(theirs, own, rtol=1e-4, atol=1e-5)
    assert [row.loss for row in first[1].history] == [row.loss for row in second[1].history]
    assert (first[3], second[3]) == (True, False)
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["checkpoints", "history.csv"]


# Processes


def test_processes_are_one_group_with_the_threads_that_they_are_given() -> None:
    assert sorted(told(Counts(), workers=3)) == [(0, 1, 3.0), (1, 1, 3.0), (2, 1, 3.0)]


def test_what_one_raises_is_raised() -> None:
    with pytest.raises(WorkError, match=r"^the loss is not finite$"):
        told(Refuses(1))


@pytest.mark.parametrize("rank", [0, 1])
def test_one_that_is_killed_is_named(rank: int) -> None:
    with pytest.raises(WorkError, match=rf"worker {rank} was lost \(process \d+ was killed by SIGKILL\)"):
        told(Dies(rank))


def test_one_that_is_interrupted_interrupts_the_whole() -> None:
    with pytest.raises(KeyboardInterrupt):
        told(Dies(0, signal.SIGINT))


def test_one_that_fails_otherwise_is_named_with_its_reason() -> None:
    with pytest.raises(WorkError, match=r"worker \d was lost .*(no such thing|closed|reset|peer)"):
        told(Stumbles())


def test_an_interruption_ends_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("braintumor_kit.interrupts._came", True)
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        told(Counts())
    assert threading.active_count() == before


def test_the_cluster_does_the_same(cluster: Any) -> None:
    heard, lines = [], Heard()
    with engine_of(cluster.btkit, 1, 0, lines) as engine:
        engine.together(Counts(), 2, heard.append)
        assert sorted(heard) == [(0, 1, 1.0), (1, 1, 1.0)]
        with pytest.raises(WorkError, match=r"^the loss is not finite$"):
            engine.together(Refuses(1), 2, heard.append)
        with pytest.raises(InputError, match=r"training\.workers = 3 wants 3 CPUs, and the Ray cluster has fewer"):
            engine.together(Counts(), 3, heard.append)
        # Last: Ray keeps what the other held until the command ends.
        with pytest.raises(WorkError, match=r"worker( 1)? was lost \(.*(died|killed|dead).*\)"):
            engine.together(Dies(1), 2, heard.append)
    assert "2 workers on the Ray cluster; threads of each: 1" in lines.lines
