"""`btkit export`: a run's model as a file for other runtimes, held to Keras' answers before it is kept."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
from torch.export import ExportedProgram

from braintumor_kit import __version__
from braintumor_kit.errors import InputError, WorkError
from braintumor_kit.export.about import About
from braintumor_kit.export.answer import PICTURES, Answer
from braintumor_kit.export.packages import WRITING, require
from braintumor_kit.export.parity import Answers, deviations
from braintumor_kit.export.torch_file import program_answers, save_program, traced
from braintumor_kit.files import make_folder, whole
from braintumor_kit.notice import NOTICE
from braintumor_kit.workflows.trained import Trained, trained_of_argument

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2", "keras": ".keras"}
"""Of the formats."""


@dataclass(frozen=True)
class Written:
    """A file that was written.

    Attributes:
        path: where it is.
        shape: of a picture that it takes, (S, S, C).
        outputs: their names.
        classes: names of the classes.
        deviations: how far each output lies at most from Keras'; empty of a copy.
        warning: what the run's figures have to be read with.
    """

    path: Path
    shape: tuple[int, int, int]
    outputs: Sequence[str]
    classes: tuple[str, ...]
    deviations: Mapping[str, float]
    warning: str | None


def export(argument: str | None, runs: Path, form: str, out: Path | None) -> Written:
    """Writes the model that RUN on the command line names in another form; one that is there is replaced, whole.

    Args:
        form: "onnx", "torch" or "keras".
        out: the file; None is beside the model.

    Raises:
        InputError: where there is no such model, the place does not fit, or the extra is not installed.
        WorkError: where the model has no such form, answers otherwise in it, or cannot be written.
    """
    if out is not None and out.suffix != SUFFIXES[form]:
        raise InputError(f"--out '{out}': name a file for --format {form} with {SUFFIXES[form]} at its end.")
    if form == "onnx":
        require(WRITING, "exporting to ONNX")
    with keras.device("cpu"):  # a program of torch's keeps the device that it was made on
        trained = trained_of_argument(argument, runs)
        model = _model_file(argument, trained)
        path = out or model.with_suffix(SUFFIXES[form])
        if path.resolve() == model.resolve():
            raise InputError(f"'{model}' is the model in Keras' form already; --out FILE makes a copy of it.")
        make_folder(path.parent)
        return _copied(trained, model, path) if form == "keras" else _written(trained, form, path)


def _model_file(argument: str | None, trained: Trained) -> Path:
    if argument is not None and argument.endswith(SUFFIXES["keras"]):
        return Path(argument)
    assert trained.run is not None
    return trained.run.model_path


def _copied(trained: Trained, model: Path, path: Path) -> Written:
    with whole(path) as beside:
        shutil.copyfile(model, beside)
    return Written(path, _shape(trained), ["probabilities"], trained.classes, {}, trained.warning)


def _written(trained: Trained, form: str, path: Path) -> Written:
    answer = Answer(trained.model, trained.certainty)
    program = traced(answer, _shape(trained))
    about = _about(trained, answer).properties()
    given: Answers
    with whole(path) as beside:
        if form == "torch":
            save_program(program, json.dumps(about, ensure_ascii=False), beside)
            given = program_answers(beside, answer.outputs)
        else:
            given = _written_as_onnx(program, answer.outputs, about, beside, f"'{path}'")
        found = deviations(trained.model, trained.certainty, given, f"'{path}'")
    return Written(path, _shape(trained), answer.outputs, trained.classes, found, trained.warning)


def _written_as_onnx(
    program: ExportedProgram, outputs: Sequence[str], about: Mapping[str, str], path: Path, name: str
) -> Answers:
    from braintumor_kit.export.onnx_check import check_onnx  # of an extra: not everyone has the packages behind it
    from braintumor_kit.export.onnx_file import onnx_content
    from braintumor_kit.export.session import Session

    title = f"Brain-tumour MRI classifier: {PICTURES} (N, S, S, C) in 0..255 to {', '.join(outputs)}. {NOTICE}"
    content = onnx_content(program, outputs, about, title)
    path.write_bytes(content)
    try:
        return Session(check_onnx(content, name), name)
    except InputError as error:
        raise WorkError(f"{name} is not kept, since btkit would not use it: {error}") from error


def _about(trained: Trained, answer: Answer) -> About:
    limits = None if trained.certainty is None else trained.certainty.limits
    if limits is not None and not answer.scored:
        limits = limits._replace(threshold=None)
    return About(__version__, trained.classes, trained.pixels, limits, trained.digest, trained.warning)


def _shape(trained: Trained) -> tuple[int, int, int]:
    """Of a picture as the model takes it."""
    side = trained.pixels.image_size
    return side, side, int(trained.model.input_shape[-1])
