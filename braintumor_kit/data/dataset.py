"""All samples of a source, checked, with a digest of their content."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.contracts import SPLITS, ImageError, InputError, Sample, Source
from braintumor_kit.recipe.load import ChosenPlugin

Progress = Callable[[int, int], None]
"""Called with (done, total) while long work goes on."""


def quiet(done: int, total: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class BadImage:
    """A sample whose picture cannot be read, and why."""

    id: str
    reason: str


@dataclass(frozen=True)
class Dataset:
    """The samples of a source.

    Attributes:
        plugin: the source with its options; `plugin.make()` reads pictures, here or in another process.
        classes: class names in the order of the network's outputs.
        samples: in the source's order.
        fingerprints: one a sample, a digest of its pixels and mask.
        bad: samples that turned out unreadable; they are not among `samples`.
        notes: counts of what the source passed over.
    """

    plugin: ChosenPlugin
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    fingerprints: tuple[bytes, ...]
    bad: tuple[BadImage, ...]
    notes: Mapping[str, int]

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class number of each sample, (N,)."""
        number = {name: index for index, name in enumerate(self.classes)}
        return np.array([number[sample.label] for sample in self.samples], dtype=np.int64)

    @property
    def digest(self) -> str:
        """SHA-256 over the plugin with its options, classes and every sample: it changes when any pixel, mask, label,
        split or group does, and not with where or when files were stored."""
        digest = hashlib.sha256("\0".join([self.plugin.digest, *self.classes]).encode())
        for sample, fingerprint in zip(self.samples, self.fingerprints, strict=True):
            fields = (sample.id, sample.label, sample.split or "", sample.group or "")
            digest.update("\0".join(fields).encode(errors="surrogateescape") + b"\0" + fingerprint)
        return digest.hexdigest()

    def without(self, bad: Iterable[BadImage]) -> "Dataset":
        """The data set less the given unreadable samples, which it remembers."""
        bad = tuple(bad)
        names = {item.id for item in bad}
        kept = [index for index, sample in enumerate(self.samples) if sample.id not in names]
        return replace(
            self,
            samples=tuple(self.samples[index] for index in kept),
            fingerprints=tuple(self.fingerprints[index] for index in kept),
            bad=self.bad + bad,
        )


def read_dataset(plugin: ChosenPlugin, on_bad_image: str = "error", progress: Progress = quiet) -> Dataset:
    """Lists a source's samples, checks them and fingerprints their content.

    Raises:
        InputError: where the source yields nothing, an id twice, an unknown label or split; or where files cannot be
            read at all and `on_bad_image` is "error".
    """
    source: Source = plugin.make()
    with plugin.info.blamed("listing its samples"):
        samples = tuple(source.samples())
        classes = tuple(source.classes)
        unlisted = [BadImage(id, reason) for id, reason in source.unreadable().items()]
        notes = dict(source.notes())
    if not samples and unlisted:
        raise InputError(_bad_message(unlisted))
    _check(plugin.info.name, classes, samples)
    with plugin.info.blamed("reading its samples"):
        fingerprints, bad = _fingerprints(source, samples, progress)
    return leave_out(Dataset(plugin, classes, samples, fingerprints, (), notes), [*unlisted, *bad], on_bad_image)


def leave_out(dataset: Dataset, bad: Iterable[BadImage], on_bad_image: str) -> Dataset:
    """The data set without unreadable samples.

    Raises:
        InputError: naming them, where `on_bad_image` is "error"; where nothing is left.
    """
    bad = tuple(bad)
    if bad and on_bad_image == "error":
        raise InputError(_bad_message(bad))
    if bad and {item.id for item in bad} >= {sample.id for sample in dataset.samples}:
        raise InputError(f"none of the {len(bad)} pictures can be read; the first: {bad[0].id}: {bad[0].reason}.")
    return dataset.without(bad) if bad else dataset


def _bad_message(bad: Sequence[BadImage], shown: int = 10) -> str:
    count = "1 picture" if len(bad) == 1 else f"{len(bad)} pictures"
    lines = [f"  {item.id}: {item.reason}" for item in bad[:shown]]
    more = [f"  and {len(bad) - shown} more"] if len(bad) > shown else []
    advice = 'Mend or remove them, or leave them out with [source] on_bad_image = "skip".'
    return "\n".join([f"{count} cannot be read:", *lines, *more, advice])


def _check(name: str, classes: tuple[str, ...], samples: tuple[Sample, ...]) -> None:
    if not samples:
        raise InputError(f"source '{name}' yields no samples.")
    if len(classes) < 2:
        raise InputError(f"source '{name}' has one class only ({', '.join(classes)}); a classifier needs two.")
    twice = [id for id, count in Counter(sample.id for sample in samples).items() if count > 1]
    if twice:
        raise InputError(f"source '{name}' yields id '{twice[0]}' more than once.")
    for sample in samples:
        if sample.label not in classes:
            raise InputError(f"sample '{sample.id}' has label '{sample.label}', which is none of {', '.join(classes)}.")
        if sample.split is not None and sample.split not in SPLITS:
            raise InputError(f"sample '{sample.id}' has split '{sample.split}', which is none of {', '.join(SPLITS)}.")


def _fingerprints(
    source: Source, samples: tuple[Sample, ...], progress: Progress
) -> tuple[tuple[bytes, ...], list[BadImage]]:
    fingerprints, bad = [], []
    for number, sample in enumerate(samples, start=1):
        try:
            fingerprints.append(source.fingerprint(sample))
        except ImageError as error:
            fingerprints.append(b"")
            bad.append(BadImage(sample.id, str(error)))
        if number % 100 == 0 or number == len(samples):
            progress(number, len(samples))
    return tuple(fingerprints), bad
