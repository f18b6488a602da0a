"""The machines of a Ray cluster: a pool of processes there, each with what its work has opened, filled again where
one is lost."""

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from braintumor_kit.engines.engine import ATTEMPTS, Result, Task, Work
from braintumor_kit.engines.ray_errors import cause, lacking
from braintumor_kit.engines.ray_process import begin_as_asked
from braintumor_kit.engines.ray_together import do_together_on_ray
from braintumor_kit.engines.threads import use_threads
from braintumor_kit.engines.together import JointWork, Tell
from braintumor_kit.errors import BtkitError, InputError, WorkError
from braintumor_kit.interrupts import raise_again
from braintumor_kit.progress import Reporter
from braintumor_kit.runs import package_versions

LOOK = 1.0
"""Seconds between two looks for an interruption."""

ROOM = 60.0
"""Seconds after which the user is told that no process finds room."""

SENT = ("BTKIT_", "KERAS_", "HF_", "MLFLOW_", "AWS_", "FSSPEC_")
"""How the environment variables begin that processes on other machines are given."""


class Worker:
    """A process of the cluster.

    Args:
        environment: variables that it is given.
        folder: where the command was begun, which relative paths are about.
        cpus: threads of a task.
    """

    def __init__(self, environment: Mapping[str, str], folder: str, cpus: int) -> None:
        begin_as_asked(environment, folder, cpus)
        self._cpus = cpus
        self._do: Callable[[Any], Any] | None = None

    def about(self) -> tuple[str, int, Mapping[str, str | None]]:
        """Its machine's address, its number there, and the packages that a result may depend on."""
        import ray

        return ray.util.get_node_ip_address(), os.getpid(), package_versions()

    def do(self, work: Work[Any, Any], task: Any) -> Any:
        """Does one task."""
        if self._do is None:
            self._do = work.open()
            use_threads(self._cpus)  # once more, for a torch that was imported meanwhile
        return self._do(task)


@dataclass
class _Member:
    """A process of the pool, and what it is at."""

    handle: Any
    where: str = "a new process"
    task: int | None = None


