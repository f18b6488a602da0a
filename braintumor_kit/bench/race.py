"""A race: each contender a process of its own, all of them taking turns lap by lap.

A machine's speed drifts, by its clock and by what else runs on it. Contenders that take turns within seconds drift
together, so that the ratio of their laps stays.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from braintumor_kit.errors import WorkError

COMMAND = (sys.executable, "-W", "ignore", "-m", "braintumor_kit.bench.contender")
"""What a contender's name and settings are appended to."""


@dataclass(frozen=True)
class Entry:
    """A contender in a race.

    Attributes:
        name: as `contender.py` lists it.
        settings: what it is told, plain values.
        environment: of its process, beside what all have.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Laps:
    """What a contender did.

    Attributes:
        rates: images a second of each lap.
        memory: the greatest anonymous resident memory, in MiB.
        facts: what else each lap told.
    """

    rates: tuple[float, ...]
    memory: float
    facts: tuple[Mapping[str, Any], ...]

    @property
    def rate(self) -> float:
        """Median, in images a second."""
        return median(self.rates)


def race(entries: Sequence[Entry], rounds: int) -> list[Laps]:
    """Lets the contenders take turns.

    Raises:
        WorkError: where one of them fails, with its last words.
    """
    with ExitStack() as stack:
        runners = [stack.enter_context(_started(entry)) for entry in entries]
        for runner in runners:  # one after the other: a warm-up must not slow another's
            runner.go()
            runner.hear()
        told: list[list[Mapping[str, Any]]] = [[] for _ in runners]
        for _ in range(rounds):
            for runner, laps in zip(runners, told, strict=True):
                runner.go()
                laps.append(runner.hear())
    return [
        Laps(tuple(lap["images"] / lap["seconds"] for lap in laps), max(lap["memory"] for lap in laps), tuple(laps))
        for laps in told
    ]


class _Runner:
    def __init__(self, name: str, process: "subprocess.Popen[str]") -> None:
        self._name, self._process = name, process

    def go(self) -> None:
        assert self._process.stdin
        try:
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # hear() tells why

    def hear(self) -> Mapping[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise WorkError(f"the benchmark's '{self._name}' stopped: {self._last_words()}.")
        told: Mapping[str, Any] = json.loads(line)
        return told

    def end(self) -> None:
        """Ends it and all that it started: processes that decode pictures would hold its pipes open for minutes."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _last_words(self) -> str:
        self.end()
        assert self._process.stderr
        words = self._process.stderr.read().strip().splitlines()
        return words[-1] if words else "no word of why"


@contextmanager
def _started(entry: Entry) -> Iterator[_Runner]:
    with subprocess.Popen(
        [*COMMAND, entry.name, json.dumps(dict(entry.settings))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **entry.environment},
    ) as process:
        runner = _Runner(entry.name, process)
        try:
            yield runner
        finally:
            runner.end()
