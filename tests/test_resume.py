"""A training that was stopped goes on as if it had not been: the same history, the same weights, bit for bit."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import keras
import numpy as np
import pytest
import torch
from test_training import batches, classifier, material, weights

from braintumor_kit.contracts import InputError
from braintumor_kit.data.cache import Slices
from braintumor_kit.files import read_csv, read_json, write_json
from braintumor_kit.recipe.tables import AugmentTable, CallbacksTable, TrainingTable
from braintumor_kit.runs import Run, locked
from braintumor_kit.training import checkpoint
from braintumor_kit.training.checkpoint import Checkpoint, Position, save_checkpoint
from braintumor_kit.training.fit import LATEST, fit
from braintumor_kit.training.guidance import GRID, Guidance
from braintumor_kit.training.task import Fitted, Task, Watch

pytestmark = pytest.mark.usefixtures("one_thread", "two_layers")

STEPS = 4
PLATEAU = {"reduce_lr_on_plateau": {"monitor": "val_loss", "factor": 0.5, "patience": 1, "min_delta": 1.0}}
STOPPING = {"early_stopping": {"monitor": "val_loss", "patience": 2, "min_delta": 0.3}}

TRAININGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plateau": ({"epochs": 5}, PLATEAU),
    "averaged": ({"epochs": 3, "ema": 0.9, "optimizer": "adamw", "select": "val_loss"}, PLATEAU),
    "scheduled": ({"epochs": 3, "schedule": {"name": "cosine", "warmup_epochs": 1}, "optimizer": "sgd"}, {}),
    "phases": ({"phases": [{"epochs": 2, "trainable": "head"}, {"epochs": 2, "learning_rate": 1e-3}]}, PLATEAU),
    "guided": ({"epochs": 3, "mask_weight": 0.5}, PLATEAU),
    "stopped early": ({"phases": [{"epochs": 8}, {"epochs": 2, "learning_rate": 1e-3}]}, PLATEAU | STOPPING),
}


class Kill(keras.callbacks.Callback):
    """Stops the process, as it were, after so many steps or epochs."""

    def __init__(self, steps: int = -1, epochs: int = -1) -> None:
        super().__init__()
        self.steps, self.epochs = steps, epochs

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.steps -= 1
        if self.steps == 0:
            raise KeyboardInterrupt

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epochs -= 1
        if self.epochs == 0:
            raise KeyboardInterrupt


def trained(name: str, folder: Path, resume: bool = False, kill: Kill | None = None) -> tuple[list[np.ndarray], Fitted]:
    values, callbacks = TRAININGS[name]
    training = TrainingTable.model_validate({"batch_size": 8, "learning_rate": 1e-2, **values})
    network, (slices, labels) = classifier(5), material()
    task = Task(
        batches(slices, labels, np.arange(8 * STEPS), 8, 5),
        batches(slices, labels, np.arange(32, 48), 8),
        training,
        AugmentTable(flip_horizontal=True, rotate=5, noise=0.02),
        CallbacksTable.model_validate(callbacks),
        torch.float32,
        5,
        guidance(slices, training.mask_weight) if training.mask_weight else None,
    )
    fitted = fit(network, task, folder, Watch(lambda row: None), [kill] if kill else [], resume)
    return weights(network), fitted


def guidance(slices: Slices, weight: float) -> Guidance:
    """Masks of the bright bars."""
    bars = torch.from_numpy(slices.array[: 8 * STEPS, None, :, :, 0] > 200).float()
    masks = (torch.nn.functional.interpolate(bars, (GRID, GRID), mode="area")[:, 0] * 255).to(torch.uint8)
    axis = torch.eye(8).repeat_interleave(4, dim=0)
    return Guidance(masks, axis, axis, weight)


def without_times(fitted: Fitted) -> Any:
    return replace(fitted, history=tuple(replace(row, seconds=0.0, images_per_second=0.0) for row in fitted.history))


def assert_same(one: tuple[list[np.ndarray], Fitted], other: tuple[list[np.ndarray], Fitted]) -> None:
    assert without_times(one[1]) == without_times(other[1])
    for a, b in zip(one[0], other[0], strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[list[np.ndarray], Fitted]]:
    """Trainings that nothing interrupted."""
    done: dict[str, tuple[list[np.ndarray], Fitted]] = {}

    def of(name: str) -> tuple[list[np.ndarray], Fitted]:
        if name not in done:
            done[name] = trained(name, tmp_path_factory.mktemp("whole"))
        return done[name]

    return of


@pytest.fixture
def each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after every step."""
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", 1e9)


