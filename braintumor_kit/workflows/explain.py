"""`btkit explain`: maps of any number of pictures, batch by batch, at flat memory, and resumable."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from braintumor_kit.data.dataset import BadImage
from braintumor_kit.data.pixels import restore
from braintumor_kit.explanation.engine import Explained, Method, explain_batch, unique_names
from braintumor_kit.explanation.network import Network
from braintumor_kit.explanation.open import network_of
from braintumor_kit.explanation.targets import Choose, parse_target
from braintumor_kit.memory import kept_memory
from braintumor_kit.model.precision import PRECISIONS, resolve_precision
from braintumor_kit.progress import Reporter
from braintumor_kit.recipe.load import ChosenPlugin
from braintumor_kit.report.overlays import scale_end
from braintumor_kit.runs import package_versions
from braintumor_kit.workflows.explanation_folder import ExplanationFolder, Row, file_name
from braintumor_kit.workflows.pictures import Pictures, read_batch
from braintumor_kit.workflows.trained import Trained

BATCH = 32
"""Pictures of a batch. Batches are a fixed partition, so that an interrupted work gives what a whole one does."""


@dataclass(frozen=True)
class Request:
    """One method for some pictures.

    Attributes:
        plugin: the explainer with its options.
        pictures: what is explained.
        target: as `--target` says it.
        layer: that is looked at; None for the model's own.
    """

    plugin: ChosenPlugin
    pictures: Pictures
    target: str = "predicted"
    layer: str | None = None


@dataclass(frozen=True)
class Drawing:
    """How overlays are drawn.

    Attributes:
        style: "heat", "contours" or "none".
        scale: whose maps share a colour scale: "image" (each has its own), "patient" or "all".
        original_size: maps and overlays at the stored pictures' size.
        align: of a layer's cells: "receptive_field" or "grid" (see `explanation/receptive_field.py`).
    """

    style: str = "heat"
    scale: str = "image"
    original_size: bool = False
    align: str = "receptive_field"


@dataclass(frozen=True)
class Planned:
    """A request, checked and ready."""

    method: Method
    request: Request
    targets: Sequence[Choose]
    network: Network


def plan(trained: Trained, requests: Sequence[Request], precision: str, align: str) -> list[Planned]:
    """Checks everything that can be wrong before any work is done.

    Raises:
        InputError: where the model lacks a class or layer that is named.
    """
    dtype = PRECISIONS[resolve_precision(precision)]
    networks: dict[str | None, Network] = {}
    names = unique_names([request.plugin.info.name for request in requests])
    planned = []
    for name, request in zip(names, requests, strict=True):
        layer = request.layer or trained.explain_layer
        if layer not in networks:
            networks[layer] = network_of(trained.model, dtype, layer, trained.pixels.shape)
            networks[layer].align = align
        method = Method(name, request.plugin.make(), request.plugin.info)
        planned.append(Planned(method, request, parse_target(request.target, trained.classes), networks[layer]))
    return planned


def explain_into(
    place: Path, trained: Trained, planned: Sequence[Planned], precision: str, drawing: Drawing, reporter: Reporter
) -> tuple[ExplanationFolder, list[BadImage]]:
    """Makes maps, taking up what an interrupted call with the same settings left; overlays and the rest are to follow.

    Returns:
        The folder in the making, and the pictures that could not be read.

    Raises:
        InputError: where a method does not fit the model.
        WorkError: where files cannot be written.
    """
    folder = ExplanationFolder.begin(place, _settings(trained, planned, precision, drawing))
    exact = _exact_network(trained, planned, precision)
    groups = _grouped(planned)
    total = sum(len(members[0].request.pictures.items) for members in groups)
    done = 0
    with reporter.bar("explaining") as progress, kept_memory():
        for number, members in enumerate(groups):
            for start in range(0, len(members[0].request.pictures.items), BATCH):
                name = f"{number:03d}-{start:09d}"
                places = range(start, min(start + BATCH, len(members[0].request.pictures.items)))
                if not folder.has(name):
                    with folder.dropped_if_empty():
                        _explain_batch(folder, name, places, members, exact, trained, drawing)
                done += len(places)
                progress(done, total)
    bad = {item["id"]: item["reason"] for batch in folder.batches() for item in batch["bad"]}
    return folder, [BadImage(id, reason) for id, reason in bad.items()]


def _grouped(planned: Sequence[Planned]) -> list[list[Planned]]:
    """Methods for the same pictures and layer go together: they share passes through the trunk."""
    groups: dict[tuple[int, int], list[Planned]] = {}
    for item in planned:
        groups.setdefault((id(item.request.pictures), id(item.network)), []).append(item)
    return list(groups.values())


def _exact_network(trained: Trained, planned: Sequence[Planned], precision: str) -> Network | None:
    """For the classes of pictures that the run did not predict: as `btkit predict` sees them, in float32."""
    if all(item.probabilities for one in planned for item in one.request.pictures.items):
        return None
    if resolve_precision(precision) == "float32":
        return planned[0].network
    return network_of(trained.model, shape=trained.pixels.shape)


def _explain_batch(
    folder: ExplanationFolder,
    name: str,
    places: Sequence[int],
    members: Sequence[Planned],
    exact: Network | None,
    trained: Trained,
    drawing: Drawing,
) -> None:
    pictures, network = members[0].request.pictures, members[0].network
    good, pixels, bad = read_batch(pictures, places)
    rows: list[Row] = []
    seconds: dict[str, float] = {}
    if good:
        images = as_images(pixels, network)
        probabilities = _probabilities(pictures, good, images, exact)
        labels = _labels(pictures, good, trained.classes)
        for member in members:
            began = time.perf_counter()
            for choose in member.targets:
                targets = choose(probabilities.argmax(axis=1), labels)
                explained = explain_batch(network, member.method, images, targets, probabilities)
                seconds[member.method.name] = seconds.get(member.method.name, 0.0) + time.perf_counter() - began
                rows += _write(folder, member, good, explained, probabilities, trained, drawing)
                began = time.perf_counter()
        network.forget()
    rows.sort(key=lambda row: row["place"])  # stable: methods and targets keep their order
    folder.put(name, rows, {"bad": [{"id": b.id, "reason": b.reason} for b in bad], "seconds": seconds})


def as_images(pixels: NDArray[np.uint8], network: Network) -> torch.Tensor:
    """Prepared pictures uint8 (N, S, S, 1 or C) as float32 (N, S, S, C) on the network's device."""
    batch = torch.from_numpy(np.ascontiguousarray(pixels)).to(network.device).float()
    return batch.expand(-1, -1, -1, network.layout.channels).contiguous()


