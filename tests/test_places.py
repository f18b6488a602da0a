"""Folders that cannot be written, are too deep, or go away while a run is written: told, and nothing half is left."""

import errno
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from small_runs import TINY, same_results, whole_files
from test_resume import command

from braintumor_kit import files
from braintumor_kit.files import read_json
from braintumor_kit.training import callbacks
from braintumor_kit.training.callbacks import Clock

pytestmark = pytest.mark.usefixtures("two_layers")

BEGIN = ("run", "resnet_adam", *TINY, "--name", "r", "--runs")


def test_a_run_folder_that_goes_away_does_not_come_back(
    tmp_path: Path, btkit: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remove(self: Clock, epoch: int, logs: object = None) -> None:
        shutil.rmtree(tmp_path / "r")

    monkeypatch.setattr(callbacks.Clock, "on_epoch_end", remove)
    ended = btkit(*BEGIN, tmp_path)
    assert ended.status == 3
    assert f"the run folder '{tmp_path / 'r'}' is gone: it was removed or moved meanwhile." in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("after", ["record.json", "metrics.json", "sample_sheet.png", "summary.png"])
def test_whenever_it_goes_away(after: str, tmp_path: Path, btkit: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    run, elsewhere = tmp_path / "r", tmp_path / "elsewhere"

    def away(self: Path, target: Path) -> Path:
        os.replace(self, target)
        if target.name == after and run.is_dir() and not elsewhere.exists():
            run.rename(elsewhere)
        return target

    monkeypatch.setattr(files.Path, "replace", away)
    ended = btkit(*BEGIN, tmp_path)
    assert ended.status == 3, ended.err
    assert f"the run folder '{run}' is gone: it was removed or moved meanwhile." in ended.err
    assert "nothing is left of it" not in ended.err
    assert "Traceback" not in ended.err
    assert not run.exists()
    assert (elsewhere / "record.json").is_file()


def test_a_record_that_goes_away_takes_nothing_with_it(
    tmp_path: Path, btkit: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remove(self: Clock, epoch: int, logs: object = None) -> None:
        (tmp_path / "r" / "record.json").unlink()

    monkeypatch.setattr(callbacks.Clock, "on_epoch_end", remove)
    ended = btkit(*BEGIN, tmp_path)
    assert ended.status in (2, 3)
    assert "record.json cannot be read" in ended.err
    assert "nothing is left of it" not in ended.err
    assert (tmp_path / "r" / "checkpoints" / "latest.safetensors").is_file()
    assert (tmp_path / "r" / "history.csv").is_file()


@pytest.mark.parametrize(
    ("runs", "why"),
    [
        ("x" * 300, "File name too long."),
        ("/".join(["d" * 200] * 25), "File name too long."),
        ("file", "' is no folder that may be written to."),
        ("file/inside", "' is no folder that may be written to."),
        ("link", "' is no folder that may be written to."),
    ],
    ids=["long name", "long path", "a file", "inside a file", "a link to nothing"],
)
def test_where_no_run_can_be_is_told_before_any_work(runs: str, why: str, tmp_path: Path, btkit: Callable) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    ended = btkit(*BEGIN, tmp_path / runs)
    assert ended.status == 3
    assert f"no run folder can be made in '{tmp_path / runs}'" in ended.err
    assert why in ended.err
    assert "slices of" not in ended.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


def test_a_path_that_grows_too_long_inside_of_the_run(tmp_path: Path, finished_tiny: Path, btkit: Callable) -> None:
    """The run folder fits, what lies deepest in it does not; moved to a place with a shorter name, the run goes on."""
    longest = os.pathconf(tmp_path, "PC_PATH_MAX") - 43  # room for r/.writing-12345678-resolved.json
    runs = tmp_path
    while longest - len(str(runs)) > 101:
        runs = runs / ("d" * 100)
    runs = runs / ("e" * (longest - len(str(runs)) - 1))
    ended = btkit(*BEGIN, runs)
    assert ended.status == 3
    assert (
        "could not be written: File name too long. Files written before are whole; choose another folder or name."
        in (ended.err)
    )
    descend = f"cd {tmp_path}; " + "".join(f"cd {part}; " for part in runs.relative_to(tmp_path).parts)
    subprocess.run(["bash", "-c", f"{descend} mv r {tmp_path / 'short'}"], check=True)
    whole_files(tmp_path / "short")
    assert btkit("run", "--resume", tmp_path / "short", "--accept-changes").status == 0
    assert same_results(tmp_path / "short", finished_tiny)


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (errno.EACCES, "choose another folder or name"),
        (errno.EROFS, "choose another folder or name"),
        (errno.EDQUOT, "make room, then go on"),
        (errno.EIO, "make room or choose another folder, then run again"),
    ],
    ids=errno.errorcode.get,
)
def test_what_the_system_refuses_is_told_with_what_to_do(
    number: int, cure: str, tmp_path: Path, btkit: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> Path:
        if target.name == "best-0001.weights.h5":
            raise OSError(number, os.strerror(number))
        return Path(os.replace(self, target) or target)

    monkeypatch.setattr(files.Path, "replace", refuse)
    ended = btkit(*BEGIN, tmp_path)
    assert ended.status == 3
    said = f"best-0001.weights.h5 could not be written: {os.strerror(number)}. Files written before are whole; {cure}."
    assert said in ended.err
    assert read_json(tmp_path / "r" / "record.json")["status"] == "failed"


def test_a_disk_that_becomes_read_only(
    disk: Callable[..., Path], finished_tiny: Path, btkit: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: Clock, epoch: int, logs: object = None) -> None:
        raise KeyboardInterrupt

    runs = disk(2000)
    with monkeypatch.context() as interrupted:
        interrupted.setattr(callbacks.Clock, "on_epoch_end", interrupt)
        assert btkit(*BEGIN, runs).status == 130
    disk(2000, read_only=True)
    ended = btkit("run", "--resume", runs / "r")
    assert ended.status == 3
    assert f"'{runs / 'r'}' cannot be written: Read-only file system." in ended.err
    assert "Traceback" not in ended.err
    ended = btkit(*BEGIN, runs)
    assert ended.status == 3
    assert f"'{runs}' is no folder that may be written to." in ended.err
    disk(2000)
    assert btkit("run", "--resume", runs / "r").status == 0
    assert same_results(runs / "r", finished_tiny)


def test_a_finished_run_on_a_read_only_disk_is_used(
    disk: Callable[..., Path], finished_tiny: Path, tmp_path: Path
) -> None:
    """Results go elsewhere."""
    runs = disk(2000)
    shutil.copytree(finished_tiny, runs / "r")
    disk(2000, read_only=True)
    call = [part for part in command() if part != "run"]
    explain = ["explain", str(runs / "r"), "--method", "gradcam", "--limit", "1"]
    refused = subprocess.run([*call, *explain], capture_output=True, text=True, check=False)
    assert refused.returncode == 3
    assert "Read-only file system" in refused.stderr
    assert "Traceback" not in refused.stderr
    subprocess.run([*call, *explain, "--out", str(tmp_path / "maps")], check=True, capture_output=True)
    subprocess.run([*call, "evaluate", str(runs / "r"), "--out", str(tmp_path / "e")], check=True, capture_output=True)
    assert (tmp_path / "maps" / "explanations.csv").is_file()
    assert (tmp_path / "e" / "metrics.json").is_file()
