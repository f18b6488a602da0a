"""`btkit explain --evaluate`: are the maps right? Measured on the maps as they were written."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import torch
from numpy.typing import NDArray

from braintumor_kit.data.pixels import head_mask, to_colour
from braintumor_kit.explanation.engine import explain_batch
from braintumor_kit.explanation.faithfulness import deletion_auc, insertion_auc, road
from braintumor_kit.explanation.localisation import localise, localise_baselines, peak_place, relevance
from braintumor_kit.explanation.metrics import Measured, findings, summarise
from braintumor_kit.explanation.network import Network
from braintumor_kit.explanation.open import is_functional, network_of
from braintumor_kit.explanation.randomisation import Cascade, cascade
from braintumor_kit.explanation.similarity import agreement, mean_agreement
from braintumor_kit.explanation.targets import Targets
from braintumor_kit.memory import kept_memory
from braintumor_kit.model.precision import PRECISIONS, resolve_precision
from braintumor_kit.progress import Reporter
from braintumor_kit.workflows.explain import Planned, as_images
from braintumor_kit.workflows.explanation_folder import ExplanationFolder, Slice
from braintumor_kit.workflows.pictures import evenly_spaced

AT_ONCE = 8
"""Slices whose pixels are taken away together."""


@dataclass(frozen=True)
class Evaluation:
    """How much is measured; where a map lies is measured for all slices.

    Attributes:
        faithfulness: slices of which pixels are taken away (insertion, deletion, ROAD), evenly spaced; 0 for none.
        randomisation: slices that are explained again with randomised weights; 0 for none. Of a cross-validation,
            slices of the first fold's model.
    """

    faithfulness: int = 100
    randomisation: int = 16


def evaluate_explanations(
    folder: ExplanationFolder,
    planned: Sequence[Planned],
    precision: str,
    evaluation: Evaluation,
    reporter: Reporter,
) -> dict[str, Any]:
    """The content of `explanation_metrics.json`: localisation, faithfulness, randomisation, agreement and findings."""
    slices = folder.slices()
    faithful = _faithfulness(folder, _spaced(slices, evaluation.faithfulness), planned, reporter)
    measured, baselines, alike = _localisation(folder, slices, planned, faithful, reporter)
    split = slices[0].first["split"] if slices else None
    metrics = summarise(measured, baselines, planned[0].request.trained.classes, split or "images")
    rates = _rates(folder)
    for name, figures in metrics["methods"].items():
        first = next(item for item in planned if item.method.name == name)
        chosen = _spaced([one for one in slices if _plan(one, name) == first.number], evaluation.randomisation)
        found = _randomised(chosen, first, precision, reporter)
        figures["images_per_second"] = rates.get(name)
        figures["randomisation_passed"] = found.passed if found else None
        figures["randomisation"] = (
            {"n": found.n, "layers": list(found.groups), "similarity": list(found.similarity)} if found else None
        )
        figures["faithfulness_n"] = sum(name in one for one in faithful.values())
    metrics["agreement"] = mean_agreement(alike)
    metrics["findings"] = findings(metrics, measured)
    return metrics


def _spaced(slices: Sequence[Slice], count: int) -> list[Slice]:
    """At most so many, evenly spaced."""
    return [slices[place] for place in evenly_spaced(len(slices), count)]


def _plan(one: Slice, method: str) -> int | None:
    """Which of what was planned made a slice's map."""
    return one.rows[method]["plan"] if method in one.rows else None


def _localisation(
    folder: ExplanationFolder,
    slices: Sequence[Slice],
    planned: Sequence[Planned],
    faithful: Mapping[str, Mapping[str, Mapping[str, float]]],
    reporter: Reporter,
) -> tuple[list[Measured], list[Measured], list[dict[str, float]]]:
    """What every map and the baselines score, and how alike the methods' maps of each slice are."""
    measured, baselines, alike = [], [], []
    with reporter.bar("where the maps lie") as progress:
        for number, one in enumerate(slices):
            pictures, row = planned[one.first["plan"]].request.pictures, one.first
            prepared = pictures.prepared(row["place"])
            mask = pictures.mask(row["place"])
            head = head_mask(np.asarray(to_colour(prepared[..., 0] if prepared.shape[2] == 1 else prepared, "grey")))
            maps = {name: folder.read_map(inside["map"]) for name, inside in one.rows.items()}
            who = (row["id"], row["group"], row["label"], row["predicted"])
            for name, values in maps.items():
                figures = {**localise(values, mask, head), **faithful.get(row["id"], {}).get(name, {})}
                measured.append(Measured(*who, name, figures, peak_place(relevance(values))))
            for name, figures in localise_baselines(mask, head).items():
                baselines.append(Measured(*who, name, figures, "centre"))
            alike.append(agreement(maps))
            progress(number + 1, len(slices))
    return measured, baselines, alike


