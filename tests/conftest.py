"""What tests share: caches of their own, the real data where it is at hand, the command line in this process, and a
small disk."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from warm import Warm

from braintumor_kit.backend import use_torch_backend

pytest.register_assert_rewrite("fast_steps", "network_forms")  # so that their assertions show values
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


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """A file system of so many megabytes; called again it has another size, or is read-only."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = False

    def of_size(megabytes: int, read_only: bool = False) -> Path:
        nonlocal mounted
        how = f"{'remount,' if mounted else ''}{'ro' if read_only else 'rw'},size={megabytes}m"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", how, "tmpfs", str(place)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
        mounted = True
        return place

    yield of_size
    if mounted:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    """Processes that begin where Keras is imported already."""
    made = Warm()
    yield made
    made.end()


@pytest.fixture(scope="module")
def warm_opening(warm: Warm) -> Iterator[None]:
    """What opens a saved model where Keras alone is begins where Keras is imported already."""
    from braintumor_kit.testing import backbones

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbones, "subprocess", warm)
        yield


@pytest.fixture
def warm_checks(warm: Warm, warm_opening: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """So does all that checks of contracts begin, which is to have imported nothing: for tests that are about other
    things than how a plugin takes to that."""
    from braintumor_kit.testing import elsewhere, fresh

    monkeypatch.setattr(fresh, "subprocess", warm)
    monkeypatch.setattr(elsewhere, "subprocess", warm)


@pytest.fixture(scope="module")
def two_layers() -> Iterator[None]:
    """`backbone.name=two_layers` names a network in this process and those that it begins, for tests that run btkit
    from end to end and for which it does not matter what is trained: a ResNet takes two thirds of such a run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BTKIT_PLUGINS", str(ROOT / "tests" / "small_plugins"))
        yield


@pytest.fixture(scope="module")
def finished_tiny(two_layers: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `finished`, of the smallest network."""
    from small_runs import TINY

    from braintumor_kit.commands.main import run_command_line

    runs = tmp_path_factory.mktemp("runs")
    assert run_command_line(["run", "resnet_adam", *TINY, "--runs", str(runs), "--name", "whole"]) == 0
    return runs / "whole"


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `small_runs` that nothing stopped; tests leave it as it is."""
    from small_runs import OPTIONS

    from braintumor_kit.commands.main import run_command_line

    runs = tmp_path_factory.mktemp("runs")
    assert run_command_line(["run", "resnet_adam", *OPTIONS, "--runs", str(runs), "--name", "whole"]) == 0
    return runs / "whole"
