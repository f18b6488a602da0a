"""A training by several workers: what each does, and what the process that asked for it takes from them."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import distributed

from braintumor_kit.contracts import WorkError
from braintumor_kit.data.dataset import Progress
from braintumor_kit.engines.engine import Engine
from braintumor_kit.engines.together import Tell, joined, lost_worker
from braintumor_kit.engines.torchrun import check_torchrun, torchrun_rank
from braintumor_kit.model.build import Classifier
from braintumor_kit.model.precision import keras_device
from braintumor_kit.progress import Reporter
from braintumor_kit.recipe.load import Recipe
from braintumor_kit.training.callbacks import Epoch
from braintumor_kit.training.fit import best_weights, fit
from braintumor_kit.training.group import Group
from braintumor_kit.training.randomness import seed_everything
from braintumor_kit.training.task import Fitted, Watch
from braintumor_kit.workflows.learning import build, make_task
from braintumor_kit.workflows.material import Material, gather
from braintumor_kit.workflows.open_data import open_dataset
from braintumor_kit.workflows.read_anew import check_digests, gather_anew
from braintumor_kit.workflows.unchanged import split_digests

SECONDS = 0.5
"""Between two tellings of how many steps are done."""

QUIET = Watch(lambda row: None)
"""What all but the first worker tell."""


@dataclass(frozen=True)
class Steps:
    """How many steps of the whole training are done."""

    done: int
    total: int


@dataclass(frozen=True)
class TrainShare:
    """What each worker does: it reads the data anew, and trains on its part of every step.

    Attributes:
        folder: of the run, which every machine has to see.
        recipe: in force.
        digests: of the split, which data read anew have to come to.
        resume: whether to go on from the checkpoint there.
    """

    folder: Path
    recipe: Recipe
    digests: Sequence[str]
    resume: bool

    def __call__(self, tell: Tell) -> None:
        (material,) = gather_anew(self.folder, self.recipe, self.digests)
        seed_everything(self.recipe.tables.seed)
        classifier = build(self.recipe, material.dataset)
        first = _group().writes
        watch = Watch(tell, _now_and_then(tell), say=tell) if first else QUIET
        fitted = _fit_here(self.recipe, material, classifier, self.folder, watch, self.resume)
        if first:
            tell(fitted)


def fit_together(
    recipe: Recipe,
    material: Material,
    classifier: Classifier,
    folder: Path,
    watch: Watch,
    resume: bool,
    engine: Engine | None,
) -> Fitted:
    """Fits by several workers, and leaves the classifier with the weights of the best epoch.

    Args:
        folder: of the run.
        engine: that begins the workers; under torchrun they are there.

    Raises:
        WorkError: as `fit`, or where a worker is lost.
    """
    digests = split_digests([material])
    if torchrun_rank() is not None:
        with joined(keras_device() == "cuda"):
            distributed.broadcast_object_list([str(folder.resolve()), resume, digests], src=0)
            try:
                return _fit_here(recipe, material, classifier, folder, watch, resume)
            except RuntimeError as error:
                if not re.search("gloo|nccl", str(error), re.IGNORECASE):
                    raise
                raise lost_worker(None, str(error).strip().splitlines()[0]) from error
    assert engine is not None, "a training by several workers is given the engine that begins them"
    came: list[Fitted] = []

    def hear(said: object) -> None:
        match said:
            case Fitted():
                came.append(said)
            case Epoch():
                watch.epoch(said)
            case Steps(done, total):
                watch.step(done, total)
            case str():
                watch.say(said)

    work = TrainShare(folder.resolve(), recipe, digests, resume)
    engine.together(work, recipe.tables.training.workers, hear)
    if not came:
        raise WorkError("the workers ended without a result: see the log of the cluster.")
    best = best_weights(classifier, folder, recipe.tables.training)
    best.recall({"best": came[0].best, "epoch": came[0].best_epoch})
    best.restore()
    return came[0]


def follow(recipe: Recipe, engine: str) -> None:
    """Takes part in a training as one of the processes that torchrun began beside the first, which says where its run
    folder is. Nothing is written or shown.

    Raises:
        InputError: where the data are others here, or the recipe has another number of workers.
    """
    check_torchrun(recipe.tables.training.workers, engine)
    quiet = Reporter()
    dataset = open_dataset(recipe, quiet)
    seed_everything(recipe.tables.seed)
    classifier = build(recipe, dataset)
    (material,) = gather(recipe, dataset, quiet)
    with joined(keras_device() == "cuda"):
        heard: list[Any] = [None, None, None]
        distributed.broadcast_object_list(heard, src=0)
        folder, resume, digests = heard
        check_digests([material], digests)
        _fit_here(recipe, material, classifier, Path(folder), QUIET, resume)


def _fit_here(
    recipe: Recipe, material: Material, classifier: Classifier, folder: Path, watch: Watch, resume: bool
) -> Fitted:
    group = _group()
    return fit(classifier, make_task(recipe, material, Reporter(), group), folder, watch, resume=resume, group=group)


def _group() -> Group:
    return Group(distributed.get_rank(), distributed.get_world_size())


def _now_and_then(tell: Tell) -> Progress:
    last = 0.0

    def step(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= SECONDS or done == total:
            last = time.monotonic()
            tell(Steps(done, total))

    return step