@pytest.mark.usefixtures("each_step")
@pytest.mark.parametrize("name", TRAININGS)
@pytest.mark.parametrize("stops", [(1,), (3, 2), (7,), (4, 4, 1), (9, 1, 1)])
def test_a_training_stopped_at_steps_goes_on_as_if_it_had_not_been(
    name: str, stops: tuple[int, ...], whole: Callable[[str], Any], tmp_path: Path
) -> None:
    for number, steps in enumerate(stops):
        with pytest.raises(KeyboardInterrupt):
            trained(name, tmp_path, resume=number > 0, kill=Kill(steps=steps))
    assert_same(trained(name, tmp_path, resume=True), whole(name))
    assert (tmp_path / "history.csv").read_text().count("\n") == 1 + len(whole(name)[1].history)


@pytest.mark.parametrize("name", TRAININGS)
@pytest.mark.parametrize("kill", [{"steps": 6}, {"epochs": 1}, {"epochs": 3}], ids=str)
def test_what_was_done_after_the_last_checkpoint_is_done_again(
    name: str, kill: dict[str, int], whole: Callable[[str], Any], tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        trained(name, tmp_path, kill=Kill(**kill))
    assert_same(trained(name, tmp_path, resume=True), whole(name))


def test_the_plateau_acts_before_and_after_the_stops(whole: Callable[[str], Any]) -> None:
    """Else the tests above would not see a callback that forgets."""
    rates = [row.learning_rate for row in whole("plateau")[1].history]
    assert len(set(rates)) >= 3
    assert len(whole("stopped early")[1].history) < 10


@pytest.mark.parametrize("name", ["plateau", "stopped early"])
def test_a_training_that_is_over_is_not_done_again(name: str, whole: Callable[[str], Any], tmp_path: Path) -> None:
    trained(name, tmp_path)
    before = (tmp_path / LATEST).read_bytes()
    assert_same(trained(name, tmp_path, resume=True), whole(name))
    assert (tmp_path / LATEST).read_bytes() == before


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no checkpoint .*latest\.safetensors: the training had not begun"):
        trained("plateau", tmp_path, resume=True)
    (tmp_path / LATEST).parent.mkdir()
    (tmp_path / LATEST).write_bytes(b"\0" * 64)
    with pytest.raises(InputError, match=r"latest\.safetensors is no checkpoint of btkit"):
        trained("plateau", tmp_path, resume=True)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    trained("plateau", tmp_path)
    kept = checkpoint.load_checkpoint(tmp_path / LATEST)
    other = {
        name: tensor[..., :-1].contiguous() if name == "network.0" else tensor for name, tensor in kept.tensors.items()
    }
    checkpoint.save_checkpoint(tmp_path / LATEST, replace(kept, tensors=other))
    with pytest.raises(InputError, match=r"the checkpoint's network is that of another recipe"):
        trained("plateau", tmp_path, resume=True)


# The command


SMALL = (
    "source.patients=16", "source.size=64", "pixels.image_size=64", "training.epochs=12", "training.batch_size=2",
    "training.precision=float32", "backbone.name=two_layers", "explain=[]", "callbacks.reduce_lr_on_plateau.patience=1",
    "callbacks.reduce_lr_on_plateau.min_delta=1.0",
)  # fmt: skip


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "braintumor_kit", "run", *map(str, arguments)]


