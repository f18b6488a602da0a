"""Processes that decode pictures hear no Ctrl-C, are missed when they are lost, and go when nobody needs them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_resume import begun, command

from braintumor_kit.engines.processes import WorkerHangsError, WorkerLostError, in_workers

LARGE = [item for value in ("source.patients=400", "source.seed=11") for item in ("--set", value)]


def double(number: int) -> int:
    return 2 * number


def slow_at_three(number: int) -> int:
    if number == 3:
        time.sleep(30)
    return number


def lost_at_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_results_come_in_order() -> None:
    assert list(in_workers(double, range(20), 2)) == [2 * number for number in range(20)]


def test_one_that_hangs_is_missed() -> None:
    with pytest.raises(WorkerHangsError) as caught:
        list(in_workers(slow_at_three, range(8), 2, timeout=2.0))
    assert caught.value.number == 3


def test_one_that_is_lost_is_missed() -> None:
    with pytest.raises(WorkerLostError):
        list(in_workers(lost_at_three, range(8), 2))


def children(process: int) -> list[int]:
    """Processes that a process has begun."""
    try:
        lists = [path.read_text() for path in Path(f"/proc/{process}/task").glob("*/children")]
    except OSError:
        return []
    return [int(number) for text in lists for number in text.split()]


@pytest.fixture
def decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple["subprocess.Popen[str]", list[int]]]:
    """A run whose processes have just begun to decode pictures, and these."""
    if not Path("/proc/self/task").is_dir():
        pytest.skip("there is no /proc here, which tells the children of a process")
    monkeypatch.setenv("BTKIT_CACHE", str(tmp_path / "cache"))
    with begun([*command("resnet_adam"), *LARGE, "--runs", str(tmp_path)], group=True) as process:
        until = time.monotonic() + 120
        while len(found := children(process.pid)) < 3 and process.poll() is None:  # two, and loky's own
            assert time.monotonic() < until
            time.sleep(0.01)
        yield process, found
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def all_gone(processes: list[int], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while any(map(alive, processes)) and time.monotonic() < until:
        time.sleep(0.1)
    return not any(map(alive, processes))


def test_they_are_deaf_from_their_first_moment() -> None:
    """One that heard Ctrl-C while Python starts in it would print a traceback of Python's own."""
    if not Path("/proc/self/task").is_dir():
        pytest.skip("there is no /proc here, which tells the children of a process")
    program = (
        "import os, signal; from test_workers import children, double, hears\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background ignores it
        "from braintumor_kit.engines.processes import in_workers\n"
        "tasks = in_workers(double, range(8), 2); next(tasks)\n"
        "print(*(hears(child) for child in children(os.getpid())), hears(os.getpid()))"
    )
    said = subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parent, capture_output=True, text=True)
    *deaf, own = said.stdout.split()
    assert own == "True", said.stderr
    assert len(deaf) >= 2, said.stderr  # and those that clean up after them
    assert set(deaf) == {"False"}, said.stderr


def hears(process: int) -> bool:
    """Whether a process neither blocks nor ignores SIGINT."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    masks = dict(line.split(":\t") for line in lines if line.startswith(("SigBlk", "SigIgn")))
    return not any(int(mask, 16) >> (signal.SIGINT - 1) & 1 for mask in masks.values())


@pytest.mark.parametrize("after", [0.0, 1.5, 5.0])
def test_ctrl_c_at_a_terminal_is_heard_by_btkit_alone(
    after: float, decoding: tuple["subprocess.Popen[str]", list[int]]
) -> None:
    """A terminal sends it to all processes of the command."""
    process, workers = decoding
    time.sleep(after)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip().splitlines()[-1] == "interrupted."
    assert "Traceback" not in err
    assert all_gone(workers, 10)


def test_they_go_when_btkit_is_killed(decoding: tuple["subprocess.Popen[str]", list[int]]) -> None:
    process, workers = decoding
    time.sleep(4.0)
    process.kill()
    process.wait()
    assert all_gone(workers, 30)
