"""What an audit can find wrong, by the names that `btkit audit --fail-on` takes."""

from collections.abc import Mapping
from typing import Any

FAILINGS = {
    "unreadable": "pictures that cannot be read",
    "foreign": "pictures of another kind",
    "duplicate": "copies within the data set, in one split or across",
    "conflict": "labels that contradict each other: of copies, or of a slice and the index of patients",
    "leak": "copies or patients on both sides of the split",
    "imbalance": "a property that differs notably between splits",
    "shortcut": "a probe that sees only a shortcut comes halfway from chance to certainty",
}
"""What `--fail-on` takes, and what it means."""


def failings(findings: Mapping[str, Any]) -> list[str]:
    """Which of `FAILINGS` an audit found."""
    probes = findings["shortcut_probes"] or {"chance": 1.0}
    shortcuts = [probes[name] for name in ("border", "background", "file_format") if name in probes]
    found = {
        "unreadable": bool(findings["unreadable"]),
        "foreign": bool(findings["foreign"]),
        "duplicate": bool(findings["identical_groups"] or findings["near_duplicate_pairs"]),
        "conflict": bool(findings["label_conflicts"]),
        "leak": any(row["clean"] < row["n_test"] for row in findings["cross_split"]),
        "imbalance": any(row["notable"] for row in findings["imbalance"] if row["property"] != "collection"),
        "shortcut": any(value >= (1 + probes["chance"]) / 2 for value in shortcuts),
    }
    return [name for name in FAILINGS if found[name]]
