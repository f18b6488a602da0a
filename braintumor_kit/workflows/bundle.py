"""`btkit doctor --bundle`: what a bug report needs, in one archive, without pictures, patients or places."""

import csv
import io
import json
import re
import zipfile
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from braintumor_kit.errors import BtkitError, InputError
from braintumor_kit.faults import ARGUMENTS, recent_faults
from braintumor_kit.files import TEMPORARY, read_csv, read_json, whole
from braintumor_kit.runs import Run
from braintumor_kit.scrub import Scrubber, command_words

LINES = 2000
"""Of a log at most so many, the last."""

PLAIN = (
    "format", "seed", "started", "ended", "code", "packages", "device", "recipe_digest", "samples", "groups",
    "data_digest", "split_digest", "split_digests", "parameters", "folds", "best_epoch", "batch_size",
)  # fmt: skip
"""Of `record.json`: versions, times, numbers, digests and the names of devices, taken as they stand."""

WORDS = (
    "status", "recipe_name", "precision", "plugins", "classes", "backbone_weights", "explain_layer", "selected_on",
    "reported_on",
)  # fmt: skip
"""Of `record.json`: single words. What is named neither here nor above stays at home, but for what `_record` makes of
it."""

MANY = ("maps", "overlays", "batches")
"""Folders whose files are named after samples: only how many there are is told."""

TIME = re.compile(r"[\d:TZ.+-]{0,40}")


def write_bundle(path: Path, examine: Callable[[], Mapping[str, Any]], run: Run | None) -> list[str]:
    """Writes the archive.

    Args:
        examine: finds what `btkit doctor` shows.
        run: whose record, settings, history, metrics and log are taken along; None takes none.

    Returns:
        What the archive holds, by name.

    Raises:
        InputError: where `path` exists, or its folder does not.
        WorkError: where it cannot be written.
    """
    _check_place(path)  # before the seconds that looking about takes
    folders = [] if run is None else [run.folder, *sorted(run.folder.glob("fold-*/"))]
    scrubber = Scrubber({name for folder in folders for name in _names(folder)})
    parts = {"doctor.json": _read(lambda: _json(_report(examine(), scrubber)), scrubber)}
    for number, fault in enumerate(recent_faults(), start=1):
        parts[f"fault-{number}.txt"] = _read(partial(_fault, fault, scrubber), scrubber)
    for folder in folders:
        inside = "" if folder is folders[0] else f"{folder.name}/"
        parts |= {f"{inside}{name}": text for name, text in _of_run(folder, scrubber)}
    with whole(path) as beside, zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in parts.items():
            archive.writestr(name, text.encode("utf-8", "backslashreplace"))
    return list(parts)


def _check_place(path: Path) -> None:
    """Finds early why an archive cannot be there."""
    try:
        if path.exists():
            raise InputError(f"'{path}' exists already; name another file with --out.")
        if not path.parent.is_dir():
            raise InputError(f"--out '{path}': the folder '{path.parent}' does not exist.")
    except OSError as error:
        raise InputError(f"--out '{path}': {error.strerror}.") from error


def _report(report: Mapping[str, Any], scrubber: Scrubber) -> dict[str, Any]:
    """What `btkit doctor` found: versions and devices as they stand, and words."""
    plain = ("btkit", "packages", "device", "backends", "extras")
    return {key: value if key in plain else scrubber.value(value) for key, value in report.items()}


def _names(folder: Path) -> Iterator[str]:
    """Ids of all samples and groups of a run, those that could not be read too; nothing of files that are damaged."""
    try:
        rows = read_csv(folder / "split.csv")
    except (OSError, ValueError, csv.Error):
        rows = []
    for row in rows:
        yield from (value for key in ("id", "group") if isinstance(value := row.get(key), str))
    try:
        bad = read_json(folder / "record.json").get("bad_images")
    except InputError:
        return
    for item in bad if isinstance(bad, list) else ():
        if isinstance(item, dict) and isinstance(id := item.get("id"), str):
            yield id


def _of_run(folder: Path, scrubber: Scrubber) -> Iterator[tuple[str, str]]:
    """Names and texts of what is taken of a run, or of a fold."""
    makers: dict[str, Callable[[], str]] = {
        "record.json": lambda: _json(_record(read_json(folder / "record.json"), scrubber)),
        "resolved.json": lambda: _json(scrubber.value(read_json(folder / "resolved.json"))),
        "history.csv": lambda: _history(folder / "history.csv", scrubber),
        "metrics.json": lambda: _json(_numbers(scrubber.value(read_json(folder / "metrics.json")))),
        "log.jsonl": lambda: _tail(folder / "log.jsonl", scrubber),
    }
    yield from ((name, _read(make, scrubber)) for name, make in makers.items() if (folder / name).is_file())
    yield "files.txt", _read(lambda: _files(folder, scrubber), scrubber)


