"""The folder of caches: shared by runs, checked on opening, bounded, cleared."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from test_dataset import PIXELS, folder, read

from braintumor_kit.data import caches, rows
from braintumor_kit.data.cache import cache_key, decoded_slices
from braintumor_kit.errors import InputError, WorkError
from braintumor_kit.files import read_json

pytestmark = pytest.mark.alone

__all__ = ["folder"]
EVERY = np.arange(200)

SLOW = """
import time
from pathlib import Path

import numpy as np

from braintumor_kit.contracts import PluginOptions, Sample, Source


class SlowOptions(PluginOptions):
    pass


class Slow(Source[SlowOptions]):
    "Pictures that take their time."
    api_version = 1
    Options = SlowOptions
    classes = ("dark", "bright")

    def samples(self):
        for number in range(160):
            yield Sample(f"s{number:03}", self.classes[number % 2], group=f"p{number % 40}")

    def image(self, sample):
        time.sleep(0.05)
        number = int(sample.id[1:])
        random = np.random.default_rng(number)
        return random.integers(0, 120, (48, 48), dtype=np.uint8) + np.uint8(100 * (number % 2))

    def mask(self, sample):
        return None
"""

RECIPE = """
[source]
name = "slow"
[pixels]
image_size = 32
[split]
method = "grouped"
[backbone]
name = "resnet"
depth = 18
[training]
epochs = 1
batch_size = 32
precision = "float32"
"""


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(caches.ENVIRONMENT, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.usefixtures("cache_of_its_own")
@pytest.mark.parametrize("damage", ["a byte", "the end", "the table", "the shape"])
def test_a_damaged_cache_is_made_again(folder: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    dataset = read(folder)
    right = decoded_slices(dataset, PIXELS)[1][EVERY]
    entry = caches.cache_folder() / "slices" / cache_key(dataset, PIXELS)
    file = entry / rows.ROWS
    if damage == "a byte":
        with file.open("r+b") as open_file:
            open_file.seek(100_000)
            (byte,) = open_file.read(1)
            open_file.seek(100_000)
            open_file.write(bytes([byte ^ 1]))
    elif damage == "the end":
        os.truncate(file, file.stat().st_size - 1)
    elif damage == "the table":
        (entry / rows.CONTENT).write_text('{"bad": [{}]}')
    else:
        np.save(file, np.zeros((199, 32, 32, 1), np.uint8))
    np.testing.assert_array_equal(decoded_slices(dataset, PIXELS)[1][EVERY], right)
    assert "is damaged; it is made again" in caplog.text
    caplog.clear()
    decoded_slices(dataset, PIXELS)
    assert not caplog.records


def test_what_was_not_used_for_longest_goes_first(cache_of_its_own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for age, name in enumerate(("new", "middle", "old")):
        (cache_of_its_own / "slices" / name).mkdir(parents=True)
        (cache_of_its_own / "slices" / name / "x").write_bytes(bytes(1000))
        os.utime(cache_of_its_own / "slices" / name, (1e9 - age, 1e9 - age))
    monkeypatch.setenv(caches.LIMIT, "0.0000035")
    caches.make_room(500)
    assert {entry.folder.name for entry in caches.entries()} == {"new", "middle", "old"}
    caches.make_room(1500)
    assert {entry.folder.name for entry in caches.entries()} == {"new", "middle"}
    with FileLock(cache_of_its_own / "slices" / "middle.lock"):  # a process is at work on it
        caches.make_room(10_000)
    assert [entry.folder.name for entry in caches.entries()] == ["middle"]


@pytest.mark.parametrize("text", ["much", "0", "-1", "nan", "inf"])
def test_a_limit_that_is_none(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(caches.LIMIT, text)
    with pytest.raises(InputError, match=rf"BTKIT_CACHE_GB = '{text}': give a number of gigabytes above 0"):
        caches.cache_limit()


def test_the_cache_is_cleared(folder: Path, btkit: Callable, cache_of_its_own: Path) -> None:
    decoded_slices(read(folder), PIXELS)
    torn = cache_of_its_own / "slices" / f"{caches.BUILDING}abc"
    torn.mkdir()
    ended = btkit("doctor", "--clear-cache")
    assert ended.status == 0
    assert ended.out.startswith("removed 1 caches of 0 MB in ")
    assert not torn.exists()
    assert caches.entries() == []
    decoded_slices(read(folder), PIXELS)
    (entry,) = caches.entries()
    with FileLock(entry.folder.with_name(f"{entry.folder.name}.lock")):
        ended = btkit("doctor", "--clear-cache", "--json")
    assert ended.out.split() == ["{", '"removed":', "0,", '"bytes":', "0,", '"busy":', "1", "}"]
    assert entry.folder.is_dir()


def test_a_worker_that_hangs_is_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "HUNG", 3.0)
    monkeypatch.setattr(rows, "_compute_chunk", _hangs_at_the_third)
    began = time.monotonic()
    with pytest.raises(WorkError, match=r"nothing came for 3 s, from 'glioma/064\.png' to 'glioma/095\.png'"):
        decoded_slices(read(folder), PIXELS)
    assert time.monotonic() - began < 30
    assert caches.entries() == []


def _hangs_at_the_third(plugin: object, samples: tuple, row: np.ndarray, compute: object) -> object:
    if samples[0].id == "glioma/064.png":
        time.sleep(60)
    return np.stack([row] * len(samples)), []


def test_two_runs_at_once_one_of_them_killed(tmp_path: Path, cache_of_its_own: Path) -> None:
    (tmp_path / "plugins" / "sources").mkdir(parents=True)
    (tmp_path / "plugins" / "sources" / "slow.py").write_text(SLOW)
    (tmp_path / "recipe.toml").write_text(RECIPE)

    def run(name: str) -> "subprocess.Popen[bytes]":
        words = ["--plugins", "plugins", "run", "recipe.toml", "--runs", ".", "--name", name]
        with (tmp_path / f"{name}.txt").open("wb") as told:  # a pipe would stay open as long as orphaned workers live
            return subprocess.Popen([sys.executable, "-m", "braintumor_kit", *words], cwd=tmp_path, stderr=told)

    first = run("first")
    until = time.monotonic() + 60
    while not list(cache_of_its_own.glob(f"slices/{caches.BUILDING}*")) and time.monotonic() < until:
        time.sleep(0.01)
    second = run("second")
    time.sleep(1.0)
    first.send_signal(signal.SIGKILL)
    assert first.wait(60) == -signal.SIGKILL
    assert second.wait(120) == 0, (tmp_path / "second.txt").read_text()
    assert run("third").wait(120) == 0  # what was killed, again
    assert not (tmp_path / "first").exists()
    assert not list(cache_of_its_own.glob(f"slices/{caches.BUILDING}*"))
    metrics = [read_json(tmp_path / name / "metrics.json") for name in ("second", "third")]
    assert metrics[0] == metrics[1]
