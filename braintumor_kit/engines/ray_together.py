"""Processes of a Ray cluster that do one piece of work together, begun by Ray Train."""

import os
import re
import signal
import tempfile
import threading
from collections.abc import Mapping
from typing import Any

from braintumor_kit.backend import use_torch_backend
from braintumor_kit.engines.ray_errors import cause, lacking
from braintumor_kit.engines.threads import use_threads
from braintumor_kit.engines.together import POLL, JointWork, Raised, Tell, do_part, lost_worker
from braintumor_kit.errors import BtkitError


def do_together_on_ray(
    ray: Any, work: JointWork, workers: int, room: Mapping[str, float], environment: Mapping[str, str], hear: Tell
) -> None:
    """Has processes of the cluster do a piece of work together, by Ray Train's TorchTrainer.

    Args:
        ray: the module, connected.
        workers: processes.
        room: "CPU" and "GPU" of each.
        environment: variables that each is given.
        hear: is given what they tell.

    Raises:
        BtkitError: what one of them raises.
        WorkError: where one of them is lost, or fails otherwise. The others are ended.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer
    from ray.util.queue import Queue

    told = Queue(actor_options={"num_cpus": 0})
    listener = _Listener(told, hear)
    heard = signal.getsignal(signal.SIGINT)
    with tempfile.TemporaryDirectory(prefix="btkit-ray-") as kept:
        trainer = TorchTrainer(
            _take_part,
            train_loop_config={"work": work, "told": told, "cpus": int(room["CPU"]), "environment": dict(environment),
                               "folder": os.getcwd()},
            scaling_config=ScalingConfig(
                num_workers=workers, use_gpu=bool(room.get("GPU")), resources_per_worker=dict(room)
            ),
            run_config=RunConfig(storage_path=kept, failure_config=FailureConfig(max_failures=0)),
        )  # fmt: skip
        try:
            with listener:
                trainer.fit()
        except (TrainingFailedError, ray.exceptions.RayError) as error:
            raise listener.raised or lacking(error) or _lost(error) from error
        finally:
            signal.signal(signal.SIGINT, heard)  # Ray Train has put its own in the place of btkit's
            told.shutdown(force=True)


def _take_part(config: dict[str, Any]) -> None:
    """In a process of the cluster, which Ray Train has joined with the others."""
    os.environ.update(config["environment"])
    if os.path.isdir(config["folder"]):
        os.chdir(config["folder"])
    use_torch_backend()
    use_threads(config["cpus"])
    do_part(config["work"], config["told"].put)


class _Listener(threading.Thread):
    """Hands on what is told while Ray Train has the main thread; inside `with`."""

    def __init__(self, told: Any, hear: Tell) -> None:
        super().__init__(daemon=True)
        self._told, self._hear, self._over = told, hear, threading.Event()
        self.raised: BtkitError | None = None
        self._own: BaseException | None = None

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._over.set()
        self.join()
        if error is None and self._own is not None:
            raise self._own

    def run(self) -> None:
        from ray.util.queue import Empty

        while True:
            over = self._over.is_set()
            try:
                said = self._told.get(timeout=POLL)
            except Empty:
                if over:
                    return
                continue
            if isinstance(said, Raised):
                self.raised = self.raised or said.error
                continue
            try:
                self._hear(said)
            except BaseException as error:  # told to the main thread, at the end
                self._own = self._own or error


def _lost(error: Any) -> BtkitError:
    """Why it failed, in Ray's own words: of a worker that died, before those that failed because it was gone."""
    failures: Mapping[int, Exception] = getattr(error, "worker_failures", {})
    died = {rank: failure for rank, failure in failures.items() if "Died" in type(failure).__name__}
    for rank, failure in (died or failures).items():
        return lost_worker(rank, cause(failure))
    at = dict(re.findall(r"^\s*(pid|ip): (\S+)$", str(error), re.MULTILINE))
    where = f"process {at['pid']} on {at['ip']}: " if len(at) == 2 else ""
    return lost_worker(None, where + cause(error))
