"""The simulation of many workers against courses worked out by hand, and its costs against what was measured."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from braintumor_kit.bench.scaling import Load, courses, simulate, smaller_tasks, table

EVEN = Load(
    per_slice=0.01, variation=0.0, per_task=0.001, before=0.0, after=0.0, start=5.0, slices=100, read=0.0, written=0.0
)
"""Tasks of a second each."""


def test_one_worker_does_one_task_after_the_other() -> None:
    course = simulate(EVEN, 1, 1000)
    assert course.seconds == pytest.approx(5 + 10 * (0.001 + 1))
    assert course.busy == pytest.approx(10 / (10 + 9 * 0.001))  # from the first task's beginning on
    assert course.saturated == "the workers"


def test_more_workers_take_less_time_until_there_are_as_many_as_tasks() -> None:
    many = replace(EVEN, at_once=32)
    assert simulate(many, 2, 1000).seconds == pytest.approx(5 + 5 * 1.001, abs=0.01)
    assert simulate(many, 10, 1000).seconds == pytest.approx(5 + 10 * 0.001 + 1)
    assert simulate(many, 20, 1000) == replace(simulate(many, 10, 1000), workers=20, busy=pytest.approx(0.5, abs=0.01))
    assert simulate(many, 20, 1000).saturated == "the last tasks, and coming up"


def test_what_one_process_alone_does_comes_on_top() -> None:
    load = replace(EVEN, before=0.002, after=0.003)
    assert simulate(load, 1, 1000).seconds == pytest.approx(simulate(EVEN, 1, 1000).seconds + 1000 * 0.005)


def test_handing_out_bounds_many_workers() -> None:
    """A hundred thousand slices are a thousand tasks of a second; handed out in 0.1 s each they take a hundred
    seconds, however many workers there are."""
    load = replace(EVEN, per_task=0.1, at_once=32)
    course = simulate(load, 32, 100_000)
    assert course.seconds == pytest.approx(5 + 1000 * 0.1 + 1, rel=0.01)
    assert course.saturated == "handing out"


def test_the_store_bounds_many_workers() -> None:
    """A megabyte a slice at a gigabyte a second: a thousand slices a second."""
    load = replace(EVEN, read=0.9e6, written=0.1e6, bandwidth=1e9, at_once=64, per_machine=64)
    course = simulate(load, 64, 100_000)
    assert course.seconds == pytest.approx(5 + 100 + 1, rel=0.02)
    assert course.saturated == "the store"
    assert simulate(load, 1, 100_000).seconds == pytest.approx(5 + 1000 * (1 + 0.1 + 0.001), rel=0.001)


def test_machines_bring_up_some_workers_at_a_time() -> None:
    """Of four workers on a machine two come at 5 s and two at 10 s: ten tasks and four are done by then."""
    load = replace(EVEN, at_once=2, per_machine=4)
    assert simulate(load, 4, 1000).seconds == pytest.approx(5 + 5 * 1.001, abs=0.01)
    assert simulate(load, 4, 1400).seconds == pytest.approx(10 + 1, abs=0.1)
    assert simulate(load, 8, 400).seconds == pytest.approx(5 + 1, abs=0.01)  # two of each of two machines


def test_durations_vary_about_their_mean_and_follow_from_the_seed() -> None:
    load = replace(EVEN, variation=0.3)
    one = simulate(load, 1, 100_000)
    assert one.seconds == pytest.approx(simulate(EVEN, 1, 100_000).seconds, rel=0.04)  # 1,000 tasks: four errors
    assert one == simulate(load, 1, 100_000)
    assert one != simulate(load, 1, 100_000, seed=1)


def test_smaller_tasks_suit_many_workers() -> None:
    """Two hundred tasks for 128 workers: the second round is half empty."""
    assert smaller_tasks(replace(EVEN, at_once=32), 128, 20_000) < 100


def test_the_table_shows_each_number_of_workers() -> None:
    lines = table("prediction", EVEN).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["1", "8", "64", "512"]
    assert [course.workers for course in courses(EVEN)] == [1, 8, 64, 512]
    assert "1.00" in lines[2]


def test_costs_are_measured_and_fed_in(finished: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is missing: pip install 'braintumor-kit[ray]'")
    command = [sys.executable, "-m", "braintumor_kit.bench.scaling", str(finished), "--slices", "64", "--out"]
    ended = subprocess.run([*command, str(tmp_path / "s.json")], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    found = json.loads((tmp_path / "s.json").read_text())
    assert all(seconds > 0 for name, seconds in found["stages"].items() if name != "write the part")
    assert found["start"]["bytes"] > 2e8
    for name in ("prediction", "explanation"):
        load = Load(**found["loads"][name])
        assert found["courses"][name][0]["seconds"] == simulate(load, 1).seconds
        assert f"{name}: workers" in ended.stdout
