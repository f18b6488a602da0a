"""Decoded slices as one memory-mapped array, so that later epochs and later runs decode nothing.

A cache is keyed by the content of the pictures and by how pixels are prepared. It is built beside its place and moved
there whole, so that two runs may build the same one at once.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from joblib import Parallel, cpu_count, delayed
from numpy.typing import NDArray
from platformdirs import user_cache_path

from braintumor_kit.contracts import ImageError, Sample, WorkError
from braintumor_kit.data.dataset import BadImage, Dataset, Progress, leave_out, quiet
from braintumor_kit.data.pixels import prepare
from braintumor_kit.files import reason_of, write_json
from braintumor_kit.recipe.load import ChosenPlugin
from braintumor_kit.recipe.tables import PixelsTable

ENVIRONMENT = "BTKIT_CACHE"
VERSION = 1
"""Rises when prepared pixels change; caches of other versions are not used."""

CHUNK = 32
"""Pictures that one task decodes: large enough to hide the cost of a task, small enough for steady progress."""

Decoded = tuple[NDArray[np.uint8], list[tuple[int, str]]]


@dataclass(frozen=True)
class Slices:
    """The prepared slices of a data set; nothing is in memory until it is asked for.

    Attributes:
        array: uint8 (rows, S, S, C), memory-mapped.
        rows: the row of each sample, (N,).
    """

    array: NDArray[np.uint8]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, places: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Copies of the slices at these places, uint8 (len(places), S, S, C)."""
        return np.asarray(self.array[self.rows[places]])


def cache_folder() -> Path:
    """Where caches are kept: `BTKIT_CACHE`, else the user's cache folder."""
    return Path(os.environ.get(ENVIRONMENT) or user_cache_path("btkit"))


def decoded_slices(
    dataset: Dataset, pixels: PixelsTable, on_bad_image: str = "error", progress: Progress = quiet
) -> tuple[Dataset, Slices]:
    """The prepared slices of a data set, from the cache or decoded now.

    Returns:
        The data set without unreadable samples, and its slices in the same order.

    Raises:
        InputError: where pictures cannot be read and `on_bad_image` is "error".
        WorkError: where the cache cannot be written.
    """
    folder = cache_folder() / "slices" / cache_key(dataset, pixels)
    if not (folder / "slices.npy").is_file():
        _build(dataset, pixels, folder, progress)
    bad = [BadImage(item["id"], item["reason"]) for item in json.loads((folder / "bad.json").read_text())]
    array = np.load(folder / "slices.npy", mmap_mode="r", allow_pickle=False)
    names = {item.id for item in bad}
    rows = [row for row, sample in enumerate(dataset.samples) if sample.id not in names]
    return leave_out(dataset, bad, on_bad_image), Slices(array, np.array(rows, dtype=np.int64))


def cache_key(dataset: Dataset, pixels: PixelsTable) -> str:
    """Name of the cache: plugin and options, pictures in order, how they are prepared; labels do not matter."""
    digest = hashlib.sha256(f"{VERSION}\0{dataset.plugin.digest}\0{pixels.model_dump_json()}".encode())
    for sample, fingerprint in zip(dataset.samples, dataset.fingerprints, strict=True):
        digest.update(sample.id.encode(errors="surrogateescape") + b"\0" + fingerprint)
    return digest.hexdigest()[:32]


def _build(dataset: Dataset, pixels: PixelsTable, folder: Path, progress: Progress) -> None:
    beside = folder.with_name(f".building-{folder.name[:12]}-{secrets.token_hex(6)}")
    try:
        beside.mkdir(parents=True, exist_ok=True)
        bad = _write(dataset, pixels, beside / "slices.npy", progress)
        write_json(beside / "bad.json", [{"id": item.id, "reason": item.reason} for item in bad])
        if not folder.exists():
            beside.replace(folder)
    except OSError as error:
        if not (folder / "slices.npy").is_file():  # another run may have finished the same cache first
            raise WorkError(
                f"the cache of decoded slices in {folder.parent} cannot be written: {reason_of(error)}. "
                f"Make room or set {ENVIRONMENT} to another folder."
            ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write(dataset: Dataset, pixels: PixelsTable, path: Path, progress: Progress) -> list[BadImage]:
    samples = dataset.samples
    slices = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(len(samples), *pixels.shape))
    _reserve(path)
    bad, done = [], 0
    for rows, failures in _decoded(dataset.plugin, samples, pixels):
        slices[done : done + len(rows)] = rows
        bad += [BadImage(samples[done + offset].id, reason) for offset, reason in failures]
        done += len(rows)
        progress(done, len(samples))
    slices.flush()
    return bad


def _reserve(path: Path) -> None:
    """Takes the disk space of the whole file first: writing to a map on a full disk would kill the process."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _decoded(plugin: ChosenPlugin, samples: tuple[Sample, ...], pixels: PixelsTable) -> Iterator[Decoded]:
    """Prepared slices in order, chunk by chunk; in processes where it pays, and never more chunks in memory than
    there are processes to fill."""
    chunks = [samples[start : start + CHUNK] for start in range(0, len(samples), CHUNK)]
    jobs = min(cpu_count(), len(chunks))
    if len(chunks) < 4 or jobs < 2:
        yield from (_decode(plugin, chunk, pixels) for chunk in chunks)
        return
    with Parallel(n_jobs=jobs, return_as="generator", pre_dispatch="2*n_jobs", batch_size=1) as parallel:
        try:
            yield from parallel(delayed(_decode)(plugin, chunk, pixels) for chunk in chunks)
        except BrokenProcessPool as error:
            raise WorkError(
                "a process that decodes pictures was lost, most likely for lack of memory. Nothing was kept of this "
                "cache; run again with less beside it."
            ) from error


def _decode(plugin: ChosenPlugin, samples: tuple[Sample, ...], pixels: PixelsTable) -> Decoded:
    """Slices of one chunk; an unreadable picture leaves a black row and a reason under its place in the chunk."""
    source = plugin.make()
    rows = np.zeros((len(samples), *pixels.shape), np.uint8)
    failures = []
    for place, sample in enumerate(samples):
        try:
            with plugin.info.blamed(f"reading '{sample.id}'"):
                picture = source.image(sample)
            rows[place] = prepare(picture, pixels)
        except ImageError as error:
            failures.append((place, str(error)))
    return rows, failures
