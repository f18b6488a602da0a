"""Contracts and their checks: the built-in plugins keep them, and the three doors to the checks tell alike."""

import inspect
import json
import random
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from warm import Warm

from braintumor_kit.contracts import backbones, explainers, plugin, sources
from braintumor_kit.contracts.randomness import seeded
from braintumor_kit.registry import KINDS, Registry
from braintumor_kit.testing.parametrize import cases
from braintumor_kit.testing.run import CHECKS, Examination

pytestmark = pytest.mark.usefixtures("one_thread", "warm_opening")

CONTRACTS = {"source": sources, "backbone": backbones, "explainer": explainers}
BUILT_IN = [case for info in Registry().plugins for case in cases(info.kind, info.name)]

IMPORTS = """
from __future__ import annotations
from collections.abc import Iterator
from pathlib import Path
from typing import Any
import keras
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from torch import Tensor
from braintumor_kit.contracts import *
from braintumor_kit.contracts.pictures import read_picture
"""

CAM = """
from braintumor_kit.contracts import Explainer, NoOptions

class Cam(Explainer[NoOptions]):
    api_version = 1
    Options = NoOptions

    def maps(self, model, images, targets):
        a, g, _ = model.activations_and_gradients(images, targets)
        return (g.mean(dim=(2, 3), keepdim=True) * a).sum(dim=1).relu()
"""


def examined(folder: Path, kind: str, name: str, text: str) -> Examination:
    (folder / f"{kind}s").mkdir(exist_ok=True)
    (folder / f"{kind}s" / f"{name}.py").write_text(text)
    return Examination(Registry((folder,)), kind, name)


@pytest.mark.parametrize("check", BUILT_IN)
def test_built_in_plugins_keep_their_contracts(check: Callable[[], None]) -> None:
    check()


@pytest.mark.usefixtures("warm_checks")
@pytest.mark.parametrize(("kind", "contract"), CONTRACTS.items())
def test_the_example_in_the_contract_keeps_it(kind: str, contract: ModuleType, tmp_path: Path) -> None:
    indented = [line for line in inspect.getdoc(contract).splitlines() if line.startswith("    ") or not line]
    examination = examined(tmp_path, kind, "example", IMPORTS + textwrap.dedent("\n".join(indented)))
    assert [outcome.told for outcome in examination.outcomes() if outcome.ending != "kept"] == []


@pytest.mark.parametrize("kind", KINDS)
def test_each_promise_has_its_check_and_line(kind: str) -> None:
    checks = CHECKS[kind]
    assert [check.name for check in checks] == [*plugin.PROMISES, *CONTRACTS[kind].PROMISES]
    for check in checks:
        file, _, number = check.line.partition(", line ")
        assert f'"{check.name}"' in Path(file).read_text().splitlines()[int(number) - 1]


@pytest.mark.usefixtures("warm_checks")
def test_a_broken_promise_tells_what_is_wanted_what_was_seen_and_where(tmp_path: Path) -> None:
    outcome = examined(tmp_path, "explainer", "cam", CAM.replace(".relu()", ".relu().double()")).outcome(
        "shape_and_dtype"
    )
    wants, saw, line = (part.strip() for part in outcome.told.splitlines()[1:])
    assert outcome.told.splitlines()[0] == "shape_and_dtype: broken"
    assert wants.endswith("maps are a float32 tensor (N, h, w), one an image, or `Maps` of one, with completeness (N,)")
    assert saw.endswith("maps of 3 images are torch.float64 (3, 8, 8)")
    assert "explainers.py, line " in line


def test_an_error_of_the_plugin_names_its_own_line(tmp_path: Path) -> None:
    text = CAM.replace("a, g, _ =", "raise KeyError('lesion'); a, g, _ =")
    told = examined(tmp_path, "explainer", "cam", text).outcome("shape_and_dtype").told
    number = 1 + [*map(str.strip, text.splitlines())].index(text[text.index("raise") :].splitlines()[0])
    assert f"KeyError: 'lesion' ({tmp_path / 'explainers' / 'cam.py'}, line {number})" in told


