"""One process at a time in a folder; the lock of one that was killed holds nobody up."""

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from braintumor_kit import locks
from braintumor_kit.errors import InputError, WorkError
from braintumor_kit.locks import alone, beside, inside
from braintumor_kit.runs import Run, locked

HOLD = """
import sys, time
from pathlib import Path
from braintumor_kit.locks import alone
with alone(Path(sys.argv[1]), Path("there")):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(lock: Path) -> "subprocess.Popen[str]":
    """A process that holds a lock until it is killed."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_told_and_a_killed_one_forgotten(tmp_path: Path) -> None:
    lock = tmp_path / "a" / "lock"
    with holder(lock) as process:
        said = r"another process is at work in 'there': wait for it, or stop it first\."
        with pytest.raises(InputError, match=said), alone(lock, Path("there")):
            pytest.fail("two are inside")
        process.kill()
        process.wait()
        assert lock.exists()
        with alone(lock, Path("there")):
            assert lock.exists()
    assert not lock.exists()


def test_it_waits_where_it_may(tmp_path: Path) -> None:
    with holder(tmp_path / "lock") as process:
        threading.Timer(0.5, process.kill).start()
        with alone(tmp_path / "lock", tmp_path, wait=30):
            assert process.wait(timeout=5)


def test_where_no_lock_can_be_it_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkError, match="cannot be made: "), alone(tmp_path / "file" / "x" / "lock", tmp_path):
        pass


def test_of_many_that_begin_at_once_one_is_inside(tmp_path: Path) -> None:
    """The lock's file comes and goes meanwhile."""
    inside_now, most, entered = 0, 0, 0

    def work() -> None:
        nonlocal inside_now, most, entered
        for _ in range(50):
            with alone(tmp_path / "lock", tmp_path, wait=60):
                inside_now += 1
                most = max(most, inside_now)
                time.sleep(0.001)
                entered += 1
                inside_now -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, entered) == (1, 200)


def test_a_run_has_one_worker(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    with holder(tmp_path / "r" / "checkpoints" / "lock") as process:
        with pytest.raises(InputError, match="another process is at work in"), locked(Run(tmp_path / "r")):
            pass
        process.kill()


@pytest.mark.parametrize("arguments", [["--method", "gradcam", "--limit", "1"]], ids=["explain"])
def test_two_do_not_explain_into_one_folder(
    arguments: list[str], finished: Path, tmp_path: Path, btkit: Callable
) -> None:
    out = tmp_path / "maps"
    with holder(beside(out)) as process:
        ended = btkit("explain", finished, *arguments, "--out", out)
        assert ended.status == 2
        assert f"another process is at work in '{out}': wait for it, or stop it first." in ended.err
        assert [path.name for path in tmp_path.iterdir()] == [".maps.lock"]
        process.kill()
        process.wait()
    assert btkit("explain", finished, *arguments, "--out", out).status == 0
    assert [path.name for path in tmp_path.iterdir()] == ["maps"]


def test_two_do_not_write_results_into_one_folder(
    finished: Path, tmp_path: Path, btkit: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    from braintumor_kit.workflows import evaluation_folder

    out = tmp_path / "e"
    monkeypatch.setattr(evaluation_folder, "alone", lambda lock, place, wait: alone(lock, place))
    with holder(inside(out)) as process:
        ended = btkit("evaluate", finished, "--out", out)
        assert ended.status == 2
        assert f"another process is at work in '{out}'" in ended.err
        process.kill()
        process.wait()
    assert btkit("evaluate", finished, "--out", out).status == 0
    assert not list(out.glob(".*"))


def test_the_root_of_a_file_system_is_no_place_for_explanations(finished: Path, btkit: Callable) -> None:
    ended = btkit("explain", finished, "--method", "gradcam", "--limit", "1", "--out", "/")
    assert ended.status == 2
    assert "'/' cannot be replaced; name another folder." in ended.err


@pytest.mark.parametrize(("number", "goes_on"), [(errno.ENOLCK, True), (errno.EOPNOTSUPP, True), (errno.EACCES, False)])
def test_where_nothing_can_be_locked_it_warns_and_goes_on(
    number: int, goes_on: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: FileLock, timeout: float) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(locks.FileLock, "acquire", refuse)
    if not goes_on:
        with pytest.raises(WorkError, match="cannot be locked: Permission denied"), alone(tmp_path / "l", tmp_path):
            pass
        return
    with alone(tmp_path / "l", tmp_path):
        assert "lies where nothing can be locked" in caplog.text
