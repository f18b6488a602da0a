"""Memory stays as it is while two thousand slices are explained."""

import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from braintumor_kit.bench.gate import anonymous_memory
from braintumor_kit.commands.main import run_command_line
from braintumor_kit.files import read_csv
from braintumor_kit.recipe.load import load_source

PATIENTS = 500
SMALL = ("source.patients=32", "source.size=64", "pixels.image_size=64", "training.epochs=1")


def large_run(run: Path) -> None:
    """Makes all slices of many patients the test split of a run that was trained on few."""
    resolved = json.loads((run / "resolved.json").read_text())
    resolved["source"]["patients"] = PATIENTS
    (run / "resolved.json").write_text(json.dumps(resolved))
    source = load_source("phantom", [f"source.patients={PATIENTS}", "source.size=64"]).make()
    with (run / "split.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "label", "group", "split"))
        writer.writerows((sample.id, sample.label, sample.group, "test") for sample in source.samples())


def memory_by_slices(command: list[str], folder: Path, batch: int = 32) -> list[tuple[int, float]]:
    """Runs a command; gives, ten times a second, how many slices are explained and its anonymous memory in MiB."""
    seen = []
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        while process.poll() is None:
            done = batch * len(list((folder / ".out.unfinished" / "batches").glob("[!.]*.json")))
            seen.append((done, anonymous_memory(process.pid)))
            time.sleep(0.1)
    assert process.returncode == 0, (folder / "output").read_text()[-2000:]
    return seen


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_two_thousand_slices_take_the_memory_of_the_first_two_hundred(tmp_path: Path) -> None:
    sets = [item for value in SMALL for item in ("--set", value)]
    assert run_command_line(["run", "resnet_adam", *sets, "--runs", str(tmp_path), "--name", "small"]) == 0
    large_run(tmp_path / "small")
    seen = memory_by_slices(
        [sys.executable, "-m", "braintumor_kit", "explain", str(tmp_path / "small"), "--method",
         "gradcam,integrated_gradients", "--set", "integrated_gradients.steps=4", "--out", str(tmp_path / "out")],
        tmp_path,
    )  # fmt: skip
    rows = read_csv(tmp_path / "out" / "explanations.csv")
    assert len(rows) == 2 * 4 * PATIENTS
    early = max(memory for done, memory in seen if 200 <= done < 400)
    late = max(memory for done, memory in seen if done >= 400)  # the drawing of overlays as well
    print(f"{early:.0f} MiB after the first 200 slices, {late:.0f} MiB at most from then on")
    assert late < 1.1 * early
