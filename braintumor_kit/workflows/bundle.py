"""`btkit doctor --bundle`: what a bug report needs, in one archive, without pictures, patients or places."""

import csv
import io
import json
import zipfile
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from braintumor_kit.contracts import InputError
from braintumor_kit.faults import ARGUMENTS, recent_faults
from braintumor_kit.files import TEMPORARY, read_csv, read_json, whole
from braintumor_kit.runs import Run, fold_runs
from braintumor_kit.scrub import Scrubber, absolute_paths, command_words
from braintumor_kit.workflows.explanation_folder import file_name

LINES = 2000
"""Of a log at most so many, the last."""

OF_RECORD = (
    "format", "status", "seed", "started", "ended", "code", "packages", "recipe_name", "device", "precision", "plugins",
    "recipe_digest", "classes", "samples", "groups", "data_digest", "split_digest", "split_digests", "leaks",
    "backbone_weights", "explain_layer", "parameters", "selected_on", "reported_on", "folds", "best_epoch",
    "batch_size", "reason", "resumed", "results", "repeats", "argv",
)  # fmt: skip
"""What of `record.json` is taken; what is not named here stays at home."""

MANY = ("maps", "overlays", "batches")
"""Folders whose files are named after samples: only how many there are is told."""


def write_bundle(path: Path, report: Mapping[str, Any], run: Run | None) -> list[str]:
    """Writes the archive.

    Args:
        report: what `btkit doctor` found.
        run: whose record, settings, history, figures and logs are taken along; None takes none.

    Returns:
        What the archive holds, by name.

    Raises:
        InputError: where `path` exists.
        WorkError: where it cannot be written.
    """
    if path.exists():
        raise InputError(f"'{path}' exists already; name another file with --out.")
    runs = [] if run is None else [run, *_folds(run)]
    paths = [place for one in runs for place in absolute_paths([_kept(one, "record"), _kept(one, "resolved")])]
    scrubber = Scrubber({name for one in runs for name in _names(one)}, paths, None if run is None else run.folder)
    parts = {"doctor.json": _json(scrubber.value(dict(report)))}
    for number, fault in enumerate(recent_faults(), start=1):
        parts[f"fault-{number}.txt"] = _read(partial(_fault, fault, scrubber), scrubber)
    for one in runs:
        inside = "" if one is run else f"{one.folder.name}/"
        parts |= {f"{inside}{name}": text for name, text in _of_run(one, scrubber)}
    with whole(path) as beside, zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in parts.items():
            archive.writestr(name, text.encode("utf-8", "backslashreplace"))
    return list(parts)


def _folds(run: Run) -> list[Run]:
    try:
        return [fold for fold in fold_runs(run) if fold.folder.is_dir()]
    except InputError:  # its record is damaged
        return []


def _kept(run: Run, name: str) -> Mapping[str, Any]:
    """`record.json` or `resolved.json`; nothing where it is damaged or missing."""
    try:
        return read_json(run.folder / f"{name}.json")
    except InputError:
        return {}


def _names(run: Run) -> Iterator[str]:
    """Ids of all samples and groups of a run, those that could not be read too, and what their files are called."""
    try:
        rows = read_csv(run.folder / "split.csv")
    except (OSError, ValueError, csv.Error):
        rows = []
    yield from (group for row in rows if (group := row.get("group")))
    bad = _kept(run, "record").get("bad_images")
    for id in (*(row.get("id") for row in rows), *(item["id"] for item in bad or ())):
        if id:
            yield from (id, Path(id).name, Path(id).stem, file_name(id))


