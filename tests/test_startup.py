"""Start-up: help and lists import nothing heavy, no command imports tensorflow."""

import subprocess
import sys
import time

import pytest

HEAVY = ("torch", "keras", "keras_hub", "numpy", "PIL", "scipy", "sklearn", "matplotlib", "tensorflow", "pydantic")


def run_and_list(*arguments: str) -> list[str]:
    """Heavy modules that a command imported, in a fresh process."""
    script = (
        "import sys\n"
        "from braintumor_kit.commands.main import run_command_line\n"
        f"run_command_line({list(arguments)!r})\n"
        f"print('IMPORTED', *[name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()[-1].split()[1:]


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
