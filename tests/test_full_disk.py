"""A disk that fills, at each kind of file: what was written is whole, and with room again the run goes on."""

import errno
import json
import os
import subprocess
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from test_resume import command

from braintumor_kit import files
from braintumor_kit.files import read_csv, read_json

TRAINING = (
    "source.patients=12", "source.size=64", "pixels.image_size=64", "training.epochs=1", "training.batch_size=8",
    "training.precision=float32", "backbone.depth=18", "explain.0.limit=1",
)  # fmt: skip
OPTIONS = [item for value in TRAINING for item in ("--set", value)]

BEFORE = ("split.csv", "recipe.toml", "resolved.json", "record.json")
"""Written first: without them a run has not begun, and nothing is left of it."""

KINDS = (
    *BEFORE, "latest.safetensors", "history.csv", "best.weights.h5", "model.keras", "certainty.npz", "certainty.json",
    "predictions.csv", "metrics.json", "learning_curves.png", "sample_sheet.png", "explanations.json", "batch.json",
    "map.npy", "overlay.png", "explanations.csv", "summary.png",
)  # fmt: skip
"""One of each kind of file that a run writes."""


def kind(path: Path) -> str:
    """Of a file of a run: those that there are many of go by the folder that they lie in."""
    return {"maps": "map.npy", "overlays": "overlay.png", "batches": "batch.json"}.get(path.parent.name, path.name)


def read_whole(path: Path) -> None:
    """Reads a file to its end, by what it is; raises where it is not whole."""
    readers: dict[str, Callable[[Path], object]] = {
        ".json": lambda path: json.loads(path.read_text()),
        ".jsonl": lambda path: [json.loads(line) for line in path.read_text().splitlines()],
        ".csv": lambda path: [len(row) for row in read_csv(path)],
        ".toml": lambda path: tomllib.loads(path.read_text()),
        ".png": lambda path: Image.open(path).load(),
        ".npy": np.load,
        ".npz": lambda path: zipfile.ZipFile(path).testzip(),
        ".keras": lambda path: zipfile.ZipFile(path).testzip(),
        ".h5": lambda path: h5py.File(path).visititems(lambda name, item: None),
        ".safetensors": lambda path: safe_open(path, framework="pt").metadata(),
        ".txt": lambda path: path.read_text(),
        "": lambda path: path.read_bytes(),  # the lock
    }
    found = readers[path.suffix](path)
    assert found is None or path.suffix not in (".npz", ".keras"), f"{found} in {path} is damaged"


def whole_files(run: Path) -> set[str]:
    """Kinds of the files of a run, each read."""
    found = [path for path in run.rglob("*") if path.is_file()]
    for path in found:
        assert not path.name.startswith(files.TEMPORARY)
        read_whole(path)
    return {kind(path) for path in found}


def same_results(one: Path, other: Path) -> bool:
    names = ("predictions.csv", "metrics.json", "split.csv", "explanations/explanations.csv")
    results = [read_json(run / "record.json")["results"] for run in (one, other)]
    return results[0] == results[1] and all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from braintumor_kit.commands.main import run_command_line

    runs = tmp_path_factory.mktemp("runs")
    assert run_command_line(["run", "resnet_adam", *OPTIONS, "--runs", str(runs), "--name", "whole"]) == 0
    return runs / "whole"


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


def test_these_are_all_the_kinds_of_files(finished: Path) -> None:
    only_while_made = {"latest.safetensors", "batch.json"}
    logs = {"log.txt", "log.jsonl", "lock"}
    assert {kind(path) for path in finished.rglob("*") if path.is_file()} - logs <= {*KINDS, *OTHER_FIGURES}
    assert set(KINDS) - only_while_made <= {kind(path) for path in finished.rglob("*") if path.is_file()}


OTHER_FIGURES = ("confusion_matrix.png", "reliability.png", "risk_coverage.png")


@pytest.mark.parametrize("full", KINDS)
def test_at_each_kind_of_file(full: str, finished: Path, tmp_path: Path, btkit: Callable, quota: Quota) -> None:
    begin = ("run", "resnet_adam", *OPTIONS, "--runs", tmp_path, "--name", "filled")
    run, quota.kind = tmp_path / "filled", full
    ended = btkit(*begin)
    assert ended.status == 3
    assert quota.refused
    assert "could not be written: No space left on device. Files written before are whole; make room" in ended.err
    assert "Traceback" not in ended.err
    if full in BEFORE:
        assert "the run had not begun, and nothing is left of it" in ended.err
        assert not run.exists()
    else:
        assert full not in whole_files(run)
        assert f"btkit run --resume {run}" in " ".join(ended.err.split())
        assert read_json(run / "record.json")["status"] == "failed"
    quota.kind = None
    accept = ["--accept-changes"] if full == "latest.safetensors" else []
    ended = btkit(*begin) if full in BEFORE else btkit("run", "--resume", run, *accept)
    assert ended.status == 0, ended.err
    assert same_results(run, finished)
    assert whole_files(run) >= {*KINDS} - {"latest.safetensors", "batch.json"}


# A disk of its own


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A file system of so many megabytes; called again it grows."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = False

    def of_size(megabytes: int) -> Path:
        nonlocal mounted
        how = f"{'remount,' if mounted else ''}size={megabytes}m"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", how, "tmpfs", str(place)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
        mounted = True
        return place

    yield of_size
    if mounted:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.parametrize("megabytes", [20, 140, 280])
def test_a_real_disk_that_fills(megabytes: int, finished: Path, disk: Callable[[int], Path], tmp_path: Path) -> None:
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
