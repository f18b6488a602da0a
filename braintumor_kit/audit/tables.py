"""The findings of an audit as tables to read, on the command line and on the page."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

SHOWN = 12
"""Rows of a list that are shown; `audit.json` has all."""

FEW_CLEAN = 30
"""Of fewer clean slices nobody should quote an accuracy."""


@dataclass(frozen=True)
class Table:
    """A table: title, header, rows, which columns are numbers, and remarks below it."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()


def tables(findings: Mapping[str, Any]) -> Iterator[Table]:
    """What an audit found, the gravest first; tables without rows are left out."""
    for table in (
        _overview(findings),
        _across(findings),
        _standing(findings),
        _within(findings),
        _conflicts(findings),
        _recovered(findings),
        _listed("Pictures that cannot be read", findings["unreadable"]),
        _listed("Pictures of another kind", findings["foreign"]),
        _probes(findings),
        _imbalance(findings),
        _collections(findings),
    ):
        if table.rows:
            yield table


def _overview(findings: Mapping[str, Any]) -> Table:
    patients = findings["patients"]
    rows = (
        ("pictures", findings["images"]),
        ("of which cannot be read", len(findings["unreadable"])),
        ("of which are of another kind", len(findings["foreign"])),
        ("sets of identical pictures", findings["identical_groups"]),
        ("pairs of near-duplicates", findings["near_duplicate_pairs"]),
        ("pictures left when copies are counted once", findings["different_pictures"]),
        ("labels that contradict each other", len(findings["label_conflicts"])),
        ("patients known", patients["groups"]),
        ("slices without a known patient", patients["slices_without"]),
        ("patients in several splits", len(findings["divided_groups"])),
    )
    return Table("Data set", ("", "count"), tuple((name, str(count)) for name, count in rows), frozenset({1}))


def _across(findings: Mapping[str, Any]) -> Table:
    rows = tuple(
        (
            row["test"],
            row["train"],
            *(_share(row[name], row["n_test"]) for name in ("identical", "near_duplicate", "same_group", "clean")),
            str(row["n_test"]),
        )
        for row in findings["cross_split"]
    )
    header = ("slices of", "that have in", "an identical picture", "a copy", "the same patient", "none of these", "of")
    notes: tuple[str, ...] = ()
    if rows and findings["patients"]["slices_without"]:
        notes = ("Slices without a known patient may share one all the same: clean is an upper bound.",)
    return Table("Across splits", header, rows, frozenset(range(2, 7)), notes)


def _standing(findings: Mapping[str, Any]) -> Table:
    run = findings.get("run") or {}
    rows = []
    for name, words in (("all", "all"), ("leaked", "with a partner in an earlier split"), ("clean", "without")):
        if figures := run.get(name):
            interval = figures["accuracy_ci"]
            words_of_interval = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
            rows.append((words, f"{figures['accuracy']:.3f}{words_of_interval}", str(figures["n"])))
    notes = []
    if rows and (gain := run.get("balanced_accuracy_on_leaks")) is not None:
        notes.append(f"Balanced accuracy is {gain:+.3f} with the leaked slices over without them.")
    clean = run.get("clean")
    if rows and clean:
        listed = ", ".join(f"{name} {count}" for name, count in clean["by_class"].items())
        few = "" if clean["n"] >= FEW_CLEAN else ": too few for their accuracy to say much"
        notes.append(f"Those without, by class: {listed}{few}.")
    if rows and not clean:
        notes.append("No slice is clean: what the run would do on new patients cannot be told from this split.")
    return Table(
        f"Accuracy of the run on {run.get('split', 'its split')}", ("slices", "accuracy", "n"), tuple(rows),
        frozenset({2}), tuple(notes),
    )  # fmt: skip


def _within(findings: Mapping[str, Any]) -> Table:
    rows = tuple(
        (row["split"] or "all", _share(row["identical"], row["n"]), _share(row["near_duplicate"], row["n"]),
         str(row["n"]))
        for row in findings["within_split"]
        if row["near_duplicate"]
    )  # fmt: skip
    header = ("slices of", "with an identical picture in it", "with a copy in it", "of")
    return Table("Copies within a split", header, rows, frozenset({1, 2, 3}))


