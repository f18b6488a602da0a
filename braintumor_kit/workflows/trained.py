"""A trained model with what a run knows of it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
from pydantic import ValidationError

from braintumor_kit.contracts import InputError
from braintumor_kit.contracts.volumes.volume import PLANES
from braintumor_kit.evaluation.certainty import Certainty, Limits, load_certainty
from braintumor_kit.model.infer import Predictor
from braintumor_kit.model.load import is_channels_first, load_model
from braintumor_kit.model.precision import PRECISIONS, resolve_precision
from braintumor_kit.recipe.tables import PixelsTable
from braintumor_kit.runs import Run, find_run, refuse_sweep
from braintumor_kit.workflows.answering import Answerer, KerasAnswerer

ONNX = ".onnx"


@dataclass(frozen=True)
class Trained:
    """A trained model and what is needed to use it as it was trained.

    Attributes:
        model: pictures in 0..255 to probabilities.
        classes: names of its outputs.
        pixels: how pictures are prepared for it.
        explain_layer: the layer that explainers look at, by the backbone's word; None where nobody said.
        digest: SHA-256 of the model's file.
        certainty: how sure its answers are; None where nobody settled it.
        run: where it comes from; None of a file that stands in none.
    """

    model: keras.Model
    classes: tuple[str, ...]
    pixels: PixelsTable
    explain_layer: str | None = None
    digest: str = ""
    certainty: Certainty | None = None
    run: Run | None = None

    @property
    def named(self) -> bool:
        """Whether anybody said what the outputs are."""
        return self.classes != _numbered(len(self.classes))

    @property
    def warning(self) -> str | None:
        """What its run's figures have to be read with."""
        return self.run.warning if self.run else None

    @property
    def limits(self) -> Limits | None:
        """What its answers are held against; None where nobody settled that."""
        return None if self.certainty is None else self.certainty.limits

    def answerer(self, precision: str = "float32") -> Answerer:
        """The model, ready to work, with convolutions in that precision."""
        watch = self.certainty is not None and self.certainty.detects
        return KerasAnswerer(Predictor(self.model, PRECISIONS[resolve_precision(precision)], watch), self.certainty)


def plane_of(run: Run | None) -> str:
    """That volumes are cut in for a model: as those of its run were, else axial."""
    source = run.resolved.get("source") if run else None
    plane = source.get("plane") if isinstance(source, dict) else None
    return str(plane) if plane in PLANES else "axial"


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"class_{number}" for number in range(count))


def trained_of_argument(
    argument: str | None, runs: Path, any_end: bool = False, classes: Sequence[str] = ()
) -> Trained:
    """The model that RUN on the command line names: a run folder, a `.keras` file, or the newest run.

    Args:
        any_end, classes: as `trained_from_file` has them.

    Raises:
        InputError: where there is none, or it is an ONNX file.
    """
    refuse_onnx(argument)
    if argument is not None and argument.endswith(".keras"):
        return trained_from_file(Path(argument), any_end, classes)
    return trained_of(find_run(argument, runs))


def refuse_onnx(argument: str | None) -> None:
    """Says why an ONNX file will not do where the layers of a model are needed.

    Raises:
        InputError: where RUN on the command line is one.
    """
    if argument is not None and argument.endswith(ONNX):
        raise InputError(
            f"'{argument}' is an ONNX file: `btkit predict` and `btkit evaluate` can ask it, but nobody can look into "
            "its layers. Name the run or the .keras file that it was made of."
        )


def trained_of(run: Run) -> Trained:
    """The model that a run kept.

    Raises:
        InputError: where the run has none yet, or its files are damaged.
    """
    if run.folds is not None:
        raise InputError(f"'{run.folder}' is a cross-validation and has a model a fold: name one, {run.folder}/fold-1.")
    refuse_sweep(run)
    if not run.model_path.is_file():
        raise InputError(f"run '{run.folder}' has no model.keras: it has not finished.")
    return _with_words_of(run, load_model(run.model_path), run.model_path)


def trained_from_file(path: Path, any_end: bool = False, classes: Sequence[str] = ()) -> Trained:
    """A `.keras` file: beside a run's record with all that the run knows, elsewhere with pixels stretched to its
    input and classes by number.

    Args:
        any_end: models that end in logits or a sigmoid, or take channels first, are welcome too.
        classes: names of the outputs of a file that stands in no run.

    Raises:
        InputError: where it cannot be loaded or is no picture classifier.
    """
    model = load_model(path, any_end)
    if (path.parent / "record.json").is_file():
        return _with_words_of(Run(path.parent), model, path)
    first = is_channels_first(model.input_shape)
    side, channels = model.input_shape[2], model.input_shape[1 if first else 3]
    count = max(2, model.output_shape[-1])
    if classes and (len(classes) != count or len(set(classes)) != count):
        raise InputError(f"--classes: '{path}' has {count} outputs; name as many classes, in their order.")
    pixels = {"image_size": side or PixelsTable().image_size, "colour": "rgb" if channels == 3 else "grey"}
    names = tuple(classes) or _numbered(count)
    return Trained(model, names, _pixels(pixels, path), digest=file_digest(path))


def _with_words_of(run: Run, model: keras.Model, path: Path) -> Trained:
    classes = run.record.get("classes")
    if not classes or len(classes) != model.output_shape[-1] or len(set(classes)) != len(classes):
        raise InputError(f"{run.folder / 'record.json'} does not name the model's {model.output_shape[-1]} classes.")
    pixels = _pixels(run.resolved.get("pixels"), run.folder / "resolved.json")
    return Trained(
        model,
        tuple(classes),
        pixels,
        run.record.get("explain_layer"),
        file_digest(path),
        load_certainty(run.folder),
        run,
    )


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pixels(values: Any, file: Path) -> PixelsTable:
    try:
        return PixelsTable.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in ("pixels", *first["loc"]))
        raise InputError(f"{file}: {place}: {first['msg']}.") from error
