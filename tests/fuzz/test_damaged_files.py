"""Damaged files of every kind that btkit reads: each is accepted with a sane result or refused with one message, within
ten seconds and a gigabyte; no traceback, no crash.

The counts here are a tenth of those of `pytest -m long tests/fuzz`. `BTKIT_FUZZ_SEED` gives other damages.
"""

import os
from pathlib import Path

import pytest
from watched import carried_out

SEED = int(os.environ.get("BTKIT_FUZZ_SEED", "8"))
COMMANDS = {
    "images": 100,  # of twenty pictures each
    "volumes": 50,  # of twenty files each
    "mats": 500,
    "indices": 500,
    "models": 200,
    "exported": 400,
    "checkpoints": 200,
    "runs": 200,
    "metadata": 200,
}


def attempt(kind: str, count: int, folder: Path, request: pytest.FixtureRequest) -> None:
    folder.mkdir(exist_ok=True)
    if kind == "runs":
        (folder / "run.txt").write_text(str(request.getfixturevalue("finished")))
    outcomes = carried_out(kind, folder, SEED, count)
    print(f"\n{kind}: {dict(outcomes.most_common(6))}")
    words = " ".join(outcomes)
    assert "refused" in words or kind == "metadata", "no damage was found"  # whose faults harm nothing else
    assert "accepted" in words, "no file was whole enough to be read"


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_tenth(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    attempt(kind, COMMANDS[kind] // 10, tmp_path / kind, request)


@pytest.mark.long
@pytest.mark.parametrize("kind", COMMANDS)
def test_all(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    attempt(kind, COMMANDS[kind], tmp_path / kind, request)
