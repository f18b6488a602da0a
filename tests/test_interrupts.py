"""Ctrl-C is heard, also where a library makes another error of it, or drops it."""

import signal
import subprocess
import sys

import pytest
from rich.console import Console

from braintumor_kit import interrupts
from braintumor_kit.errors import InputError
from braintumor_kit.progress import Reporter

MAIN = """
import os, signal, sys, types
import click
from braintumor_kit.commands import main

@click.command()
def odd():
    try:
        os.kill(os.getpid(), signal.{signal})
    except KeyboardInterrupt:
        {then}

module = types.ModuleType("odd")
module.odd = odd
sys.modules["odd"] = module
main.COMMANDS["odd"] = ("odd:odd", "")
main.main(["odd"])
"""


def run(then: str, sent: str = "SIGINT", ignored: bool = False) -> "subprocess.CompletedProcess[str]":
    handling = signal.SIG_IGN if ignored else signal.SIG_DFL
    return subprocess.run(
        [sys.executable, "-c", MAIN.format(signal=sent, then=then)],
        capture_output=True, text=True, check=False, preexec_fn=lambda: signal.signal(signal.SIGINT, handling),
    )  # fmt: skip


@pytest.mark.parametrize("sent", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize(
    "then",
    ["raise", "raise ImportError('numpy._core.umath failed to import')", "raise click.ClickException('odd')",
     "from braintumor_kit.errors import WorkError; raise WorkError('odd')"],
    ids=["itself", "import error", "wrong call", "work error"],
)  # fmt: skip
def test_whatever_a_library_makes_of_it_the_command_was_interrupted(then: str, sent: str) -> None:
    ended = run(then, sent)
    assert ended.returncode == 130
    assert ended.stderr.strip() == "interrupted."


def test_what_it_takes_from_a_library_s_threads_is_not_told() -> None:
    """joblib's own stumbles now and then over a pool that is being left."""
    broken = "import threading; t = threading.Thread(target={}.__getitem__, args=(1,)); t.start(); t.join(); raise"
    assert run(broken).stderr.strip() == "interrupted."


def test_where_it_is_ignored_it_is_not_heard() -> None:
    """As for commands that a script runs in the background."""
    assert run("raise", ignored=True).returncode == 0


def test_when_it_is_over_it_is_over_without_words() -> None:
    """Python has destructors and functions for its exit still to call, and would print where it was interrupted."""
    ended = run("import atexit; atexit.register(os.kill, os.getpid(), signal.SIGINT); raise")
    assert ended.returncode == -signal.SIGINT  # 130, to a shell
    assert ended.stderr.strip() == "interrupted."


@pytest.fixture
def came(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interruption that something dropped."""
    monkeypatch.setattr(interrupts, "_came", True)


@pytest.mark.usefixtures("came")
@pytest.mark.parametrize("terminal", [True, False])
def test_long_work_hears_of_one_that_was_dropped(terminal: bool) -> None:
    reporter = Reporter(Console(stderr=True, force_terminal=terminal))
    with pytest.raises(KeyboardInterrupt), reporter.bar("working") as update:
        update(1, 2)


def test_otherwise_it_goes_on() -> None:
    assert not interrupts.interrupted()
    with Reporter(Console(stderr=True)).bar("working") as update:
        update(1, 2)


@pytest.mark.usefixtures("came")
def test_a_run_that_ends_of_it_is_recorded_as_interrupted(tmp_path_factory: pytest.TempPathFactory) -> None:
    from braintumor_kit.files import read_json, write_json
    from braintumor_kit.runs import Run
    from braintumor_kit.workflows.ending import ending_recorded

    run = Run(tmp_path_factory.mktemp("r"))
    write_json(run.folder / "record.json", {"status": "running"})
    with pytest.raises(InputError), ending_recorded(run):
        raise InputError("what a library made of it")
    assert read_json(run.folder / "record.json")["status"] == "interrupted"