def _conflicts(findings: Mapping[str, Any]) -> Table:
    kinds = {"identical": "identical", "near_duplicate": "copies", "patient_index": "the index says"}
    found = findings["label_conflicts"]
    rows = tuple(
        (kinds[item["kind"]], _some(item["ids"]), " / ".join(dict.fromkeys(item["labels"]))) for item in found[:SHOWN]
    )
    return Table("Labels that contradict each other", ("how", "pictures", "labels"), rows, notes=_more(found))


def _recovered(findings: Mapping[str, Any]) -> Table:
    recovered = findings["patients"]["recovered"]
    if recovered is None:
        return Table("", (), ())
    rows = tuple(
        (name, _share(counts["matched"], counts["matched"] + counts["unmatched"]), str(counts["unmatched"]))
        for name, counts in recovered["by_class"].items()
    )
    notes = (f"Index: {recovered['index']}.", f"Mirrored or turned: {recovered['mirrored_or_turned']}.")
    return Table("Found in the index of patients", ("class", "found", "not found"), rows, frozenset({1, 2}), notes)


def _listed(title: str, found: list[dict[str, str]]) -> Table:
    rows = tuple((item["id"], item["reason"]) for item in found[:SHOWN])
    return Table(title, ("picture", "why"), rows, notes=_more(found))


def _probes(findings: Mapping[str, Any]) -> Table:
    probes = findings["shortcut_probes"]
    if probes is None:
        return Table("", (), ())
    words = {
        "border": "a border of 3.6 % of the side",
        "background": "what lies outside of the head",
        "intensity_statistics": "ten statistics of grey levels",
        "file_format": "size and kind of the file",
        "nearest_neighbour_thumbnail": "the nearest thumbnail of 16 x 16",
        "chance": "nothing: always the commonest class",
    }
    rows = [(words[name], f"{value:.3f}") for name, value in probes.items()]
    notes = ["Cross-validated; copies and slices of one patient stay together."]
    if (across := findings["nearest_neighbour_across_split"]) is not None:
        notes.append(f"The nearest training thumbnail gets {across:.3f} of the reported split right.")
    return Table("What shortcuts alone reach", ("seeing only", "accuracy"), tuple(rows), frozenset({1}), tuple(notes))


def _imbalance(findings: Mapping[str, Any]) -> Table:
    rows = []
    for item in findings["imbalance"]:
        verdict = "differs" if item["notable"] else "alike"
        counts = "; ".join(f"{value}: {_by_split(parts)}" for value, parts in list(item["counts"].items())[:4])
        rows.append((item["property"], f"{item['cramers_v']:.3f}", verdict, counts))
    header = ("property", "Cramer's V", "", "counts by split")
    return Table("What differs between splits", header, tuple(rows), frozenset({1}))


def _collections(findings: Mapping[str, Any]) -> Table:
    proposed = findings["collections"]["proposed"]
    if len(proposed) < 2:
        return Table("", (), ())
    rows = tuple(
        (row["name"], str(row["n"]), ", ".join(f"{name} {count}" for name, count in row["by_class"].items() if count))
        for row in proposed[:SHOWN]
    )
    strength = findings["collections"]["cramers_v_with_class"]
    notes = (
        f"How much they tell of the class: Cramer's V {strength:.2f} of 1.",
        "collections.csv names the collection of each picture.",
    )
    return Table("Collections that the pictures seem to come from", ("pictures", "n", "classes"), rows,
                 frozenset({1}), notes)  # fmt: skip


def _share(count: int, total: int) -> str:
    return f"{count} ({count / total:.1%})" if total else str(count)


def _by_split(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{part} {count}" for part, count in counts.items())


def _some(ids: list[str], shown: int = 3) -> str:
    return ", ".join(ids[:shown]) + (f" and {len(ids) - shown} more" if len(ids) > shown else "")


def _more(found: list[Any]) -> tuple[str, ...]:
    return (f"{len(found) - SHOWN} more are in audit.json.",) if len(found) > SHOWN else ()
