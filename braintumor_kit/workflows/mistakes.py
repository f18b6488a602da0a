"""The worst mistakes of a run, and maps of them: `mistakes/`, made like `explanations/`."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from braintumor_kit.progress import Reporter
from braintumor_kit.recipe.load import Recipe
from braintumor_kit.report.run_page import MISTAKES, surest_first
from braintumor_kit.workflows.explain import Request
from braintumor_kit.workflows.explain_run import Wish, explain
from braintumor_kit.workflows.material import Material
from braintumor_kit.workflows.pictures import split_name, split_pictures
from braintumor_kit.workflows.trained import Trained


def explain_mistakes(
    recipe: Recipe,
    trained: Trained,
    material: Material,
    probabilities: Mapping[str, tuple[float, ...]],
    folder: Path,
    reporter: Reporter,
) -> None:
    """Makes `mistakes/` by the recipe's first method; nothing where the recipe has none, or the run makes no mistake.

    Args:
        probabilities: of each sample by id, as `predictions.csv` has them.
        folder: of the run.
    """
    place = folder / MISTAKES
    chosen = _worst(material, probabilities, split_name(None, material.split))
    if not recipe.explainers or not chosen:
        shutil.rmtree(place, ignore_errors=True)  # of an attempt before that came to another model
        return
    part = ["wrong" if number in chosen else None for number in range(len(material.split))]
    pixels = recipe.tables.pixels
    pictures = split_pictures(material.dataset, material.slices, part, "wrong", None, pixels, probabilities)
    request = Request(trained, recipe.explainers[0], pictures, layer=recipe.tables.explain[0].layer)
    wish = Wish(recipe.tables.training.precision, to_go_on="all of the run but the maps of its mistakes is there")
    explain(place, [request], wish, reporter)


def _worst(material: Material, probabilities: Mapping[str, tuple[float, ...]], part: str) -> set[int]:
    """Which samples of a split to show."""
    rows = {place: np.array(probabilities[material.dataset.samples[place].id]) for place in material.places(part)}
    wrong = [int(place) for place, row in rows.items() if row.argmax() != material.dataset.labels[place]]
    ids = [material.dataset.samples[place].id for place in wrong]
    return {wrong[number] for number in surest_first([float(rows[place].max()) for place in wrong], ids)}
