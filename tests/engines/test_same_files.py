"""Commands leave the same files, whichever engine works, and whatever it loses on the way."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_runs import OPTIONS

from braintumor_kit.files import read_json
from braintumor_kit.runs import Run, fold_runs

FOLDS = (*OPTIONS, "--set", "split.method=kfold", "--set", "split.folds=3", "--set", "resources.cpus=1")


@pytest.fixture(scope="module")
def folds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-validation by the local engine, two folds at a time where there are two cores."""
    from braintumor_kit.commands.main import run_command_line

    runs = tmp_path_factory.mktemp("local")
    assert run_command_line(["run", "resnet_adam", *FOLDS, "--runs", str(runs), "--name", "folds"]) == 0
    return runs / "folds"


def content(folder: Path, leave_out: frozenset[str] = frozenset()) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in leave_out)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def kill_when(there: Callable[[], int | None]) -> threading.Thread:
    """Kills, once, the process that `there` names as soon as it names one."""

    def wait() -> None:
        for _ in range(2000):
            if (process := there()) is not None:
                os.kill(process, signal.SIGKILL)
                return
            time.sleep(0.05)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def workers(cluster: Any) -> list[int]:
    """Processes of a cluster that are at a task of btkit's; other tests may have clusters of their own."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if b"ray::Worker.do" in (path / "cmdline").read_bytes():
                parent = (path / "stat").read_text().rpartition(")")[2].split()[1]
                if cluster.address.encode() in Path("/proc", parent, "cmdline").read_bytes():
                    found.append(int(path.name))
        except OSError:
            continue
    return found


def test_folds_on_a_cluster_that_loses_a_process(
    cluster: Any, folds: Path, tmp_path: Path, btkit: Callable[..., Any]
) -> None:
    """The killed one goes on from its checkpoint: weights, predictions and figures are bit for bit the same."""
    mine = tmp_path / "folds"

    def one_that_trains() -> int | None:
        begun = any((mine / f"fold-{number}" / "checkpoints").is_dir() for number in (1, 2, 3))
        return next(iter(workers(cluster)), None) if begun else None

    killing = kill_when(one_that_trains)
    ended = btkit("run", "resnet_adam", *FOLDS, "--runs", tmp_path, "--name", "folds", "--engine", cluster.btkit)
    killing.join()
    assert ended.status == 0, ended.err
    assert "was lost at fold-" in ended.err
    assert "was lost at fold-" in (mine / "log.txt").read_text()
    assert (mine / "predictions.csv").read_bytes() == (folds / "predictions.csv").read_bytes()
    theirs, ours = fold_runs(Run(folds)), fold_runs(Run(mine))
    for a, b in zip(theirs, ours, strict=True):
        assert a.record["results"]["weights"] == b.record["results"]["weights"]
        assert a.record["device"]["threads"] == b.record["device"]["threads"] == 1
        assert b.record["status"] == "finished"
    assert content(folds).keys() == content(mine).keys()


def test_explanations_on_a_cluster_that_loses_a_process(
    cluster: Any, folds: Path, tmp_path: Path, btkit: Callable[..., Any]
) -> None:
    """Every map, overlay, row and figure is the same, byte by byte."""
    common = ("explain", folds, "--method", "gradcam,occlusion", "--limit", 24)
    common += ("--precision", "float32", "--cpus", 1)
    assert btkit(*common, "--out", tmp_path / "local").status == 0

    def one_that_explains() -> int | None:
        return next(iter(workers(cluster)), None) if any((tmp_path / ".ray.unfinished").glob("maps/*")) else None

    killing = kill_when(one_that_explains)
    ended = btkit(*common, "--out", tmp_path / "ray", "--engine", cluster.btkit)
    killing.join()
    assert ended.status == 0, ended.err
    assert "was lost at slices" in ended.err
    assert "was lost at slices" in (tmp_path / "ray" / "log.txt").read_text()
    logs = frozenset({"log.txt", "log.jsonl"})
    assert content(tmp_path / "local", logs) == content(tmp_path / "ray", logs)


def test_an_audit_on_a_cluster_finds_the_same(
    cluster: Any, tmp_path: Path, btkit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a cache each, and one picture that nobody can read."""
    pictures = tmp_path / "pictures"
    random = np.random.default_rng(0)
    for number in range(80):
        place = pictures / f"class{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (40, 40), np.uint8)).save(place / f"{number:03d}.png")
    (pictures / "class1" / "041.png").write_bytes(b"no picture")
    for engine in ("local", cluster.btkit):
        monkeypatch.setenv("BTKIT_CACHE", str(tmp_path / f"cache {engine[:5]}"))
        out, options = tmp_path / engine[:5], ("--set", f"source.root={pictures}")
        ended = btkit("audit", "--source", "image_folder", *options, "--out", out, "--engine", engine)
        assert ended.status == 0, ended.err
    assert "takes part" in ended.err
    ours, theirs = content(tmp_path / cluster.btkit[:5]), content(tmp_path / "local")
    assert ours == theirs
    (unreadable,) = read_json(tmp_path / "local" / "audit.json")["unreadable"]
    assert "041.png" in unreadable["id"]


def test_pictures_that_changed_are_told(cluster: Any, folds: Path, tmp_path: Path, btkit: Callable[..., Any]) -> None:
    """A machine that finds other files under the same path must not explain them."""
    from braintumor_kit.engines.local import do_in_process
    from braintumor_kit.errors import InputError
    from braintumor_kit.progress import Reporter
    from braintumor_kit.workflows.asked import AskedToExplain
    from braintumor_kit.workflows.explain import Batch, Drawing, plan, settings_of
    from braintumor_kit.workflows.explain_work import Explaining
    from braintumor_kit.workflows.explanation_folder import ExplanationFolder

    asked = AskedToExplain(str(folds), folds.parent, (), (("gradcam", "{}"),), (), "predicted", limit=4)
    planned = plan(asked.requests(Reporter()), "float32", "grid")
    drawing = Drawing(align="grid")
    settings = settings_of(planned, "float32", drawing)
    other = {
        **settings,
        "methods": [{**settings["methods"][0], "pictures_digest": "another"}, *settings["methods"][1:]],
    }
    folder = ExplanationFolder.begin(tmp_path / "out", other)
    work = Explaining(folder.place, folder.beside, "float32", drawing, asked)
    with pytest.raises(InputError, match="not the same everywhere"):
        do_in_process(work, 1, Batch(0, 0, 4))
    unseen = Explaining(tmp_path / "away", tmp_path / ".away", "float32", drawing, asked)
    with pytest.raises(InputError, match="not to be seen from every machine"):
        do_in_process(unseen, 1, Batch(0, 0, 4))


def test_one_training_has_nothing_to_spread(btkit: Callable[..., Any], tmp_path: Path) -> None:
    ended = btkit("run", "resnet_adam", *OPTIONS, "--runs", tmp_path, "--engine", "ray")
    assert ended.status == 2
    assert "this recipe is one training" in ended.err
    assert not list(tmp_path.iterdir())


def test_cpus_are_the_threads_of_a_training(btkit: Callable[..., Any], tmp_path: Path) -> None:
    assert (
        btkit("run", "resnet_adam", *OPTIONS, "--set", "resources.cpus=1", "--runs", tmp_path, "--name", "a").status
        == 0
    )
    assert read_json(tmp_path / "a" / "record.json")["device"]["threads"] == 1
