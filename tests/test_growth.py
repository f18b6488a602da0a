"""Memory and time per slice stay as they are when a data set grows tenfold."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from braintumor_kit.bench.gate import anonymous_memory
from braintumor_kit.files import read_csv

RECIPE = """\
[source]
name = "image_folder"
root = "pictures"
[pixels]
image_size = 64
[split]
method = "stratified"
[augment]
flip_horizontal = true
[backbone]
name = "resnet"
[training]
epochs = 1
"""


@dataclass(frozen=True)
class Grown:
    """What a run took.

    Attributes:
        memory: greatest anonymous resident memory of all its processes, in MiB.
        seconds: for a slice, of the whole run.
        training: for a slice, of its epoch.
    """

    memory: float
    seconds: float
    training: float


def write_slices(folder: Path, count: int) -> None:
    """Small pictures, each different, of two classes."""
    random = np.random.default_rng(0)
    for number in range(count):
        path = folder / "pictures" / ("notumor", "glioma")[number % 2] / f"{number:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.kron(random.integers(0, 256, (16, 16), np.uint8), np.ones((4, 4), np.uint8))
        Image.fromarray(pixels).save(path, compress_level=1)
    (folder / "recipe.toml").write_text(RECIPE)


def memory_of_all(process: int) -> float:
    """Anonymous memory of a process and all below it, in MiB: maps of files do not count."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:  # it has just ended
        return 0.0
    return anonymous_memory(process) + sum(memory_of_all(int(child)) for child in children)


def run(folder: Path, count: int) -> Grown:
    write_slices(folder, count)
    command = [sys.executable, "-m", "braintumor_kit", "run", str(folder / "recipe.toml"), "--runs", str(folder)]
    began, most = time.monotonic(), 0.0
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            [*command, "--name", "grown"],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "BTKIT_CACHE": str(folder / "cache")},
        )
        while process.poll() is None:
            most = max(most, memory_of_all(process.pid))
            time.sleep(0.1)
    assert process.returncode == 0, (folder / "output").read_text()[-2000:]
    seconds = time.monotonic() - began
    assert json.loads((folder / "grown" / "metrics.json").read_text())["test"]["n"] == round(0.15 * count)
    (row,) = read_csv(folder / "grown" / "history.csv")
    return Grown(most, seconds / count, float(row["seconds"]) / count)


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ten_times_the_slices_take_the_same_memory_and_the_same_time_each(tmp_path: Path) -> None:
    """A small run before and one after the large one: a machine that changes its pace meanwhile is no growth."""
    before, many, after = (
        run(tmp_path / name, count) for name, count in {"before": 5_000, "many": 50_000, "after": 5_000}.items()
    )
    print(before, many, after)
    assert many.memory < 1.15 * max(before.memory, after.memory)
    assert many.seconds < 1.15 * max(before.seconds, after.seconds)
    assert many.training < 1.15 * max(before.training, after.training)