class RayEngine:
    """As many tasks at a time as the cluster has CPUs for. Its processes are kept for further tasks of the same work.

    Args:
        ray: the module, connected.
        cpus: CPUs that one task is given.
        gpus: GPUs that one task is given, or a part of one.
        reporter: hears of processes and machines that were lost.

    Raises:
        InputError: where no machine has room for a task.
    """

    def __init__(self, ray: Any, cpus: int, gpus: float, reporter: Reporter) -> None:
        self.ray, self.cpus, self.gpus, self.reporter = ray, cpus, gpus, reporter
        self._pool: _Pool | None = None
        nodes = self._nodes()
        most = max((int(node.get("CPU", 0)) for node in nodes), default=0)
        if most < cpus:
            raise InputError(
                f"a task wants {cpus} CPUs, and no machine of the Ray cluster has more than {most}: ask for fewer "
                "(--cpus, or cpus in the recipe's [resources])."
            )
        if max((node.get("GPU", 0) for node in nodes), default=0) < gpus:
            raise InputError(f"a task wants {gpus:g} GPUs, and no machine of the Ray cluster has so many.")

    @property
    def slots(self) -> int:
        """Tasks at a time."""
        return sum(map(self._room, self._nodes()))

    def _nodes(self) -> list[Mapping[str, float]]:
        """What each machine has."""
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    def _room(self, has: Mapping[str, float]) -> int:
        room = int(has.get("CPU", 0)) // self.cpus
        return min(room, int(has.get("GPU", 0) / self.gpus)) if self.gpus else room

    def each(self, work: Work[Task, Result], tasks: Sequence[Task]) -> Iterator[tuple[Task, Result]]:
        if self._pool is None or self._pool.work != work:
            self.close()
            self._pool = _Pool(self, work)
        try:
            yield from self._pool.results(tasks)
        except BaseException:  # a generator that is left raises here too
            self.close()
            raise

    def together(self, work: JointWork, workers: int, hear: Tell) -> None:
        nodes = self._nodes()
        total = int(sum(node.get("CPU", 0) for node in nodes))
        cpus = min(self.cpus, max(1, total // workers))
        if total < workers or sum(node.get("GPU", 0) for node in nodes) < workers * self.gpus:
            wanted = f"{workers} CPUs" + (f" and {workers * self.gpus:g} GPUs" if self.gpus else "")
            raise InputError(f"training.workers = {workers} wants {wanted}, and the Ray cluster has fewer.")
        self.reporter.say(f"{workers} workers on the Ray cluster; threads of each: {cpus}", "workers")
        room = {"CPU": cpus, **({"GPU": self.gpus} if self.gpus else {})}
        do_together_on_ray(self.ray, work, workers, room, _sent(), hear)

    def close(self) -> None:
        """Ends its processes."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None


class _Pool:
    """Processes for one kind of work."""

    def __init__(self, engine: RayEngine, work: Work[Any, Any]) -> None:
        self.work = work
        self._engine, self._ray, self._sent = engine, engine.ray, engine.ray.put(work)
        self._tasks: Sequence[Any] = ()
        self._todo, self._attempts = deque[int](), Counter[int]()
        self._members: dict[Any, _Member] = {}  # by what is waited for: that it is ready, or that it has done its task
        self._idle: list[_Member] = []
        self._lost_early = 0
        environment = _sent()
        remote = engine.ray.remote(num_cpus=engine.cpus, num_gpus=engine.gpus, max_restarts=0)(Worker)
        self._begin: Callable[[], Any] = lambda: remote.remote(environment, os.getcwd(), engine.cpus)

    def results(self, tasks: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        self._tasks, self._todo, self._attempts = tasks, deque(range(len(tasks))), Counter()
        for _ in range(min(self._engine.slots, len(tasks)) - len(self._members) - len(self._idle)):
            self._grow()
        left, waited = len(tasks), 0.0
        while left:
            raise_again()
            self._hand_out()
            ended, _ = self._ray.wait(list(self._members), num_returns=1, timeout=LOOK)
            if not ended:
                waited = self._tell_of_room(waited)
                continue
            waited = 0.0
            member = self._members.pop(ended[0])
            try:
                given = self._ray.get(ended[0])
            except self._ray.exceptions.RayTaskError as error:
                raise _as_raised(error) from error
            except self._ray.exceptions.RayError as error:
                self._lose(member, error)
                continue
            task, member.task = member.task, None
            self._idle.append(member)
            if task is None:
                self._welcome(member, given)
            else:
                left -= 1
                yield tasks[task], given

    def _grow(self) -> None:
        handle = self._begin()
        self._members[handle.about.remote()] = _Member(handle)

    def _hand_out(self) -> None:
        while self._todo and self._idle:
            member = self._idle.pop()
            member.task = self._todo.popleft()
            self._attempts[member.task] += 1
            self._members[member.handle.do.remote(self._sent, self._tasks[member.task])] = member

    def _welcome(self, member: _Member, about: tuple[str, int, Mapping[str, str | None]]) -> None:
        self._lost_early = 0
        host, process, packages = about
        member.where = f"process {process} on {host}"
        here = package_versions()
        other = [f"{name} {packages.get(name)}, here {here[name]}" for name in here if packages.get(name) != here[name]]
        if other:
            raise InputError(f"machine {host} of the Ray cluster has other packages: {'; '.join(other)}. Install the "
                             "same everywhere: results may depend on them.")  # fmt: skip
        self._engine.reporter.say(f"{member.where} takes part", "worker")

    def _lose(self, member: _Member, error: Exception) -> None:
        """Puts back what a lost process was at, and begins another."""
        why = cause(error)
        if member.task is None:
            self._lost_early += 1
            if self._lost_early == ATTEMPTS:
                raise lacking(error) or WorkError(
                    f"{ATTEMPTS} processes of the Ray cluster, one after the other, were lost before they had a task: "
                    f"{why}. What is done is kept, and the same command goes on."
                ) from error
            self._engine.reporter.say(f"{member.where} was lost before it had a task ({why})", "lost")
        else:
            task = self.work.name(self._tasks[member.task])
            if self._attempts[member.task] >= ATTEMPTS:
                raise WorkError(
                    f"{ATTEMPTS} processes were lost while at {task}, the last one {member.where}: {why}. What is "
                    "done is kept, and the same command goes on."
                ) from error
            self._engine.reporter.say(
                f"{member.where} was lost at {task} ({why}); that is begun again", "lost", task=task
            )
            self._todo.appendleft(member.task)
        self._grow()

    def _tell_of_room(self, waited: float) -> float:
        """Says now and then that no process finds room, where none is at work."""
        if any(member.task is not None for member in self._members.values()):
            return 0.0
        waited += LOOK
        if waited % ROOM < LOOK:
            self._engine.reporter.say(f"waiting for {self._engine.cpus} free CPUs on a machine of the Ray cluster")
        return waited

    def close(self) -> None:
        """Ends the processes."""
        for member in (*self._members.values(), *self._idle):
            self._ray.kill(member.handle)


def _sent() -> dict[str, str]:
    """The environment variables that processes on other machines are given."""
    return {name: value for name, value in os.environ.items() if name.startswith(SENT)}


def _as_raised(error: Any) -> BaseException:
    """What the work itself raised, out of what Ray made of it."""
    raised: BaseException = error.cause
    return raised if isinstance(raised, BtkitError) else lacking(error) or error
