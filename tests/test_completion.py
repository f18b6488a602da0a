"""What shells offer after Tab, asked as shells ask it; and that it is quick, since nothing heavy is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from braintumor_kit.commands.main import cli
from braintumor_kit.recipe.shipped import shipped_recipes
from braintumor_kit.registry import Registry

EXPLAINERS = Registry().names("explainer")


def offered(*words: str) -> list[str]:
    """Values for the last word; "file" where the shell offers files, too."""
    *before, last = words
    found = ShellComplete(cli, {}, "btkit", "_BTKIT_COMPLETE").get_completions(before, last)
    return [item.type if item.type != "plain" else str(item.value) for item in found]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two runs, the second newer, and of something else."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("old", "new")):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "record.json").write_text("{}")
        os.utime(folder, (1000 + number, 1000 + number))
    (tmp_path / "runs" / "mlruns").mkdir()
    return tmp_path / "runs"


def test_commands_options_and_choices() -> None:
    assert offered("re") == ["report", "recipe"]
    assert offered("explain", "--eva") == ["--evaluate"]
    assert offered("explain", "--split", "") == ["train", "validation", "test"]
    assert set(offered("plugins", "")) == {"list", "show", "check", "new"}
    assert offered("explain", "--target", "") == ["predicted", "label", "all"]


@pytest.mark.parametrize("words", [("run",), ("audit",), ("recipe", "show"), ("recipe", "check"), ("data", "info")])
def test_recipes_and_files(words: tuple[str, ...]) -> None:
    assert offered(*words, "") == [*shipped_recipes(), "file"]
    assert offered(*words, "resnet") == ["resnet_adam", "file"]


def test_a_recipe_is_told_with_what_it_is_for() -> None:
    found = ShellComplete(cli, {}, "btkit", "_BTKIT_COMPLETE").get_completions(["run"], "resnet")
    assert found[0].help == (
        "The first recipe to run: a ResNet-18 from random weights on the embedded phantom, Adam, ReduceLROnPlateau."
    )


@pytest.mark.parametrize(
    "words",
    [("run", "--resume"), ("predict",), ("predict", "--with"), ("explain",), ("evaluate",),
     ("evaluate", "--against"), ("evaluate", "--with"), ("report",), ("serve",), ("doctor", "--bundle")],
)  # fmt: skip
def test_runs_the_newest_first(words: tuple[str, ...], runs: Path) -> None:
    assert offered(*words, "") == ["runs/new", "runs/old", "file"]
    assert offered(*words, "runs/o") == ["runs/old", "file"]


def test_runs_elsewhere(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert offered("predict", "--runs", str(runs), "") == [f"{runs}/new", f"{runs}/old", "file"]
    assert offered("predict", "--runs", str(tmp_path / "none"), "") == ["file"]


def test_plugins_of_the_kind_that_is_asked_for(tmp_path: Path) -> None:
    assert offered("plugins", "show", "") == ["source", "backbone", "explainer"]
    assert offered("plugins", "check", "source", "") == ["dicom", "figshare", "image_folder", "nifti", "phantom"]
    assert offered("plugins", "show", "backbone", "r") == ["resnet"]
    assert offered("evaluate", "--source", "ph") == ["phantom"]
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "photos.py").write_text("raise SystemExit('not imported')")
    assert offered("--plugins", str(tmp_path), "plugins", "show", "source", "ph") == ["phantom", "photos"]
    assert offered("--plugins", str(tmp_path / "none"), "plugins", "show", "source", "") == []


def test_methods_after_commas() -> None:
    assert offered("explain", "--method", "") == EXPLAINERS
    assert offered("explain", "--method", "gradcam,gr") == ["gradcam,gradcampp"]


def test_keys_of_recipes() -> None:
    assert offered("run", "x", "--set", "training.l") == ["training.learning_rate", "training.label_smoothing"]
    assert offered("run", "x", "--set", "callbacks.early_stopping.p") == ["callbacks.early_stopping.patience"]
    assert offered("run", "x", "--set", "training.phases.0.e") == ["training.phases.0.epochs"]
    assert offered("run", "x", "--set", "mlflow.e") == ["mlflow.experiment"]
    assert offered("run", "x", "--set", "explain.0.met") == ["explain.0.method"]


ASK = """
import sys
from braintumor_kit.commands.main import main
try:
    main([])
except SystemExit as ended:
    print(ended.code, [name for name in ("torch", "keras", "numpy", "sklearn", "matplotlib") if name in sys.modules])
"""


@pytest.mark.parametrize(
    "words", ["btkit ", "btkit run ", "btkit explain --method gradcam,", "btkit run x --set mlflow."]
)
def test_nothing_heavy_is_imported(words: str, runs: Path) -> None:
    environment = {**os.environ, "COMP_WORDS": words, "COMP_CWORD": str(words.count(" ")),
                   "_BTKIT_COMPLETE": "bash_complete"}  # fmt: skip
    script = f"import sys; sys.argv = ['btkit']\n{ASK}"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    *lines, last = done.stdout.splitlines()
    assert last == "0 []"
    assert len(lines) > 1
    assert all(line.partition(",")[0] in ("plain", "file") for line in lines)


@pytest.mark.parametrize(
    ("shell", "mark"), [("bash", "complete -o nosort"), ("zsh", "#compdef btkit"), ("fish", "complete")]
)
def test_each_shell_gets_its_script(shell: str, mark: str) -> None:
    environment = {**os.environ, "_BTKIT_COMPLETE": f"{shell}_source"}
    script = f"import sys; sys.argv = ['btkit']\n{ASK}"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert mark in done.stdout
    assert f"_BTKIT_COMPLETE={shell}_complete" in done.stdout
