"""Processes that work for this one: deaf to Ctrl-C, which is this one's to hear, watched while they work, and gone
when it is gone."""

import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import TimeoutError as Hung
from multiprocessing import resource_tracker
from typing import TypeVar

from joblib import Parallel, delayed

HUNG = 300.0
"""Seconds after which a task that gives nothing is taken to hang."""

LOOK = 2.0
"""Seconds between two looks of a worker for the process that it works for."""

Task = TypeVar("Task")
Result = TypeVar("Result")


class WorkerHangsError(Exception):
    """A task has given nothing for too long; its argument is the number of that task."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class WorkerLostError(Exception):
    """A process ended in the middle of its work."""


def in_workers(
    function: Callable[[Task], Result], tasks: Sequence[Task], jobs: int, timeout: float | None = HUNG
) -> Iterator[Result]:
    """What a function gives for each task, in order; never more of it in memory than there are processes to fill.

    Raises:
        WorkerHangsError: where a task gives nothing for so many seconds; with None it may take any time.
        WorkerLostError: where a process is lost, as it is when memory runs out.
    """
    parent, done = os.getpid(), 0
    settings = {"return_as": "generator", "pre_dispatch": "2*n_jobs", "batch_size": 1, "timeout": timeout}
    results: Iterator[Result] = iter(())
    with Parallel(n_jobs=jobs, **settings) as parallel:
        try:
            with _deaf():
                results = parallel(delayed(_work)(parent, function, task) for task in tasks)
            for result in results:
                yield result
                done += 1
        except Hung as error:  # not the built-in one
            raise WorkerHangsError(done) from error
        except BrokenProcessPool as error:
            raise WorkerLostError from error
        finally:
            _leave(results)


def _leave(results: Iterator[Result]) -> None:
    """Ends what is still to come without joblib's advice to ask for less: it is for programs, and users see it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        if isinstance(results, Generator):
            results.close()


@contextmanager
def _deaf() -> Iterator[None]:
    """Processes that are begun inside do not hear Ctrl-C, as a terminal sends it to all; this one does, afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # begun inside, it would have this process hear again, and those begun after it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(parent: int, function: Callable[[Task], Result], task: Task) -> Result:
    _go_with(parent)
    return function(task)


_goes_with: set[int] = set()


def _go_with(parent: int) -> None:
    """Ends this process soon after the one that it works for, however that one ended: its own pool of processes would
    keep it, and its memory, for minutes."""
    if parent in _goes_with or os.getppid() != parent:
        return  # watched already, or not this process's child: then work goes on in threads, or in a process of its own
    _goes_with.add(parent)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK)
    os._exit(1)
