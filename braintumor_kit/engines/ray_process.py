"""How a process of a Ray cluster begins, before it imports what it works with."""

import os
from collections.abc import Mapping

from braintumor_kit.backend import use_torch_backend
from braintumor_kit.engines.threads import use_threads


def begin_as_asked(environment: Mapping[str, str], folder: str, cpus: int) -> None:
    """Makes it like the process that asked.

    Args:
        environment: variables that it is given.
        folder: where the command was begun, which relative paths are about.
        cpus: threads.
    """
    os.environ.update(environment)
    if os.path.isdir(folder):
        os.chdir(folder)
    use_torch_backend()
    use_threads(cpus)
