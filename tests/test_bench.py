"""`btkit bench`: what it compares, what it writes, and ratios that guard the speed."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from braintumor_kit.bench import explaining
from braintumor_kit.bench import race as races
from braintumor_kit.bench.race import Entry, race
from braintumor_kit.bench.rows import Row
from braintumor_kit.commands.bench import GROUPS
from braintumor_kit.errors import WorkError

pytestmark = pytest.mark.alone


def benched(out: Path, groups: tuple[str, ...], rounds: int) -> dict[str, Any]:
    """What `btkit bench` tells of ResNet-18 on pictures of 64 pixels."""
    words = [word for group in groups for word in ("--only", group)]
    sizes = ["--depth", "18", "--image-size", "64", "--rounds", str(rounds)]
    command = [sys.executable, "-m", "braintumor_kit", "bench", *words, *sizes, "--out", str(out), "--json"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    result: dict[str, Any] = json.loads(ended.stdout)
    assert result == json.loads((out / "bench.json").read_text())
    with Image.open(out / "bench.png") as figure:
        assert figure.width > 1000
    return result


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A small one."""
    return benched(tmp_path_factory.mktemp("bench"), ("fit", "inference", "frozen", "data"), rounds=3)


def row(bench: dict[str, Any], name: str, peer: str = "") -> dict[str, Any]:
    """The row of that name whose peer contains these words."""
    (found,) = (row for row in bench["rows"] if row["name"].startswith(name) and peer in row["peer"])
    return found


def test_the_machine_and_the_documented_keys_are_there(bench: dict[str, Any]) -> None:
    assert set(bench["machine"]) >= {"processor", "cores", "bf16_matrix_units", "gpu"}
    assert bench["machine"]["cores"] >= 1
    for item in bench["rows"]:
        assert set(item) >= {"name", "peer", "ours", "theirs", "unit", "ratio"}
        assert item["ours"] > 0
        assert item["theirs"] > 0


def test_ratios_are_of_the_two_figures(bench: dict[str, Any]) -> None:
    for item in bench["rows"]:
        better = item["ours"] / item["theirs"] if item["unit"] == "images/s" else item["theirs"] / item["ours"]
        if item["low"] is None:
            assert item["ratio"] == pytest.approx(better)
        else:
            assert item["low"] <= item["ratio"] <= item["high"]


def test_training_is_faster_than_keras_hub_as_it_comes(bench: dict[str, Any], tmp_path: Path) -> None:
    """Promised is twice at 224 pixels; this is a small picture on a busy machine, which may disturb three rounds."""
    ratio = row(bench, "fit/", "keras-hub")["ratio"]
    if ratio <= 1.2:
        ratio = row(benched(tmp_path, ("fit",), rounds=9), "fit/", "keras-hub")["ratio"]
    assert ratio > 1.2


def test_a_second_run_decodes_nothing_and_a_frozen_trunk_computes_once(bench: dict[str, Any]) -> None:
    assert row(bench, "data/")["ratio"] > 3
    assert row(bench, "frozen/")["ratio"] > 3


def test_little_of_an_epoch_is_outside_of_its_steps(bench: dict[str, Any]) -> None:
    assert row(bench, "overhead/")["ours"] < 0.2


def test_a_promise_is_kept_or_not() -> None:
    assert Row("a", "b", 2, 1, "images/s", 2.0, at_least=2.0).holds
    assert not Row("a", "b", 1.9, 1, "images/s", 1.9, at_least=2.0).holds
    assert Row("a", "b", 1, 2, "images/s", 0.5).holds


def test_contenders_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two contenders that write down when it is their turn."""
    script = tmp_path / "turns.py"
    script.write_text(
        "import json, sys\n"
        "from pathlib import Path\n"
        "from braintumor_kit.bench.gate import Gate\n"
        "settings = json.loads(sys.argv[-1])\n"
        "def tell(word):\n"
        "    with Path(settings['file']).open('a') as file: file.write(settings['name'] + word)\n"
        "gate = Gate()\n"
        "gate.wait(); tell('0'); gate.ready()\n"
        "while gate.wait(): tell('1'); gate.done(8, more=2)\n"
    )
    monkeypatch.setattr(races, "COMMAND", (sys.executable, str(script)))
    file = str(tmp_path / "turns")
    a, b = race([Entry("a", {"name": "a", "file": file}), Entry("b", {"name": "b", "file": file})], rounds=2)
    assert Path(file).read_text() == "a0b0a1b1a1b1"
    assert len(a.rates) == len(b.rates) == 2
    assert a.facts[0]["more"] == 2
    assert a.rates[0] == pytest.approx(8 / a.facts[0]["seconds"])


def test_a_contender_that_fails_is_named_with_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(races, "COMMAND", (sys.executable, "-c", "raise SystemExit('no such network')"))
    with pytest.raises(WorkError, match="the benchmark's 'torch_fit' stopped: no such network"):
        race([Entry("torch_fit")], rounds=1)


def test_the_command_offers_the_groups_that_there_are() -> None:
    from braintumor_kit.bench.groups import GROUPS as KNOWN

    assert tuple(KNOWN) == GROUPS


class OneLap:
    """A gate that lets a contender through once, and remembers what it told."""

    def __init__(self) -> None:
        self.images, self.facts = 0, {}

    def laps(self) -> Iterator[None]:
        yield

    def done(self, images: int, **facts: float) -> None:
        self.images, self.facts = images, facts


def test_explanations_are_of_one_network_for_all_contenders(tmp_path: Path) -> None:
    """Each contender goes one lap; btkit's Keras network scores what the peers' torch network scores."""
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 1), np.uint8)
    explaining.write_network(tmp_path, 18, images, np.arange(4))
    settings = {
        "folder": str(tmp_path), "depth": 18, "image_size": 64, "dtype": "float32", "batch_size": 4, "images": 2,
        "warm_up": 1, "steps": 1, "method": "gradcam", "methods": ["gradcam"],
    }  # fmt: skip
    ours = explaining._network(settings, "float32").logits(explaining._images({**settings, "images": 4}))
    with torch.no_grad():
        theirs = explaining._loaded(settings)(explaining._normalised(images))
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-4)
    for lap, method in (
        (explaining.btkit_laps, "gradcam"), (explaining.grad_cam_laps, "gradcampp"), (explaining.captum_laps, ""),
        (explaining.agreement, ""),
    ):  # fmt: skip
        gate = OneLap()
        lap({**settings, "method": method}, gate)
        assert gate.images > 0
    assert gate.facts == {"gradcam": pytest.approx(1)}
