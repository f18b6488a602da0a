"""What a trained classifier says of every slice, and how sure one may be of it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.contracts import SPLITS
from braintumor_kit.data.held_out import HELD_OUT
from braintumor_kit.evaluation.certainty import Certainty, fit_certainty
from braintumor_kit.evaluation.detection import detection
from braintumor_kit.evaluation.intervals import units_of
from braintumor_kit.model.build import Classifier
from braintumor_kit.model.infer import Predictor
from braintumor_kit.progress import Reporter
from braintumor_kit.recipe.load import Recipe
from braintumor_kit.workflows.material import Material

OBSERVED = 2000
"""Slices of each split whose features are kept: enough for 32 directions a layer, and the memory stays bounded."""

Judgement = tuple[NDArray[np.float32], Certainty, dict[str, Any]]
"""Probabilities of every slice, the certainty of the model, and what it flags of the splits."""


def judge(recipe: Recipe, material: Material, classifier: Classifier, reporter: Reporter) -> Judgement:
    """Probabilities in float32, calibrated on validation, and a detector of pictures unlike the training slices."""
    predictor = Predictor(classifier.model, watch=True)
    chosen = {part: _some(material.places(part), recipe.tables.seed) for part in (*SPLITS, HELD_OUT)}
    order = np.concatenate(list(chosen.values()))
    with reporter.bar("evaluating in float32") as progress:
        probabilities, features = predictor.observed_over(material.slices, order, progress)
    ends = np.cumsum([len(places) for places in chosen.values()])
    parts = dict(zip(chosen, zip(*(np.split(layer, ends[:-1]) for layer in features), strict=True), strict=False))
    validation = material.places("validation")
    certainty = fit_certainty(
        material.dataset.labels[validation],
        probabilities[validation].astype(np.float64),
        _units(material, validation),
        (parts["train"], parts["validation"]) if parts else None,
        recipe.tables.certainty.false_alarms,
        recipe.tables.certainty.abstain,
    )
    return probabilities, certainty, _flagged(certainty, material, probabilities, chosen, parts)


def _units(material: Material, places: NDArray[np.int64]) -> list[str]:
    """What intervals over these slices resample."""
    samples = [material.dataset.samples[place] for place in places]
    return units_of([sample.group for sample in samples], [sample.id for sample in samples])


def _some(places: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    return np.sort(np.random.default_rng(seed).permutation(places)[:OBSERVED])


def _flagged(
    certainty: Certainty,
    material: Material,
    probabilities: NDArray[np.float32],
    chosen: dict[str, NDArray[np.int64]],
    parts: dict[str, Any],
) -> dict[str, Any]:
    """Of validation, test and what is held out: the share flagged as unlike the training, the share abstained from, the
    accuracy on the rest, and what becomes of tumours."""
    found: dict[str, Any] = {"temperature": certainty.temperature}
    for part in ("validation", "test", *([HELD_OUT] if len(chosen[HELD_OUT]) else [])):
        places = chosen[part]
        if not len(places):
            found[part] = None
            continue
        verdict = certainty.verdict(probabilities[places], parts.get(part, ()))
        labels = material.dataset.labels[places]
        right = probabilities[places].argmax(axis=1) == labels
        answered = ~verdict.abstain
        found[part] = {
            "n": len(places),
            "out_of_distribution": None if verdict.unlike is None else float(verdict.unlike.mean()),
            "abstained": float(verdict.abstain.mean()),
            "accuracy_where_answered": float(right[answered].mean()) if answered.any() else None,
            "detection": detection(
                labels,
                probabilities[places].astype(np.float64),
                _units(material, places),
                material.dataset.classes,
                verdict.abstain,
            ),
        }
    return found