def test_what_needs_a_broken_promise_is_not_run_and_says_so(tmp_path: Path) -> None:
    examination = examined(tmp_path, "explainer", "cam", "raise OSError('no scanner')")
    outcomes = {outcome.check.name: outcome for outcome in examination.outcomes()}
    assert "no scanner" in outcomes["loads_alone"].saw
    assert outcomes["finite"].told == "finite: not run: it needs shape_and_dtype, which is not run"
    assert not any(outcome.good for name, outcome in outcomes.items() if name != "listed_unimported")


@pytest.mark.usefixtures("warm_checks")
def test_a_newer_contract_says_which_version_is_wanted(tmp_path: Path, btkit: Callable) -> None:
    examined(tmp_path, "explainer", "cam", CAM.replace("api_version = 1", "api_version = 2"))
    ended = btkit("--plugins", tmp_path, "plugins", "check", "explainer", "cam")
    assert ended.status == 1
    assert "is written for API version 2; this btkit has explainer API version 1: update btkit" in ended.out
    ended = btkit("--plugins", tmp_path, "plugins", "show", "explainer", "cam")
    assert (ended.status, ended.out) == (2, "")


# Properties and known failures

FLAT = CAM.replace("(g.mean(dim=(2, 3), keepdim=True) * a).sum(dim=1).relu()", "a.sum(dim=1)")


def with_lines(text: str, *lines: str) -> str:
    return text.replace("    api_version = 1\n", "".join(f"    {line}\n" for line in ("api_version = 1", *lines)))


@pytest.mark.usefixtures("warm_checks")
def test_a_property_with_a_reason_waives_its_check(tmp_path: Path) -> None:
    lines = ("class_specific = False", 'reasons = {"class_specific": "it is the sum of all channels"}')
    examination = examined(tmp_path, "explainer", "flat", with_lines(FLAT, *lines))
    outcome = examination.outcome("target_changes_the_map")
    assert outcome.told == ("target_changes_the_map: waived: class_specific = False: it is the sum of all channels")
    assert not outcome.ran


@pytest.mark.usefixtures("warm_checks")
def test_a_property_without_a_reason_waives_nothing(tmp_path: Path) -> None:
    examination = examined(tmp_path, "explainer", "flat", with_lines(FLAT, "class_specific = False"))
    assert examination.outcome("gives_reasons").ending == "broken"
    assert examination.outcome("target_changes_the_map").ending == "broken"


@pytest.mark.usefixtures("warm_checks")
def test_a_known_failure_has_to_fail(tmp_path: Path) -> None:
    line = 'known_failures = {"target_changes_the_map": "not yet", "finite": "nor this"}'
    examination = examined(tmp_path, "explainer", "flat", with_lines(FLAT, line))
    expected = examination.outcome("target_changes_the_map")
    assert (expected.ending, expected.good, expected.ran) == ("broken as said", True, True)
    assert examination.outcome("finite").saw == (
        "known_failures says of finite 'nor this', and the promise is kept: take it out"
    )


# Doors


@pytest.mark.usefixtures("warm_checks")
def test_check_gives_status_1_and_json(tmp_path: Path, btkit: Callable) -> None:
    examined(tmp_path, "explainer", "flat", FLAT)
    ended = btkit("--plugins", tmp_path, "plugins", "check", "explainer", "flat", "--json")
    told = json.loads(ended.out)
    assert (ended.status, told["passed"], told["ran"], told["of"]) == (1, False, 20, 20)
    assert [check["name"] for check in told["checks"] if check["ending"] == "broken"] == ["target_changes_the_map"]
    ended = btkit("plugins", "check", "explainer", "eigencam")
    assert ended.status == 0
    assert "ran 19 of 20 checks (target_changes_the_map waived)" in ended.out.splitlines()[-1]
    assert btkit("plugins", "check", "explainer", "eigencamm").status == 2


