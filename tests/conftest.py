"""What tests share: caches of their own, the real data where it is at hand, and the command line in this process."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from braintumor_kit.backend import use_torch_backend

ROOT = Path(__file__).resolve().parents[1]
use_torch_backend()


class Ended(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["BTKIT_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ.pop("BTKIT_PLUGINS", None)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with real MRI data, `nickparvar` and `figshare` inside."""
    folder = Path(os.environ.get("BTKIT_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("real MRI data are missing: neither BTKIT_TEST_DATA nor ../shared/data is a folder")
    return folder


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For networks so small that they are slower with more threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def btkit(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Runs `btkit` with these arguments in this process."""
    from braintumor_kit.commands.main import run_command_line

    def call(*arguments: object) -> Ended:
        capfd.readouterr()
        status = run_command_line([str(argument) for argument in arguments])
        return Ended(status, *capfd.readouterr())

    return call
