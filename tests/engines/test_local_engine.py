"""The local engine: in this process, or in several that may be lost."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from works import AlwaysLost, Doubles, Heard, LosesOnce, Refuses

from braintumor_kit.engines import local
from braintumor_kit.engines.local import LocalEngine
from braintumor_kit.errors import InputError, WorkError
from braintumor_kit.progress import Reporter


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "cores", lambda: 2)


def processes(folder: Path, kind: str) -> set[str]:
    return {path.name.split("-")[-3 if kind == "did" else 1] for path in folder.glob(f"{kind}-*")}


def test_one_at_a_time_is_this_process(tmp_path: Path) -> None:
    engine = LocalEngine(None, Reporter())
    assert list(engine.each(Doubles(tmp_path), [1, 2, 3])) == [(1, 2), (2, 4), (3, 6)]
    assert processes(tmp_path, "did") == {str(os.getpid())}
    assert len(list(tmp_path.glob("opened-*"))) == 1


def test_several_are_processes_that_keep_what_they_opened_and_have_their_threads(
    tmp_path: Path, two_cores: None
) -> None:
    engine = LocalEngine(1, Reporter())
    assert sorted(engine.each(Doubles(tmp_path), range(12))) == [(number, 2 * number) for number in range(12)]
    used = processes(tmp_path, "did")
    assert str(os.getpid()) not in used
    assert len(used) == len(list(tmp_path.glob("opened-*"))) == 2
    assert {path.name.split("-")[3] for path in tmp_path.glob("did-*")} == {"1"}


def test_more_cores_than_there_are_is_one_task_at_a_time(tmp_path: Path, two_cores: None) -> None:
    assert LocalEngine(8, Reporter()).slots == 1
    assert LocalEngine(2, Reporter()).slots == 1
    assert LocalEngine(1, Reporter()).slots == 2


def test_a_lost_process_costs_nothing_that_is_done(tmp_path: Path, two_cores: None) -> None:
    heard = Heard()
    found = list(LocalEngine(1, heard).each(LosesOnce(tmp_path), range(8)))
    assert found == [(number, 2 * number) for number in range(8)]
    assert all(len(list(tmp_path.glob(f"work-{number}-*"))) == 1 for number in range(8))  # none was done twice
    assert len(heard.lines) == 1
    assert "a process was lost" in heard.lines[0]


def test_a_task_that_kills_its_processes_is_named(two_cores: None) -> None:
    with pytest.raises(WorkError, match="lost 3 times while it or others were at number 1"):
        list(LocalEngine(1, Reporter()).each(AlwaysLost(), [1, 1, 1, 1]))


@pytest.mark.parametrize("threads", [None, 1])
def test_what_the_work_raises_is_raised(threads: int | None, two_cores: None) -> None:
    """Of two that raise at the same time either may be the first."""
    with pytest.raises(InputError, match=r"number [56] is odd in every way"):
        list(LocalEngine(threads, Reporter()).each(Refuses(), [5, 6]))


def test_without_tasks_nothing_is_begun(tmp_path: Path, two_cores: None) -> None:
    assert list(LocalEngine(1, Reporter()).each(Doubles(tmp_path), [])) == []


def test_an_engine_that_is_none_is_refused(btkit: Callable[..., object], tmp_path: Path) -> None:
    ended = btkit("explain", tmp_path, "--engine", "dask")
    assert ended.status == 2  # type: ignore[attr-defined]
    assert "write it as local, ray or ray://HOST:PORT" in ended.err  # type: ignore[attr-defined]
