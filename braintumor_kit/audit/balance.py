"""What differs between splits: classes, sizes, file formats, planes, collections."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import chi2_contingency

from braintumor_kit.audit.subject import Subject, file_kind

NOTABLE = 0.1
"""Cramer's V from which a difference between splits is worth a word (Cohen's "small" for two columns)."""

SMALLEST = 0.01
"""What a smaller share of the pictures has is not told apart."""

OTHER = "other"

ASYMMETRIC = 0.75
"""Heads that resemble their mirror image less are seen from the side. On figshare's slices, whose planes nobody
recorded, the correlation has two humps that part about here."""


def form(subject: Subject) -> list[str]:
    """File format, size, depth and colour of each picture in words, such as "jpg 512 x 512 8-bit grey"."""
    words = []
    for sample, record in zip(subject.samples, subject.records, strict=True):
        kind = file_kind(sample.id)
        colour = "grey" if record["channels"] == 1 or record["coloured"] < 1e-3 else "colour"
        words.append(f"{kind} {record['width']} x {record['height']} {record['bits']}-bit {colour}".strip())
    return words


def planes(subject: Subject) -> list[str]:
    """Each is "from the side" or "symmetric" (axial and coronal), by how much the head resembles its mirror image."""
    return ["from the side" if value < ASYMMETRIC else "symmetric" for value in symmetry(subject.records["thumbnail"])]


def symmetry(thumbnails: NDArray[np.uint8], shifts: int = 6) -> NDArray[np.float64]:
    """Correlation of each thumbnail (N, S, S), made smooth, with its mirror image, at the best shift sideways."""
    best = np.full(len(thumbnails), -1.0)
    for start in range(0, len(thumbnails), 1024):
        block = torch.from_numpy(np.ascontiguousarray(thumbnails[start : start + 1024]))[:, None].float()
        small = torch.nn.functional.avg_pool2d(block, 2)[:, 0]
        for shift in range(-shifts, shifts + 1):
            moved = torch.roll(small.flip(2), shift, dims=2)
            value = _correlation(small, moved).numpy()
            part = slice(start, start + len(block))
            best[part] = np.maximum(best[part], value)
    return best


def _correlation(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    one, other = (picture - picture.mean(dim=(1, 2), keepdim=True) for picture in (first, second))
    return (one * other).sum((1, 2)) / (one.norm(dim=(1, 2)) * other.norm(dim=(1, 2)) + 1e-6)


def imbalance(subject: Subject, collections: Sequence[str]) -> list[dict[str, Any]]:
    """Each property with its counts by split and how much it depends on the split (Cramer's V, 0 not at all).

    Args:
        collections: the proposed collection of each sample.
    """
    factors = {
        "class": [sample.label for sample in subject.samples],
        "size and format": common(form(subject)),
        "plane": planes(subject),
        "collection": list(collections),
    }
    return [_row(name, values, subject) for name, values in factors.items()]


def _row(name: str, values: Sequence[str], subject: Subject) -> dict[str, Any]:
    parts = subject.parts
    counts = Counter(zip(values, subject.split, strict=True))
    commonest = [value for value, _ in Counter(values).most_common(12)]
    table = {value: {part: counts[value, part] for part in parts} for value in commonest}
    strength = cramers_v(np.array([[counts[value, part] for part in parts] for value in sorted(set(values))]))
    return {"property": name, "cramers_v": strength, "notable": strength >= NOTABLE, "counts": table}


def common(names: list[str]) -> list[str]:
    """The names, the rare ones among them made one."""
    counts = Counter(names)
    return [name if counts[name] >= SMALLEST * len(names) else OTHER for name in names]


def cramers_v(table: NDArray[np.int64]) -> float:
    """Cramer's V of a table of counts, corrected for bias, so that chance gives properties of many values no more than
    others (Bergsma 2013, doi 10.1016/j.jkss.2012.10.002); 0 where either property has one value only."""
    table = table[table.sum(axis=1) > 0]
    table = table[:, table.sum(axis=0) > 0] if table.size else table
    if min(table.shape, default=0) < 2 or table.sum() < 2:
        return 0.0
    more = table.sum() - 1
    squared = chi2_contingency(table, correction=False).statistic / table.sum()
    rows, columns = (size - (size - 1) ** 2 / more for size in table.shape)
    corrected = max(0.0, squared - (table.shape[0] - 1) * (table.shape[1] - 1) / more)
    room = min(rows, columns) - 1
    return float((corrected / room) ** 0.5) if room > 0 else 0.0
