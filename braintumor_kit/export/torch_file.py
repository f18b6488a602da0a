"""The model as a program of torch's own (`torch.export`), for any number of pictures at once."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.fx.config
from numpy.typing import NDArray
from torch.export import Dim, ExportedProgram

from braintumor_kit.errors import WorkError
from braintumor_kit.export.answer import PICTURES, Answer

ABOUT = "btkit.json"
"""The extra file in a `.pt2` that holds `About.properties` as JSON."""


def traced(answer: Answer, shape: tuple[int, int, int]) -> ExportedProgram:
    """What a classifier computes, as a graph of torch's operators.

    Args:
        shape: of a picture, (S, S, C).

    Raises:
        WorkError: where torch cannot say it as a graph, as of a layer of one's own that decides by values.
    """
    example = torch.zeros(2, *shape)
    try:
        with torch.no_grad(), untraced(), warnings.catch_warnings(action="ignore"):
            program = torch.export.export(answer.eval(), (example,), dynamic_shapes={PICTURES: {0: Dim("N", min=1)}})
    except Exception as error:  # of many kinds, by what a layer does
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WorkError(f"the model cannot be exported: torch says of its graph: {first}") from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # of versions of torch that note it all the same
    return program


@contextmanager
def untraced() -> Iterator[None]:
    """Inside, torch does not note for each node where in Python it was made: half of the time, and names of files on
    this machine."""
    config, name = torch.fx.config, "do_not_emit_stack_traces"
    before = getattr(config, name, None)
    if before is None:  # an older torch
        yield
        return
    setattr(config, name, True)
    try:
        yield
    finally:
        setattr(config, name, before)


def save_program(program: ExportedProgram, about: str, path: Path) -> None:
    """Writes a `.pt2` file; `about` is JSON."""
    with warnings.catch_warnings(action="ignore"), path.open("wb") as file:  # by its path, it would take its name in
        torch.export.save(program, file, extra_files={ABOUT: about})


def program_answers(path: Path, outputs: list[str]) -> Callable[[NDArray[np.float32]], dict[str, NDArray[np.float32]]]:
    """Reads a program that this process has just written: torch unpickles parts of such a file, so that one of
    strangers could run code."""
    with warnings.catch_warnings(action="ignore"):
        module = torch.export.load(path).module()

    def run(pictures: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        with torch.no_grad():
            made = module(torch.from_numpy(pictures))
        return {name: values.numpy() for name, values in zip(outputs, made, strict=True)}

    return run
