"""Pictures that are not of the data set's kind: empty, coloured among grey ones, inverted, or far from all others."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import RobustScaler

from braintumor_kit.audit.subject import Subject
from braintumor_kit.matching.fingerprint import fingerprints

EMPTY = 12
"""Grey levels from the 1st to the 99th percentile below which there is nothing to see."""

COLOURED = 0.05
"""Share of coloured pixels from which a picture is a coloured one."""

BRIGHT_BORDER = 128
"""Grey level of the border from which the air around a head would be bright."""

ORDER = 6
CONTENT = 8.0
"""How much what is seen counts beside the statistics, each of which lies within -5..5."""

NEIGHBOUR = 3
FAR = 3.6
"""A picture is far when its third neighbour, copies not counted, lies so many times as far away as is usual. Measured
on 28 photographs, textures, pages and noise, made grey, among Nickparvar's 7,019 slices: all are far but a retina and
a drawn head; 0.1 % of the slices are too."""

MOST = 10_000
_NEIGHBOURS = 64
_FEWEST = 50
_BLOCK = 1024


def strangers(subject: Subject) -> list[dict[str, Any]]:
    """Pictures of another kind and why they are taken for such, in the order of the samples."""
    reasons: dict[int, str] = {}
    records = subject.records
    empty, coloured, inverted = _empty(records), _coloured(records), _inverted(records)
    for place in range(len(records)):
        if empty[place]:
            reasons[place] = f"empty: {records['contrast'][place]:.0f} grey levels from dark to bright"
        elif coloured[place]:
            reasons[place] = f"coloured among grey pictures: {records['coloured'][place]:.0%} of its pixels"
        elif inverted[place]:
            reasons[place] = "inverted or no scan: bright at the border where the others are dark"
    usual = np.array([place for place in range(len(records)) if place not in reasons])
    if len(usual) >= _FEWEST:
        for place, times in zip(usual, _distances(subject, usual), strict=True):
            if times > FAR:
                reasons[int(place)] = f"unlike the others: {times:.1f} times as far from its neighbours as is usual"
    return [{"id": subject.samples[place].id, "reason": reasons[place]} for place in sorted(reasons)]


def _empty(records: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray(records["contrast"] < EMPTY)


def _coloured(records: NDArray[Any]) -> NDArray[np.bool_]:
    """Where most pictures are coloured, colour is no sign."""
    coloured = records["coloured"] > COLOURED
    return coloured & (coloured.mean() < 0.5)


def _inverted(records: NDArray[Any]) -> NDArray[np.bool_]:
    """The border of the prepared picture is bright nearly all around, and few are so."""
    border = records["border"].astype(np.float32)
    bright = (border > BRIGHT_BORDER).mean(axis=1) > 0.75
    return bright & (bright.mean() < 0.5)


def _distances(subject: Subject, places: NDArray[np.int64]) -> NDArray[np.float64]:
    """How far the third neighbour of each picture lies, over the median of that; copies of it are no neighbours.

    Neighbours are looked for among at most `MOST` of the pictures.
    """
    described = _described(subject.records, places)
    copies = subject.copies.components()[places]
    reference = np.random.default_rng(0).permutation(len(places))[:MOST]
    nearest = NearestNeighbors(n_neighbors=min(_NEIGHBOURS, len(reference))).fit(described[reference])
    distance, neighbour = nearest.kneighbors(described)
    other = copies[reference[neighbour]] != copies[:, None]
    enough = np.cumsum(other, axis=1) >= NEIGHBOUR
    found = np.where(enough.any(axis=1), distance[np.arange(len(places)), enough.argmax(axis=1)], distance[:, -1])
    return np.asarray(found / max(float(np.median(found)), 1e-9))


def _described(records: NDArray[Any], places: NDArray[np.int64]) -> NDArray[np.float32]:
    """Statistics of each picture, robustly scaled, and what is seen in it, (len(places), D)."""
    blocks = [_block(records[places[start : start + _BLOCK]]) for start in range(0, len(places), _BLOCK)]
    scaled = np.clip(RobustScaler().fit_transform(np.concatenate([statistics for statistics, _ in blocks])), -5, 5)
    return np.hstack([scaled, CONTENT * np.concatenate([seen for _, seen in blocks])])


def _block(records: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Of some pictures, statistics and what is seen."""
    thumbnail = records["thumbnail"].astype(np.float32)
    spread = thumbnail.std(axis=(1, 2)) + 1
    edges = [np.abs(np.diff(thumbnail, axis=axis)).mean(axis=(1, 2)) / spread for axis in (1, 2)]
    border = records["border"].astype(np.float32)
    middle = thumbnail[:, 16:48, 16:48].mean(axis=(1, 2))
    columns = (records["intensity"], records["margins"], records["head"], border.mean(axis=1), border.std(axis=1))
    statistics = np.column_stack([*columns, *edges, middle, records["contrast"]]).astype(np.float32)
    return statistics, fingerprints(np.asarray(records["thumbnail"]), ORDER).reshape(len(records), -1)
