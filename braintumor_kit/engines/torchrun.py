"""Processes that `torchrun` began: each runs the same command, the first for all to see."""

import os

from braintumor_kit.errors import InputError


def torchrun_rank() -> int | None:
    """Which of them this process is, from 0; None where torchrun did not begin it."""
    return int(os.environ["RANK"]) if "TORCHELASTIC_RUN_ID" in os.environ else None


def check_torchrun(workers: int, engine: str) -> None:
    """Finds that torchrun began other processes than a recipe has workers.

    Raises:
        InputError: where that is so, or another engine is asked for as well.
    """
    if torchrun_rank() is None:
        return
    size = int(os.environ["WORLD_SIZE"])
    if size != workers:
        raise InputError(
            f"torchrun began {size} processes, and the recipe has training.workers = {workers}: add --set "
            f"training.workers={size}, or begin so many (--nproc-per-node)."
        )
    if engine != "local":
        raise InputError(f"--engine {engine} begins workers itself: leave it out under torchrun.")
