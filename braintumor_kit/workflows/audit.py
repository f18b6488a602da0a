"""`btkit audit`: everything that is wrong with a data set and its split, found and written down."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from braintumor_kit.audit.balance import imbalance
from braintumor_kit.audit.collections import described, propose
from braintumor_kit.audit.leaks import copies_within, cross_split, divided_groups, label_conflicts, pairs, set_members
from braintumor_kit.audit.probes import neighbour_across, shortcut_probes
from braintumor_kit.audit.standing import standing
from braintumor_kit.audit.strangers import strangers
from braintumor_kit.audit.subject import Recovered, Subject
from braintumor_kit.data.dataset import Dataset, read_dataset
from braintumor_kit.data.joining import joined
from braintumor_kit.engines.engine import Engine
from braintumor_kit.files import make_folder, write_csv, write_json
from braintumor_kit.locks import alone, inside
from braintumor_kit.progress import Reporter
from braintumor_kit.recipe.load import DataRecipe
from braintumor_kit.report.audit import write_audit_page
from braintumor_kit.runs import Run, table_of
from braintumor_kit.workflows.open_data import copies_among, recover, recovers, splits_of, surveyed

PAIRS = 60
"""Pairs of copies that are shown."""


@dataclass(frozen=True)
class Audit:
    """A finished audit.

    Attributes:
        subject: what was looked at.
        findings: the content of `audit.json`.
        collections: the proposed collection of each sample.
    """

    subject: Subject
    findings: dict[str, Any]
    collections: list[str]


@dataclass(frozen=True)
class _Told:
    """What a run tells of its samples, by id, and the digest of the data that it saw."""

    name: str
    split: Mapping[str, str]
    predicted: Mapping[str, str]
    digest: str | None

    @classmethod
    def by(cls, run: Run) -> "_Told":
        split = {row["id"]: row["split"] for row in table_of(run, "split.csv")}
        predicted = {row["id"]: row["predicted"] for row in table_of(run, "predictions.csv", ("id", "predicted"))}
        return cls(run.folder.name, split, predicted, run.record.get("data_digest"))


def audit(
    recipe: DataRecipe, run: Run | None, reporter: Reporter, as_it_comes: bool = False, engine: Engine | None = None
) -> Audit:
    """Looks at a data set and at its split.

    Args:
        run: whose split is looked at instead of the recipe's, and whose accuracy is taken apart.
        as_it_comes: with method = "source", no validation part is taken from the source's training part.
        engine: that looks at the pictures; None is the cores of this machine.

    Raises:
        InputError: where the data set cannot be listed or divided as declared.
    """
    told = _Told.by(run) if run else None  # before any work: an unfinished run has not told anything
    with reporter.bar("reading the data set") as progress:
        dataset = read_dataset(recipe.source, "skip", progress)
    dataset, records = surveyed(dataset, recipe.tables.pixels, "skip", reporter, engine)
    known, recovered = _recovered(recipe, dataset, records, reporter)
    copies = copies_among(dataset, records, reporter)
    divided = known if recovers(recipe) else dataset  # as a run would have it: with the patients that it knows
    if told and told.digest != divided.digest:
        reporter.say("the data set has changed since the run: what it holds now is audited")
    split = (
        tuple(told.split.get(sample.id) for sample in divided.samples)
        if told
        else _split(recipe, divided, records, reporter, as_it_comes)
    )
    subject = Subject(known.samples, known.classes, split, records, copies, recovered)
    collections = propose(subject)
    reporter.say("asking the shortcut probes")
    return Audit(subject, _findings(subject, known, told, collections), collections)


def _recovered(
    recipe: DataRecipe, dataset: Dataset, records: Any, reporter: Reporter
) -> tuple[Dataset, Recovered | None]:
    """Patients are looked for where the recipe asks for it, and where a source knows none."""
    if not recovers(recipe) and any(sample.group is not None for sample in dataset.samples):
        return dataset, None
    with_patients, recovered = recover(dataset, records, recipe.tables.source, reporter)
    found = (recovered.matches.place >= 0).any()
    return (with_patients, recovered) if recovers(recipe) or found else (dataset, None)


def _split(
    recipe: DataRecipe, dataset: Dataset, records: Any, reporter: Reporter, as_it_comes: bool
) -> tuple[str | None, ...]:
    """As the recipe declares it; of a cross-validation the first fold; undivided where the source is."""
    own = tuple(sample.split for sample in dataset.samples)
    if recipe.tables.split.method == "source" and (as_it_comes or not any(own)):
        return own
    allowing = recipe.tables.split.model_copy(update={"mixed_patients": "allow"})
    tables = recipe.tables.model_copy(update={"split": allowing})
    pictures = joined(dataset.fingerprints, [bytes(seen) for seen in records["seen"]])
    return splits_of(replace(recipe, tables=tables), dataset, pictures, reporter)[0]


def _findings(subject: Subject, dataset: Dataset, told: "_Told | None", collections: Sequence[str]) -> dict[str, Any]:
    members = set_members(subject.copies)
    probes = shortcut_probes(subject)
    findings: dict[str, Any] = {
        "images": len(dataset.samples) + len(dataset.bad),
        "classes": list(subject.classes),
        "unreadable": [{"id": bad.id, "reason": bad.reason} for bad in dataset.bad],
        "foreign": strangers(subject),
        "identical_groups": sum(len(places) > 1 for places in members.values()),
        "near_duplicate_pairs": len(subject.copies.first),
        "different_pictures": int(subject.copies.components().max(initial=-1)) + 1,
        "label_conflicts": label_conflicts(subject),
        "within_split": copies_within(subject),
        "cross_split": cross_split(subject),
        "divided_groups": divided_groups(subject),
        "patients": _patients(subject),
        "imbalance": imbalance(subject, collections) if len(subject.parts) > 1 else [],
        "collections": described(subject, list(collections)),
        "shortcut_probes": probes,
        "nearest_neighbour_across_split": neighbour_across(subject),
    }
    if told is not None:
        findings["run"] = {"folder": told.name, **(standing(subject, told.predicted) or {})}
    return findings


def _patients(subject: Subject) -> dict[str, Any]:
    """How many are known, and what the index of patients found."""
    groups = {sample.group for sample in subject.samples if sample.group is not None}
    known: dict[str, Any] = {
        "groups": len(groups),
        "slices_without": sum(sample.group is None for sample in subject.samples),
        "recovered": None,
    }
    if subject.recovered is not None:
        place = subject.recovered.matches.place
        by_class = {
            name: {
                "matched": int(((place >= 0) & (subject.labels == number)).sum()),
                "unmatched": int(((place < 0) & (subject.labels == number)).sum()),
            }
            for number, name in enumerate(subject.classes)
        }
        mirrored = int(((place >= 0) & (subject.recovered.matches.turn != 0)).sum())
        known["recovered"] = {
            "index": subject.recovered.index.title,
            "by_class": by_class,
            "mirrored_or_turned": mirrored,
        }
    return known


def write_audit(done: Audit, folder: Path) -> None:
    """Writes `audit.json`, `collections.csv` and `audit.html`. One process at a time: none leaves files of two beside
    each other.

    Raises:
        InputError: where another process writes there for longer than half a minute.
        WorkError: where the folder cannot be written.
    """
    with alone(inside(make_folder(folder)), folder, wait=30.0):
        _write_audit(done, folder)


def _write_audit(done: Audit, folder: Path) -> None:
    write_json(folder / "audit.json", done.findings)
    rows = zip(done.subject.samples, done.collections, done.subject.split, strict=True)
    write_csv(
        folder / "collections.csv",
        ("id", "label", "group", "split", "collection"),
        ((sample.id, sample.label, sample.group, part, name) for sample, name, part in rows),
    )
    shown = pairs(done.subject, PAIRS)
    write_audit_page(folder / "audit.html", done.findings, shown, _pictures(done, shown))


def _pictures(done: Audit, shown_pairs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Thumbnails by id, uint8 (64, 64)."""
    place = {sample.id: number for number, sample in enumerate(done.subject.samples)}
    shown = [id for pair in shown_pairs for id in pair["ids"]]
    shown += [item["id"] for item in done.findings["foreign"][:PAIRS]]
    shown += [id for item in done.findings["label_conflicts"][:PAIRS] for id in item["ids"]]
    return {id: done.subject.records["thumbnail"][place[id]] for id in shown if id in place}
