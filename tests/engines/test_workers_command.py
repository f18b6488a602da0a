"""`btkit run` with several workers: begun by btkit, by Ray or by torchrun they come to the same, and one that is killed
costs no more than what its last checkpoint had not."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from small_runs import TINY, whole_files

from braintumor_kit.engines.torchrun import check_torchrun, torchrun_rank
from braintumor_kit.errors import InputError
from braintumor_kit.files import read_csv, read_json

pytestmark = pytest.mark.usefixtures("two_layers")

EPOCHS = 20
PAIR = [*TINY, "--set", "training.workers=2", "--set", "training.checkpoint_seconds=0", "--set", "explain=[]",
        "--set", f"training.epochs={EPOCHS}"]  # fmt: skip
BTKIT = [sys.executable, "-m", "braintumor_kit"]


@pytest.fixture(scope="module")
def pair(two_layers: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run by two workers of this machine."""
    from braintumor_kit.commands.main import run_command_line

    runs = tmp_path_factory.mktemp("runs")
    assert run_command_line(["run", "resnet_adam", *PAIR, "--runs", str(runs), "--name", "pair"]) == 0
    return runs / "pair"


def history(run: Path) -> list[list[str]]:
    return [list(row.values())[:6] for row in read_csv(run / "history.csv")]


def test_it_leaves_what_one_worker_leaves(pair: Path, btkit: Callable[..., Any], tmp_path: Path) -> None:
    one = [*TINY, "--set", "explain=[]"]
    assert btkit("run", "resnet_adam", *one, "--runs", tmp_path, "--name", "one").status == 0
    assert whole_files(pair) == whole_files(tmp_path / "one")
    assert len(history(pair)) == EPOCHS
    assert read_json(pair / "record.json")["recipe"]["training"]["workers"] == 2


def test_torchrun_comes_to_the_same_and_shows_it_once(pair: Path, tmp_path: Path) -> None:
    done = torchrun(2, "run", "resnet_adam", *PAIR, "--runs", tmp_path, "--name", "torchrun")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run folder:") == 1
    assert done.stderr.count(f"epoch {EPOCHS}:") == 1
    assert history(tmp_path / "torchrun") == history(pair)
    assert [path.name for path in tmp_path.iterdir()] == ["torchrun"]


def torchrun(count: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count),
               "-m", "braintumor_kit", *map(str, arguments)]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_torchrun_is_held_to_the_recipe(tmp_path: Path) -> None:
    done = torchrun(2, "run", "resnet_adam", *TINY, "--runs", tmp_path)
    assert (
        "torchrun began 2 processes, and the recipe has training.workers = 1: add --set training.workers=2"
        in done.stderr
    )
    assert done.returncode
    assert not list(tmp_path.iterdir())


def test_under_torchrun_no_other_engine_begins_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    check_torchrun(3, "ray")  # torchrun did not begin this process
    for name, value in (("TORCHELASTIC_RUN_ID", "none"), ("RANK", "1"), ("WORLD_SIZE", "3")):
        monkeypatch.setenv(name, value)
    assert torchrun_rank() == 1
    check_torchrun(3, "local")
    with pytest.raises(InputError, match="--engine ray begins workers itself: leave it out under torchrun"):
        check_torchrun(3, "ray")


def test_a_killed_worker_is_named_and_the_run_goes_on(pair: Path, tmp_path: Path, btkit: Callable[..., Any]) -> None:
    run = tmp_path / "killed"
    begun, err = stopped(run, lambda pid: os.kill(max(workers_of(pid)), signal.SIGKILL))
    assert begun.returncode == 3
    assert "was killed by SIGKILL), and the training stopped" in err
    assert f"go on where it stopped with: btkit run --resume {run}" in err
    assert read_json(run / "record.json")["status"] == "failed"
    assert len(history(run)) < EPOCHS
    assert not list(workers_of(begun.pid))
    assert btkit("run", "--resume", run).status == 0
    assert history(run) == history(pair)
    assert read_json(run / "record.json")["results"] == read_json(pair / "record.json")["results"]


def test_a_cluster_comes_to_the_same_though_a_worker_is_killed(
    pair: Path, tmp_path: Path, btkit: Callable[..., Any]
) -> None:
    pytest.importorskip("ray", reason="Ray is missing: pip install 'braintumor-kit[ray]'")
    run = tmp_path / "killed"
    begun, err = stopped(run, lambda pid: os.kill(next(ray_workers(pid)), signal.SIGKILL), "--engine", "ray")
    assert begun.returncode == 3
    assert "was lost (" in err
    assert f"btkit run --resume {run}" in err
    assert btkit("run", "--resume", run, "--engine", "ray").status == 0
    assert history(run) == history(pair)
    assert read_json(run / "record.json")["results"] == read_json(pair / "record.json")["results"]


def test_an_interrupted_one_goes_on(pair: Path, tmp_path: Path, btkit: Callable[..., Any]) -> None:
    run = tmp_path / "interrupted"
    begun, err = stopped(run, lambda pid: os.killpg(pid, signal.SIGINT))  # as a terminal does, to all of them
    assert begun.returncode == 130
    assert "Traceback" not in err
    assert "go on where it stopped" in err
    assert btkit("run", "--resume", run).status == 0
    assert history(run) == history(pair)


def stopped(run: Path, stop: Callable[[int], None], *further: str) -> tuple[subprocess.Popen[str], str]:
    """A run that something befalls after two epochs, and what it says."""
    command = [*BTKIT, "run", "resnet_adam", *PAIR, "--runs", str(run.parent), "--name", run.name, *further]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as begun:
        wait_for_epochs(run, 2)
        stop(begun.pid)
        _, err = begun.communicate(timeout=120)
    return begun, err


def wait_for_epochs(run: Path, count: int) -> None:
    for _ in range(2400):
        if (run / "history.csv").is_file() and len(read_csv(run / "history.csv")) >= count:
            return
        time.sleep(0.05)
    pytest.fail("the training did not begin")


def children(process: int) -> Iterator[int]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(path.read_text().rpartition(")")[2].split()[1]) == process:
                yield int(path.parent.name)
        except (OSError, IndexError):
            continue  # gone meanwhile


def workers_of(process: int) -> Iterator[int]:
    for child in children(process):
        if b"spawn_main" in Path("/proc", str(child), "cmdline").read_bytes():
            yield child


def ray_workers(process: int) -> Iterator[int]:
    """Of the cluster that a command began."""
    found = [process]
    for parent in found:
        found += children(parent)
    for one in found:
        if b"ray::RayTrainWorker" in Path("/proc", str(one), "cmdline").read_bytes():
            yield one


def test_what_cannot_be_is_said_before_anything_is_written(btkit: Callable[..., Any], tmp_path: Path) -> None:
    for values, said in (
        (["training.workers=2", "split.method=kfold"], "[training] workers: is for one training"),
        (["training.workers=2", "training.on_out_of_memory=halve"], "where several workers take steps together"),
        (["training.workers=17"], "training.workers = 17, and validation has 16 slices to share"),
    ):
        done = btkit("run", "resnet_adam", *TINY, *(f"--set={value}" for value in values), "--runs", tmp_path / "none")
        assert done.status == 2
        assert said in done.err.replace("\n", " ")
        assert not (tmp_path / "none").exists()
