"""A recipe's `[[explain]]` tables, carried out at the end of its run."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.explanation.open import network_of
from braintumor_kit.explanation.targets import parse_target
from braintumor_kit.model.build import Classifier
from braintumor_kit.progress import Reporter
from braintumor_kit.recipe.load import Recipe
from braintumor_kit.workflows.explain import Request
from braintumor_kit.workflows.explain_run import Wish, explain
from braintumor_kit.workflows.material import Material
from braintumor_kit.workflows.pictures import Pictures, split_name, split_pictures
from braintumor_kit.workflows.trained import Trained, file_digest


def check_explain_tables(recipe: Recipe, classifier: Classifier, classes: Sequence[str]) -> None:
    """Finds before a training what is wrong with the tables.

    Raises:
        InputError: where they name a class that the data set lacks, or a layer that the network lacks.
    """
    for table in recipe.tables.explain:
        parse_target(table.target, classes)
    for layer in {table.layer or classifier.explain_layer for table in recipe.tables.explain}:
        network_of(classifier.model, layer=layer)


def check_explained_splits(recipe: Recipe, split: Sequence[str]) -> None:
    """Finds before a training that a table names a split that is not there.

    Raises:
        InputError: with the splits that are there.
    """
    for table in recipe.tables.explain:
        split_name(table.split, split)


def explain_at_end(
    recipe: Recipe,
    trained: Trained,
    material: Material,
    known: Mapping[str, tuple[float, ...]],
    run: Path,
    reporter: Reporter,
) -> None:
    """Makes `explanations/` of a run with the model that it has just made.

    Args:
        known: the probabilities of each sample by id, as `predictions.csv` has them.
        run: its folder.
    """  # fmt: skip
    if not recipe.explainers:
        return
    shared: dict[tuple[str, int | None], Pictures] = {}
    requests = []
    for table, plugin in zip(recipe.tables.explain, recipe.explainers, strict=True):
        key = (split_name(table.split, material.split), table.limit)
        if key not in shared:
            shared[key] = split_pictures(
                material.dataset, material.slices, material.split, *key, recipe.tables.pixels, known
            )
        requests.append(Request(trained, plugin, shared[key], table.target, table.layer))
    wish = Wish(recipe.tables.training.precision, to_go_on="all of the run but its maps is there")
    explain(run / "explanations", requests, wish, reporter)


def just_trained(recipe: Recipe, classifier: Classifier, classes: Sequence[str], run: Path) -> Trained:
    """The model that a run has just written, without reading it again."""
    digest = file_digest(run / "model.keras")
    return Trained(classifier.model, tuple(classes), recipe.tables.pixels, classifier.explain_layer, digest)


def recorded(material: Material, probabilities: NDArray[np.float32]) -> dict[str, tuple[float, ...]]:
    """Probabilities by the sample's id, to the digits that `predictions.csv` has."""
    ids = (sample.id for sample in material.dataset.samples)
    return dict(zip(ids, (tuple(float(f"{p:.9g}") for p in row) for row in probabilities), strict=True))
