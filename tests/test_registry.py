"""Plugins: known without import, loaded one by one, and each fault told once without harming others."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from braintumor_kit.contracts import InputError, PluginError
from braintumor_kit.registry import Registry
from braintumor_kit.testing import fresh

PLUGIN = """
from braintumor_kit.contracts import NoOptions, Sample, Source

class Two(Source[NoOptions]):
    "Two samples."
    api_version = 1
    Options = NoOptions
    classes = ("a", "b")

    def samples(self):
        yield Sample("1", "a")
        yield Sample("2", "b")

    def image(self, sample):
        raise NotImplementedError
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sources").mkdir()
    return tmp_path


def put(folder: Path, name: str, text: str) -> Registry:
    (folder / "sources" / f"{name}.py").write_text(text)
    return Registry.from_environment([folder])


def test_built_in_plugins_come_in_through_entry_points() -> None:
    registry = Registry.from_environment()
    assert registry.names("source") == ["dicom", "figshare", "image_folder", "nifti", "phantom"]
    assert registry.names("backbone") == ["efficientnet_lite0", "resnet", "torchvision_resnet"]
    assert registry.find("source", "phantom").target == "btkit_plugins.sources.phantom:Phantom"


def test_a_file_in_a_named_folder_is_a_plugin(folder: Path) -> None:
    registry = put(folder, "two", PLUGIN)
    plugin = registry.load("source", "two")
    assert [sample.id for sample in plugin(plugin.Options()).samples()] == ["1", "2"]  # type: ignore[attr-defined]
    assert registry.load("source", "two") is plugin


def test_no_folder_is_searched_unasked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder, "two", PLUGIN)
    monkeypatch.chdir(folder)
    assert "two" not in Registry.from_environment().names("source")


def test_folders_of_the_environment_are_searched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder, "two", PLUGIN)
    monkeypatch.setenv("BTKIT_PLUGINS", f"{folder}:{folder}")
    assert "two" in Registry.from_environment().names("source")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"plugin folder '.*nowhere' \(from --plugins or BTKIT_PLUGINS\) does not exist"
    ):
        Registry.from_environment([tmp_path / "nowhere"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("raise OSError('no scanner')", "cannot be imported: OSError: no scanner"),
        ("import sys; sys.exit(3)", "cannot be imported: SystemExit: 3"),
        ("def f(:", "cannot be imported: SyntaxError"),
        ("x = 1", "must define exactly one subclass of braintumor_kit.contracts.Source; it defines none"),
        (PLUGIN + PLUGIN.replace("class Two", "class Three"), "it defines Three, Two"),
        (
            PLUGIN.replace("api_version = 1", ""),
            "states no api_version; this btkit has source API version 1: update it",
        ),
        (
            PLUGIN.replace("api_version = 1", "api_version = 2"),
            "is written for API version 2; this btkit has source API version 1: update btkit",
        ),
        (PLUGIN.replace("def image", "def picture"), "does not define image, which its contract asks for"),
        (PLUGIN.replace("Options = NoOptions", "Options = dict"), "must set Options to a subclass of"),
    ],
)
def test_faults_are_told_with_the_plugins_own_error(folder: Path, text: str, message: str) -> None:
    registry = put(folder, "faulty", text)
    with pytest.raises(PluginError) as caught:
        registry.load("source", "faulty")
    assert message in str(caught.value)
    assert str(folder / "sources" / "faulty.py") in str(caught.value)


def test_a_missing_plugin_gets_the_nearest_name() -> None:
    with pytest.raises(PluginError, match="no backbone plugin named 'resnett'; did you mean 'resnet'"):
        Registry().load("backbone", "resnett")


def test_two_of_one_name_are_an_error_that_names_both(folder: Path) -> None:
    registry = put(folder, "phantom", PLUGIN)
    with pytest.raises(PluginError) as caught:
        registry.find("source", "phantom")
    assert "there are 2 source plugins named 'phantom'" in str(caught.value)
    assert "btkit_plugins.sources.phantom:Phantom from braintumor-kit" in str(caught.value)
    assert str(folder / "sources" / "phantom.py") in str(caught.value)
    assert registry.find("source", "figshare").name == "figshare"


@pytest.mark.usefixtures("warm_checks")
def test_a_faulty_plugin_disturbs_no_list_and_verify_shows_it(folder: Path, btkit: Callable) -> None:
    put(folder, "faulty", "raise OSError('no scanner')")
    assert "faulty" in btkit("--plugins", folder, "plugins", "list").out
    ended = btkit("--plugins", folder, "plugins", "list", "--verify", "--json")
    errors = {row["name"]: row["error"] for row in json.loads(ended.out)}
    assert ended.status == 1
    assert errors.pop("faulty").endswith("cannot be imported: OSError: no scanner")
    assert set(errors.values()) == {None}


def test_listing_imports_no_plugin_and_nothing_heavy(folder: Path) -> None:
    put(folder, "loud", "print('imported')")
    script = (
        "import sys; from braintumor_kit.commands.main import run_command_line as run;"
        f"run(['--plugins', {str(folder)!r}, 'plugins', 'list']);"
        "print([n for n in ('torch', 'keras', 'numpy', 'tensorflow', 'btkit_plugins') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "loud" in done.stdout
    assert "imported" not in done.stdout
    assert done.stdout.strip().endswith("[]")


def test_show_tells_the_options(btkit: Callable) -> None:
    ended = btkit("plugins", "show", "source", "phantom", "--json")
    shown = json.loads(ended.out)
    assert shown["options"]["properties"]["patients"]["description"]


def test_a_plugin_that_takes_long_or_fails_slows_nothing_that_does_not_name_it(folder: Path, btkit: Callable) -> None:
    put(folder, "slow", "import time\ntime.sleep(60)")
    put(folder, "faulty", "raise OSError('no scanner')")
    began = time.monotonic()
    assert btkit("--plugins", folder, "--help").status == 0
    assert "slow" in btkit("--plugins", folder, "plugins", "list").out
    assert btkit("--plugins", folder, "recipe", "check", "recipes/resnet_adam.toml").status == 0
    assert btkit("--plugins", folder, "plugins", "show", "source", "phantom").status == 0
    assert time.monotonic() - began < 30


def test_a_plugin_that_takes_too_long_is_shown_as_such(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = put(folder, "slow", "import time\ntime.sleep(60)")
    monkeypatch.setattr(fresh, "SECONDS", 3.0)
    error = fresh.load_afresh(registry, registry.find("source", "slow")).error
    assert error is not None
    assert error.endswith("slow.py) takes longer than 3 s to import.")
