"""Progress of long work on standard error: a bar at a terminal, a line now and then elsewhere, and the run's log."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from pythonjsonlogger.json import JsonFormatter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from braintumor_kit.interrupts import raise_again
from braintumor_kit.visible import visible

log = logging.getLogger("btkit")
"""Everything that btkit tells goes through this logger."""

TIME = "%Y-%m-%dT%H:%M:%S"

QUIET_SECONDS = 20.0
"""Where there is no terminal, a running bar says how far it is this often."""


class Reporter:
    """Tells the user what happens.

    Args:
        console: where to; None tells nobody (the log still hears of it).
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console

    def say(self, text: str, event: str = "note", **fields: object) -> None:
        """One line, to the user and to the log; there with the name of what happened and fields for programs."""
        log.info(text, extra={"event": event, **fields})
        if self._console:
            try:
                self._console.print(visible(text), markup=False, highlight=False, soft_wrap=True)
            except OSError:  # nobody listens any more, or what listens is full: no reason to stop the work
                self._console = None

    @contextmanager
    def bar(self, title: str) -> Iterator[Callable[[int, int], None]]:
        """A bar; what it yields is called with (done, total)."""
        with self.bars(title) as (update,):
            yield update

    @contextmanager
    def bars(self, *titles: str) -> Iterator[list[Callable[[int, int], None]]]:
        """Several bars below each other; each shows itself when it is first called."""
        if self._console is None:
            yield [_silent] * len(titles)
        elif self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            with Bar(
                *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self._console, transient=True
            ) as bar:
                yield [_task(bar, title) for title in titles]
        else:
            yield [self._lines(title) for title in titles]

    def _lines(self, title: str) -> Callable[[int, int], None]:
        return _every(QUIET_SECONDS, lambda done, total: self.say(f"{title}: {done} of {total}"))


def _silent(done: int, total: int) -> None:
    raise_again()


def _task(bar: Bar, title: str) -> Callable[[int, int], None]:
    task = bar.add_task(title, total=None, start=False, visible=False)

    def update(done: int, total: int) -> None:
        raise_again()
        bar.start_task(task)
        bar.update(task, completed=done, total=total, visible=True)

    return update


def _every(seconds: float, tell: Callable[[int, int], None]) -> Callable[[int, int], None]:
    last = time.monotonic()

    def update(done: int, total: int) -> None:
        nonlocal last
        raise_again()
        if time.monotonic() - last >= seconds and done < total:
            last = time.monotonic()
            tell(done, total)

    return update


class _Lines(logging.Handler):
    """Adds to a log line by line: each is there whole, for readers and after a disk was full, or not at all.

    A log that cannot be written (a full disk, a folder that is gone) must not drown the error that matters.
    """

    def __init__(self, path: Path, formatter: logging.Formatter) -> None:
        super().__init__()
        self._path = path
        self._file: FileIO | None = None
        formatter.converter = time.gmtime
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = f"{self.format(record)}\n".encode(errors="backslashreplace")
        except Exception:  # of whatever kind: what is logged must not stop the work
            self.handleError(record)
            return
        with suppress(OSError):
            self._file = self._file or self._path.open("ab", buffering=0)  # one line is one call of the system
            end = self._file.seek(0, os.SEEK_END)
            try:
                written = self._file.write(line)
            except OSError:
                written = 0
            if written != len(line):
                self._file.truncate(end)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's own name)
        pass

    def close(self) -> None:
        if self._file:
            self._file.close()
        super().close()


@contextmanager
def log_to(folder: Path) -> Iterator[None]:
    """Inside, everything told is also written to `log.txt` of a folder, for people, and to `log.jsonl`, for programs:
    one JSON object a line, with `time`, `level`, `message`, `event` and the event's own fields."""
    lines = logging.Formatter("%(asctime)sZ %(levelname)s %(message)s", TIME)
    names = {"asctime": "time", "levelname": "level"}
    objects = JsonFormatter("%(asctime)s%(levelname)s%(message)s", rename_fields=names, datefmt=f"{TIME}Z")
    handlers = [_Lines(folder / "log.txt", lines), _Lines(folder / "log.jsonl", objects)]
    log.setLevel(logging.INFO)
    for handler in handlers:
        log.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()
