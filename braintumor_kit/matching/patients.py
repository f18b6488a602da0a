"""Patients recovered: slices of a collection that carries no patients, found in one that does.

An index holds the fingerprints of a collection's slices with their patients and labels: facts about the pictures,
from which no picture can be had back. btkit carries one of figshare's 3,064 slices (`SHIPPED`), from which most
tumour slices of Nickparvar's set and its relatives come, mirrored or not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from braintumor_kit.errors import InputError
from braintumor_kit.files import make_folder, read_arrays, whole
from braintumor_kit.matching.fingerprint import CROPS, TURNS, WIDENED, fingerprints, variants

VERSION = 1
"""Rises when fingerprints change; indexes of other versions are refused."""

ORDER = 16

MATCHED = 0.95
"""Correlation from which a slice is taken for one of the index. On Nickparvar's set matches lie above 0.99 and the
best of 1,996 slices of healthy heads at 0.90; neighbouring slices of one patient reach 0.98, which is no error here:
they have the same patient."""

SHIPPED = Path(str(files("braintumor_kit.matching") / "figshare.npz"))

_MOST = 500_000
_LARGEST = 512_000_000
"""Bytes that an index may have."""


@dataclass(frozen=True)
class PatientIndex:
    """Fingerprints with patients.

    Attributes:
        title: what the slices are and where they come from.
        fingerprints: int8 (M, 256), each scaled to its own range.
        ids, labels, patients: of each slice, (M,).
    """

    title: str
    fingerprints: NDArray[np.int8]
    ids: tuple[str, ...]
    labels: tuple[str, ...]
    patients: tuple[str, ...]


@dataclass(frozen=True)
class Matches:
    """What a collection's slices are in an index.

    Attributes:
        place: of the slice in the index, (N,), -1 where there is none.
        likeness: correlation with the best slice of the index, (N,), matched or not.
        turn: how the collection's slice has to be turned to lie on it, (N,), a place in `fingerprint.TURNS`.
    """

    place: NDArray[np.int64]
    likeness: NDArray[np.float32]
    turn: NDArray[np.int64]


def build_index(
    title: str,
    thumbnails: NDArray[np.uint8],
    ids: Sequence[str],
    labels: Sequence[str],
    patients: Sequence[str],
) -> PatientIndex:
    """The index of a collection's thumbnails (M, 64, 64).

    Raises:
        InputError: where there are too many.
    """
    if len(thumbnails) > _MOST:
        raise InputError(f"an index of patients holds {_MOST} slices at most, not {len(thumbnails)}.")
    prints = fingerprints(thumbnails, ORDER).reshape(len(thumbnails), -1)
    largest = np.abs(prints).max(axis=1, keepdims=True)
    scaled = np.rint(prints * (127 / np.where(largest > 0, largest, 1))).astype(np.int8)
    return PatientIndex(title, scaled, tuple(ids), tuple(labels), tuple(patients))


def save_index(index: PatientIndex, path: Path) -> None:
    """Writes an index; the same index gives the same bytes.

    Raises:
        InputError: where it is larger than an index may be.
        WorkError: where the file cannot be written.
    """
    columns = [np.array(column) for column in (index.ids, index.labels, index.patients)]
    if index.fingerprints.nbytes + sum(column.nbytes for column in columns) > _LARGEST - 10_000:
        raise InputError("the ids of so many slices are too long for an index of patients.")
    make_folder(path.parent)
    with whole(path) as beside, beside.open("wb") as file:
        np.savez_compressed(
            file,
            version=np.array(VERSION),
            title=np.array(index.title),
            fingerprints=index.fingerprints,
            ids=columns[0],
            labels=columns[1],
            patients=columns[2],
        )


def load_index(path: Path = SHIPPED) -> PatientIndex:
    """Reads an index.

    Raises:
        InputError: where the file is none, or one of another version.
    """
    advice = "make one with `btkit data index`"
    fields = read_arrays(path, _LARGEST, "the index of patients", f"no index of patients; {advice}")
    version = fields.get("version")
    if version is None or version.shape != () or version.dtype.kind != "i":
        raise InputError(f"{path} is no index of patients; {advice}.")
    if int(version) != VERSION:
        raise InputError(
            f"{path} is an index of version {int(version)}, and this btkit reads version {VERSION}; {advice}."
        )
    prints, title = fields.get("fingerprints"), fields.get("title")
    columns = [fields.get(name) for name in ("ids", "labels", "patients")]
    if prints is None or title is None or not _fits(prints, title, columns):
        raise InputError(f"{path} is a damaged index of patients; {advice}.")
    texts = (tuple(str(value) for value in column) for column in columns if column is not None)
    return PatientIndex(str(title), prints, *texts)


def _fits(prints: NDArray[Any], title: NDArray[Any], columns: Sequence[NDArray[Any] | None]) -> bool:
    """Whether the arrays of an index are of the right kinds and shapes."""
    if prints.dtype != np.int8 or prints.shape[1:] != (ORDER * ORDER,) or len(prints) == 0:
        return False
    if title.dtype.kind != "U" or title.shape != ():
        return False
    return all(
        column is not None and column.dtype.kind == "U" and column.shape == prints.shape[:1] for column in columns
    )


def match(
    index: PatientIndex, thumbnails: NDArray[np.uint8], progress: Callable[[int, int], None], block: int = 64
) -> Matches:
    """Looks each thumbnail (N, 64, 64) up in an index, in every turn, slightly cropped or with slightly more
    around it."""
    base = torch.from_numpy(index.fingerprints.astype(np.float32))
    base = (base / base.norm(dim=1, keepdim=True).clamp(min=1)).T.contiguous()
    total = len(thumbnails)
    place, turn = np.zeros(total, np.int64), np.zeros(total, np.int64)
    likeness = np.zeros(total, np.float32)
    for start in range(0, total, block):
        queries = torch.from_numpy(variants(thumbnails[start : start + block], ORDER, (*CROPS, *WIDENED)))
        found, entry = (queries @ base).max(dim=2)
        best, variant = found.max(dim=1)
        part = slice(start, start + len(best))
        likeness[part], turn[part] = best.numpy(), (variant % len(TURNS)).numpy()
        place[part] = entry.gather(1, variant[:, None])[:, 0].numpy()
        progress(part.stop, total)
    return Matches(np.where(likeness >= MATCHED, place, -1), likeness, turn)
