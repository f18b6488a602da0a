"""A disk that fills, at each kind of file: what was written is whole, and with room again the run goes on."""

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from small_runs import OPTIONS, TINY, kind, same_results, whole_files
from test_resume import command

from braintumor_kit import files
from braintumor_kit.files import read_json

BEFORE = ("split.csv", "recipe.toml", "resolved.json", "record.json")
"""Written first: without them a run has not begun, and nothing is left of it."""

KINDS = (
    *BEFORE, "latest.safetensors", "history.csv", "best.weights.h5", "model.keras", "certainty.npz", "certainty.json",
    "predictions.csv", "metrics.json", "learning_curves.png", "sample_sheet.png", "explanations.json", "batch.json",
    "map.npy", "overlay.png", "explanations.csv", "summary.png",
)  # fmt: skip
"""One of each kind of file that a run writes."""


class Quota:
    """A disk that is full where a file of one kind is written; some of it, as real disks have it, went well."""

    def __init__(self) -> None:
        self.kind: str | None = None
        self.refused = 0

    def moving(self, temporary: Path, path: Path) -> Path:
        if kind(path) == self.kind:
            with temporary.open("r+b") as file:
                file.truncate(temporary.stat().st_size // 2)
            self.refused += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return Path(os.replace(temporary, path) or path)


@pytest.fixture
def quota(monkeypatch: pytest.MonkeyPatch) -> Quota:
    made = Quota()
    monkeypatch.setattr(files.Path, "replace", lambda temporary, path: made.moving(temporary, path))
    return made


def test_these_are_all_the_kinds_of_files(finished_tiny: Path) -> None:
    only_while_made = {"latest.safetensors", "batch.json"}
    logs = {"log.txt", "log.jsonl", "lock"}
    assert {kind(path) for path in finished_tiny.rglob("*") if path.is_file()} - logs <= {*KINDS, *OTHER_FIGURES}
    assert set(KINDS) - only_while_made <= {kind(path) for path in finished_tiny.rglob("*") if path.is_file()}


AFTER_CHECKPOINT = KINDS[KINDS.index("latest.safetensors") + 1]
"""Without a first checkpoint a run goes on only if told to begin anew."""

OTHER_FIGURES = ("confusion_matrix.png", "reliability.png", "risk_coverage.png")


def test_at_one_kind_after_another(finished_tiny: Path, tmp_path: Path, btkit: Callable, quota: Quota) -> None:
    """Each time that there is room again it is used up by the next file, to the end of the run."""
    begin = ("run", "resnet_adam", *TINY, "--runs", tmp_path, "--name", "filled")
    run = tmp_path / "filled"
    for full in KINDS:
        quota.kind, quota.refused = full, 0
        accept = ["--accept-changes"] if full == AFTER_CHECKPOINT else []
        ended = btkit(*begin) if not run.exists() else btkit("run", "--resume", run, *accept)
        check_full(full, run, ended.status, ended.err, quota)
    quota.kind = None
    ended = btkit("run", "--resume", run)
    assert ended.status == 0, ended.err
    assert same_results(run, finished_tiny)
    assert whole_files(run) >= {*KINDS} - {"latest.safetensors", "batch.json"}


def check_full(full: str, run: Path, status: int, err: str, quota: Quota) -> None:
    """How it ends where there is no room for a kind of file."""
    assert status == 3, (full, err)
    assert quota.refused
    assert "could not be written: No space left on device. Files written before are whole; make room" in err
    assert "Traceback" not in err
    if full in BEFORE:
        assert "the run had not begun, and nothing is left of it" in err
        assert not run.exists()
    else:
        assert full not in whole_files(run)
        assert f"btkit run --resume {run}" in " ".join(err.split())
        assert read_json(run / "record.json")["status"] == "failed"


@pytest.mark.long
@pytest.mark.parametrize("full", KINDS)
def test_at_each_kind_of_file(full: str, finished_tiny: Path, tmp_path: Path, btkit: Callable, quota: Quota) -> None:
    begin = ("run", "resnet_adam", *TINY, "--runs", tmp_path, "--name", "filled")
    run, quota.kind = tmp_path / "filled", full
    ended = btkit(*begin)
    check_full(full, run, ended.status, ended.err, quota)
    quota.kind = None
    accept = ["--accept-changes"] if full == "latest.safetensors" else []
    ended = btkit(*begin) if full in BEFORE else btkit("run", "--resume", run, *accept)
    assert ended.status == 0, ended.err
    assert same_results(run, finished_tiny)
    assert whole_files(run) >= {*KINDS} - {"latest.safetensors", "batch.json"}


# A disk of its own


@pytest.mark.parametrize(
    "megabytes", [pytest.param(20, marks=pytest.mark.long), 140, pytest.param(280, marks=pytest.mark.long)]
)
def test_a_real_disk_that_fills(megabytes: int, finished: Path, disk: Callable[..., Path], tmp_path: Path) -> None:
    """At 20 MB the first checkpoint does not fit, at 140 the best weights beside it, at 280 the next checkpoint beside
    both."""
    run = disk(megabytes) / "filled"
    began = subprocess.run(
        [*command("resnet_adam"), *OPTIONS, "--runs", str(run.parent), "--name", run.name],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert began.returncode == 3, began.stderr
    assert "could not be written: No space left on device" in began.stderr
    assert "Traceback" not in began.stderr
    print(began.stderr)
    kept = whole_files(run)
    disk(2000)
    accept = [] if "latest.safetensors" in kept else ["--accept-changes"]
    subprocess.run([*command("--resume", run), *accept], check=True, capture_output=True)
    assert same_results(run, finished)
    whole_files(run)
