"""This machine: one task after the other in this process, or several at a time in processes of their own."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from braintumor_kit.engines.engine import ATTEMPTS, Result, Task, Work
from braintumor_kit.engines.processes import WorkerLostError, in_workers
from braintumor_kit.engines.threads import cores, threads, use_threads
from braintumor_kit.engines.together import JointWork, Tell, do_together
from braintumor_kit.errors import WorkError
from braintumor_kit.progress import Reporter


@dataclass(frozen=True)
class LocalEngine:
    """As many tasks at a time as the cores have room for; where that is one, in this process.

    Attributes:
        threads: of a task; None leaves torch those that it has, and is one task at a time.
        reporter: hears of processes that were lost.
    """

    threads: int | None
    reporter: Reporter

    @property
    def slots(self) -> int:
        """Tasks at a time."""
        return 1 if self.threads is None else max(1, cores() // self.threads)

    def each(self, work: Work[Task, Result], tasks: Sequence[Task]) -> Iterator[tuple[Task, Result]]:
        if min(self.slots, len(tasks)) > 1:
            yield from self._in_processes(work, tasks, self.threads or 1)
            return
        with nullcontext() if self.threads is None else threads(self.threads):
            do = work.open()
            for task in tasks:
                yield task, do(task)

    def together(self, work: JointWork, workers: int, hear: Tell) -> None:
        cpus = min(self.threads or cores(), max(1, cores() // workers))
        self.reporter.say(f"{workers} workers; threads of each: {cpus}", "workers")
        do_together(work, workers, cpus, hear)

    def _in_processes(
        self, work: Work[Task, Result], tasks: Sequence[Task], cpus: int
    ) -> Iterator[tuple[Task, Result]]:
        left, attempts = list(tasks), 0
        while left:
            done = 0
            jobs = min(self.slots, len(left))
            try:
                for result in in_workers(partial(do_in_process, work, cpus), left, jobs, timeout=None):
                    done, attempts = done + 1, 0
                    yield left[done - 1], result
                return
            except WorkerLostError as error:
                attempts += 1
                at = work.name(left[done])
                if attempts == ATTEMPTS:
                    raise WorkError(
                        f"a process was lost {ATTEMPTS} times while it or others were at {at}, most likely for lack of "
                        "memory. What is done is kept; go on with fewer tasks at a time (more CPUs for each)."
                    ) from error
                self.reporter.say(
                    f"a process was lost while at {at} or one of the next; what was not done is begun again",
                    "lost",
                    task=at,
                )
                left = left[done:]


_opened: dict[Any, Callable[[Any], Any]] = {}


def do_in_process(work: Work[Task, Result], cpus: int, task: Task) -> Result:
    """Does one task in a process that others began, and keeps there what the work has opened."""
    if work not in _opened:
        use_threads(cpus)
        _opened.clear()
        _opened[work] = work.open()
        use_threads(cpus)  # once more, for a torch that was imported meanwhile
    result: Result = _opened[work](task)
    return result
