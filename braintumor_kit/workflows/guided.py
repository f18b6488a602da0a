"""The tumour masks that guide a training, read from the recipe's source."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from braintumor_kit.contracts import ImageError, InputError
from braintumor_kit.explanation.open import network_of
from braintumor_kit.explanation.receptive_field import enlarge
from braintumor_kit.model.build import Classifier
from braintumor_kit.model.precision import keras_device
from braintumor_kit.progress import Reporter
from braintumor_kit.recipe.load import Recipe
from braintumor_kit.training.guidance import GRID, Guidance
from braintumor_kit.training.task import Task
from braintumor_kit.workflows.learning import make_task
from braintumor_kit.workflows.material import Material
from braintumor_kit.workflows.pictures import split_pictures


def check_masks(recipe: Recipe, materials: Sequence[Material], classifier: Classifier) -> None:
    """Finds before a run begins that masks cannot guide it.

    Raises:
        InputError: where they shall, and no slice that trains has one, or the network's last layer has one cell alone.
    """
    sweep = recipe.tables.sweep
    if not (recipe.tables.training.mask_weight or (sweep and "training.mask_weight" in sweep.space)):
        return
    for material in materials:
        if not any(material.dataset.samples[place].has_mask for place in material.places("train")):
            raise InputError(
                f"training.mask_weight asks for tumour masks, and no training slice of the source "
                f"'{recipe.source.info.name}' has one: leave it out."
            )
    if max(classifier.last_cells.shape[1:3]) == 1:
        raise InputError(
            "training.mask_weight asks where the evidence lies, and the network's last layer has one cell for the "
            "whole picture: enlarge pixels.image_size, or leave it out."
        )


def guided_task(recipe: Recipe, material: Material, classifier: Classifier, reporter: Reporter) -> Task:
    """What the recipe says is fitted to what, guided by masks where it asks for that.

    Raises:
        InputError: where a mask cannot be read, unless the recipe skips bad images.
    """
    return replace(make_task(recipe, material, reporter), guidance=_guidance_of(recipe, material, classifier, reporter))


def _guidance_of(recipe: Recipe, material: Material, classifier: Classifier, reporter: Reporter) -> Guidance | None:
    weight = recipe.tables.training.mask_weight
    if not weight:
        return None
    pictures = split_pictures(
        material.dataset, material.slices, material.split, "train", None, recipe.tables.pixels, {}
    )
    masks = np.zeros((len(pictures.items), GRID, GRID), np.uint8)
    with reporter.bar("reading tumour masks") as progress:
        for place, item in enumerate(pictures.items):
            try:
                mask = pictures.mask(place)
            except ImageError as error:
                if recipe.tables.source.on_bad_image == "skip":
                    reporter.say(f"the mask of '{item.id}' is left out: {error}")
                    continue
                raise InputError(f"the mask of '{item.id}' cannot be read: {error}") from error
            if mask is not None:
                masks[place] = _reduced(mask)
            progress(place + 1, len(masks))
    known = int(masks.any(axis=(1, 2)).sum())
    reporter.say(f"masks of {known} of {len(masks)} training slices guide the training")
    device = torch.device(keras_device())
    down, across = (axis.to(device) for axis in _axes(classifier, recipe.tables.pixels.image_size))
    return Guidance(torch.from_numpy(masks).to(device), down, across, weight)


def _reduced(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize((GRID, GRID), Image.Resampling.BOX))


def _axes(classifier: Classifier, size: int) -> tuple[Tensor, Tensor]:
    """How much each row and column of the picture counts to those of the last layer's cells, (S, h) and (S, w): what a
    map of these cells is drawn with."""
    last = classifier.last_cells
    cells = network_of(classifier.model, layer=last._keras_history.operation.name).cells
    height, width = int(last.shape[1]), int(last.shape[2])
    rows = torch.eye(height)[:, :, None].expand(-1, -1, width).contiguous()
    columns = torch.eye(width)[:, None, :].expand(-1, height, -1).contiguous()
    down, across = enlarge(rows, (size, size), cells), enlarge(columns, (size, size), cells)
    return down[:, :, 0].T.contiguous(), across[:, 0, :].T.contiguous()
