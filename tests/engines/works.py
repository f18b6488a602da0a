"""Kinds of work for the tests of engines; processes import them by name."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from braintumor_kit.engines.engine import Work
from braintumor_kit.errors import InputError
from braintumor_kit.progress import Reporter


class Heard(Reporter):
    """Remembers what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, text: str, event: str = "note", **fields: object) -> None:
        self.lines.append(text)


@dataclass(frozen=True)
class Doubles(Work[int, int]):
    """Doubles numbers, and writes down in which process and with how many threads."""

    folder: Path

    def open(self) -> Callable[[int], int]:
        import torch

        (self.folder / f"opened-{os.getpid()}-{time.monotonic_ns()}").touch()

        def do(number: int) -> int:
            threads = torch.get_num_threads()
            (self.folder / f"did-{number}-{os.getpid()}-{threads}-{time.monotonic_ns()}").touch()
            time.sleep(0.05)
            return 2 * number

        return do


@dataclass(frozen=True)
class LosesOnce(Work[int, int]):
    """The process is killed at task 3, the first time; what is done is marked, and given again at once."""

    folder: Path

    def open(self) -> Callable[[int], int]:
        return self.do

    def do(self, number: int) -> int:
        done, killed = self.folder / f"done-{number}", self.folder / "killed"
        if not done.exists():
            if number == 3 and not killed.exists():
                killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            (self.folder / f"work-{number}-{os.getpid()}").touch()
            done.touch()
        return 2 * number


@dataclass(frozen=True)
class AlwaysLost(Work[int, int]):
    """Task 1 kills whatever process is at it."""

    def open(self) -> Callable[[int], int]:
        return self.do

    def do(self, number: int) -> int:
        if number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    def name(self, task: int) -> str:
        return f"number {task}"


@dataclass(frozen=True)
class Refuses(Work[int, int]):
    """Says that the input is at fault."""

    def open(self) -> Callable[[int], int]:
        return self.do

    def do(self, number: int) -> int:
        raise InputError(f"number {number} is odd in every way.")


@dataclass(frozen=True)
class Slow(Work[int, int]):
    """A second a task, and a mark at its beginning and end."""

    folder: Path
    seconds: float = 1.0

    def open(self) -> Callable[[int], int]:
        return self.do

    def do(self, number: int) -> int:
        if not (self.folder / f"end-{number}").exists():
            (self.folder / f"begin-{number}-{os.getpid()}").touch()
            time.sleep(self.seconds)
            (self.folder / f"end-{number}").touch()
        return number


@dataclass(frozen=True)
class Lacks(Work[int, int]):
    """Needs a module that is not there."""

    def open(self) -> Callable[[int], int]:
        import no_such_module  # type: ignore[import-not-found]

        return no_such_module.do  # type: ignore[no-any-return]
