"""What `pytest --pyargs braintumor_kit.testing --btkit-plugin KIND:NAME` collects."""

from collections.abc import Callable
from pathlib import Path

import pytest

from braintumor_kit.contracts import InputError
from braintumor_kit.registry import Registry
from braintumor_kit.testing.parametrize import cases


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    asked = metafunc.config.getoption("btkit_plugin", default=[])
    if not asked:
        raise pytest.UsageError("name the plugin to check: --btkit-plugin KIND:NAME, such as explainer:gradcam")
    folders = [Path(folder) for folder in metafunc.config.getoption("btkit_plugins_folder", default=[])]
    found = []
    for text in asked:
        kind, colon, name = text.partition(":")
        if not colon:
            raise pytest.UsageError(f"--btkit-plugin takes KIND:NAME, such as explainer:gradcam, not {text!r}")
        try:
            found += cases(kind, name, folders)
            Registry.from_environment(folders).find(kind.removesuffix("s"), name)
        except (ValueError, InputError) as error:
            raise pytest.UsageError(f"--btkit-plugin {text}: {error}") from error
    metafunc.parametrize("check", found)


def test_contract(check: Callable[[], None]) -> None:
    check()
