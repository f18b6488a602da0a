"""The folder of explanations while it is made: batch by batch, beside its place, so that an interrupted one goes on."""

import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.errors import InputError, WorkError
from braintumor_kit.files import make_folder, read_json, reason_of, remove_torn, whole, write_csv, write_json

COLUMNS = (
    "id", "split", "group", "label", "method", "target", "predicted", "probability", "target_probability", "layer",
    "flags", "completeness_difference", "peak", "map", "overlay",
)  # fmt: skip
"""Of `explanations.csv`."""

LONGEST_NAME = 120
SETTINGS = "explanations.json"

Row = dict[str, Any]


@dataclass(frozen=True)
class Slice:
    """What was made of one slice.

    Attributes:
        rows: one a method, without what only the table needs.
    """

    rows: Mapping[str, Row]

    @property
    def first(self) -> Row:
        """Of any method: what is said of the slice itself is the same in all."""
        return next(iter(self.rows.values()))


@dataclass(frozen=True)
class ExplanationFolder:
    """Explanations in the making.

    Attributes:
        place: where they will be.
        beside: where they are made.
    """

    place: Path
    beside: Path

    @classmethod
    def begin(cls, place: Path, settings: Mapping[str, Any]) -> "ExplanationFolder":
        """Takes up what was begun with the same settings, or begins anew.

        Raises:
            InputError: where `place` holds something that is no explanations, or cannot be replaced.
            WorkError: where the folder cannot be made.
        """
        if place.exists() and not (place.is_dir() and (_is_ours(place) or not any(place.iterdir()))):
            raise InputError(f"'{place}' exists and holds no explanations; name another folder with --out.")
        place, here = place.resolve(), Path.cwd()  # a link stays a link: what it leads to is replaced
        if place in (here, *here.parents):
            raise InputError(f"'{place}' is where you are and cannot be replaced; name another folder with --out.")
        folder = cls(place, place.with_name(f".{place.name}.unfinished"))
        try:
            folder._put_back()
            if folder._settings() != json.loads(json.dumps(settings)):
                shutil.rmtree(folder.beside, ignore_errors=True)
                for part in (folder.beside, folder.beside / "batches", folder.beside / "maps"):
                    make_folder(part, parents=False)
                write_json(folder.beside / SETTINGS, settings)
            remove_torn(folder.beside)
        except OSError as error:
            raise WorkError(f"'{folder.beside}' cannot be made: {reason_of(error)}.") from error
        return folder

    def _put_back(self) -> None:
        """Ends what a process that was killed while it replaced the folder had begun."""
        for old in self.place.parent.glob(f".{self.place.name}.old-*"):
            if self.place.exists():
                shutil.rmtree(old, ignore_errors=True)
            else:
                old.replace(self.place)

    def _settings(self) -> Mapping[str, Any] | None:
        try:
            return read_json(self.beside / SETTINGS)
        except InputError:
            return None

    def has(self, batch: str) -> bool:
        """Whether a batch is done."""
        return self._batch(batch).is_file()

    @contextmanager
    def dropped_if_empty(self) -> Iterator[None]:
        """Leaves nothing behind where the input is at fault before any batch is done."""
        try:
            yield
        except InputError:
            if not any(self.batches()):
                shutil.rmtree(self.beside, ignore_errors=True)
            raise

    def put(self, batch: str, rows: Sequence[Row], more: Mapping[str, Any]) -> None:
        """Marks a batch as done; its maps are written before."""
        write_json(self._batch(batch), {"rows": list(rows), **more})

    def names(self) -> list[str]:
        """Of the batches that are done, in order."""
        return sorted(path.stem for path in (self.beside / "batches").glob("*.json"))

    def batch(self, name: str) -> dict[str, Any]:
        """What `put` wrote under a name."""
        return read_json(self._batch(name))

    def batches(self) -> Iterator[dict[str, Any]]:
        """The same, batch by batch, in order."""
        for name in self.names():
            yield self.batch(name)

    def slices(self) -> list[Slice]:
        """Every slice that was explained; of several targets of a method the predicted one, else the first."""
        wanted = (
            "plan", "place", "id", "group", "split", "label", "method", "target", "predicted", "probability", "flags",
            "map",
        )  # fmt: skip
        found: dict[str, dict[str, Row]] = {}
        for batch in self.batches():
            for row in batch["rows"]:
                methods = found.setdefault(row["id"], {})
                if row["method"] not in methods or row["target"] == row["predicted"]:
                    methods[row["method"]] = {name: row[name] for name in wanted}
        return [Slice(rows) for rows in found.values()]

    def _batch(self, name: str) -> Path:
        return self.beside / "batches" / f"{name}.json"

    def write_map(self, name: str, values: NDArray[np.float32]) -> str:
        """Writes one map, float32 (H, W); gives its place within the folder."""
        inside = f"maps/{name}.npy"
        with whole(self.beside / inside) as path, path.open("wb") as file:
            np.save(file, values, allow_pickle=False)
        return inside

    def read_map(self, inside: str) -> NDArray[np.float32]:
        """A map that `write_map` wrote."""
        values: NDArray[np.float32] = np.load(self.beside / inside, allow_pickle=False)
        return values

    def finish(self) -> None:
        """Writes the table, drops what only the making needed, and moves all to its place, whole and at once."""
        rows = (row for batch in self.batches() for row in batch["rows"])
        write_csv(self.beside / "explanations.csv", COLUMNS, ([row.get(name) for name in COLUMNS] for row in rows))
        try:
            remove_torn(self.beside)  # of processes that were lost
            shutil.rmtree(self.beside / "batches", ignore_errors=True)
            old = self.place.with_name(f".{self.place.name}.old-{secrets.token_hex(4)}")
            if self.place.exists():
                self.place.replace(old)
            self.beside.replace(self.place)
            shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            raise WorkError(
                f"'{self.place}' cannot be replaced: {reason_of(error)}. The explanations are in '{self.beside}'."
            ) from error


def _is_ours(place: Path) -> bool:
    return (place / "explanations.csv").is_file() and (place / SETTINGS).is_file()


def file_name(id: str) -> str:
    """A name for files about a sample: the id where it can be one, else its plain letters and a digest."""
    plain = re.sub(r"[^\w.+-]+", "_", id).strip("._-")[-LONGEST_NAME:]
    return plain if plain == id else f"{plain}-{hashlib.sha256(id.encode(errors='surrogateescape')).hexdigest()[:8]}"
