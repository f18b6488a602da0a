"""Start-up: help and lists import nothing heavy, no command imports tensorflow, predicting adds little to Keras' own
imports."""

import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from braintumor_kit.model.build import build_classifier
from braintumor_kit.registry import Registry

pytestmark = pytest.mark.alone

HEAVY = (
    "torch", "keras", "keras_hub", "numpy", "PIL", "scipy", "sklearn", "matplotlib", "tensorflow", "pydantic",
    "torchvision", "torch._inductor", "timm", "pandas", "nibabel", "nilearn", "kagglehub", "safetensors",
    "braintumor_kit.model.build", "braintumor_kit.training", "braintumor_kit.evaluation.metrics",
    "braintumor_kit.report", "btkit_plugins",
)  # fmt: skip

TORCH_AND_KERAS = """
from braintumor_kit.backend import use_torch_backend
use_torch_backend()
import torch, keras
"""
"""What every command that computes has to import, and what such a command is measured against."""

REPEATS = 3


def run_and_list(*arguments: str) -> list[str]:
    """Heavy modules that a command imported, in a fresh process."""
    return printed(f"{running(*arguments)}\nimport sys\nprint(*[name for name in {HEAVY!r} if name in sys.modules])")


def running(*arguments: str) -> str:
    return (
        "from braintumor_kit.commands.main import run_command_line\n"
        f"assert run_command_line({list(arguments)!r}) == 0\n"
    )


def printed(script: str) -> list[str]:
    """Words of the last line that a script prints, in a fresh process."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()


@pytest.fixture(scope="module")
def predict(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The arguments of `btkit predict` for one picture with a ResNet-18."""
    folder = tmp_path_factory.mktemp("resnet")
    resnet = Registry().load("backbone", "resnet")
    classifier = build_classifier(resnet(resnet.Options(depth=18, weights="none")), 4, 224)  # type: ignore[arg-type]
    classifier.model.save(folder / "model.keras")
    Image.fromarray(np.arange(256 * 256, dtype=np.uint8).reshape(256, 256)).save(folder / "picture.png")
    return ["predict", str(folder / "model.keras"), str(folder / "picture.png")]


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"], ["predict", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    assert run_and_list(*arguments) == []


def test_plugins_list_imports_no_library_of_numbers() -> None:
    assert run_and_list("plugins", "list") == ["pydantic"]


@pytest.mark.parametrize(
    "arguments",
    [["doctor"], ["recipe", "check", "resnet_adam"], ["recipe", "schema"], ["plugins", "show", "backbone", "resnet"]],
)
def test_no_command_imports_tensorflow(arguments: list[str]) -> None:
    found = run_and_list(*arguments)
    assert "tensorflow" not in found
    assert "keras" in found


@pytest.mark.parametrize(("arguments", "seconds"), [(["--help"], 0.3), (["plugins", "list"], 0.5)])
def test_nobody_waits(arguments: list[str], seconds: float) -> None:
    """The best of five, so that a busy machine does not decide; python's own start-up is included."""
    best = min(_seconds([sys.executable, "-m", "braintumor_kit", *arguments]) for _ in range(5))
    assert best <= seconds


def _seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, capture_output=True, check=True)
    return time.perf_counter() - began


def test_predict_imports_nothing_heavy_beyond_keras_own(predict: list[str]) -> None:
    """Keras itself imports matplotlib, pandas, scipy and sklearn where they are installed; btkit adds none."""
    own = printed(f"{TORCH_AND_KERAS}\nimport sys\nprint(*[name for name in {HEAVY!r} if name in sys.modules])")
    found = run_and_list(*predict)
    assert "keras" in found
    assert set(found) - set(own) <= {"numpy", "PIL", "scipy", "pydantic"}


def test_the_collector_stands_aside_for_the_imports_alone(predict: list[str]) -> None:
    enabled, frozen = printed(f"{running(*predict)}\nimport gc\nprint(gc.isenabled(), gc.get_freeze_count())")
    assert enabled == "True"
    assert int(frozen) > 100_000


def test_predict_is_hardly_slower_than_its_imports(predict: list[str]) -> None:
    """The best of some interleaved runs, so that a busy machine does not decide."""
    command = [sys.executable, "-m", "braintumor_kit", *predict]
    imports = [sys.executable, "-c", TORCH_AND_KERAS]
    seconds = [(_seconds(imports), _seconds(command)) for _ in range(REPEATS)]
    least, best = (min(column) for column in zip(*seconds, strict=True))
    assert best <= 1.4 * least
