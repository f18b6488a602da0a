"""Contract of a data source, API version 1.

A source lists its samples without reading a pixel, and reads one picture at a time when asked. Both may happen in
another process: btkit makes the source anew there from its options.

    class PairsOptions(PluginOptions):
        root: Path = Field(description="Folder that holds healthy/ and tumour/.")

    class Pairs(Source[PairsOptions]):
        "Two folders, healthy and tumour."
        api_version = 1
        Options = PairsOptions
        classes = ("healthy", "tumour")

        def samples(self) -> Iterator[Sample]:
            for path in sorted(self.options.root.glob("*/*.png")):
                yield Sample(id=f"{path.parent.name}/{path.name}", label=path.parent.name)

        def image(self, sample: Sample) -> NDArray[Any]:
            return read_picture(self.options.root / sample.id)

        @classmethod
        def example(cls, folder: Path, variant: int = 0) -> PairsOptions:
            for name in cls.classes:
                (folder / name).mkdir()
                Image.new("L", (32, 24), 100 + variant).save(folder / name / "1.png")
            return PairsOptions(root=folder)
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from braintumor_kit.contracts.plugin import OptionsT, Plugin

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SPLITS = ("train", "validation", "test")
"""The names that `Sample.split` may have, in their usual order."""

PROMISES: Mapping[str, str] = {
    "has_samples": "its example has at least one sample",
    "ids_unique": "no two samples have one id",
    "labels_declared": "classes are two or more, each named once; each sample's label is one of them, and its split "
    "train, validation, test or None",
    "pixels_in_form": "a picture is uint8 or uint16, (H, W) or (H, W, 3), and has pixels",
    "masks_aligned": "a mask is bool, (H, W) like its picture; there is one where the sample says so, and only there",
    "groups_stable": "a group is a text or None, and the same sample has the same one every time",
    "digest_follows_pixels": "`fingerprint` changes when a pixel does, and not when files are written again",
    "iterates_alike": "`samples` gives the same samples in the same order, however often it is asked",
    "broken_file_reported": "a damaged file is an ImageError of its own sample, or stands in `unreadable` under that "
    "id (or its file's, where ids are the file's name, # and a number), or is an InputError that names the file; other "
    "samples can still be read",
    "works_elsewhere": "in another process, made from its options, it has the same samples and can read them",
}
"""What every source promises, of the example that it makes of itself."""

WAIVED_BY: Mapping[str, str] = {"broken_file_reported": "reads_files"}
"""Promises that a property, declared untrue with a reason, waives."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One slice, without its pixels.

    Attributes:
        id: unique within the source, stable from run to run; a relative path or a number, for example.
        label: the class, one of the source's `classes`.
        split: "train", "validation" or "test" where the source comes divided, else None.
        group: the patient, where known, else None. Slices of one group never stand in two splits that btkit makes.
        has_mask: whether `Source.mask` gives a tumour mask.
    """

    id: str
    label: str
    split: str | None = None
    group: str | None = None
    has_mask: bool = False


class Source(Plugin[OptionsT]):
    """A plugin that yields samples."""

    kind: ClassVar[str] = "source"
    current_api_version: ClassVar[int] = 1

    reads_files: ClassVar[bool] = True
    """Whether pictures come from files; untrue of a source that computes them."""

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the network's outputs; each sample's label is one of them.

        A plain class attribute or an instance attribute does as well as a property.
        """

    @abstractmethod
    def samples(self) -> Iterator[Sample]:
        """Yields every sample, always in the same order.

        Raises:
            InputError: where the data cannot be found or its layout is not understood.
        """

    @abstractmethod
    def image(self, sample: Sample) -> NDArray[Any]:
        """Reads one picture.

        Returns:
            uint8 or uint16, (H, W) for grey or (H, W, 3) for RGB. uint8 is taken as it is; uint16 is stretched to
            0..255 by its own range, so a source that knows a display window applies it and returns uint8.

        Raises:
            ImageError: where the picture cannot be read; other samples are unharmed.
        """

    def mask(self, sample: Sample) -> NDArray[np.bool_] | None:
        """The tumour's mask, bool (H, W) on the same grid as `image(sample)`, or None where there is none."""
        return None

    def fingerprint(self, sample: Sample) -> bytes:
        """A digest of the sample's pixels and mask: it changes when any pixel does, and not with file times.

        The default reads the picture and hashes it; sources over files hash the file's bytes, which is faster. The
        plugin's options need not be part of it: btkit adds them.
        """
        digest = hashlib.sha256()
        for array in (self.image(sample), self.mask(sample)):
            if array is not None:
                digest.update(f"{array.dtype}{array.shape}".encode())
                digest.update(array.tobytes())
        return digest.digest()

    def unreadable(self) -> Mapping[str, str]:
        """What `samples` could not even list, such as a file whose label cannot be read: an id and the reason of each;
        of a volume whose slices nobody could count its file's name.

        Asked for after `samples`; reported and counted like pictures that `image` cannot read.
        """
        return {}

    def notes(self) -> Mapping[str, int]:
        """Counts of what `samples` passed over, by a short reason, such as {"system files ignored": 3}."""
        return {}
