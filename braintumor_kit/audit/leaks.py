"""Copies and patients on both sides of a split, copies within one, and labels that contradict each other."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.audit.subject import Subject
from braintumor_kit.contracts import SPLITS
from braintumor_kit.data.held_out import HELD_OUT
from braintumor_kit.matching.copies import Copies
from braintumor_kit.matching.fingerprint import TURN_NAMES


@dataclass(frozen=True)
class Partners:
    """Which samples have a partner among some others, (N,) each.

    Attributes:
        identical: the same pixels.
        near_duplicate: a copy, the same pixels included.
        same_group: the same patient.
    """

    identical: NDArray[np.bool_]
    near_duplicate: NDArray[np.bool_]
    same_group: NDArray[np.bool_]

    @property
    def any(self) -> NDArray[np.bool_]:
        return self.near_duplicate | self.same_group


def partners(subject: Subject, among: NDArray[np.bool_]) -> Partners:
    """Which samples have a partner among those of a mask (N,); a sample is no partner of itself."""
    copies, groups = subject.copies, [sample.group for sample in subject.samples]
    per_set = np.bincount(copies.identical[among], minlength=copies.sets)
    others = per_set[copies.identical] - among
    near = (copies.graph @ (per_set > 0).astype(float))[copies.identical] > 0
    per_group = Counter(group for group, counts in zip(groups, among, strict=True) if counts and group is not None)
    same = [group is not None and per_group[group] - int(own) > 0 for group, own in zip(groups, among, strict=True)]
    return Partners(others > 0, (others > 0) | near, np.array(same, dtype=bool))


def cross_split(subject: Subject) -> list[dict[str, Any]]:
    """For each pair of splits, how many samples of the later have a partner in the earlier: `audit.json`'s
    `cross_split`."""
    rows = []
    for first, second in subject.sides:
        found, here = partners(subject, subject.within(first)), subject.within(second)
        rows.append(
            {
                "train": first,
                "test": second,
                "n_test": int(here.sum()),
                "identical": int((found.identical & here).sum()),
                "near_duplicate": int((found.near_duplicate & here).sum()),
                "same_group": int((found.same_group & here).sum()),
                "clean": int((~found.any & here).sum()),
            }
        )
    return rows


def leaked(subject: Subject, part: str) -> NDArray[np.bool_]:
    """Samples of a split that have a partner in training or, for the test split, in validation, (N,)."""
    earlier = np.zeros(len(subject.samples), dtype=bool)
    for name in SPLITS[: SPLITS.index(part)]:
        earlier |= subject.within(name)
    return subject.within(part) & partners(subject, earlier).any


def copies_within(subject: Subject) -> list[dict[str, Any]]:
    """For each split, how many of its samples have a copy in the same split."""
    rows = []
    parts: list[str | None] = [*subject.parts] or [None]
    for part in parts:
        here = subject.within(part) if part else np.ones(len(subject.samples), dtype=bool)
        found = partners(subject, here)
        counts = {"identical": found.identical, "near_duplicate": found.near_duplicate}
        rows.append({"split": part, "n": int(here.sum())} | {
            name: int((mask & here).sum()) for name, mask in counts.items()
        })  # fmt: skip
    return rows


def divided_groups(subject: Subject) -> list[dict[str, Any]]:
    """Patients whose slices stand in more than one split, with how many in each."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for sample, part in zip(subject.samples, subject.split, strict=True):
        if sample.group is not None and part is not None:
            counts[sample.group][part] += 1
    return [
        {"group": group, "slices": {part: by_part[part] for part in (*SPLITS, HELD_OUT) if by_part[part]}}
        for group, by_part in sorted(counts.items())
        if any(by_part[first] and by_part[second] for first, second in subject.sides)
    ]


def label_conflicts(subject: Subject) -> list[dict[str, Any]]:
    """Copies that carry different labels, identical ones first, and labels that the index of patients contradicts."""
    samples, members = subject.samples, set_members(subject.copies)
    found = []
    for places in members.values():
        if len({samples[place].label for place in places}) > 1:
            found.append(_conflict(subject, places, "identical"))
    copies = subject.copies
    for first, second in zip(copies.first, copies.second, strict=True):
        pair = [members[int(first)][0], members[int(second)][0]]
        if samples[pair[0]].label != samples[pair[1]].label:
            found.append(_conflict(subject, pair, "near_duplicate"))
    return found + _contradicted(subject)


def set_members(copies: Copies) -> dict[int, list[int]]:
    """Places of the pictures of each set of identical ones."""
    members: dict[int, list[int]] = defaultdict(list)
    for place, number in enumerate(copies.identical):
        members[int(number)].append(place)
    return members


def _conflict(subject: Subject, places: list[int], kind: str) -> dict[str, Any]:
    chosen = [subject.samples[place] for place in places]
    return {"ids": [sample.id for sample in chosen], "labels": [sample.label for sample in chosen], "kind": kind}


def _contradicted(subject: Subject) -> list[dict[str, Any]]:
    if subject.recovered is None:
        return []
    index, place = subject.recovered.index, subject.recovered.matches.place
    return [
        {
            "ids": [sample.id, f"index: {index.ids[entry]}"],
            "labels": [sample.label, index.labels[entry]],
            "kind": "patient_index",
        }
        for sample, entry in zip(subject.samples, place, strict=True)
        if entry >= 0 and index.labels[entry] in subject.classes and index.labels[entry] != sample.label
    ]


def pairs(subject: Subject, limit: int) -> list[dict[str, Any]]:
    """Copies worth looking at: across splits before within one, near-duplicates by how they were turned in turn.

    Returns:
        At most `limit` pairs, each with ids, splits, labels, similarity and in words how the first was changed.
    """
    copies, members = subject.copies, set_members(subject.copies)
    found = [
        (_across(subject, members[int(first)], members[int(second)]), float(similarity), TURN_NAMES[turn])
        for first, second, similarity, turn in zip(
            copies.first, copies.second, copies.similarity, copies.turn, strict=True
        )
    ]
    found += [(_across(subject, places, places), 1.0, "identical") for places in members.values() if len(places) > 1]
    by_kind: dict[tuple[bool, str], list[dict[str, Any]]] = defaultdict(list)
    for (one, other), similarity, change in found:
        splits = [subject.split[one], subject.split[other]]
        by_kind[splits[0] == splits[1], change].append(
            {
                "ids": [subject.samples[one].id, subject.samples[other].id],
                "splits": splits,
                "labels": [subject.samples[one].label, subject.samples[other].label],
                "similarity": round(similarity, 4),
                "change": change,
            }
        )
    shown: list[dict[str, Any]] = []
    for same in (False, True):  # a few of each kind, evenly spaced, until enough are shown
        kinds = {change: rows for (inside, change), rows in by_kind.items() if inside == same}
        share = max(1, (limit - len(shown)) // max(1, len(kinds)))
        for _, rows in sorted(kinds.items()):
            shown += rows[:: -(-len(rows) // share)][:share]
    return shown[:limit]


def _across(subject: Subject, first: list[int], second: list[int]) -> tuple[int, int]:
    """A member of each set: of different splits where there are such, and never one picture twice."""
    choices = [(one, other) for one in first[:20] for other in second[:20] if one != other]
    return next((pair for pair in choices if subject.split[pair[0]] != subject.split[pair[1]]), choices[0])
