"""`btkit plugins new`: what it writes keeps its contract untouched, and nothing is ever overwritten."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from braintumor_kit.registry import KINDS, Registry

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def python(*arguments: object, folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, *map(str, arguments)]
    settings = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, check=False)


def test_a_plugin_of_each_kind_passes_its_own_tests(here: Path, btkit: Callable) -> None:
    for kind in KINDS:
        ended = btkit("plugins", "new", kind, "my_new_one")
        assert ended.status == 0
        assert f"wrote plugins/{kind}s/my_new_one.py\nwrote plugins/tests/test_{kind}_my_new_one.py" in ended.out
        assert f"  btkit --plugins plugins plugins check {kind} my_new_one\n" in ended.out
    done = python("-m", "pytest", "-p", "no:cacheprovider", "plugins/tests", folder=here)
    assert "63 passed" in done.stdout, done.stdout
    assert done.stdout.count("ran 20 of 20 checks") == 3
    for arguments in (("check", "--select", "E,F,W,I,UP,B,C4,SIM,RUF,PT,N"),
                      ("format", "--check")):  # fmt: skip
        linted = python("-m", "ruff", *arguments, "--isolated", "--line-length", "120", "plugins", folder=here)
        assert linted.returncode == 0, linted.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_installs_and_passes_its_own_tests(kind: str, here: Path, btkit: Callable) -> None:
    ended = btkit("plugins", "new", kind, "my_own", "--package")
    assert ended.status == 0
    assert "  pip install -e btkit-my-own\n" in ended.out
    install = ("install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--target", "site")
    done = python("-m", "pip", *install, "./btkit-my-own", folder=here)
    assert done.returncode == 0, done.stderr
    done = python("-m", "pytest", "-p", "no:cacheprovider", "btkit-my-own/tests", folder=here, PYTHONPATH="site")
    assert done.returncode == 0, done.stdout
    assert f"{kind} 'my_own': ran 20 of 20 checks" in done.stdout
    done = python("-m", "braintumor_kit", "plugins", "list", folder=here, PYTHONPATH="site")
    (row,) = [line for line in done.stdout.splitlines() if "my_own" in line]
    assert row.split() == [kind, "my_own", "btkit-my-own", "0.1.0", f"btkit_my_own.my_own:MyOwn{kind.capitalize()}"]


@pytest.mark.parametrize("name", ["none", "sample", "trunk", "tensor"])
def test_names_that_mean_something_in_python_or_the_contract_do_no_harm(name: str, here: Path, btkit: Callable) -> None:
    for kind in KINDS:
        assert btkit("plugins", "new", kind, name).status == 0
        loaded = Registry((here / "plugins",)).load(kind, name)
        assert loaded.__name__ == name.capitalize() + kind.capitalize()


def test_it_is_written_where_plugins_are_named(here: Path, btkit: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTKIT_PLUGINS", os.pathsep.join(("second", "third")))
    assert "wrote first/explainers/a.py" in btkit("--plugins", "first", "plugins", "new", "explainer", "a").out
    assert "wrote second/explainers/a.py" in btkit("plugins", "new", "explainer", "a").out
    monkeypatch.delenv("BTKIT_PLUGINS")
    assert "wrote plugins/explainers/a.py" in btkit("plugins", "new", "explainer", "a").out


def test_nothing_is_overwritten(here: Path, btkit: Callable) -> None:
    (here / "plugins" / "tests").mkdir(parents=True)
    (here / "plugins" / "tests" / "test_explainer_mine.py").write_text("kept")
    ended = btkit("plugins", "new", "explainer", "mine")
    assert ended.status == 2
    assert "test_explainer_mine.py is there already, and nothing was written: choose another name" in ended.err
    assert not (here / "plugins" / "explainers").exists()


@pytest.mark.parametrize("name", ["My-Cam", "lambda", "../up", "1st", "tail_", "gradcam"])
def test_names_that_cannot_be_are_refused(name: str, here: Path, btkit: Callable) -> None:
    ended = btkit("plugins", "new", "explainer", name)
    assert ended.status == 2
    assert ended.err.startswith("btkit: ")
    assert len(ended.err.splitlines()) == 1
    assert ("there is explainer 'gradcam'" if name == "gradcam" else "cannot name a plugin") in ended.err
    assert not list(here.iterdir())
