"""What the parts of an archive's prediction and explanation cost on one core, for the simulation in `scaling.py`."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from braintumor_kit.archive.listing import SHARD, read_shard, write_listing
from braintumor_kit.archive.reading import read_entry
from braintumor_kit.data.pixels import prepare
from braintumor_kit.engines.choose import engine_of
from braintumor_kit.engines.engine import Work
from braintumor_kit.engines.threads import threads
from braintumor_kit.progress import Reporter
from braintumor_kit.recipe.load import load_explainer, load_source
from braintumor_kit.workflows.archive import PREDICTIONS, Predicting, part
from braintumor_kit.workflows.explain import BATCH, Drawing, Request, batches_of, plan, settings_of
from braintumor_kit.workflows.explain_work import Explaining
from braintumor_kit.workflows.explanation_folder import ExplanationFolder
from braintumor_kit.workflows.exported import answering_of_argument
from braintumor_kit.workflows.named import FilePictures, files_in
from braintumor_kit.workflows.trained import trained_of_argument

EMPTY_TASKS = 400
START = (
    "import os, sys, time\n"
    "began = time.time()\n"
    "from pathlib import Path\n"
    "from braintumor_kit.backend import use_torch_backend\n"
    "use_torch_backend()\n"
    "from braintumor_kit.workflows.exported import answering_of_argument\n"
    "trained = answering_of_argument(sys.argv[1], Path())\n"
    "trained.answerer()\n"
    "pages = int(Path('/proc/self/statm').read_text().split()[1])\n"
    "print(time.time() - began, pages * os.sysconf('SC_PAGE_SIZE'))\n"
)


@dataclass(frozen=True)
class Nothing(Work[int, int]):
    """Tasks that do nothing: what is left is the engine's own share."""

    def open(self) -> Callable[[int], int]:
        return lambda number: number


def measure(run: Path, slices: int) -> dict[str, Any]:
    """The costs of one machine, a core each.

    Returns:
        "stages": seconds a slice by stage; "loads": what `scaling.Load` takes, by kind of work; "start": seconds and
        bytes of a worker; "machine".
    """
    with tempfile.TemporaryDirectory() as folder, threads(1):
        pictures = _pictures(Path(folder) / "pictures", slices)
        size = sum(path.stat().st_size for path in pictures.iterdir()) / slices
        start, memory = _start(run)
        per_task = _per_task()
        answering, variation, written = _predicting(Path(folder), run, pictures)
        explaining, explained_variation, map_bytes = _explaining(Path(folder), run, pictures)
    listing = answering.pop("list")
    finishing = explaining.pop("put the table together")
    common = {"per_task": per_task, "start": start, "read": size}
    return {
        "machine": _machine(),
        "start": {"seconds": start, "bytes": memory},
        "stages": {"list": listing, **answering, **explaining, "put the table together": finishing},
        "loads": {
            "prediction": {
                **common, "per_slice": sum(answering.values()), "variation": variation, "before": listing,
                "after": 0.0, "slices": SHARD, "written": written,
            },
            "explanation": {
                **common, "per_slice": sum(explaining.values()) + answering["read and decode"],
                "variation": explained_variation, "before": listing, "after": finishing, "slices": BATCH,
                "written": map_bytes,
            },
        },
    }  # fmt: skip


def _pictures(folder: Path, count: int) -> Path:
    """Phantom slices as PNG files."""
    folder.mkdir()
    source = load_source("phantom", [f"source.patients={-(-count // 4)}"]).make()
    for number, sample in zip(range(count), source.samples(), strict=False):
        Image.fromarray(source.image(sample)).save(folder / f"{number:06d}.png")
    return folder


def _start(run: Path) -> tuple[float, float]:
    """Seconds until a new process has its model ready, and the memory that it holds then."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", START, str(run)], capture_output=True, text=True, check=True, env=environment
    )
    seconds, memory = map(float, ended.stdout.split())
    return seconds, memory


def _per_task() -> float:
    """Seconds that handing out one task and taking its result costs the process that does so."""
    with engine_of("ray", 1, 0, Reporter()) as engine:
        list(engine.each(Nothing(), range(4)))  # workers come up
        began = time.process_time()
        list(engine.each(Nothing(), range(EMPTY_TASKS)))
        return (time.process_time() - began) / EMPTY_TASKS


def _predicting(folder: Path, run: Path, pictures: Path) -> tuple[dict[str, float], float, float]:
    trained = answering_of_argument(str(run), Path())
    place = folder / "answers"
    (place / PREDICTIONS).mkdir(parents=True)
    (place / "failed").mkdir()
    seconds: dict[str, float] = {}
    with _timed(seconds, "list"):
        listed = write_listing(place / "listing.parquet", [str(pictures)])
    shards = range(-(-listed.count // SHARD))
    entries = [entry for number in shards for entry in read_shard(place / "listing.parquet", number)]
    with _timed(seconds, "read and decode"):
        read = [read_entry(entry) for entry in entries]
    with _timed(seconds, "prepare"):
        prepared = np.stack([prepare(picture, trained.pixels) for picture in read])
    answerer = trained.answerer()
    answerer(prepared[: answerer.batch_size])  # what the first call alone costs
    with _timed(seconds, "predict"):
        for start in range(0, len(prepared), answerer.batch_size):
            answerer(prepared[start : start + answerer.batch_size])
    work = Predicting(place, str(run), Path(), "float32", trained.digest, trained=trained).open()
    tasks = []
    for number in shards:
        began = time.perf_counter()
        work(number)
        tasks.append(time.perf_counter() - began)
    whole = sum(tasks) / listed.count
    per_slice = {name: value / listed.count for name, value in seconds.items()}
    per_slice["write the part"] = max(whole - sum(per_slice.values()) + per_slice["list"], 0.0)
    full = tasks[:-1] or tasks
    written = sum(part(place, PREDICTIONS, number).stat().st_size for number in shards) / listed.count
    return per_slice, float(np.std(full) / np.mean(full)), written


def _explaining(folder: Path, run: Path, pictures: Path) -> tuple[dict[str, float], float, float]:
    trained = trained_of_argument(str(run), Path())
    named = files_in([str(pictures)]).pictures()
    request = Request(trained, load_explainer("gradcam", {}), FilePictures(named, trained.pixels))
    drawing = Drawing()
    planned = plan([request], "auto", drawing.align)
    made = ExplanationFolder.begin(folder / "maps", settings_of(planned, "auto", drawing))
    (made.beside / "overlays").mkdir()
    do = Explaining(made.place, made.beside, "auto", drawing, None, tuple(planned)).open()
    seconds: dict[str, float] = {}
    tasks = []
    batches = list(batches_of([len(named)]))
    do(batches[0])  # what the first call alone costs
    (made.beside / "batches" / f"{batches[0].name}.json").unlink()
    with _timed(seconds, "explain (Grad-CAM) and write maps"):
        for batch in batches:
            began = time.perf_counter()
            do(batch)
            tasks.append(time.perf_counter() - began)
    with _timed(seconds, "draw overlays"):
        for name in made.names():
            do(name)
    size = sum(path.stat().st_size for path in made.beside.rglob("*") if path.is_file()) / len(named)
    with _timed(seconds, "put the table together"):
        made.finish()
    full = tasks[:-1] or tasks
    return (
        {name: value / len(named) for name, value in seconds.items()},
        float(np.std(full) / np.mean(full)),
        size,
    )


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - began


def _machine() -> dict[str, object]:
    from braintumor_kit.model.precision import describe_device

    return describe_device()
