"""`btkit data info`: what a data set holds, counted."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from braintumor_kit.contracts import SPLITS, ImageError, Sample, Source
from braintumor_kit.data.dataset import BadImage, Dataset, read_dataset
from braintumor_kit.progress import Reporter
from braintumor_kit.recipe.load import ChosenPlugin

MANY = 12
"""Sizes beyond the commonest so many are counted together."""


@dataclass(frozen=True)
class Description:
    """Counts of a data set.

    Attributes:
        source: name of the source plugin.
        dataset: the samples.
        sizes: pictures by "width x height", commonest first.
        modes: pictures by "8-bit grey", "16-bit grey", "8-bit RGB" or "16-bit RGB".
        bad: pictures that cannot be read.
        notes: what the source passed over.
    """

    source: str
    dataset: Dataset
    sizes: Mapping[str, int]
    modes: Mapping[str, int]
    bad: tuple[BadImage, ...]
    notes: Mapping[str, int]

    def totals(self) -> dict[str, int]:
        """How much there is of everything."""
        samples = self.dataset.samples
        return {
            "slices": len(samples),
            "classes": len(self.dataset.classes),
            "groups (patients)": len({sample.group for sample in samples if sample.group is not None}),
            "slices without a group": sum(sample.group is None for sample in samples),
            "slices with a tumour mask": sum(sample.has_mask for sample in samples),
            "unreadable": len(self.bad),
        }

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows of the table of classes by split, with groups."""
        parts = [part for part in SPLITS if any(sample.split == part for sample in self.dataset.samples)]
        columns: list[str | None] = [*parts] or [None]
        header = ["class", *(part or "undivided" for part in columns), "all", "groups"]
        rows = [self._row(name, columns) for name in self.dataset.classes]
        return header, [*rows, self._row(None, columns)]

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON value."""
        counts = Counter((sample.split or "undivided", sample.label) for sample in self.dataset.samples)
        splits: dict[str, dict[str, int]] = {}
        for (part, label), count in sorted(counts.items()):
            splits.setdefault(part, {})[label] = count
        return {
            "source": self.source,
            **{name.replace(" (patients)", "").replace(" ", "_"): count for name, count in self.totals().items()},
            "class_names": list(self.dataset.classes),
            "splits": splits,
            "sizes": dict(self.sizes),
            "modes": dict(self.modes),
            "notes": dict(self.notes),
            "unreadable_images": [{"id": bad.id, "reason": bad.reason} for bad in self.bad],
            "digest": self.dataset.digest,
        }

    def _row(self, label: str | None, parts: list[str | None]) -> list[str]:
        chosen = [sample for sample in self.dataset.samples if label is None or sample.label == label]
        groups = {sample.group for sample in chosen if sample.group is not None}
        counts = [sum(sample.split == part for sample in chosen) for part in parts]
        return [
            label or "all",
            *map(str, counts),
            str(len(chosen)),
            str(len(groups)) if groups else "not known",
        ]


def describe(plugin: ChosenPlugin, reporter: Reporter) -> Description:
    """Lists a source and reads every picture once.

    Raises:
        InputError: where the source yields nothing that can be used.
    """
    with reporter.bar("reading the data set") as progress:
        dataset = read_dataset(plugin, "skip", progress)
    source: Source = plugin.make()
    sizes: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    bad = list(dataset.bad)
    with reporter.bar("looking at every picture") as progress:
        for number, sample in enumerate(dataset.samples, start=1):
            with plugin.info.blamed(f"reading '{sample.id}'"):
                _count(source, sample, sizes, modes, bad)
            progress(number, len(dataset.samples))
    return Description(
        plugin.info.name, dataset, _commonest(sizes), dict(modes.most_common()), tuple(bad), dataset.notes
    )


def _count(source: Source, sample: Sample, sizes: Counter[str], modes: Counter[str], bad: list[BadImage]) -> None:
    try:
        picture = source.image(sample)
    except ImageError as error:
        bad.append(BadImage(sample.id, str(error)))
        return
    sizes[f"{picture.shape[1]} x {picture.shape[0]}"] += 1
    modes[f"{8 * picture.dtype.itemsize}-bit {'grey' if picture.ndim == 2 else 'RGB'}"] += 1


def _commonest(sizes: Counter[str]) -> dict[str, int]:
    listed = sizes.most_common()
    shown = dict(listed[:MANY])
    rest = sum(count for _, count in listed[MANY:])
    return {**shown, f"{len(listed) - MANY} other sizes": rest} if rest else shown
