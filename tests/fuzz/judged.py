"""What may become of a damaged input: accepted with a sane result, or exit status 2 with one message; nothing else."""

import json
import math
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, NamedTuple

from braintumor_kit.commands.main import run_command_line


class Ended(NamedTuple):
    status: int
    out: str
    err: str


def command(*arguments: object) -> Ended:
    """Runs btkit in this process, with all that it or a library in C prints."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        with redirect_stdout(out), redirect_stderr(err), _instead(1, out.fileno()), _instead(2, err.fileno()):
            try:
                status = run_command_line([str(argument) for argument in arguments])
            except SystemExit as ending:
                raise AssertionError(f"the process would have ended: {ending}") from ending
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read())
        return Ended(status, *texts)


@contextmanager
def _instead(number: int, other: int) -> Iterator[None]:
    """What C prints to a file descriptor goes to another."""
    kept = os.dup(number)
    os.dup2(other, number)
    try:
        yield
    finally:
        os.dup2(kept, number)
        os.close(kept)


def refused(ended: Ended) -> bool:
    """Whether an input was refused; it has to be accepted or refused in the one way that is allowed."""
    assert "Traceback" not in ended.err, ended.err
    assert ended.status in (0, 2), f"status {ended.status}: {ended.err}"
    assert "Warning: " not in ended.err, ended.err
    told = re.findall(r"^(?:btkit|Error): ", ended.err, re.MULTILINE)
    assert len(told) == (1 if ended.status == 2 else 0), f"{len(told)} messages: {ended.err}"
    odd = [letter for letter in ended.out + ended.err if not letter.isprintable() and letter not in "\n\t"]
    assert not odd, f"a terminal would be sent {odd[:5]!r}: {ended.err}"
    assert len(ended.err) < 20_000, f"a message of {len(ended.err):,} letters: {ended.err[:200]}"
    return ended.status == 2


def sane_predictions(out: str) -> list[dict[str, Any]]:
    """What `predict --json` printed, each a distribution over classes."""
    found: list[dict[str, Any]] = json.loads(out)
    for item in found:
        for name in ("probabilities", "calibrated"):
            values = list((item[name] or {"all": 1.0}).values())
            assert all(math.isfinite(value) and -1e-6 <= value <= 1 + 1e-6 for value in values), item
            assert abs(sum(values) - 1) < 1e-3, item
    return found
