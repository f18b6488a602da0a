"""What a training does where memory runs out: find the batch size that fits, or go on with it."""

import gc

import keras
import torch

from braintumor_kit.contracts import WorkError
from braintumor_kit.errors import is_out_of_memory
from braintumor_kit.model.build import Classifier
from braintumor_kit.model.fast import Program
from braintumor_kit.training.optimizers import make_optimizer
from braintumor_kit.training.task import Task, Watch
from braintumor_kit.training.trainee import Trainee


def with_less_memory(classifier: Classifier, task: Task, said: str, watch: Watch) -> Task:
    """What to go on with after memory ran out, where the recipe wants to go on.

    Args:
        said: what the error says.

    Raises:
        WorkError: where it wants to stop, with the batch size that fits, or where nothing smaller is left to try.
    """
    _release()
    size, reason = task.train.batch_size // task.train.parts, next(iter(said.strip().splitlines()), "")[:200]
    if task.training.on_out_of_memory == "halve" and (less := smaller(size)):
        watch.say(f"memory ran out with {size} slices a step ({reason}); going on from the last checkpoint with {less}")
        return task.of_batch_size(less)
    fits = largest_that_fits(classifier, task)
    raise WorkError(f"memory ran out with training.batch_size = {size} ({reason}). {_advice(fits)}")


def _advice(fits: int | None) -> str:
    if fits is None:
        return "Not even one slice a step fits: a smaller pixels.image_size or backbone needs less."
    return (
        f"{fits} fits here: run anew with --set training.batch_size={fits}, or with training.on_out_of_memory = "
        '"halve", which goes on with smaller steps by itself.'
    )


def smaller(size: int) -> int | None:
    """The largest batch size of which `size` is a multiple, half of it as a rule: a checkpoint between two steps of
    `size` is then between two of the smaller ones too. None below 1."""
    return next((size // divisor for divisor in range(2, size + 1) if size % divisor == 0), None)


def largest_that_fits(classifier: Classifier, task: Task) -> int | None:
    """The first of ever smaller batch sizes, of each worker, whose step has memory enough. The weights are spoiled by
    it."""
    size = smaller(task.train.batch_size // task.train.parts)
    while size is not None and not _fits(classifier, task.of_batch_size(size * task.train.parts)):
        size = smaller(size)
    return size


def _fits(classifier: Classifier, task: Task) -> bool:
    try:
        trainee = Trainee(classifier, Program(classifier.logits, task.dtype), task.augmentation, task.seed)
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        trainee.compile(optimizer=make_optimizer(task.training, task.training.learning_rate), loss=loss)
        trainee.train_on_batch(*task.train[0])
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        fits = False
    else:
        fits = True
    _release()
    return fits


def _release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
