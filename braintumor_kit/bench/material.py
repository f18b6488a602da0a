"""Pictures and a recipe for a benchmark: the phantom's slices as the JPEG files that public sets consist of."""

from pathlib import Path

import numpy as np
from PIL import Image

from braintumor_kit.data.cache import decoded_slices
from braintumor_kit.data.dataset import Progress, quiet, read_dataset
from braintumor_kit.recipe.load import load_source
from braintumor_kit.recipe.tables import PixelsTable

SIDE = 512
"""Of the public sets' pictures, in pixels."""

RECIPE = """\
seed = 7

[source]
name = "image_folder"
root = "pictures"

[pixels]
image_size = {image_size}

[split]
method = "stratified"
validation = 0.05
test = 0.05

[augment]
flip_horizontal = true
rotate = 10
shift = 0.05
scale = 0.1

[backbone]
name = "resnet"
depth = {depth}

[training]
epochs = 100000
batch_size = {batch_size}
precision = "{precision}"
"""
"""Augmentation as in recipes/resnet_adam.toml; the benchmark stops it long before its last epoch."""


def write_pictures(folder: Path, patients: int, progress: Progress = quiet) -> int:
    """Paints patients and writes their slices as `pictures/<class>/<number>.jpg`, of 512 x 512 pixels.

    Returns:
        How many were written.
    """
    dataset = read_dataset(load_source("phantom", [f"source.patients={patients}"]))
    dataset, slices = decoded_slices(dataset, PixelsTable(), progress=progress)
    for place, sample in enumerate(dataset.samples):
        path = folder / "pictures" / sample.label / f"{place:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = slices[np.array([place])][0, :, :, 0]
        Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path, quality=90)
    return len(dataset.samples)


def write_recipe(folder: Path, depth: int, precision: str, image_size: int, batch_size: int) -> Path:
    """A recipe over the pictures in the folder."""
    path = folder / f"resnet{depth}_{precision}.toml"
    path.write_text(RECIPE.format(depth=depth, precision=precision, image_size=image_size, batch_size=batch_size))
    return path
