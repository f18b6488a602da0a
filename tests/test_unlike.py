"""Pictures that are no MRI do not come back as a tumour without a flag, and scans do, from a model of real slices."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_image

PHOTOGRAPHS = (
    "astronaut", "brick", "camera", "cell", "chelsea", "clock_motion", "coffee", "coins", "grass", "gravel", "horse",
    "ihc", "microaneurysms", "moon", "motorcycle_left", "page", "text",
)  # fmt: skip
"""Of scikit-image's package data: people, animals, textures, pages, microscopy."""


def no_scans() -> dict[str, NDArray[np.uint8]]:
    """Photographs as they are, made grey, and cut at random; noise; even pictures."""
    random = np.random.default_rng(0)
    folder = Path(skimage.__file__).parent / "data"
    found = {name: np.asarray(Image.open(folder / f"{name}.png").convert("RGB")) for name in PHOTOGRAPHS}
    found |= {name: load_sample_image(f"{name}.jpg") for name in ("china", "flower")}
    for name, picture in list(found.items()):
        grey = np.asarray(Image.fromarray(picture).convert("L"))
        side = int(min(grey.shape) * random.uniform(0.5, 0.9))
        top, left = (int(random.integers(0, length - side + 1)) for length in grey.shape)
        found |= {f"{name}-grey": grey, f"{name}-cut": grey[top : top + side, left : left + side]}
    found |= {f"noise-{n}": random.integers(0, 256, (200, 200), dtype=np.uint8) for n in range(3)}
    return found | {"white": np.full((200, 200), 255, np.uint8), "black": np.zeros((200, 200), np.uint8)}


@pytest.fixture(scope="module")
def nickparvar(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every eleventh slice of the real set."""
    folder = tmp_path_factory.mktemp("sets") / "nickparvar"
    for path in sorted((real_data / "nickparvar").glob("*/*/*.webp"))[::11]:
        place = folder / path.relative_to(real_data / "nickparvar")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    return folder


@pytest.mark.data
def test_what_is_no_scan_is_flagged_and_scans_are_not(nickparvar: Path, tmp_path: Path, btkit: Callable) -> None:
    phases = '[{ epochs = 2, trainable = "head", learning_rate = 3e-3 }]'
    wish = (f"--set=source.root={nickparvar}", f"--set=training.phases={phases}", "--set=report=false")
    ended = btkit("run", "efficientnet_lite0_transfer", *wish, "--runs", tmp_path, "--name", "run")
    assert ended.status == 0, ended.err
    others, turned = tmp_path / "others", tmp_path / "turned"
    for folder in (others, turned):
        folder.mkdir()
    for name, picture in no_scans().items():
        Image.fromarray(picture).save(others / f"{name}.png")
    scans = sorted((nickparvar / "Testing").glob("*/*.webp"))
    for number, path in enumerate(scans[::20]):
        Image.fromarray(255 - np.asarray(Image.open(path).convert("L"))).save(turned / f"{number}.png")

    def said(folder: Path) -> list[dict]:
        return json.loads(btkit("predict", tmp_path / "run", folder, "--json").out)

    scores = np.array([item["ood_score"] for item in said(nickparvar / "Testing")])
    threshold = np.quantile(scores, 0.95)  # one scan in twenty is a false alarm
    foreign = said(others)
    assert len(foreign) == 62
    missed = [Path(item["path"]).name for item in foreign if item["ood_score"] <= threshold]
    assert len(missed) <= 0.05 * len(foreign), missed
    assert all(item["ood_score"] > threshold for item in said(turned))  # inverted scans

    # The threshold that the run itself settled on validation does the same.
    kept = json.loads((tmp_path / "run" / "certainty.json").read_text())
    assert kept["false_alarms"] == 0.05
    assert (scores > kept["ood_threshold"]).mean() < 0.15
    flagged = [item["out_of_distribution"] for item in foreign]
    assert np.mean(flagged) >= 0.95
    assert all(item["abstain"] for item in foreign if item["out_of_distribution"])
    assert sum(foreign[0]["calibrated"].values()) == pytest.approx(1)