def pytest_in(folder: Path, *arguments: str, warm: Warm | None = None) -> "subprocess.CompletedProcess[str]":
    """A session of its own; with `warm` it begins where Keras is imported already."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return (warm or subprocess).run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_pytest_checks_a_plugin_by_name(tmp_path: Path, warm: Warm) -> None:
    (tmp_path / "mine").mkdir()
    examined(tmp_path / "mine", "explainer", "flat", FLAT)
    options = ("--pyargs", "braintumor_kit.testing", "--btkit-plugins-folder", "mine", "--btkit-plugin")
    ended = pytest_in(tmp_path, *options, "explainer:flat", "--btkit-plugin", "explainers:eigencam", warm=warm)
    assert ended.returncode == 1
    assert "explainer 'flat': ran 20 of 20 checks" in ended.stdout
    assert "explainer 'eigencam': ran 19 of 20 checks\n  target_changes_the_map: waived: class_spec" in ended.stdout
    assert "1 failed, 38 passed, 1 skipped" in ended.stdout
    assert "the contract wants: two classes that look at different places have different maps" in ended.stdout
    ended = pytest_in(tmp_path, *options[:2], warm=warm)
    assert ended.returncode != 0
    assert "name the plugin to check: --btkit-plugin KIND:NAME" in ended.stdout


HOST = """
import sys

def test_nothing_heavy_and_no_plugin_is_there():
    assert "braintumor_kit.testing.pytest_plugin" in sys.modules
    assert not {"torch", "keras", "numpy", "btkit_plugins", "braintumor_kit.registry"} & set(sys.modules)
"""


def test_a_host_that_checks_nothing_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "test_host.py").write_text(HOST)
    ended = pytest_in(tmp_path)
    assert ended.returncode == 0, ended.stdout
    assert "contract checks" not in ended.stdout


OWN = """
from braintumor_kit.testing import parametrize_contract

@parametrize_contract("explainers", "flat", plugins=["."], known_failures={"target_changes_the_map": "not yet"})
def test_contract(check):
    check()
