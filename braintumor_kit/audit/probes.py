"""How far shortcuts alone go: small classifiers that see no head, or nothing of what a radiologist looks at.

Each is judged by cross-validation in which copies and slices of one patient stay together, so that what it reaches it
owes to the shortcut. What a network reaches beyond that may be owed to the tumour; what it reaches below is no merit.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neighbors import KNeighborsClassifier

from braintumor_kit.audit.subject import Subject, file_kind

FOLDS = 5
MOST = 10_000
"""Larger sets are judged on so many of their samples."""


def shortcut_probes(subject: Subject, seed: int = 0) -> dict[str, Any] | None:
    """Accuracy of each probe, and of always guessing the commonest class.

    Returns:
        None where the set is too small: a class of fewer unrelated pictures than folds.
    """
    places = _some(np.arange(len(subject.samples)), seed)
    labels, groups = subject.labels[places], subject.components[places]
    if min(len(np.unique(groups[labels == label])) for label in np.unique(labels)) < FOLDS:
        return None
    folds = list(StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(labels, labels, groups))
    records = subject.records[places]
    kinds = [file_kind(subject.samples[place].id) for place in places]
    views = {
        "border": records["border"],
        "background": records["background"],
        "intensity_statistics": records["intensity"],
        "file_format": _file_format(records, kinds),
    }
    figures: dict[str, Any] = {name: _accuracy(_boosted(seed), view, labels, folds) for name, view in views.items()}
    small = records["small"].reshape(len(places), -1)
    figures["nearest_neighbour_thumbnail"] = _accuracy(KNeighborsClassifier(1), small, labels, folds)
    figures["chance"] = float(np.bincount(labels).max() / len(labels))
    return figures


def neighbour_across(subject: Subject) -> float | None:
    """Accuracy on test (else validation) of the nearest training thumbnail: leaks and shortcuts together.

    Returns:
        None where the set is not divided.
    """
    part = subject.reported
    if part is None or "train" not in subject.parts:
        return None
    train, test = (_some(np.flatnonzero(subject.within(name))) for name in ("train", part))
    small = subject.records["small"].reshape(len(subject.samples), -1).astype(np.float32)
    nearest = KNeighborsClassifier(1).fit(small[train], subject.labels[train])
    return float(nearest.score(small[test], subject.labels[test]))


def _some(places: NDArray[np.int64], seed: int = 0) -> NDArray[np.int64]:
    """All of them, or as many as are looked at, drawn at random."""
    return np.sort(np.random.default_rng(seed).permutation(places)[:MOST])


def _boosted(seed: int) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(max_iter=60, max_leaf_nodes=15, learning_rate=0.2, random_state=seed)


def _accuracy(classifier: Any, view: NDArray[Any], labels: NDArray[np.int64], folds: list[Any]) -> float:
    """Share of the samples that the folds trained without them get right."""
    values = view.astype(np.float32)
    right = sum(
        int((classifier.fit(values[train], labels[train]).predict(values[test]) == labels[test]).sum())
        for train, test in folds
    )
    return right / len(labels)


def _file_format(records: NDArray[Any], kinds: list[str]) -> NDArray[np.float64]:
    """Width, height, their ratio, depth, channels and the kind of file, (N, 6)."""
    _, kind = np.unique(kinds, return_inverse=True)
    width, height = records["width"].astype(float), records["height"].astype(float)
    return np.column_stack([width, height, width / height, records["bits"], records["channels"], kind])
