"""The engine that `--engine` names."""

from collections.abc import Iterator
from contextlib import contextmanager

from braintumor_kit.engines.cluster import RayEngine
from braintumor_kit.engines.connection import address_in, connected
from braintumor_kit.engines.engine import Engine
from braintumor_kit.engines.local import LocalEngine
from braintumor_kit.engines.threads import cores
from braintumor_kit.progress import Reporter


@contextmanager
def engine_of(text: str, cpus: int | None, gpus: float | None, reporter: Reporter) -> Iterator[Engine]:
    """Inside, the engine is ready.

    Args:
        text: "local", "ray" or "ray://HOST:PORT".
        cpus: threads of a task; None gives it all of this machine's.
        gpus: of a task, on a cluster; None gives it none.

    Raises:
        InputError: where there is no such engine or Ray is missing, no cluster answers, or no machine has that room.
    """
    if text == "local":
        yield LocalEngine(cpus, reporter)
        return
    with connected(address_in(text)) as ray:
        yield RayEngine(ray, cpus or cores(), gpus or 0, reporter)