def begun(arguments: list[str], said: IO[str] | int = subprocess.PIPE, group: bool = False) -> "subprocess.Popen[str]":
    """A process that hears Ctrl-C, also where a script runs these tests in the background and has it ignored.

    Args:
        group: make it the first of a group of its own, as a shell does.
    """
    return subprocess.Popen(
        arguments,
        stdout=subprocess.DEVNULL,
        stderr=said,
        text=True,
        start_new_session=group,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def kill_when(run: Path, epochs: int, process: "subprocess.Popen[str]", sign: signal.Signals) -> None:
    """Sends a signal once so many epochs are done, in the middle of the next one as a rule."""
    history = run / "history.csv"
    until = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < until:
        if history.is_file() and len(read_csv(history)) >= epochs:
            time.sleep(0.2)
            process.send_signal(sign)
            break
        time.sleep(0.02)
    process.wait(timeout=60)


def assert_same_runs(one: Path, other: Path) -> None:
    """Both are finished, and bit-equal, times aside; the plateau acted more than once."""
    times = ("seconds", "images_per_second")
    histories = [
        [{key: value for key, value in row.items() if key not in times} for row in read_csv(folder / "history.csv")]
        for folder in (one, other)
    ]
    assert histories[0] == histories[1]
    assert len({row["learning_rate"] for row in histories[0]}) >= 3
    for name in ("predictions.csv", "metrics.json", "split.csv"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    models = [keras.saving.load_model(folder / "model.keras") for folder in (one, other)]
    for first, second in zip(*(model.get_weights() for model in models), strict=True):
        assert first.tobytes() == second.tobytes()
    for folder in (one, other):
        assert read_json(folder / "record.json")["status"] == "finished"
        assert not (folder / LATEST).exists()
        assert not list(folder.rglob(".writing-*"))


def test_a_run_that_was_killed_goes_on_to_the_same_files(tmp_path: Path, btkit: Callable) -> None:
    """By SIGKILL, then by Ctrl-C."""
    options = [item for value in SMALL for item in ("--set", value)]
    begin = [*command("resnet_adam"), *options, "--runs", str(tmp_path), "--name"]
    subprocess.run([*begin, "whole"], check=True, capture_output=True)
    run = tmp_path / "killed"
    with begun([*begin, "killed"]) as process:
        kill_when(run, 1, process, signal.SIGKILL)
    assert read_json(run / "record.json")["status"] == "running"
    done = len(read_csv(run / "history.csv"))
    with begun(command("--resume", run)) as process:
        kill_when(run, done + 1, process, signal.SIGINT)
        assert process.returncode == 130
        said = process.stderr.read() if process.stderr else ""
    assert "go on where it stopped with: btkit run --resume" in " ".join(said.split())
    assert read_json(run / "record.json")["status"] == "interrupted"
    subprocess.run(command("--resume", run), check=True, capture_output=True)
    assert_same_runs(run, tmp_path / "whole")
    record = read_json(run / "record.json")
    assert [entry["changes"] for entry in record["resumed"]] == [[], []]
    assert not (run / LATEST).exists()
    ended = btkit("run", "--resume", run)
    assert ended.status == 2
    assert "is finished: there is nothing to go on with." in ended.err


def test_two_processes_do_not_work_on_one_run(tmp_path: Path) -> None:
    with locked(Run(tmp_path)), pytest.raises(InputError, match="another process is at work in"), locked(Run(tmp_path)):
        pass
    with locked(Run(tmp_path)):
        pass


def test_other_versions_and_plugins_have_to_be_accepted(tmp_path: Path, btkit: Callable) -> None:
    options = [item for value in (*SMALL, "training.epochs=1") for item in ("--set", value)]
    assert btkit("run", "resnet_adam", *options, "--runs", tmp_path, "--name", "r").status == 0
    run = tmp_path / "r"
    record = read_json(run / "record.json")
    record["status"], record["packages"]["numpy"] = "interrupted", "1.0"
    write_json(run / "record.json", record)
    ended = btkit("run", "--resume", run)
    assert ended.status == 2
    assert "has no checkpoint: its training had not begun" in ended.err
    save_checkpoint(run / LATEST, Checkpoint(Position()))
    ended = btkit("run", "--resume", run)
    assert ended.status == 2
    assert "numpy was 1.0 and is" in ended.err
    assert "with --accept-changes." in ended.err
    assert btkit("run", "resnet_adam", "--accept-changes").status == 2
