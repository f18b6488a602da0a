"""Who reads what btkit says, or stores it, cannot stop its work."""

import os
import subprocess
from pathlib import Path

import pytest
from small_runs import TINY
from test_resume import command

from braintumor_kit.files import read_json

pytestmark = pytest.mark.usefixtures("two_layers")

FULL = Path("/dev/full")
BTKIT = [part for part in command() if part != "run"]
full = pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full here, which is a file on a full disk")


def run(tmp_path: Path, **streams: int) -> tuple[int, str]:
    """A run whose output goes elsewhere: its exit status, and how its record ended."""
    begin = [*command("resnet_adam"), *TINY, "--runs", str(tmp_path), "--name", "r"]
    status = subprocess.run(begin, check=False, **{"stdout": subprocess.DEVNULL, **streams}).returncode  # type: ignore[call-overload]
    return status, read_json(tmp_path / "r" / "record.json")["status"]


@full
@pytest.mark.parametrize(("stream", "status"), [("stderr", 0), ("stdout", 3)])
def test_a_full_disk_behind_what_is_said(stream: str, status: int, tmp_path: Path) -> None:
    with FULL.open("w") as file:
        assert run(tmp_path, **{stream: file.fileno()}) == (status, "finished")


def test_a_reader_of_messages_that_goes(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    assert run(tmp_path, stderr=writing) == (0, "finished")


@full
@pytest.mark.parametrize("arguments", [["plugins", "list"], ["plugins", "list", "--json"], ["--help"]], ids=" ".join)
def test_a_result_that_cannot_be_printed(arguments: list[str]) -> None:
    with FULL.open("w") as file:
        ended = subprocess.run([*BTKIT, *arguments], stdout=file, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 3
    assert ended.stderr == (
        "btkit: the result could not be printed: No space left on device. What was written before is whole.\n"
    )


@pytest.mark.parametrize("arguments", [["plugins", "list"], ["plugins", "list", "--json"], ["--help"]], ids=" ".join)
def test_a_reader_of_results_that_goes_is_content(arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run([*BTKIT, *arguments], stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
