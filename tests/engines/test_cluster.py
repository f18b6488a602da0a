"""The engine of a Ray cluster: two nodes on this machine, made by Ray's own utility for tests, and what they lose."""

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from works import AlwaysLost, Doubles, Heard, Lacks, LosesOnce, Refuses, Slow

from braintumor_kit.engines import connection
from braintumor_kit.engines.choose import engine_of
from braintumor_kit.errors import InputError, WorkError
from braintumor_kit.progress import Reporter

pytest.importorskip("ray", reason="Ray is missing: pip install 'braintumor-kit[ray]'")


def test_results_are_those_of_the_local_engine(cluster: Any, tmp_path: Path) -> None:
    heard = Heard()
    with engine_of(cluster.btkit, 1, 0, heard) as engine:
        assert engine.slots == 2
        work = Doubles(tmp_path)
        assert sorted(engine.each(work, range(12))) == [(number, 2 * number) for number in range(12)]
        assert sorted(engine.each(work, range(3))) == [(number, 2 * number) for number in range(3)]
    assert len(list(tmp_path.glob("opened-*"))) == 2  # once a process, kept for the second call
    assert {path.name.split("-")[3] for path in tmp_path.glob("did-*")} == {"1"}
    assert sum("takes part" in line for line in heard.lines) == 2


def test_a_killed_process_costs_nothing_that_is_done(cluster: Any, tmp_path: Path) -> None:
    heard = Heard()
    with engine_of(cluster.btkit, 1, 0, heard) as engine:
        assert sorted(engine.each(LosesOnce(tmp_path), range(8))) == [(number, 2 * number) for number in range(8)]
    assert all(len(list(tmp_path.glob(f"work-{number}-*"))) == 1 for number in range(8))
    (lost,) = (line for line in heard.lines if "was lost" in line)
    assert "was lost at 3" in lost
    assert "begun again" in lost


def test_a_lost_machine_costs_nothing_that_is_done(
    cluster: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    extra = cluster.add_node(**cluster.like)
    cluster.wait_for_nodes()
    heard = Heard()

    def end() -> None:
        while len(list(tmp_path.glob("begin-*"))) < 4:
            time.sleep(0.05)
        cluster.remove_node(extra, allow_graceful=False)

    ending = threading.Thread(target=end)
    ending.start()
    with engine_of(cluster.btkit, 1, 0, heard) as engine:
        assert engine.slots == 3
        assert sorted(number for number, _ in engine.each(Slow(tmp_path), range(9))) == list(range(9))
    ending.join()
    lost = sum("was lost" in line for line in heard.lines)
    begun = [path.name.split("-")[1] for path in tmp_path.glob("begin-*")]
    assert lost == 1
    assert len(begun) <= 9 + lost  # at most what that machine was at was begun again
    assert capfd.readouterr().out == ""


def test_a_task_that_kills_its_processes_is_named(cluster: Any) -> None:
    with (
        engine_of(cluster.btkit, 1, 0, Reporter()) as engine,
        pytest.raises(WorkError, match="3 processes were lost while at number 1"),
    ):
        list(engine.each(AlwaysLost(), [1]))


def test_what_the_work_raises_is_raised(cluster: Any) -> None:
    with (
        engine_of(cluster.btkit, 1, 0, Reporter()) as engine,
        pytest.raises(InputError, match="number 5 is odd in every way"),
    ):
        list(engine.each(Refuses(), [5]))


def test_processes_that_never_come_up_are_given_up(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the machines have no btkit: the class of the workers cannot be made there."""
    from braintumor_kit.engines import cluster as module

    class Dies(module.Worker):
        def __init__(self, *rest: Any) -> None:
            raise ModuleNotFoundError("No module named 'braintumor_kit'")

    monkeypatch.setattr(module, "Worker", Dies)
    with (
        engine_of(cluster.btkit, 1, 0, Reporter()) as engine,
        pytest.raises(InputError, match=r"lacks what this one has .No module named 'braintumor_kit'"),
    ):
        list(engine.each(AlwaysLost(), [2]))


def test_a_machine_that_lacks_a_module_is_told(cluster: Any) -> None:
    with (
        engine_of(cluster.btkit, 1, 0, Reporter()) as engine,
        pytest.raises(InputError, match=r"lacks what this one has .No module named 'no_such_module'"),
    ):
        list(engine.each(Lacks(), [1]))


@pytest.mark.parametrize(
    ("cpus", "gpus", "said"),
    [(4, 0, "wants 4 CPUs, and no machine of the Ray cluster has more than 1"), (1, 1, "wants 1 GPUs, and no machine")],
)
def test_more_room_than_any_machine_has_is_refused(cluster: Any, cpus: int, gpus: float, said: str) -> None:
    with pytest.raises(InputError, match=said), engine_of(cluster.btkit, cpus, gpus, Reporter()):
        pass


def test_other_packages_on_a_machine_are_told(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from braintumor_kit.engines import cluster as module

    monkeypatch.setattr(module, "package_versions", lambda: {"torch": "1.0"})
    with (
        engine_of(cluster.btkit, 1, 0, Reporter()) as engine,
        pytest.raises(InputError, match=r"has other packages: torch [\d.+a-z]+, here 1.0"),
    ):
        list(engine.each(AlwaysLost(), [2]))


@pytest.mark.parametrize("answers", [False, True])
def test_a_dead_address_is_reported_soon(answers: bool, btkit: Callable[..., Any], finished: Path) -> None:
    """Of a closed port at once; of one where something else listens within the 15 s that the users are promised."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if answers:
            server.listen(8)
        place = f"127.0.0.1:{server.getsockname()[1]}"
        began = time.monotonic()
        ended = btkit("explain", finished, "--engine", f"ray://{place}")
        assert time.monotonic() - began < 15
    assert ended.status == 2
    assert f"no Ray cluster answers at {place}" in ended.err or f"what answers at {place} is no Ray" in ended.err


def test_without_the_extra_the_command_that_installs_it_is_said(
    btkit: Callable[..., Any], finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection.importlib.util, "find_spec", lambda name: None)
    ended = btkit("explain", finished, "--engine", "ray")
    assert ended.status == 2
    assert "pip install 'braintumor-kit[ray]'" in ended.err


@pytest.mark.parametrize("text", ["ray://", "ray://x", "ray://:1", "ray://x:y", "ray://x:70000", "rayon", ""])
def test_addresses_of_other_forms_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="write it as local, ray or"):
        connection.address_in(text)


def test_what_begins_here_ends_here(tmp_path: Path) -> None:
    with engine_of("ray", 1, 0, Reporter()) as engine:
        assert sorted(engine.each(Doubles(tmp_path), [1])) == [(1, 2)]
        (process,) = {int(path.name.split("-")[2]) for path in tmp_path.glob("did-*")}
    for _ in range(100):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError("the worker goes on")