def _faithfulness(
    folder: ExplanationFolder,
    slices: Sequence[Slice],
    planned: Sequence[Planned],
    reporter: Reporter,
) -> dict[str, dict[str, dict[str, float]]]:
    """Insertion, deletion and ROAD by slice and method."""
    figures: dict[str, dict[str, dict[str, float]]] = {}
    with reporter.bar("what the network goes by") as progress, kept_memory():
        for start in range(0, len(slices), AT_ONCE):
            some = slices[start : start + AT_ONCE]
            for item in planned:
                name = item.method.name
                these = [one for one in some if _plan(one, name) == item.number]
                if these:
                    for one, row in zip(these, _of_batch(folder, these, item), strict=True):
                        figures.setdefault(one.first["id"], {})[name] = row
            progress(start + len(some), len(slices))
    return figures


def _of_batch(folder: ExplanationFolder, slices: Sequence[Slice], planned: Planned) -> Iterator[dict[str, float]]:
    name, network = planned.method.name, planned.network
    images = _images(slices, planned, network)
    maps = torch.from_numpy(np.stack([folder.read_map(one.rows[name]["map"]) for one in slices])).to(images.device)
    targets = torch.from_numpy(_classes(slices, planned)).to(images.device)

    measures = {"insertion_auc": insertion_auc, "deletion_auc": deletion_auc, "road": road}
    values = {key: measure(images, maps, targets, network.probabilities).tolist() for key, measure in measures.items()}
    yield from ({key: column[place] for key, column in values.items()} for place in range(len(slices)))


def _images(slices: Sequence[Slice], planned: Planned, network: Network) -> torch.Tensor:
    pictures, name = planned.request.pictures, planned.method.name
    return as_images(np.stack([pictures.prepared(one.rows[name]["place"]) for one in slices]), network)


def _classes(slices: Sequence[Slice], planned: Planned) -> NDArray[np.int64]:
    """The class that each map speaks for; of a contrast, the first."""
    named = [one.rows[planned.method.name]["target"] for one in slices]
    classes = list(planned.request.trained.classes)
    return np.array([classes.index(text if text in classes else text.partition("-vs-")[0]) for text in named])


def _randomised(slices: Sequence[Slice], planned: Planned, precision: str, reporter: Reporter) -> Cascade | None:
    """How the maps of some slices change as the network loses its weights; None where its layers cannot be told."""
    name, trained = planned.method.name, planned.request.trained
    if not slices or not is_functional(trained.model):
        return None
    dtype, layer = PRECISIONS[resolve_precision(precision)], planned.request.layer or trained.explain_layer
    numbers = _classes(slices, planned)
    weights = np.eye(len(trained.classes), dtype=np.float32)[numbers]
    targets = Targets(tuple(one.rows[name]["target"] for one in slices), weights, numbers, True)

    def maps_of(model: keras.Model) -> NDArray[np.float32]:
        network = network_of(model, dtype, layer, trained.pixels.shape)
        network.align = planned.network.align
        images = _images(slices, planned, network)
        return explain_batch(network, planned.method, images, targets, weights).maps

    reporter.say(f"randomising weights: {name}, {len(slices)} slices")
    with kept_memory():
        return cascade(maps_of, trained.model)


def _rates(folder: ExplanationFolder) -> dict[str, float]:
    """Images a second of each method; the first to look at the layer pays for the pass that others share."""
    seconds: dict[str, float] = {}
    counts: dict[str, set[str]] = {}
    for batch in folder.batches():
        for name, spent in batch["seconds"].items():
            seconds[name] = seconds.get(name, 0.0) + spent
        for row in batch["rows"]:
            counts.setdefault(row["method"], set()).add(row["id"])
    return {name: len(counts[name]) / spent for name, spent in seconds.items() if spent > 0}
