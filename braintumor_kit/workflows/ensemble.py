"""Several trained models asked as one: the mean of what they say."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.contracts import InputError
from braintumor_kit.evaluation.certainty import Limits, Verdict
from braintumor_kit.recipe.tables import PixelsTable
from braintumor_kit.runs import Run
from braintumor_kit.workflows.answering import Answerer, Answering, Said
from braintumor_kit.workflows.exported import answering_of_argument


@dataclass(frozen=True)
class Ensemble:
    """An ensemble (Lakshminarayanan, Pritzel and Blundell 2017, arXiv 1612.01474): the mean of its members'
    probabilities, and of their calibrated ones. How unlike the training a picture is, is the mean of their scores in
    units of each one's threshold, flagged from 1; answers are better not given below the mean of their bounds.

    Attributes:
        members: at least two, which tell the same classes apart and take the same pixels.
    """

    members: tuple[Answering, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return self.members[0].classes

    @property
    def pixels(self) -> PixelsTable:
        """How pictures are prepared for all of them."""
        return self.members[0].pixels

    @cached_property
    def limits(self) -> Limits | None:
        """What the answers are held against; None where a member has nothing."""
        known = [member.limits for member in self.members if member.limits is not None]
        if len(known) < len(self.members):
            return None
        detects = all(limits.threshold is not None for limits in known)
        temperature = float(np.mean([limits.temperature for limits in known]))
        below = float(np.mean([limits.abstain_below for limits in known]))
        return Limits(temperature, below, 1.0 if detects else None)

    @property
    def digest(self) -> str:
        """SHA-256 of the members' digests, line by line."""
        return hashlib.sha256("\n".join(member.digest for member in self.members).encode()).hexdigest()

    @property
    def run(self) -> Run | None:
        """Where the first of them comes from."""
        return self.members[0].run

    @property
    def named(self) -> bool:
        """Whether anybody said what the outputs are."""
        return all(member.named for member in self.members)

    @property
    def warning(self) -> str | None:
        """What the runs' figures have to be read with."""
        return "; ".join(member.warning for member in self.members if member.warning) or None

    def answerer(self, precision: str = "float32") -> Answerer:
        """The models, ready to work."""
        return _EnsembleAnswerer(self.members, self.limits, precision)


class _EnsembleAnswerer:
    def __init__(self, members: Sequence[Answering], limits: Limits | None, precision: str) -> None:
        self._answerers = [member.answerer(precision) for member in members]
        self._thresholds = [member.limits.threshold if member.limits else None for member in members]
        self._limits = limits
        self.batch_size = min(answerer.batch_size for answerer in self._answerers)

    def __call__(self, pictures: NDArray[np.uint8]) -> Said:
        said = [answerer(pictures) for answerer in self._answerers]
        probabilities = np.mean([one.probabilities for one in said], axis=0)
        verdicts = [one.verdict for one in said if one.verdict is not None]
        if self._limits is None or len(verdicts) < len(said):
            return Said(probabilities, None)
        calibrated = np.mean([verdict.calibrated for verdict in verdicts], axis=0)
        return Said(probabilities, self._limits.verdict(calibrated, self._scores(verdicts)))

    def _scores(self, verdicts: Sequence[Verdict]) -> NDArray[np.float64] | None:
        scaled = [
            verdict.scores / threshold
            for verdict, threshold in zip(verdicts, self._thresholds, strict=True)
            if verdict.scores is not None and threshold is not None
        ]
        return np.mean(scaled, axis=0) if len(scaled) == len(verdicts) else None


def answering_of_arguments(
    argument: str | None, others: Sequence[str], runs: Path, classes: Sequence[str] = ()
) -> Answering:
    """The model that RUN on the command line names, or the ensemble of it and others.

    Args:
        classes: as `answering_of_argument` has it.

    Raises:
        InputError: where one is missing, is named twice, or has other classes or pixels than the first.
    """
    members = tuple(answering_of_argument(text, runs, classes=classes) for text in (argument, *others))
    if len(members) == 1:
        return members[0]
    names = [str(argument or (members[0].run and members[0].run.folder)), *others]
    first = members[0]
    for place, (name, member) in enumerate(zip(names, members, strict=True)):
        if member.classes != first.classes:
            told = f"tells {', '.join(member.classes)} apart, '{names[0]}' {', '.join(first.classes)}"
            raise InputError(f"'{name}' {told}: they cannot be asked as one.")
        if member.pixels != first.pixels:
            raise InputError(f"'{name}' and '{names[0]}' were trained on pictures prepared differently ([pixels]).")
        twin = next((names[at] for at in range(place) if members[at].digest == member.digest), None)
        if twin is not None:
            raise InputError(f"'{name}' and '{twin}' are the same model: it would count for two.")
    return Ensemble(members)
