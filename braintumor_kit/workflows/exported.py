"""A model that `btkit export` wrote as ONNX, read again."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.contracts import InputError
from braintumor_kit.contracts.pictures import printable
from braintumor_kit.evaluation.certainty import Limits
from braintumor_kit.export.about import About
from braintumor_kit.export.answer import CALIBRATED, PROBABILITIES, SCORE
from braintumor_kit.export.packages import READING, require
from braintumor_kit.export.parity import Answers
from braintumor_kit.model.infer import ON_CPU
from braintumor_kit.recipe.tables import PixelsTable
from braintumor_kit.runs import Run
from braintumor_kit.workflows.answering import Answerer, Answering, Said
from braintumor_kit.workflows.trained import ONNX, file_digest, trained_of_argument


@dataclass(frozen=True)
class Exported:
    """A model in an ONNX file. What it needs to be used stands in the file; a run beside it only has its slices.

    Attributes:
        about: what the file says of itself.
        digest: SHA-256 of the file.
        work: the file at work.
        run: where its model.keras still stands beside it; None elsewhere.
    """

    about: About
    digest: str
    work: "OnnxAnswerer"
    run: Run | None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of its outputs."""
        return self.about.classes

    @property
    def pixels(self) -> PixelsTable:
        """How pictures are prepared for it."""
        return self.about.pixels

    @property
    def limits(self) -> Limits | None:
        """What its answers are held against; None where nobody settled that."""
        return self.about.certainty

    @property
    def named(self) -> bool:
        """The file says what its outputs are."""
        return True

    @property
    def warning(self) -> str | None:
        """What its run's figures have to be read with."""
        return self.about.warning

    def answerer(self, precision: str = "float32") -> Answerer:
        """The model, ready to work.

        Raises:
            InputError: where another precision than its own is asked.
        """
        if precision == "bfloat16":
            raise InputError("--precision bfloat16: an ONNX file computes in float32; leave the option out.")
        return self.work


class OnnxAnswerer:
    """An ONNX file at work.

    Args:
        outputs_of: the file.
        channels: C.
        limits: what its calibration and score are held against; None where it has none.
    """

    batch_size = ON_CPU

    def __init__(self, outputs_of: Answers, channels: int, limits: Limits | None) -> None:
        self._outputs_of, self._channels, self._limits = outputs_of, channels, limits

    def __call__(self, pictures: NDArray[np.uint8]) -> Said:
        wide = np.broadcast_to(pictures, (*pictures.shape[:3], self._channels)).astype(np.float32)
        made = self._outputs_of(wide)
        if self._limits is None:
            return Said(made[PROBABILITIES], None)
        scores = made[SCORE].astype(np.float64) if SCORE in made else None
        return Said(made[PROBABILITIES], self._limits.verdict(made[CALIBRATED].astype(np.float64), scores))


def answering_of_argument(argument: str | None, runs: Path, classes: Sequence[str] = ()) -> Answering:
    """The model that RUN on the command line names, which may be an ONNX file, too; else as `trained_of_argument`.

    Raises:
        InputError: where there is none.
    """
    if argument is not None and argument.endswith(ONNX):
        return open_exported(Path(argument))
    return trained_of_argument(argument, runs, classes=classes)


def open_exported(path: Path) -> Exported:
    """An ONNX file that `btkit export` wrote.

    Raises:
        InputError: where it is missing, damaged, unsafe or none, or the extra is not installed.
    """
    require(READING, f"'{printable(path)}'")
    from braintumor_kit.export.onnx_check import read_onnx  # of an extra: not everyone has the packages behind it
    from braintumor_kit.export.session import Session

    checked = read_onnx(path)
    work = OnnxAnswerer(Session(checked, f"'{printable(path)}'"), checked.shape[2], checked.about.certainty)
    run = Run(path.parent)
    beside = run.model_path.is_file() and (run.folder / "record.json").is_file()
    same = beside and file_digest(run.model_path) == checked.about.digest
    return Exported(checked.about, hashlib.sha256(checked.content).hexdigest(), work, run if same else None)
