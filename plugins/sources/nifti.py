"""NIfTI volumes in class folders, or with a table of classes; tumour masks as volumes beside them."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import nibabel
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from braintumor_kit.contracts import ImageError, InputError
from braintumor_kit.contracts.classes import canonical_class
from braintumor_kit.contracts.pictures import is_junk, printable
from braintumor_kit.contracts.sources import Sample, Source
from braintumor_kit.contracts.volumes.labels import Label, classes_of, read_labels
from braintumor_kit.contracts.volumes.nifti import NiftiVolume, is_nifti
from braintumor_kit.contracts.volumes.slices import SliceOptions
from braintumor_kit.contracts.volumes.volume import file_digest


class NiftiOptions(SliceOptions):
    root: Path = Field(description="Folder with the volumes (.nii, .nii.gz), in folders of any depth.")
    labels: Path | None = Field(
        None,
        description="CSV with the columns name and label (and split): the name of a file, with or without its ending, "
        "or of a folder. Without it the first folder below root is the class, or the split and the second the class.",
    )
    plane: Literal["axial", "coronal", "sagittal"] = Field("axial", description="The plane that is cut.")
    ending: str = Field(
        "", description='How names of volumes end before .nii, such as "-t1c"; others are no scans. All by default.'
    )
    mask_ending: str | None = Field(
        None, description='What stands in its place in the name of the mask, such as "-seg". None: there are no masks.'
    )
    empty: str = Field(
        "keep",
        description='Slices that a mask leaves empty: "keep" their volume\'s class, "drop" them, or the class that '
        "they are of.",
    )
    patient: Literal["volume", "folder"] = Field(
        "volume", description="Whether each volume is a patient, or each folder that holds volumes."
    )


@dataclass(frozen=True, eq=False)
class _Scan:
    """A volume with its mask."""

    path: PurePosixPath
    volume: NiftiVolume
    mask: NiftiVolume | None


class Nifti(Source[NiftiOptions]):
    """NIfTI volumes, turned to the body's axes and cut into slices as radiologists see them.

    A sample's id is its file's path from the root and the slice's number, `case.nii.gz#12`: axial slices count from
    below, coronal ones from the front, sagittal ones from the left.
    """

    api_version = 1
    Options = NiftiOptions

    @classmethod
    def example(cls, folder: Path, variant: int = 0) -> NiftiOptions:
        """Two classes of a volume each, the first with a mask."""
        for number, name in enumerate(("glioma", "notumor")):
            (folder / name).mkdir()
            values = (np.arange(8 * 10 * 3, dtype=np.int16).reshape(8, 10, 3) * 7 + number) % 251
            values[-1, -1, 0] += variant
            nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), folder / name / "a.nii.gz")
        nibabel.save(
            nibabel.Nifti1Image((values > 100).astype(np.uint8), np.eye(4)), folder / "glioma" / "a_seg.nii.gz"
        )
        return NiftiOptions(root=folder, mask_ending="_seg")

    @cached_property
    def _listing(self) -> "_Listing":
        return _Listing(self.options)

    @property
    def classes(self) -> tuple[str, ...]:
        return self._listing.classes

    def samples(self) -> Iterator[Sample]:
        yield from self._listing.samples

    def image(self, sample: Sample) -> NDArray[Any]:
        scan, place = self._listing.slices[sample.id]
        return scan.volume.picture(place)

    def mask(self, sample: Sample) -> NDArray[np.bool_] | None:
        scan, place = self._listing.slices[sample.id]
        return None if scan.mask is None else scan.mask.marked(place)

    def fingerprint(self, sample: Sample) -> bytes:
        """SHA-256 of the bytes of the file, of its mask's, and of the slice's number."""
        scan, place = self._listing.slices[sample.id]
        digests = [file_digest(volume.content) for volume in (scan.volume, scan.mask) if volume is not None]
        return hashlib.sha256(b"".join([*digests, f"#{place}".encode()])).digest()

    def unreadable(self) -> Mapping[str, str]:
        return self._listing.unreadable

    def notes(self) -> Mapping[str, int]:
        return self._listing.ignored


class _Listing:
    """What the folder holds: from the headers alone, and from the masks where these decide on classes."""

    def __init__(self, options: NiftiOptions) -> None:
        self._options = options
        self.ignored: Counter[str] = Counter()
        self.unreadable: dict[str, str] = {}
        self.slices: dict[str, tuple[_Scan, int]] = {}
        labels = read_labels(options.labels)
        found: list[tuple[Sample, _Scan, int]] = []
        for scan in self._scans():
            label = labels.of(scan.path, [scan.path.name.removesuffix(".gz").removesuffix(".nii")])
            if label is None:
                self.ignored["volumes without a class ignored"] += 1
                continue
            try:
                found += [(sample, scan, place) for place, sample in self._samples(scan, label)]
            except ImageError as error:
                self.unreadable[str(scan.path)] = str(error)
        self.classes = classes_of((sample.label for sample, _, _ in found), options.classes, options.root)
        kept = [(sample, scan, place) for sample, scan, place in found if sample.label in self.classes]
        self.ignored["slices of other classes ignored"] += len(found) - len(kept)
        self.ignored = +self.ignored
        self.samples = [sample for sample, _, _ in kept]
        self.slices = {sample.id: (scan, place) for sample, scan, place in kept}

    def _scans(self) -> Iterator[_Scan]:
        root, options = self._options.root, self._options
        if not root.is_dir():
            raise InputError(f"there is no folder {printable(root)}")
        for above, folders, files in os.walk(root):
            folders[:] = sorted(name for name in folders if not is_junk(name))
            names = [name for name in sorted(files) if is_nifti(name) and not is_junk(name)]
            volumes = {_stem(name): name for name in names}
            self.ignored["volumes of one name, packed and not, ignored"] += len(names) - len(volumes)
            self.ignored["files of other kinds ignored"] += sum(not is_nifti(name) for name in files)
            for stem, name in volumes.items():
                mask = options.mask_ending
                if (mask and stem.endswith(mask)) or not stem.endswith(options.ending):
                    self.ignored["volumes that are no scans or masks ignored"] += not (mask and stem.endswith(mask))
                    continue
                beside = volumes.get(stem.removesuffix(options.ending) + mask) if mask else None
                inside = PurePosixPath(Path(above).relative_to(root).as_posix())
                mask_of = None if beside is None else self._volume(inside / beside)
                yield _Scan(inside / name, self._volume(inside / name), mask_of)

    def _volume(self, path: PurePosixPath) -> NiftiVolume:
        return NiftiVolume(str(path), self._options.root / path, self._options.plane)

    def _samples(self, scan: _Scan, label: Label) -> Iterator[tuple[int, Sample]]:
        empty, volume = self._options.empty, scan.volume
        if scan.mask is not None and scan.mask.grid != volume.grid:
            raise ImageError(
                f"{printable(scan.mask.name)} has {' x '.join(map(str, scan.mask.grid))} voxels where its scan "
                f"{printable(volume.name)} has {' x '.join(map(str, volume.grid))}"
            )
        if scan.mask is not None and not volume.lies_like(scan.mask):
            raise ImageError(
                f"{printable(scan.mask.name)} lies elsewhere in the body than its scan {printable(volume.name)}: their "
                "affines differ by more than half a voxel"
            )
        group = scan.path.parent.as_posix() if self._options.patient == "folder" else str(scan.path)
        for place in self._options.chosen(len(volume)):
            name = label.name
            if scan.mask is not None and empty != "keep" and not scan.mask.marked(place).any():
                if empty == "drop":
                    self.ignored["slices with an empty mask dropped"] += 1
                    continue
                name = canonical_class(empty)
            yield place, Sample(volume.names[place], name, label.split, group, has_mask=scan.mask is not None)


def _stem(name: str) -> str:
    return name[: -len(".nii.gz")] if name.lower().endswith(".nii.gz") else name[: -len(".nii")]
