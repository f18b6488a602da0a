"""Maps of an archive's pictures, in Parquet beside what was answered of them."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.contracts import InputError
from braintumor_kit.explanation.engine import Explained, Method, explain_batch, unique_names
from braintumor_kit.explanation.open import network_of
from braintumor_kit.explanation.targets import parse_target
from braintumor_kit.files import whole
from braintumor_kit.model.precision import PRECISIONS, resolve_precision
from braintumor_kit.notice import NOTICE
from braintumor_kit.recipe.load import load_explainer
from braintumor_kit.registry import Registry
from braintumor_kit.workflows.answering import Answering
from braintumor_kit.workflows.explain import BATCH, as_images
from braintumor_kit.workflows.trained import Trained

PRECISION = "auto"
"""Of the passes that maps are made in, as `btkit explain` has it; whatever the answers are computed in."""


@dataclass(frozen=True)
class MapsWanted:
    """Which maps, in plain values that other processes are sent.

    Attributes:
        methods: names of explainers, each with its options as JSON.
        plugins: folders of plugins.
        target: as `--target` says it; archives know no labels.
    """

    methods: tuple[tuple[str, str], ...]
    plugins: tuple[Path, ...]
    target: str


class MapMaker:
    """Makes the maps that are wanted.

    Args:
        trained: the model.

    Raises:
        InputError: where it is none that can be explained, or lacks a class that the target names.
    """

    def __init__(self, trained: Answering, wanted: MapsWanted) -> None:
        if not isinstance(trained, Trained):
            raise InputError("--method needs the Keras model: an exported one gives answers and no maps.")
        if wanted.target == "label":
            raise InputError("--target label: the pictures of an archive have none; take predicted, a class, or all.")
        registry = Registry(wanted.plugins)
        chosen = [load_explainer(name, json.loads(options), registry) for name, options in wanted.methods]
        names = unique_names([plugin.info.name for plugin in chosen])
        self._chosen = chosen
        self._methods = [Method(name, item.make(), item.info) for name, item in zip(names, chosen, strict=True)]
        self._targets, self._target = parse_target(wanted.target, trained.classes), wanted.target
        self._trained = trained
        dtype = PRECISIONS[resolve_precision(PRECISION)]
        self._network = network_of(trained.model, dtype, trained.explain_layer, trained.pixels.shape)

    def settings(self) -> dict[str, Any]:
        """What the maps follow from."""
        return {
            "methods": [
                {
                    "name": method.name,
                    "plugin": plugin.info.name,
                    "version": plugin.info.version,
                    "options": plugin.options.model_dump(mode="json"),
                }
                for method, plugin in zip(self._methods, self._chosen, strict=True)
            ],
            "target": self._target,
            "maps_precision": resolve_precision(PRECISION),
        }

    def write(self, path: Path, ids: Sequence[str], pixels: NDArray[np.uint8], answers: NDArray[np.float64]) -> None:
        """Writes the maps of a shard, a row a map; memory holds those of one batch.

        Args:
            ids: of the pictures.
            pixels: prepared, (N, S, S, 1 or C).
            answers: probabilities, (N, classes).
        """
        from pyarrow import parquet

        with whole(path) as beside, ExitStack() as closing:
            writer: Any = None
            for start in range(0, len(ids), BATCH):
                some = slice(start, start + BATCH)
                for explained in self._explained(pixels[some], answers[some]):
                    table = _table(ids[some], explained, self._trained)
                    if writer is None:
                        writer = closing.enter_context(parquet.ParquetWriter(beside, table.schema, compression="zstd"))
                    writer.write_table(table)

    def _explained(self, pixels: NDArray[np.uint8], answers: NDArray[np.float64]) -> Sequence[Explained]:
        images = as_images(pixels, self._network)
        nobody = np.full(len(pixels), -1)
        found = [
            explain_batch(self._network, method, images, choose(answers.argmax(axis=1), nobody), answers)
            for method in self._methods
            for choose in self._targets
        ]
        self._network.forget()
        return found


def _table(ids: Sequence[str], explained: Explained, trained: Trained) -> Any:
    import pyarrow as pa

    count, height, width = explained.maps.shape
    shares = explained.completeness
    columns = {
        "id": pa.array(ids, pa.string()),
        "method": pa.array([explained.method] * count, pa.string()),
        "target": pa.array(list(explained.targets.names), pa.string()),
        "layer": pa.array([explained.layer] * count, pa.string()),
        "flags": pa.array([" ".join(flags) for flags in explained.flags], pa.string()),
        "completeness_difference": pa.array([None] * count if shares is None else shares.tolist(), pa.float64()),
        "map": pa.FixedSizeListArray.from_arrays(pa.array(explained.maps.reshape(-1)), height * width),
    }
    said = {
        "btkit.model": trained.digest,
        "btkit.notice": NOTICE,
        "btkit.height": str(height),
        "btkit.width": str(width),
    }
    return pa.table(columns).replace_schema_metadata(said)