def _probabilities(
    pictures: Pictures, places: Sequence[int], images: torch.Tensor, exact: Network | None
) -> NDArray[np.float64]:
    known = [pictures.items[place].probabilities for place in places]
    if exact is None:
        return np.array(known, dtype=np.float64)
    found = exact.probabilities(images).double().cpu().numpy()
    return np.array([row if row else mine for row, mine in zip(known, found, strict=True)])


def _labels(pictures: Pictures, places: Sequence[int], classes: Sequence[str]) -> NDArray[np.int64] | None:
    labels = [pictures.items[place].label for place in places]
    if any(label is None for label in labels):
        return None
    return np.array([list(classes).index(str(label)) for label in labels], dtype=np.int64)


def _write(
    folder: ExplanationFolder,
    member: Planned,
    places: Sequence[int],
    explained: Explained,
    probabilities: NDArray[np.float64],
    trained: Trained,
    drawing: Drawing,
) -> Iterator[Row]:
    """Writes the maps of one method and target; gives their rows."""
    pictures = member.request.pictures
    for number, place in enumerate(places):
        item, target = pictures.items[place], explained.targets.names[number]
        name = f"{file_name(item.id)}.{explained.method}" + (f".{file_name(target)}" if len(member.targets) > 1 else "")
        values = explained.maps[number]
        if drawing.original_size:
            values = restore(values, pictures.original(place), trained.pixels)
        predicted = int(probabilities[number].argmax())
        chosen = probabilities[number][explained.targets.classes[number]] if explained.targets.alone else None
        completeness = None if explained.completeness is None else f"{explained.completeness[number]:.3g}"
        yield {
            "place": place,
            "id": item.id,
            "split": item.split,
            "group": item.group,
            "label": item.label,
            "method": explained.method,
            "target": target,
            "predicted": trained.classes[predicted],
            "probability": f"{probabilities[number][predicted]:.6g}",
            "target_probability": None if chosen is None else f"{chosen:.6g}",
            "layer": explained.layer,
            "flags": " ".join(explained.flags[number]),
            "completeness_difference": completeness,
            "peak": f"{float(np.abs(values).max()):.6g}",
            "scale_end": scale_end(values, member.method.signed),
            "map": folder.write_map(name, values),
            "overlay": None if drawing.style == "none" else f"overlays/{name}.png",
        }


def _settings(trained: Trained, planned: Sequence[Planned], precision: str, drawing: Drawing) -> dict[str, Any]:
    """What the explanations follow from: `explanations.json`."""
    return {
        "format": 1,
        "model": {"sha256": trained.digest, "classes": list(trained.classes)},
        "pixels": trained.pixels.model_dump(mode="json"),
        "precision": resolve_precision(precision),
        "batch": BATCH,
        "drawing": asdict(drawing),
        "methods": [
            {
                "name": item.method.name,
                "plugin": item.method.info.name,
                "version": item.method.info.version,
                "options": item.request.plugin.options.model_dump(mode="json"),
                "target": item.request.target,
                "asked_layer": item.request.layer,
                "score": item.network.score,
                "signed": item.method.signed,
                "pictures": len(item.request.pictures.items),
                "pictures_digest": item.request.pictures.digest,
            }
            for item in planned
        ],
        "packages": package_versions(),
    }