def _of_run(run: Run, scrubber: Scrubber) -> Iterator[tuple[str, str]]:
    """Names and texts of what is taken of a run."""
    folder = run.folder
    makers: dict[str, Callable[[], str]] = {
        "record.json": lambda: _json(_record(read_json(folder / "record.json"), scrubber)),
        "resolved.json": lambda: _json(scrubber.value(read_json(folder / "resolved.json"))),
        "history.csv": lambda: scrubber.text((folder / "history.csv").read_text(encoding="utf-8")),
        "metrics.json": lambda: _json(_numbers(read_json(folder / "metrics.json"))),
        "log.txt": lambda: _tail(folder / "log.txt", scrubber),
        "log.jsonl": lambda: _tail_of_objects(folder / "log.jsonl", scrubber),
    }
    yield from ((name, _read(make, scrubber)) for name, make in makers.items() if (folder / name).is_file())
    yield "files.txt", _files(run, scrubber)


def _read(make: Callable[[], str], scrubber: Scrubber) -> str:
    """What could not be read is told in its place: that, too, is what a report needs."""
    try:
        return make()
    except (InputError, OSError, ValueError) as error:
        return f"cannot be read: {scrubber.text(str(error))}\n"


def _record(record: Mapping[str, Any], scrubber: Scrubber) -> dict[str, Any]:
    kept = scrubber.value({key: record[key] for key in OF_RECORD if key in record})
    kept |= {"argv": _words(record.get("argv")), "bad_images": len(record.get("bad_images") or ())}
    for resumed, said in zip(kept.get("resumed") or (), record.get("resumed") or (), strict=True):
        resumed["argv"] = _words(said.get("argv"))
    return kept


def _words(arguments: Any) -> list[str]:
    return (
        command_words(arguments) if isinstance(arguments, list) and all(isinstance(a, str) for a in arguments) else []
    )


def _numbers(value: Any) -> Any:
    """A JSON value without its texts."""
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items() if not isinstance(item, str)}
    return [_numbers(item) for item in value if not isinstance(item, str)] if isinstance(value, list) else value


def _fault(path: Path, scrubber: Scrubber) -> str:
    with path.open(encoding="utf-8", errors="backslashreplace") as file:
        return "".join(_line_of_fault(line, scrubber) for line in deque(file, LINES))


def _line_of_fault(line: str, scrubber: Scrubber) -> str:
    if not line.startswith(ARGUMENTS):
        return scrubber.text(line)
    try:
        words = _words(json.loads(line.removeprefix(ARGUMENTS)))
    except ValueError:
        words = []
    return f"{ARGUMENTS}{json.dumps(words)}\n"


def _tail(path: Path, scrubber: Scrubber) -> str:
    with path.open(encoding="utf-8", errors="backslashreplace") as file:
        return "".join(scrubber.text(line) for line in deque(file, LINES))


def _tail_of_objects(path: Path, scrubber: Scrubber) -> str:
    """The same of a log of JSON objects, whose texts may be escaped; a torn line is left out."""
    lines = []
    with path.open(encoding="utf-8", errors="backslashreplace") as file:
        for line in deque(file, LINES):
            try:
                lines.append(json.dumps(scrubber.value(json.loads(line)), ensure_ascii=False))
            except ValueError:
                lines.append('{"message": "(torn)"}')
    return "".join(f"{line}\n" for line in lines)


def _files(run: Run, scrubber: Scrubber) -> str:
    """Every file with its size in bytes; of those named after samples, how many there are."""
    lines, many = io.StringIO(), Counter[str]()
    for path in sorted(run.folder.rglob("*")):
        inside = path.relative_to(run.folder)
        if not path.is_file() or (inside.parts[0].startswith("fold-") and len(inside.parts) > 1):
            continue
        if path.parent.name in MANY:
            many[str(inside.parent)] += 1
        else:
            torn = " (torn)" if path.name.startswith(TEMPORARY) else ""
            lines.write(f"{path.stat().st_size:>12} {scrubber.text(f'RUN/{inside}')}{torn}\n")
    for folder, count in sorted(many.items()):
        lines.write(f"{count:>12} files in {scrubber.text(f'RUN/{folder}')}\n")
    return lines.getvalue()


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