def _read(make: Callable[[], str], scrubber: Scrubber) -> str:
    """What could not be read is told in its place: that, too, is what a report needs."""
    try:
        return make()
    except (BtkitError, OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError,
            ImportError) as error:  # fmt: skip
        return f"cannot be read: {type(error).__name__}: {scrubber.text(str(error))}\n"


def _record(record: Mapping[str, Any], scrubber: Scrubber) -> dict[str, Any]:
    kept = {key: record[key] for key in PLAIN if key in record}
    kept |= scrubber.value({key: record[key] for key in WORDS if key in record})
    if "results" in record:
        kept["results"] = _numbers(scrubber.value(record["results"]))
    if record.get("leaks"):
        kept["leaks"] = _numbers(scrubber.value(record["leaks"]))
    if record.get("reason"):
        kept["reason"] = scrubber.text(str(record["reason"]))
    if record.get("resumed"):
        kept["resumed"] = [
            {"at": _time(item.get("at")), "changes": [scrubber.text(str(change)) for change in item.get("changes", [])]}
            for item in record["resumed"]
        ]
    bad = record.get("bad_images")
    return kept | {"argv": command_words([str(word) for word in record.get("argv", [])]), "bad_images": len(bad or [])}


def _time(value: Any) -> str:
    return value if isinstance(value, str) and TIME.fullmatch(value) else ""


def _numbers(value: Any) -> Any:
    """A JSON value without its texts."""
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items() if not isinstance(item, str)}
    return [_numbers(item) for item in value if not isinstance(item, str)] if isinstance(value, list) else value


def _history(path: Path, scrubber: Scrubber) -> str:
    """The table, whose cells are numbers."""
    rows = read_csv(path)
    lines = [",".join(scrubber.word(str(name)) for name in row) for row in rows[:1]]
    return "\n".join([*lines, *(",".join(f"{float(cell):g}" for cell in row.values()) for row in rows), ""])


def _fault(path: Path, scrubber: Scrubber) -> str:
    text = path.read_text(encoding="utf-8", errors="backslashreplace")
    head, _, traceback = text.partition("\n\n")
    lines = [
        f"{ARGUMENTS}{json.dumps(_words(line), ensure_ascii=False)}"
        if line.startswith(ARGUMENTS)
        else scrubber.text(line)
        for line in head.splitlines()
    ]
    return "\n".join([*lines, "", scrubber.traceback(traceback), ""])


def _words(line: str) -> list[str]:
    try:
        return command_words([str(word) for word in json.loads(line.removeprefix(ARGUMENTS))])
    except ValueError:
        return []


def _tail(path: Path, scrubber: Scrubber) -> str:
    """The end of a log of JSON objects, without what is no number, time or message; a torn line is left out."""
    lines = []
    with path.open(encoding="utf-8", errors="backslashreplace") as file:
        for line in deque(file, LINES):
            try:
                lines.append(json.dumps(_event(json.loads(line), scrubber), ensure_ascii=False))
            except (ValueError, RecursionError, AttributeError):
                lines.append('{"message": "(torn)"}')
    return "".join(f"{line}\n" for line in lines)


def _event(event: Mapping[str, Any], scrubber: Scrubber) -> dict[str, Any]:
    kept = {"time": _time(event.get("time"))}
    for key, value in event.items():
        if key == "exc_info":
            kept[key] = scrubber.traceback(str(value))
        elif key == "message":
            kept[key] = scrubber.text(str(value))
        elif key != "time":
            kept[scrubber.word(key)] = scrubber.value(value)
    return kept


def _files(folder: Path, scrubber: Scrubber) -> str:
    """Every file with its size in bytes; of those named after samples, how many there are."""
    lines, many = io.StringIO(), Counter[str]()
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        try:
            size = path.stat().st_size
        except OSError:  # gone meanwhile
            continue
        if path.is_dir() or re.fullmatch(r"fold-\d+", inside.parts[0]):
            continue
        if path.parent.name in MANY:
            many[str(inside.parent)] += 1
        else:
            torn = " (torn)" if path.name.startswith(TEMPORARY) else ""
            lines.write(f"{size:>12} {scrubber.text(str(inside))}{torn}\n")
    for name, count in sorted(many.items()):
        lines.write(f"{count:>12} files in {scrubber.text(name)}\n")
    return lines.getvalue()


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
