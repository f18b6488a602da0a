"""One row a sample, computed once in parallel and kept on disk, so that later epochs and later runs decode nothing.

Rows are written to one file that is memory-mapped when it is read. It is built beside its place and moved there
whole, so that two runs may build the same one at once.
"""

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, cpu_count, delayed
from numpy.typing import DTypeLike, NDArray
from platformdirs import user_cache_path

from braintumor_kit.contracts import ImageError, Sample, WorkError
from braintumor_kit.data.dataset import BadImage, Dataset, Progress
from braintumor_kit.files import reason_of, write_json
from braintumor_kit.recipe.load import ChosenPlugin

ENVIRONMENT = "BTKIT_CACHE"

CHUNK = 32
"""Pictures that one task decodes: large enough to hide the cost of a task, small enough for steady progress."""

Compute = Callable[[NDArray[Any]], Any]
"""From a picture, as the source gives it, to its row; raises ImageError where the picture is at fault. It is sent to
other processes."""

_Computed = tuple[NDArray[Any], list[tuple[int, str]]]


def cache_folder() -> Path:
    """Where caches are kept: `BTKIT_CACHE`, else the user's cache folder."""
    return Path(os.environ.get(ENVIRONMENT) or user_cache_path("btkit"))


def rows_of(
    dataset: Dataset, folder: Path, row: NDArray[Any], compute: Compute, progress: Progress
) -> tuple[NDArray[Any], list[BadImage]]:
    """A row of each sample, memory-mapped, read from `folder` or computed now; and the samples that have none.

    Args:
        folder: below the cache's folder, named after all that the rows depend on.
        row: an empty row, which is also what stands in the place of an unreadable picture.

    Raises:
        WorkError: where the cache cannot be written.
    """
    file = folder / "slices.npy"
    if not file.is_file():
        _build(dataset, folder, row, compute, progress)
    bad = [BadImage(item["id"], item["reason"]) for item in json.loads((folder / "bad.json").read_text())]
    return np.load(file, mmap_mode="r", allow_pickle=False), bad


def _build(dataset: Dataset, folder: Path, row: NDArray[Any], compute: Compute, progress: Progress) -> None:
    beside = folder.with_name(f".building-{folder.name[:12]}-{secrets.token_hex(6)}")
    try:
        beside.mkdir(parents=True, exist_ok=True)
        bad = _write(dataset, beside / "slices.npy", row, compute, progress)
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


def _write(dataset: Dataset, path: Path, row: NDArray[Any], compute: Compute, progress: Progress) -> list[BadImage]:
    samples = dataset.samples
    written = _new_map(path, row.dtype, (len(samples), *row.shape))
    bad, done = [], 0
    for rows, failures in _computed(dataset.plugin, samples, row, compute):
        written[done : done + len(rows)] = rows
        bad += [BadImage(samples[done + offset].id, reason) for offset, reason in failures]
        done += len(rows)
        progress(done, len(samples))
    written.flush()
    return bad


def _new_map(path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> Any:
    """Takes the disk space of the whole file first: writing to a map on a full disk would kill the process."""
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return rows


def _computed(
    plugin: ChosenPlugin, samples: tuple[Sample, ...], row: NDArray[Any], compute: Compute
) -> Iterator[_Computed]:
    """Rows in order, chunk by chunk; in processes where it pays, and never more chunks in memory than there are
    processes to fill."""
    chunks = [samples[start : start + CHUNK] for start in range(0, len(samples), CHUNK)]
    jobs = min(cpu_count(), len(chunks))
    if len(chunks) < 4 or jobs < 2:
        yield from (_compute_chunk(plugin, chunk, row, compute) for chunk in chunks)
        return
    with Parallel(n_jobs=jobs, return_as="generator", pre_dispatch="2*n_jobs", batch_size=1) as parallel:
        try:
            yield from parallel(delayed(_compute_chunk)(plugin, chunk, row, compute) for chunk in chunks)
        except BrokenProcessPool as error:
            raise WorkError(
                "a process that decodes pictures was lost, most likely for lack of memory. Nothing was kept of this "
                "cache; run again with less beside it."
            ) from error


def _compute_chunk(plugin: ChosenPlugin, samples: tuple[Sample, ...], row: NDArray[Any], compute: Compute) -> _Computed:
    """Rows of one chunk; an unreadable picture leaves an empty row and a reason under its place in the chunk."""
    source = plugin.make()
    rows = np.stack([row] * len(samples))
    failures = []
    for place, sample in enumerate(samples):
        try:
            with plugin.info.blamed(f"reading '{sample.id}'"):
                picture = source.image(sample)
            rows[place] = compute(picture)
        except ImageError as error:
            failures.append((place, str(error)))
    return rows, failures
