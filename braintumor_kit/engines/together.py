"""Processes that do one piece of work together: what each is, and those of this machine, begun by torch's own
launcher."""

import gc
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from braintumor_kit.backend import use_torch_backend
from braintumor_kit.engines.threads import use_threads
from braintumor_kit.errors import BtkitError, InputError, WorkError
from braintumor_kit.interrupts import raise_again

POLL = 0.2
"""Seconds between two looks at what the processes tell."""

OWN_ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGABRT)
"""How processes of a group end that was given up: ended with the others, or stumbling over what is gone."""

Tell = Callable[[Any], None]


class JointWork(Protocol):
    """What every process of a group does, sent to it pickled. torch.distributed's default group is there meanwhile, by
    NCCL where they compute on GPUs, else by Gloo."""

    def __call__(self, tell: Tell) -> None:
        """Does this process' part.

        Args:
            tell: hands a plain value to the process that asked for the work.
        """


@dataclass(frozen=True)
class Raised:
    """What one of them raised."""

    error: BtkitError


def do_together(work: JointWork, workers: int, cpus: int, hear: Tell) -> None:
    """Has processes of this machine do a piece of work together.

    Args:
        workers: processes; each has a GPU of its own where this machine computes on GPUs.
        cpus: threads of each.
        hear: is given what they tell, in the order in which each tells it.

    Raises:
        BtkitError: what one of them raises.
        WorkError: where one of them is lost, or fails otherwise. The others are ended.
        KeyboardInterrupt: where one of them was interrupted, as a terminal does to all at once.
    """
    import torch
    from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes

    gpus = torch.cuda.device_count()
    if 0 < gpus < workers:
        raise InputError(
            f"training.workers = {workers} wants a GPU each, and this machine has {gpus}: ask for no more than that."
        )
    told = torch.multiprocessing.get_context("spawn").SimpleQueue()
    with tempfile.TemporaryDirectory(prefix="btkit-group-") as folder:
        store = (Path(folder) / "store").as_uri()
        begun: Any = start_processes(
            _take_part, (work, workers, cpus, bool(gpus), store, told), workers, join=False, start_method="spawn"
        )
        listener = Listener(hear)

        def drain() -> None:
            while not told.empty():
                listener.take(told.get())

        try:
            over = False
            while not over:
                raise_again()
                over = begun.join(timeout=POLL)
                drain()
        except (ProcessRaisedException, ProcessExitedException) as error:
            drain()
            raise_again()  # the same Ctrl-C may have ended them before it was heard here
            if any(process.exitcode == -signal.SIGINT for process in begun.processes):
                raise KeyboardInterrupt from error
            raise listener.raised or _lost(begun.processes, error) from error
        finally:
            for process in begun.processes:
                process.kill()
                process.join()


class Listener:
    """Hands on what is told, and keeps what was raised."""

    def __init__(self, hear: Tell) -> None:
        self._hear = hear
        self.raised: BtkitError | None = None

    def take(self, said: Any) -> None:
        """Takes one thing that was told."""
        if isinstance(said, Raised):
            self.raised = self.raised or said.error
        else:
            self._hear(said)


def _take_part(rank: int, work: JointWork, workers: int, cpus: int, on_gpu: bool, store: str, told: Any) -> None:
    """In a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the process that asked says what an interruption means
    use_torch_backend()
    use_threads(cpus)
    os.environ["LOCAL_RANK"] = str(rank)
    with joined(on_gpu, init_method=store, rank=rank, world_size=workers):
        use_threads(cpus)  # once more, now that torch is imported
        do_part(work, told.put)


def do_part(work: JointWork, tell: Tell) -> None:
    """Does a process' part; what it raises of btkit's is told, so that it is not lost among what the others raise
    when this one is gone."""
    try:
        work(tell)
    except BtkitError as error:
        tell(Raised(error))
        raise


@contextmanager
def joined(on_gpu: bool, **where: Any) -> Iterator[None]:
    """Inside, this process is one of a group.

    Args:
        on_gpu: whether it computes on the GPU that `LOCAL_RANK` numbers.
        where: of torch.distributed.init_process_group: how they find each other.
    """
    import torch

    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("nccl" if on_gpu else "gloo", **where)
    yield
    gc.collect()  # what holds the group and is needed no more: a group that outlives Python aborts the process
    torch.distributed.destroy_process_group()  # not after an error: it would wait for others that may be gone


def _lost(processes: list[Any], error: Any) -> WorkError:
    """Why it failed: a process that was killed from outside, before those that failed because it was gone."""
    for rank, process in enumerate(processes):
        code = process.exitcode
        if code is not None and code < 0 and -code not in OWN_ENDS:
            return lost_worker(rank, f"process {process.pid} was killed by {signal.Signals(-code).name}")
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lost_worker(error.error_index, lines[-1] if lines else type(error).__name__)


def lost_worker(rank: int | None, cause: str) -> WorkError:
    """What is said where one is lost."""
    which = "a worker" if rank is None else f"worker {rank}"
    return WorkError(f"{which} was lost ({cause}), and the training stopped: workers take every step together.")
