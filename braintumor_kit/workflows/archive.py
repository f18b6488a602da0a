"""`btkit predict --out`: an archive answered shard by shard, in Parquet, each picture once, whatever is lost."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.archive.listing import SHARD, Entry, read_shard, require_parquet, write_listing
from braintumor_kit.archive.reading import AT_ONCE, read_entries
from braintumor_kit.contracts import ImageError, InputError
from braintumor_kit.data.pixels import prepare
from braintumor_kit.engines.engine import Engine, Work
from braintumor_kit.files import make_folder, read_json, remove_torn, whole, write_json
from braintumor_kit.interrupts import interrupted
from braintumor_kit.locks import alone, inside
from braintumor_kit.notice import NOTICE
from braintumor_kit.progress import Reporter, log_to
from braintumor_kit.runs import package_versions
from braintumor_kit.workflows.answering import Answerer, Answering
from braintumor_kit.workflows.archive_maps import MapMaker, MapsWanted
from braintumor_kit.workflows.exported import answering_of_argument
from braintumor_kit.workflows.predict import Prediction, predictions

LISTING, SETTINGS = "listing.parquet", "predict.json"
PREDICTIONS, FAILED, MAPS = "predictions", "failed", "maps"
"""Folders of parts, one a shard; of failures only where there are any, of maps where they are wanted."""


@dataclass(frozen=True)
class Answered:
    """A finished archive.

    Attributes:
        place: its folder.
        count, failed: pictures in all, and those that could not be read.
        examples: of these, the first, with the reason.
    """

    place: Path
    count: int
    failed: int
    examples: Sequence[tuple[str, str]]


def predict_archive(
    place: Path, trained: Answering, model: str | None, runs: Path, arguments: Sequence[str], precision: str,
    engine: Engine, reporter: Reporter, maps: MapsWanted | None = None,
) -> Answered:  # fmt: skip
    """Answers every picture that the arguments name; what was answered before with the same settings is kept.

    Args:
        place: folder for the answer.
        model, runs: RUN as the command line names it, for other processes.
        arguments: see `archive.listing.write_listing`.
        maps: that are made as well.

    Raises:
        InputError: where the folder holds answers of another model or about other pictures, or nothing is to be read.
    """
    require_parquet()
    _check_place(place)
    maker = MapMaker(trained, maps) if maps else None
    with _gone_if_not_begun(place), alone(inside(place), place), log_to(place):
        remove_torn(place)
        listing = place / f".{LISTING}" if (place / LISTING).exists() else place / LISTING
        listed = write_listing(listing, arguments)
        settings = _settings(trained, precision, listed.count, listed.digest) | (maker.settings() if maker else {})
        _hold_to(place, settings, listing)
        work = Predicting(place.resolve(), model, runs, precision, trained.digest, maps, trained)
        _answer_shards(work, listed.count, engine, reporter)
        remove_torn(place)  # of processes that were lost
        failed, examples = _failures(place)
        write_json(place / SETTINGS, {**settings, "status": "finished", "failed": failed})
        reporter.say(f"answered {listed.count - failed} of {listed.count} pictures")
    return Answered(place, listed.count, failed, examples)


def _answer_shards(work: "Predicting", count: int, engine: Engine, reporter: Reporter) -> None:
    """Answers the shards that are not answered yet."""
    sizes = {number: min(SHARD, count - number * SHARD) for number in range(-(-count // SHARD))}
    todo = [number for number in sizes if not part(work.place, PREDICTIONS, number).is_file()]
    done = count - sum(sizes[number] for number in todo)
    reporter.say(f"{count} pictures into {work.place}; {done} were answered before")
    try:
        with reporter.bar("answering") as progress:
            for number, _ in engine.each(work, todo):
                done += sizes[number]
                progress(done, count)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) or interrupted():
            reporter.say("interrupted; the same command goes on where it stopped")
        raise


@contextmanager
def _gone_if_not_begun(place: Path) -> Iterator[None]:
    """Leaves no folder behind where the input is at fault before anything is answered."""
    make_folder(place)
    try:
        yield
    except InputError:
        if not (place / SETTINGS).exists():
            shutil.rmtree(place, ignore_errors=True)
        raise


def part(place: Path, kind: str, number: int) -> Path:
    """The file of one shard."""
    return place / kind / f"part-{number:06d}.parquet"


def _check_place(place: Path) -> None:
    if place.exists() and not (place.is_dir() and ((place / SETTINGS).is_file() or not _visible(place))):
        raise InputError(f"'{place}' exists and holds no predictions; name another folder with --out.")


def _visible(place: Path) -> bool:
    begun = {LISTING, PREDICTIONS, FAILED, MAPS, "log.txt", "log.jsonl"}
    return any(not path.name.startswith(".") and path.name not in begun for path in place.iterdir())


def _settings(trained: Answering, precision: str, count: int, digest: str) -> dict[str, Any]:
    return {
        "format": 1,
        "model": trained.digest,
        "classes": list(trained.classes),
        "pixels": trained.pixels.model_dump(mode="json"),
        "precision": precision,
        "shard": SHARD,
        "pictures": count,
        "listing": digest,
        "packages": package_versions(),
        "notice": NOTICE,
    }


def _hold_to(place: Path, settings: Mapping[str, Any], listing: Path) -> None:
    """Takes up what was begun with the same settings, or begins.

    Raises:
        InputError: where the folder holds something else.
    """
    if (place / SETTINGS).is_file():
        before = {key: value for key, value in read_json(place / SETTINGS).items() if key not in ("status", "failed")}
        now = json.loads(json.dumps(settings))
        other = [key for key in {**now, **before} if before.get(key) != now.get(key)]
        if listing.name != LISTING:
            listing.unlink()
        if other:
            raise InputError(
                f"'{place}' holds predictions that were made otherwise ({', '.join(other)}): name another folder with "
                "--out, or remove it."
            )
        return
    for kind in (PREDICTIONS, FAILED, *([MAPS] if "methods" in settings else [])):
        make_folder(place / kind, parents=False)
    if listing.name != LISTING:
        listing.replace(place / LISTING)
    write_json(place / SETTINGS, {**settings, "status": "running"})


def _failures(place: Path) -> tuple[int, list[tuple[str, str]]]:
    from pyarrow import parquet

    count, examples = 0, list[tuple[str, str]]()
    for path in sorted((place / FAILED).glob("part-*.parquet")):
        table = parquet.read_table(path)
        count += table.num_rows
        if len(examples) < 5:
            examples += list(zip(table["id"].to_pylist(), table["reason"].to_pylist(), strict=True))
    return count, examples[:5]


@dataclass(frozen=True)
class Predicting(Work[int, int]):
    """Answers shards by number; gives how many pictures of one could not be read.

    Attributes:
        place: of the answer, which every machine has to see.
        model, runs: RUN as the command line names it.
        precision: of convolutions.
        digest: of the model's file.
        maps: that are made as well.
        trained: the model, in this process; it is not sent to others.
    """

    place: Path
    model: str | None
    runs: Path
    precision: str
    digest: str
    maps: MapsWanted | None = None
    trained: Answering | None = field(default=None, compare=False, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return Predicting, (self.place, self.model, self.runs, self.precision, self.digest, self.maps)

    def name(self, task: int) -> str:
        return f"pictures {task * SHARD + 1} and on"

    def open(self) -> Callable[[int], int]:
        trained = self.trained or answering_of_argument(self.model, self.runs)
        if trained.digest != self.digest:
            raise InputError("the model is not the same on every machine of the cluster.")
        if not (self.place / LISTING).is_file():
            raise InputError(f"'{self.place}' is not to be seen from every machine of the cluster under the same path.")
        answerer, pool = trained.answerer(self.precision), ThreadPoolExecutor(AT_ONCE)
        maker = MapMaker(trained, self.maps) if self.maps else None
        return lambda number: _answer_shard(self.place, number, trained, answerer, pool, maker)


def _answer_shard(
    place: Path, number: int, trained: Answering, answerer: Answerer, pool: ThreadPoolExecutor, maker: MapMaker | None
) -> int:
    """Writes the parts of a shard, the predictions last: they are what says that it is done."""
    target = part(place, PREDICTIONS, number)
    entries = read_shard(place / LISTING, number)
    if target.is_file():
        return 0  # by a process that was lost before it could say so
    given: list[tuple[Entry, Prediction]] = []
    failed: list[tuple[Entry, str]] = []
    seen: list[NDArray[np.uint8]] = []
    for start in range(0, len(entries), answerer.batch_size):
        some = entries[start : start + answerer.batch_size]
        good, pixels = [], []
        for entry, picture in zip(some, read_entries(some, pool), strict=True):
            try:
                if isinstance(picture, str):
                    raise ImageError(picture)
                pixels.append(prepare(picture, trained.pixels))
                good.append(entry)
            except ImageError as error:
                failed.append((entry, str(error)))
        if good:
            said = predictions([entry.id for entry in good], *answerer(np.stack(pixels)))
            given += zip(good, said, strict=True)
            seen += pixels if maker else []
    if maker and given:
        ids, answers = [entry.id for entry, _ in given], np.array([said.probabilities for _, said in given])
        maker.write(part(place, MAPS, number), ids, np.stack(seen), answers)
    _write_failed(part(place, FAILED, number), failed)
    _write_predictions(target, given, trained)
    return len(failed)


def _write_failed(path: Path, failed: Sequence[tuple[Entry, str]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    if not failed:
        path.unlink(missing_ok=True)
        return
    columns = {
        "id": [entry.id for entry, _ in failed],
        "place": [entry.place for entry, _ in failed],
        "reason": [reason for _, reason in failed],
    }
    with whole(path) as beside:
        parquet.write_table(pa.table(columns), beside)


def _write_predictions(path: Path, given: Sequence[tuple[Entry, Prediction]], trained: Answering) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    classes = trained.classes
    rows = [said for _, said in given]
    columns: dict[str, Any] = {
        "id": pa.array([entry.id for entry, _ in given], pa.string()),
        "place": pa.array([entry.place for entry, _ in given], pa.string()),
        "predicted": pa.array([classes[int(np.argmax(said.probabilities))] for said in rows], pa.string()),
    }
    for at, name in enumerate(classes):
        columns[f"p_{name}"] = pa.array([said.probabilities[at] for said in rows], pa.float32())
    for at, name in enumerate(classes):
        columns[f"c_{name}"] = pa.array([said.calibrated and said.calibrated[at] for said in rows], pa.float64())
    columns["out_of_distribution"] = pa.array([said.out_of_distribution for said in rows], pa.bool_())
    columns["ood_score"] = pa.array([said.ood_score for said in rows], pa.float64())
    columns["abstain"] = pa.array([said.abstain for said in rows], pa.bool_())
    table = pa.table(columns).replace_schema_metadata({"btkit.model": trained.digest, "btkit.notice": NOTICE})
    with whole(path) as beside:
        parquet.write_table(table, beside)