"""
SHRINKS = "def pytest_collection_modifyitems(items): del items[3:]"


def test_checks_that_vanish_fail_the_session(tmp_path: Path, warm: Warm) -> None:
    examined(tmp_path, "explainer", "flat", FLAT)
    (tmp_path / "test_own.py").write_text(OWN)
    ended = pytest_in(tmp_path, warm=warm)
    assert ended.returncode == 0, ended.stdout
    assert "explainer 'flat': ran 20 of 20 checks" in ended.stdout
    assert "19 passed, 1 xfailed" in ended.stdout
    ended = pytest_in(tmp_path, "-k", "finite", warm=warm)
    assert ended.returncode == 0
    assert "ran 1 of 20 checks\n  19 deselected" in ended.stdout
    (tmp_path / "conftest.py").write_text(SHRINKS)
    ended = pytest_in(tmp_path, warm=warm)
    assert ended.returncode == 1
    assert "ran 3 of 20 checks\n  17 did not run, and nothing says why: this fails" in ended.stdout


def test_unknown_kinds_and_promises_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one of source, backbone, explainer, not 'optimizer'"):
        cases("optimizers", "mine")
    with pytest.raises(ValueError, match=r"makes no promise finit$"):
        cases("explainer", "mine", known_failures={"finit": "a slip"})


@pytest.mark.usefixtures("warm_checks")
def test_the_explainer_in_the_readme_keeps_its_contract(tmp_path: Path) -> None:
    readme = (Path(__file__).resolve().parents[1] / "README.md").read_text()
    (text,) = [part.partition("```")[0] for part in readme.split("```python\n") if part.startswith('"""XGrad-CAM."""')]
    examination = examined(tmp_path, "explainer", "xgradcam", text)
    assert [outcome.told for outcome in examination.outcomes() if outcome.ending != "kept"] == []


def test_numbers_drawn_under_a_seed_are_drawn_from_nobody() -> None:
    def draw() -> list[float]:
        return [random.random(), float(np.random.random()), float(torch.rand(1))]

    def fail_under_a_seed() -> None:
        with seeded(3):
            raise KeyError(*draw())

    with seeded(5):
        first, second = draw(), draw()
    with seeded(5):
        assert draw() == first
        with pytest.raises(KeyError):
            fail_under_a_seed()
        assert draw() == second


EXITS = with_lines(
    CAM,
    "@classmethod",
    "def example(cls, folder, variant=0):",
    "    raise SystemExit(0)",
)


def test_a_plugin_that_exits_breaks_its_promise_and_not_the_command(tmp_path: Path, btkit: Callable) -> None:
    examined(tmp_path, "explainer", "leaves", EXITS + "import atexit\natexit.register(print, 'bye')\nprint('here')\n")
    ended = btkit("--plugins", tmp_path, "plugins", "check", "explainer", "leaves", "--json")
    told = json.loads(ended.out)
    assert (ended.status, told["passed"]) == (1, False)
    endings = {check["name"]: check["ending"] for check in told["checks"]}
    assert (endings["loads_alone"], endings["has_example"], endings["finite"]) == ("kept", "broken", "not run")
    assert json.loads(btkit("--plugins", tmp_path, "plugins", "show", "explainer", "leaves", "--json").out)


@pytest.mark.usefixtures("warm_checks")
def test_what_needs_a_known_failure_is_waived_at_every_door(tmp_path: Path, btkit: Callable) -> None:
    text = with_lines(CAM.replace(".relu()", ".relu().double()"), 'known_failures = {"shape_and_dtype": "a habit"}')
    outcome = examined(tmp_path, "explainer", "double", text).outcome("finite")
    assert outcome.told == "finite: waived: it needs shape_and_dtype, which is broken as said"
    assert btkit("--plugins", tmp_path, "plugins", "check", "explainer", "double").status == 0


@pytest.mark.parametrize("line", ['reasons = {"class_specific": None}', 'known_failures = ("finite",)'])
def test_reasons_that_are_none_are_refused(line: str, tmp_path: Path, btkit: Callable) -> None:
    examined(tmp_path, "explainer", "cam", with_lines(CAM, line))
    ended = btkit("--plugins", tmp_path, "plugins", "check", "explainer", "cam")
    assert ended.status == 1
    assert "to a mapping of names to sentences, not" in ended.out


def test_an_entry_point_whose_name_no_recipe_can_hold_breaks_its_promise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "odd.py").write_text(CAM)
    (tmp_path / "odd-1.0.dist-info").mkdir()
    (tmp_path / "odd-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
    (tmp_path / "odd-1.0.dist-info" / "entry_points.txt").write_text("[btkit.explainers]\nOdd-Name = odd:Cam [gpu]\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry()
    assert registry.load("explainer", "Odd-Name").__name__ == "Cam"
    assert Examination(registry, "explainer", "Odd-Name").outcome("listed_unimported").saw == "the name is 'Odd-Name'"


def test_workers_of_xdist_count_as_one_session(tmp_path: Path) -> None:
    pytest.importorskip("xdist", reason="pytest-xdist is not installed")
    examined(tmp_path, "explainer", "flat", FLAT)
    (tmp_path / "test_own.py").write_text(OWN)
    ended = pytest_in(tmp_path, "-n", "2")
    assert ended.returncode == 0, ended.stdout
    assert "explainer 'flat': ran 20 of 20 checks" in ended.stdout
    ended = pytest_in(tmp_path, "-n", "2", "-k", "finite or dtype")
    assert ended.returncode == 0, ended.stdout
    assert "ran 2 of 20 checks\n  18 deselected" in ended.stdout
    (tmp_path / "conftest.py").write_text(SHRINKS)
    ended = pytest_in(tmp_path, "-n", "2")
    assert ended.returncode == 1
    assert "ran 3 of 20 checks\n  17 did not run" in ended.stdout


def test_a_test_that_does_not_call_the_check_has_not_run_it(tmp_path: Path, warm: Warm) -> None:
    examined(tmp_path, "explainer", "flat", FLAT)
    (tmp_path / "test_own.py").write_text(OWN.replace("    check()", "    pass"))
    ended = pytest_in(tmp_path, warm=warm)
    assert ended.returncode == 1
    assert "ran 0 of 20 checks\n  20 did not run" in ended.stdout


def test_a_plugin_that_is_not_there_is_one_error(tmp_path: Path, warm: Warm) -> None:
    for name, said in (("explainer:gradcamm", "did you mean 'gradcam'"), ("gradcam", "takes KIND:NAME")):
        ended = pytest_in(tmp_path, "--pyargs", "braintumor_kit.testing", "--btkit-plugin", name, warm=warm)
        assert ended.returncode not in (0, 1)
        assert said in ended.stdout + ended.stderr
