"""Maps of a batch of pictures by what was planned for them; `explain_work.py` goes through all batches."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from braintumor_kit.data.pixels import restore
from braintumor_kit.explanation.engine import Explained, Method, explain_batch, unique_names
from braintumor_kit.explanation.network import Network
from braintumor_kit.explanation.open import network_of
from braintumor_kit.explanation.targets import Choose, parse_target
from braintumor_kit.model.precision import PRECISIONS, resolve_precision
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
    """One method for some pictures of one model's.

    Attributes:
        trained: the model; all that are explained together tell the same classes apart.
        plugin: the explainer with its options.
        pictures: what is explained.
        target: as `--target` says it.
        layer: that is looked at; None for the model's own.
    """

    trained: Trained
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
    """A request, checked and ready.

    Attributes:
        number: its place among all that is planned; rows of the table name it.
    """

    number: int
    method: Method
    request: Request
    targets: Sequence[Choose]
    network: Network


@dataclass(frozen=True)
class Batch:
    """Some pictures of one group of requests.

    Attributes:
        group: of requests that share a model and pictures.
        start, stop: places among the pictures.
    """

    group: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        return f"{self.group:03d}-{self.start:09d}"


def batches_of(counts: Sequence[int]) -> Iterator[Batch]:
    """The batches of so many pictures in each group."""
    for group, count in enumerate(counts):
        for start in range(0, count, BATCH):
            yield Batch(group, start, min(start + BATCH, count))


def plan(requests: Sequence[Request], precision: str, align: str) -> list[Planned]:
    """Checks everything that can be wrong before any work is done.

    Raises:
        InputError: where a model lacks a class or layer that is named.
    """
    dtype = PRECISIONS[resolve_precision(precision)]
    networks: dict[tuple[int, str | None], Network] = {}
    names = _method_names(requests)
    planned = []
    for number, (name, request) in enumerate(zip(names, requests, strict=True)):
        trained = request.trained
        layer = request.layer or trained.explain_layer
        network = networks.get((id(trained), layer))
        if network is None:
            network = networks[id(trained), layer] = network_of(trained.model, dtype, layer, trained.pixels.shape)
            network.align = align
        method = Method(name, request.plugin.make(), request.plugin.info)
        planned.append(Planned(number, method, request, parse_target(request.target, trained.classes), network))
    return planned


def _method_names(requests: Sequence[Request]) -> list[str]:
    """Names that tell the methods of one model apart; the folds of a cross-validation share them."""
    names = [""] * len(requests)
    for model in {id(request.trained) for request in requests}:
        places = [place for place, request in enumerate(requests) if id(request.trained) == model]
        unique = unique_names([requests[place].plugin.info.name for place in places])
        for place, name in zip(places, unique, strict=True):
            names[place] = name
    return names


def grouped(planned: Sequence[Planned]) -> list[list[Planned]]:
    """Methods for the same pictures and layer of a model go together: they share passes through the trunk."""
    groups: dict[tuple[int, int], list[Planned]] = {}
    for item in planned:
        groups.setdefault((id(item.request.pictures), id(item.network)), []).append(item)
    return list(groups.values())


def exact_network(members: Sequence[Planned], precision: str) -> Network | None:
    """For the classes of pictures that the run did not predict: as `btkit predict` sees them, in float32."""
    first = members[0]
    if all(item.probabilities for item in first.request.pictures.items):
        return None
    if resolve_precision(precision) == "float32":
        return first.network
    trained = first.request.trained
    return network_of(trained.model, shape=trained.pixels.shape)


def explain_batch_into(
    folder: ExplanationFolder,
    name: str,
    places: Sequence[int],
    members: Sequence[Planned],
    exact: Network | None,
    drawing: Drawing,
) -> None:
    """Makes the maps of the pictures at some places, and marks them as done under a name.

    Args:
        members: the requests, which share a network and pictures.
        exact: see `exact_network`.
    """
    pictures, network = members[0].request.pictures, members[0].network
    good, pixels, bad = read_batch(pictures, places)
    rows: list[Row] = []
    seconds: dict[str, float] = {}
    if good:
        images = as_images(pixels, network)
        probabilities = _probabilities(pictures, good, images, exact)
        labels = _labels(pictures, good, members[0].request.trained.classes)
        for member in members:
            began = time.perf_counter()
            for choose in member.targets:
                targets = choose(probabilities.argmax(axis=1), labels)
                explained = explain_batch(network, member.method, images, targets, probabilities)
                seconds[member.method.name] = seconds.get(member.method.name, 0.0) + time.perf_counter() - began
                rows += _write(folder, member, good, explained, probabilities, drawing)
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
    drawing: Drawing,
) -> Iterator[Row]:
    """Writes the maps of one method and target; gives their rows."""
    pictures, trained = member.request.pictures, member.request.trained
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
            "plan": member.number,
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


def settings_of(planned: Sequence[Planned], precision: str, drawing: Drawing) -> dict[str, Any]:
    """What the explanations follow from: `explanations.json`."""
    trained = planned[0].request.trained
    return {
        "format": 2,
        "classes": list(trained.classes),
        "pixels": trained.pixels.model_dump(mode="json"),
        "precision": resolve_precision(precision),
        "batch": BATCH,
        "drawing": asdict(drawing),
        "methods": [
            {
                "name": item.method.name,
                "plugin": item.method.info.name,
                "version": item.method.info.version,
                "model": item.request.trained.digest,
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
