"""`btkit evaluate`: a trained model on its own split or on another source, beside another model, under corruption."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from braintumor_kit.contracts import InputError
from braintumor_kit.contracts.classes import canonical_class
from braintumor_kit.data.cache import Slices, decoded_slices
from braintumor_kit.data.dataset import Dataset
from braintumor_kit.evaluation.class_sets import Common, common_classes
from braintumor_kit.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupted
from braintumor_kit.evaluation.detection import detection
from braintumor_kit.evaluation.intervals import units_of
from braintumor_kit.evaluation.metrics import accuracy, balanced_accuracy, evaluate, expected_calibration_error
from braintumor_kit.evaluation.paired import compare
from braintumor_kit.progress import Reporter
from braintumor_kit.recipe.load import DataRecipe
from braintumor_kit.registry import Registry
from braintumor_kit.workflows.answering import Answerer, Answering
from braintumor_kit.workflows.evaluation_folder import Answers, Judged
from braintumor_kit.workflows.open_data import open_dataset, tell_left_out
from braintumor_kit.workflows.own_data import own_data
from braintumor_kit.workflows.pictures import split_name


@dataclass(frozen=True)
class Examined(Judged):
    """Slices that a model is asked about.

    Attributes:
        common: classes that model and slices have in common.
        slices: prepared as the model takes them.
        places: of the slices.
        left_out: how many more could not be read.
        folder: the name of a folder for the results, another for other data.
    """

    common: Common
    slices: Slices
    places: NDArray[np.int64]
    left_out: int
    folder: str


def own_split(trained: Answering, part: str | None, registry: Registry, reporter: Reporter) -> Examined:
    """Slices of one of the splits of a model's run, read again from its source.

    Args:
        part: the split, or "held_out"; test where None, or validation where the run has no test.

    Raises:
        InputError: where the model comes from no run, the data are not at hand any more, or the run has no such split.
    """
    if trained.run is None:
        raise InputError("a file that stands beside no run of its own has no slices: name some with --source.")
    own = own_data(trained.run, trained.pixels, registry, reporter)
    split, part = own.column("split"), split_name(part, own.splits)
    if part not in split:
        raise InputError(f"none of the {part} slices of '{trained.run.folder}' can be read any more.")
    folder = part if own.unchanged else f"{part}-{own.dataset.digest[:8]}"
    bad = [item.id for item in own.dataset.bad if item.id in own.rows and own.rows[item.id]["split"] == part]
    return _examined(own.dataset, own.slices, trained, part, folder, [name == part for name in split], len(bad))


def other_source(recipe: DataRecipe, trained: Answering, reporter: Reporter) -> Examined:
    """All slices of another source; only its test part where it has one. Pictures that cannot be read stop it, or are
    left out, as the recipe says.

    Raises:
        InputError: where it cannot be read, has classes that the model knows nothing of, or nobody knows the model's.
    """
    if not trained.named:
        raise InputError("nobody knows what the outputs of a .keras file are that stands in no run: see --classes.")
    dataset = open_dataset(recipe, reporter)
    with reporter.bar("decoding") as progress:
        dataset, slices = decoded_slices(dataset, trained.pixels, recipe.tables.source.on_bad_image, progress)
    tell_left_out(dataset, reporter)
    tested = [sample.split == "test" for sample in dataset.samples]
    chosen = tested if any(tested) else [True] * len(tested)
    name = recipe.source.info.name + (" (its test part)" if any(tested) else "")
    folder = f"{recipe.source.info.name}-{dataset.digest[:8]}"
    return _examined(dataset, slices, trained, name, folder, chosen, len(dataset.bad))


def _examined(
    dataset: Dataset,
    slices: Slices,
    trained: Answering,
    name: str,
    folder: str,
    chosen: Sequence[bool],
    left_out: int,
) -> Examined:
    places = np.flatnonzero(np.array(chosen, dtype=bool))
    samples = [dataset.samples[place] for place in places]
    common = common_classes(trained.classes, sorted({sample.label for sample in samples}))
    return Examined(
        name,
        [sample.id for sample in samples],
        [sample.group for sample in samples],
        common.classes,
        np.array([common.of_source[sample.label] for sample in samples], dtype=np.int64),
        common,
        slices,
        places,
        left_out,
        folder,
    )


def answers(trained: Answering, examined: Examined, reporter: Reporter) -> Answers:
    """What a model says of the slices as they are."""
    with reporter.bar("predicting") as progress:
        return _answers(trained.answerer(), examined, lambda done: progress(done, len(examined.places)))


def _answers(
    answerer: Answerer, examined: Examined, told: Callable[[int], None], change: tuple[str, int] | None = None
) -> Answers:
    """What a model says, of the slices as they are or corrupted (name and severity).

    Args:
        told: how many slices are answered.
    """
    said, verdicts = [], []
    for start in range(0, len(examined.places), answerer.batch_size):
        places = examined.places[start : start + answerer.batch_size]
        pictures = examined.slices[places]
        if change is not None:
            pictures = corrupted(pictures, *change, seeds=places)
        probabilities, verdict = answerer(pictures)
        said.append(probabilities)
        if verdict is not None:
            verdicts.append(verdict)
        told(start + len(places))
    common = examined.common
    plain = common.probabilities(np.concatenate(said))
    if not verdicts:
        return Answers(plain, None, None, None)
    unlike = [verdict.unlike for verdict in verdicts if verdict.unlike is not None]
    calibrated = common.probabilities(np.concatenate([verdict.calibrated for verdict in verdicts]))
    abstain = np.concatenate([verdict.abstain for verdict in verdicts])
    return Answers(plain, calibrated, np.concatenate(unlike) if unlike else None, abstain)


def figures_of(trained: Answering, examined: Examined, given: Answers) -> dict[str, Any]:
    """The figures of `metrics.json` for examined slices, with the share that is unlike the training."""
    found = evaluate(examined.labels, given.plain, examined.groups, examined.classes, given.calibrated)
    flagged = None if given.unlike is None else float(given.unlike.mean())
    units = units_of(examined.groups, examined.ids)
    return {
        "source": examined.name,
        "model": trained.digest,
        **(found or {}),
        "out_of_distribution": flagged,
        "detection": detection(examined.labels, given.plain, units, examined.classes, given.abstain),
        "left_out": examined.left_out,
        **({"warning": trained.warning} if trained.warning else {}),
    }


def robustness(trained: Answering, examined: Examined, clean: Answers, reporter: Reporter) -> dict[str, Any]:
    """Accuracy and calibration under every corruption at every severity."""
    table: dict[str, list[dict[str, Any]]] = {name: [] for name in CORRUPTIONS}
    answerer, count = trained.answerer(), len(examined.places)
    changes = [(name, severity) for name in CORRUPTIONS for severity in range(1, SEVERITIES + 1)]
    with reporter.bar("predicting, under corruption") as progress:  # one for all: each alone is over before it shows
        for number, change in enumerate(changes):
            told = partial(_told, progress, number * count, len(changes) * count)
            given = _answers(answerer, examined, told, change)
            table[change[0]].append({"severity": change[1], **_short(examined, given)})
    everything = [row["accuracy"] for rows in table.values() for row in rows]
    return {"clean": _short(examined, clean), "mean_accuracy": float(np.mean(everything)), "corruptions": table}


def _told(progress: Callable[[int, int], None], before: int, whole: int, done: int) -> None:
    progress(before + done, whole)


def _short(examined: Examined, given: Answers) -> dict[str, Any]:
    numbers = range(len(examined.classes))
    confusion = confusion_matrix(examined.labels, given.plain.argmax(axis=1), labels=numbers).astype(float)
    return {
        "accuracy": float(accuracy(confusion)),
        "balanced_accuracy": float(balanced_accuracy(confusion)),
        "ece": expected_calibration_error(examined.labels, given.plain),
        "ece_calibrated": None
        if given.calibrated is None
        else expected_calibration_error(examined.labels, given.calibrated),
        "out_of_distribution": None if given.unlike is None else float(given.unlike.mean()),
    }


def against(examined: Examined, first: Answers, seen_by_second: Examined, second: Answers) -> dict[str, Any]:
    """A paired comparison of two models on the same slices.

    Raises:
        InputError: where the models tell other classes apart, or other slices could be read for either.
    """
    names = [[canonical_class(name) for name in seen.classes] for seen in (examined, seen_by_second)]
    if set(names[0]) != set(names[1]):
        lists = " and ".join(map(", ".join, names))
        raise InputError(f"the two models tell different classes apart on these slices: {lists}.")
    if list(seen_by_second.ids) != list(examined.ids):
        raise InputError("the two models prepare pictures differently, and some can be read for one of them alone.")
    order = [names[1].index(name) for name in names[0]]  # each model has an order of its own
    one, two = first.plain.argmax(axis=1), second.plain[:, order].argmax(axis=1)
    return compare(examined.labels, one, two, units_of(examined.groups, examined.ids), len(examined.classes))
