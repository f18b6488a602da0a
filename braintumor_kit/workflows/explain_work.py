"""Batches of explanations, made and drawn in whichever process an engine gives them to."""

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from braintumor_kit.contracts import InputError
from braintumor_kit.engines.engine import Work
from braintumor_kit.explanation.network import Network
from braintumor_kit.files import read_json
from braintumor_kit.memory import kept_memory
from braintumor_kit.progress import Reporter
from braintumor_kit.workflows.draw_explanations import Scales, draw_batch, scales_of
from braintumor_kit.workflows.explain import (
    Batch,
    Drawing,
    Planned,
    Request,
    exact_network,
    explain_batch_into,
    grouped,
    plan,
    settings_of,
)
from braintumor_kit.workflows.explanation_folder import SETTINGS, ExplanationFolder


class Asked(Protocol):
    """What a user asked for, in plain values, so that another process can make the same requests of it."""

    def requests(self, reporter: Reporter) -> Sequence[Request]:
        """Opens models and pictures anew."""


@dataclass(frozen=True)
class Explaining(Work["Batch | str", None]):
    """Makes the maps of a `Batch`, or draws the overlays of the batch of that name.

    Attributes:
        place, beside: of the folder in the making, which every machine has to see.
        precision, drawing: as for the whole.
        asked: makes the same requests in another process; None where only this one can.
        planned: in this process; it is not sent to others.
    """

    place: Path
    beside: Path
    precision: str
    drawing: Drawing
    asked: Asked | None
    planned: tuple[Planned, ...] = field(default=(), compare=False, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return Explaining, (self.place, self.beside, self.precision, self.drawing, self.asked)

    def name(self, task: "Batch | str") -> str:
        return f"overlays {task}" if isinstance(task, str) else f"slices {task.start + 1} to {task.stop}"

    def open(self) -> Callable[["Batch | str"], None]:
        return _Explainer(self, self.planned or self._planned_anew()).do

    def _planned_anew(self) -> Sequence[Planned]:
        assert self.asked is not None
        if not (self.beside / SETTINGS).is_file():
            raise InputError(
                f"'{self.beside}' is not to be seen from every machine of the cluster: the folder of explanations, the "
                "run and the pictures have to lie where all see them under the same path."
            )
        planned = plan(self.asked.requests(Reporter()), self.precision, self.drawing.align)
        here = json.loads(json.dumps(settings_of(planned, self.precision, self.drawing)))
        if here != read_json(self.beside / SETTINGS):
            raise InputError(
                "the model or the pictures are not the same everywhere, or changed while they were explained."
            )
        return planned


class _Explainer:
    """What a process keeps between batches."""

    def __init__(self, work: Explaining, planned: Sequence[Planned]) -> None:
        self._work, self._planned, self._groups = work, planned, grouped(planned)
        self._folder = ExplanationFolder(work.place, work.beside)
        self._exact: dict[int, Network | None] = {}
        if not work.planned:
            ExitStack().enter_context(kept_memory())  # to the end of the process, which does nothing else

    @cached_property
    def _scales(self) -> Scales:
        return scales_of(self._folder, self._work.drawing)

    def do(self, task: Batch | str) -> None:
        if isinstance(task, str):
            draw_batch(self._folder, task, self._planned, self._scales, self._work.drawing)
        elif not self._folder.has(task.name):
            members = self._groups[task.group]
            if task.group not in self._exact:
                self._exact = {task.group: exact_network(members, self._work.precision)}
            places = range(task.start, task.stop)
            explain_batch_into(self._folder, task.name, places, members, self._exact[task.group], self._work.drawing)
