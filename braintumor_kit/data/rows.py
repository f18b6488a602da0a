"""One row a sample, computed once in parallel and kept on disk, so that later epochs and later runs decode nothing.

Rows are written to one file that is memory-mapped when it is read, with checksums beside it that are compared when it
is opened: a damaged one is made again.
"""

import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from joblib import cpu_count
from numpy.typing import DTypeLike, NDArray

from braintumor_kit.contracts import ImageError, Sample, WorkError
from braintumor_kit.data.caches import building, log, make_room, mark_used
from braintumor_kit.data.dataset import BadImage, Dataset, Progress
from braintumor_kit.engines.engine import Engine, Work
from braintumor_kit.engines.processes import HUNG, WorkerHangsError, WorkerLostError, in_workers
from braintumor_kit.files import take_space, write_json
from braintumor_kit.recipe.load import ChosenPlugin

CHUNK = 32
"""Pictures that one task decodes: large enough to hide the cost of a task, small enough for steady progress."""

BLOCK = 2**26
"""Bytes of a file under one checksum."""

CHECKED = 64
"""Of a file with more blocks, so many are checked on opening, evenly spaced: 4 GB, some seconds."""

ROWS, CONTENT = "slices.npy", "content.json"

Compute = Callable[[NDArray[Any]], Any]
"""From a picture, as the source gives it, to its row; raises ImageError where the picture is at fault. It is sent to
other processes."""

_Computed = tuple[NDArray[Any], list[tuple[int, str]]]
_Rows = tuple[NDArray[Any], list[BadImage]]


def rows_of(
    dataset: Dataset,
    folder: Path,
    row: NDArray[Any],
    compute: Compute,
    progress: Progress,
    engine: Engine | None = None,
) -> _Rows:
    """A row of each sample, memory-mapped, read from `folder` or computed now; and the samples that have none.

    Args:
        folder: below the cache's folder, named after all that the rows depend on.
        row: an empty row, which is also what stands in the place of an unreadable picture.
        engine: that computes them; None is the cores of this machine.

    Raises:
        WorkError: where the cache cannot be written, or a process that decodes is lost or hangs.
    """
    shape = (len(dataset.samples), *row.shape)
    if (kept := _opened(folder, row.dtype, shape)) is not None:
        return kept
    if folder.exists():
        log.warning(f"the cache {folder} is damaged; it is made again")
    with building(folder) as beside:
        if (kept := _opened(folder, row.dtype, shape)) is not None:  # another process has made it meanwhile
            return kept
        make_room(row.nbytes * len(dataset.samples))
        bad = _write(dataset, beside / ROWS, row, compute, progress, engine)
        content = {"bad": [{"id": item.id, "reason": item.reason} for item in bad], "crc32": _checksums(beside / ROWS)}
        write_json(beside / CONTENT, content)
    return np.load(folder / ROWS, mmap_mode="r", allow_pickle=False), bad


def _opened(folder: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> _Rows | None:
    """What the cache holds; None where it holds nothing, or not what was written."""
    try:
        content = json.loads((folder / CONTENT).read_text(encoding="utf-8"))
        bad = [BadImage(item["id"], item["reason"]) for item in content["bad"]]
        rows = np.load(folder / ROWS, mmap_mode="r", allow_pickle=False)
        if rows.dtype != dtype or rows.shape != shape or not _is_whole(folder / ROWS, content["crc32"]):
            return None
    except Exception:  # whatever a damaged file makes NumPy raise: it is made again
        return None
    mark_used(folder)
    return rows, bad


def _checksums(path: Path) -> list[int]:
    """CRC-32 of each block of a file."""
    with path.open("rb") as file:
        return [_block(file, number) for number in range(_blocks(path))]


def _is_whole(path: Path, checksums: list[int]) -> bool:
    if len(checksums) != _blocks(path):
        return False
    every = np.unique(np.linspace(0, len(checksums) - 1, min(CHECKED, len(checksums))).round().astype(int))
    with path.open("rb") as file:
        return all(_block(file, int(number)) == checksums[number] for number in every)


def _blocks(path: Path) -> int:
    return -(-path.stat().st_size // BLOCK)


def _block(file: BinaryIO, number: int) -> int:
    file.seek(number * BLOCK)
    checksum, left = 0, BLOCK
    while left and (piece := file.read(min(left, 2**20))):
        checksum, left = zlib.crc32(piece, checksum), left - len(piece)
    return checksum


def _write(
    dataset: Dataset, path: Path, row: NDArray[Any], compute: Compute, progress: Progress, engine: Engine | None
) -> list[BadImage]:
    samples = dataset.samples
    written = _new_map(path, row.dtype, (len(samples), *row.shape))
    bad: dict[int, str] = {}
    done = 0
    for start, (rows, failures) in _computed(dataset.plugin, samples, row, compute, engine):
        written[start : start + len(rows)] = rows
        bad |= {start + offset: reason for offset, reason in failures}
        done += len(rows)
        progress(done, len(samples))
    written.flush()
    return [BadImage(samples[place].id, bad[place]) for place in sorted(bad)]


def _new_map(path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> Any:
    """Takes the disk space of the whole file first: writing to a map on a full disk would kill the process."""
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    with path.open("r+b") as file:
        take_space(file, path.stat().st_size)
    return rows


@dataclass(frozen=True)
class _Chunks(Work[tuple[Sample, ...], _Computed]):
    """Computes the rows of a chunk of samples; one is as good as another for keeping a process."""

    plugin: ChosenPlugin = field(compare=False)
    row: NDArray[Any] = field(compare=False)
    compute: Compute = field(compare=False)

    def name(self, task: tuple[Sample, ...]) -> str:
        return f"'{task[0].id}' to '{task[-1].id}'"

    def open(self) -> Callable[[tuple[Sample, ...]], _Computed]:
        return lambda chunk: _compute_chunk(self.plugin, chunk, self.row, self.compute)


def _computed(
    plugin: ChosenPlugin,
    samples: tuple[Sample, ...],
    row: NDArray[Any],
    compute: Compute,
    engine: Engine | None,
) -> Iterator[tuple[int, _Computed]]:
    """Rows chunk by chunk, each with the place of its first; in processes where it pays, and never more chunks in
    memory than there are processes to fill."""
    chunks = [samples[start : start + CHUNK] for start in range(0, len(samples), CHUNK)]
    if engine is not None:
        starts = {chunk[0].id: CHUNK * number for number, chunk in enumerate(chunks)}
        for chunk, computed in engine.each(_Chunks(plugin, row, compute), chunks):
            yield starts[chunk[0].id], computed
        return
    jobs = min(cpu_count(), len(chunks))
    if len(chunks) < 4 or jobs < 2:
        for number, chunk in enumerate(chunks):
            yield CHUNK * number, _compute_chunk(plugin, chunk, row, compute)
        return
    work = partial(_compute_chunk, plugin, row=row, compute=compute)
    try:
        for number, computed in enumerate(in_workers(work, chunks, jobs, HUNG)):
            yield CHUNK * number, computed
    except WorkerHangsError as error:
        stuck = chunks[error.number]
        raise WorkError(
            f"a process that decodes pictures hangs: nothing came for {HUNG:.0f} s, from '{stuck[0].id}' to "
            f"'{stuck[-1].id}'. Nothing was kept of this cache; see whether these can be read, and run again."
        ) from error
    except WorkerLostError as error:
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
