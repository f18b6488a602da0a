"""Much work on a cluster of two nodes that loses a process, then a node: five folds, twelve trials, the explanation of
3,000 slices and the prediction of 20,000 leave the files of the local engine, and nothing that is done is done again.

    pytest -m long -s tests/engines/test_much.py
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from small_runs import OPTIONS
from test_archive import table
from test_same_files import content, workers

from braintumor_kit.commands.main import run_command_line
from braintumor_kit.recipe.load import load_source
from braintumor_kit.runs import Run

pytestmark = [pytest.mark.long, pytest.mark.alone]
PATIENTS = 5000
"""Of four slices each."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with 3,000 test slices."""
    runs = tmp_path_factory.mktemp("runs")
    wanted = ("source.patients=1000", "training.batch_size=32", "explain=[]", "split.method=grouped", "split.test=0.75",
              "split.validation=0.1")  # fmt: skip
    options = [*OPTIONS, *(word for value in wanted for word in ("--set", value))]
    assert run_command_line(["run", "resnet_adam", *options, "--runs", str(runs), "--name", "big"]) == 0
    return runs / "big"


def losing(cluster: Any, done: Callable[[], int], first: int, second: int) -> tuple[threading.Thread, list[str]]:
    """Kills a process once so many pieces are done, and a node once more are; says what it did."""
    did: list[str] = []

    def lose() -> None:
        for count, what in ((first, "process"), (second, "node")):
            until = time.monotonic() + 1200
            while done() < count and time.monotonic() < until:
                time.sleep(0.02)
            if what == "process":
                while not (found := workers(cluster)):
                    time.sleep(0.02)
                os.kill(found[0], signal.SIGKILL)
            else:
                cluster.remove_node(cluster.second, allow_graceful=False)
            did.append(what)

    thread = threading.Thread(target=lose, daemon=True)
    thread.start()
    return thread, did


def check_losses(log: Path, did: list[str]) -> None:
    """Both came, and the log says of each what was lost, where and why."""
    assert did == ["process", "node"]
    lost = [line for line in log.read_text().splitlines() if "was lost" in line]
    print(*lost, sep="\n")
    assert len(lost) >= 2


def same_trainings(ours: Path, theirs: Path) -> None:
    a, b = Run(ours).record["results"], Run(theirs).record["results"]
    assert a == b
    assert (ours / "predictions.csv").read_bytes() == (theirs / "predictions.csv").read_bytes()


def test_five_folds(own_cluster: Any, tmp_path: Path, btkit: Callable[..., Any]) -> None:
    folds = (*OPTIONS, "--set", "split.method=kfold", "--set", "resources.cpus=1", "--set", "source.patients=40",
             "--set", "training.epochs=3")  # fmt: skip
    assert btkit("run", "resnet_adam", *folds, "--runs", tmp_path, "--name", "local").status == 0
    mine = tmp_path / "ray"
    thread, did = losing(own_cluster, lambda: len(list(mine.glob("fold-*/history.csv"))), 1, 3)
    ended = btkit("run", "resnet_adam", *folds, "--runs", tmp_path, "--name", "ray", "--engine", own_cluster.btkit)
    thread.join()
    assert ended.status == 0, ended.err
    check_losses(mine / "log.txt", did)
    assert (mine / "predictions.csv").read_bytes() == (tmp_path / "local" / "predictions.csv").read_bytes()
    for number in range(1, 6):
        same_trainings(mine / f"fold-{number}", tmp_path / "local" / f"fold-{number}")


def test_twelve_trials(own_cluster: Any, tmp_path: Path, btkit: Callable[..., Any]) -> None:
    space = (*OPTIONS, "--set", "resources.cpus=1", "--set", "training.epochs=2",
             "--set", "sweep.space.training.learning_rate=[1e-4, 3e-4, 1e-3]",
             "--set", "sweep.space.training.batch_size=[8, 16]",
             "--set", "sweep.space.training.label_smoothing=[0.0, 0.1]")  # fmt: skip
    assert btkit("run", "resnet_adam", *space, "--runs", tmp_path, "--name", "local").status == 0
    mine = tmp_path / "ray"
    thread, did = losing(own_cluster, lambda: len(list(mine.glob("trial-*/history.csv"))), 3, 7)
    ended = btkit("run", "resnet_adam", *space, "--runs", tmp_path, "--name", "ray", "--engine", own_cluster.btkit)
    thread.join()
    assert ended.status == 0, ended.err
    check_losses(mine / "log.txt", did)
    assert Run(mine).record["trials"] == 12
    assert Run(mine).record["best_trial"] == Run(tmp_path / "local").record["best_trial"]
    for number in range(1, 13):
        same_trainings(mine / f"trial-{number:04d}", tmp_path / "local" / f"trial-{number:04d}")


def test_three_thousand_explanations(
    own_cluster: Any, trained: Path, tmp_path: Path, btkit: Callable[..., Any]
) -> None:
    common = ("explain", trained, "--method", "gradcam", "--limit", 3000, "--cpus", 1, "--precision", "float32")
    assert btkit(*common, "--out", tmp_path / "local").status == 0
    beside = tmp_path / ".ray.unfinished"
    written: dict[str, int] = {}

    def done() -> int:
        for path in beside.glob("batches/[0-9]*.json"):  # not what is just being written
            written.setdefault(path.name, path.stat().st_mtime_ns)
        return len(written)

    thread, did = losing(own_cluster, done, 20, 50)
    ended = btkit(*common, "--out", tmp_path / "ray", "--engine", own_cluster.btkit)
    thread.join()
    assert ended.status == 0, ended.err
    logs = frozenset({"log.txt", "log.jsonl"})
    ours, theirs = content(tmp_path / "ray", logs), content(tmp_path / "local", logs)
    assert len(ours) > 6000
    assert ours == theirs
    check_losses(tmp_path / "ray" / "log.txt", did)


def test_twenty_thousand_predictions(
    own_cluster: Any, trained: Path, tmp_path: Path, btkit: Callable[..., Any]
) -> None:
    source = load_source("phantom", [f"source.patients={PATIENTS}", "source.size=64"]).make()
    (tmp_path / "pictures").mkdir()
    for sample in source.samples():
        Image.fromarray(source.image(sample)).save(tmp_path / "pictures" / f"{sample.id.replace('/', '_')}.png")
    common = ("predict", trained, tmp_path / "pictures", "--cpus", 1)
    assert btkit(*common, "--out", tmp_path / "local").status == 0
    mine, written = tmp_path / "ray", dict[str, int]()

    def done() -> int:
        for path in (mine / "predictions").glob("part-*"):
            written.setdefault(path.name, path.stat().st_mtime_ns)
        return len(written)

    thread, did = losing(own_cluster, done, 8, 20)
    ended = btkit(*common, "--out", mine, "--engine", own_cluster.btkit)
    thread.join()
    assert ended.status == 0, ended.err
    logs = frozenset({"log.txt", "log.jsonl"})
    assert content(mine, logs) == content(tmp_path / "local", logs)
    rows = table(mine)
    assert len(rows) == len({row["id"] for row in rows}) == 4 * PATIENTS
    assert all((mine / "predictions" / name).stat().st_mtime_ns == moment for name, moment in written.items())
    check_losses(mine / "log.txt", did)
