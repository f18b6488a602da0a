"""The engine of a command, with the room that a task has by default."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from braintumor_kit.engines.choose import engine_of
from braintumor_kit.engines.engine import Engine
from braintumor_kit.engines.threads import threads
from braintumor_kit.model.precision import keras_device
from braintumor_kit.progress import Reporter


@contextmanager
def spread(engine: str, cpus: int | None, gpus: float | None, reporter: Reporter) -> Iterator[Engine]:
    """Inside, the engine is ready, and torch has the threads of one task in this process too.

    Args:
        engine: as `--engine` names it.
        cpus: of a task; None takes the threads that torch has, and so on one machine a task at a time.
        gpus: of a task on a cluster; None is one where this machine computes on a GPU. On one machine a GPU has one
            task at a time.

    Raises:
        InputError: where the engine is not to be had, or no machine of it has that room.
    """
    on_gpu, of_task = keras_device() == "cuda", cpus or torch.get_num_threads()
    one_by_one = engine == "local" and (on_gpu or cpus is None)
    wanted = float(on_gpu) if gpus is None else gpus
    with engine_of(engine, None if one_by_one else of_task, wanted, reporter) as opened, threads(of_task):
        yield opened
