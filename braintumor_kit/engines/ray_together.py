"""Processes of a Ray cluster that do one piece of work together, begun by Ray Train."""

import os
import re
import tempfile
import threading
from collections.abc import Mapping
from typing import Any

from braintumor_kit.engines.ray_errors import cause, lacking
from braintumor_kit.engines.ray_process import begin_as_asked
from braintumor_kit.engines.together import POLL, JointWork, Listener, Tell, do_part, lost_worker
from braintumor_kit.errors import BtkitError
from braintumor_kit.interrupts import raise_again

GRACE = 20.0
"""Seconds that Ray Train is given to end, where it is interrupted: it must not be at work when the connection goes."""


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
    listener = Listener(hear)
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
        fitting = _Fitting(trainer)
        try:
            fitting.start()
            over = False
            while not over:
                raise_again()
                over = not fitting.is_alive()  # asked first: what was told until then is still to be heard
                _drain(told, listener)
        finally:
            told.shutdown(force=True)  # without it no worker goes on
            fitting.join(GRACE)
    raise_again()
    error = fitting.error
    if isinstance(error, TrainingFailedError | ray.exceptions.RayError):
        raise listener.raised or lacking(error) or _lost(error) from error
    if error is not None:
        raise error


def _drain(told: Any, listener: Listener) -> None:
    """Takes what is told until nothing is for a moment."""
    from ray.util.queue import Empty

    while True:
        try:
            listener.take(told.get(timeout=POLL))
        except Empty:
            return


def _take_part(config: dict[str, Any]) -> None:
    """In a process of the cluster, which Ray Train has joined with the others."""
    begin_as_asked(config["environment"], config["folder"], config["cpus"])
    do_part(config["work"], config["told"].put)


class _Fitting(threading.Thread):
    """Waits for Ray Train beside the main thread, where it would put its own handling of Ctrl-C in place of btkit's."""

    def __init__(self, trainer: Any) -> None:
        super().__init__(daemon=True)
        self._trainer = trainer
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self._trainer.fit()
        except Exception as error:
            self.error = error


def _lost(error: Any) -> BtkitError:
    """Why it failed, in Ray's own words: of a worker that died, before those that failed because it was gone."""
    failures: Mapping[int, Exception] = getattr(error, "worker_failures", {})
    died = {rank: failure for rank, failure in failures.items() if "Died" in type(failure).__name__}
    for rank, failure in (died or failures).items():
        return lost_worker(rank, cause(failure))
    at = dict(re.findall(r"^\s*(pid|ip): (\S+)$", str(error), re.MULTILINE))
    where = f"process {at['pid']} on {at['ip']}: " if len(at) == 2 else ""
    return lost_worker(None, where + cause(error))
