"""One small run, explained, for all tests of `btkit explain`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explained import IG, PHANTOM, SMALL
from PIL import Image

from braintumor_kit.commands.main import run_command_line
from braintumor_kit.recipe.load import load_source
from braintumor_kit.workflows import draw_explanations

ALONE = ("--set=explain=[]", "--set=report=false")
"""Without maps of its own: tests make theirs."""


@pytest.fixture(scope="package")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="package")
def run(runs: Path) -> Path:
    assert run_command_line(["run", "resnet_adam", *SMALL, *ALONE, "--runs", str(runs), "--name", "first"]) == 0
    return runs / "first"


@pytest.fixture(scope="package")
def made(run: Path, runs: Path) -> Path:
    """Explanations of the newest run's test split by two methods."""
    arguments = ["explain", "--runs", str(runs), "--method", "gradcam,integrated_gradients", *IG]
    assert run_command_line(arguments) == 0
    return run / "explanations"


@pytest.fixture(scope="package")
def source() -> Any:
    return load_source("phantom", PHANTOM).make()


@pytest.fixture(scope="package")
def pictures(tmp_path_factory: pytest.TempPathFactory, source: Any) -> Path:
    """Three PNG files, one with 16 bits and none square but the first."""
    folder = tmp_path_factory.mktemp("pictures")
    first, second, third, *_ = (source.image(sample) for sample in source.samples())
    Image.fromarray(first).save(folder / "a.png")
    wide = np.pad(np.asarray(Image.fromarray(second).resize((90, 80))), ((10, 20), (30, 40)))
    Image.fromarray(wide).save(folder / "b.png")
    Image.fromarray(third[:50].astype(np.uint16) * 200).save(folder / "c.png")
    return folder


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What overlays were drawn with."""
    seen: list[dict[str, Any]] = []
    save = draw_explanations.save_overlay

    def spy(path: Path, *rest: Any, **options: Any) -> None:
        seen.append({"path": path, **options})
        save(path, *rest, **options)

    monkeypatch.setattr(draw_explanations, "save_overlay", spy)
    return seen
