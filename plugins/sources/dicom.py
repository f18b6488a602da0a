"""DICOM series in class folders, or with a table of classes."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from braintumor_kit.contracts import InputError
from braintumor_kit.contracts.pictures import is_junk, printable
from braintumor_kit.contracts.sources import Sample, Source
from braintumor_kit.contracts.volumes.dicom import NO_PICTURE, DicomFile, is_dicom, require_dicom
from braintumor_kit.contracts.volumes.labels import Label, classes_of, read_labels
from braintumor_kit.contracts.volumes.series import COPY, DicomSeries, find_series
from braintumor_kit.contracts.volumes.slices import SliceOptions
from braintumor_kit.contracts.volumes.volume import file_digest


class DicomOptions(SliceOptions):
    root: Path = Field(description="Folder with the DICOM files, in folders of any depth.")
    labels: Path | None = Field(
        None,
        description="CSV with the columns name and label (and split): the name of a patient, a series, a file or a "
        "folder. Without it the first folder below root is the class, or the split and the second the class.",
    )
    patients: str = Field(
        "hashed",
        pattern="^(hashed|plain|unknown)$",
        description="What patients are called: a digest of their id, the id as the files have it, or nothing. Of files "
        "that have none it is a digest of the study's.",
    )
    salt: str = Field("", description="Goes into the digest: without it, whoever guesses an id can confirm it.")


class _Slice(NamedTuple):
    series: DicomSeries
    place: int


class Dicom(Source[DicomOptions]):
    """DICOM series, their slices in order of position, each as a viewer shows it.

    A sample's id is its file's path from the root, with `#3` for the third of several frames. Its group is a digest of
    the patient's id. Files that are no DICOM, and DICOM without pictures, are passed over.
    """

    api_version = 1
    Options = DicomOptions

    @classmethod
    def example(cls, folder: Path, variant: int = 0) -> DicomOptions:
        """Two classes, a patient each, of two slices."""
        require_dicom()
        for number, name in enumerate(("glioma", "notumor")):
            for place in range(2):
                values = np.arange(32 * 24, dtype=np.uint16).reshape(32, 24) + 100 * place + number
                values[0, 0] += variant
                _write_slice(folder / name / f"MR{number}" / f"{place}.dcm", values, f"MR{number}", place)
        return DicomOptions(root=folder)

    @property
    def classes(self) -> tuple[str, ...]:
        return self._listing.classes

    def samples(self) -> Iterator[Sample]:
        yield from self._listing.samples

    def image(self, sample: Sample) -> NDArray[Any]:
        series, place = self._listing.slices[sample.id]
        return series.picture(place)

    def fingerprint(self, sample: Sample) -> bytes:
        """SHA-256 of the file's bytes and the frame's number."""
        series, place = self._listing.slices[sample.id]
        file, frame, _ = series.places[place]
        return hashlib.sha256(file_digest(self.options.root / file.name) + f"#{frame}".encode()).digest()

    def unreadable(self) -> Mapping[str, str]:
        return self._listing.unreadable

    def notes(self) -> Mapping[str, int]:
        return self._listing.ignored

    @cached_property
    def _listing(self) -> "_Listing":
        return _Listing(self.options)


class _Listing:
    """What the folder holds, from the headers alone."""

    def __init__(self, options: DicomOptions) -> None:
        require_dicom()
        self._options, self._labels = options, read_labels(options.labels)
        self.ignored: Counter[str] = Counter()
        self.unreadable: dict[str, str] = {}
        self.slices: dict[str, _Slice] = {}
        series, bad = find_series(self._files(), "")
        for name, reason in bad.items():
            if NO_PICTURE in reason:
                self.ignored["DICOM files without a picture of a scan ignored"] += 1
            elif COPY in reason:
                self.ignored["copies of DICOM files ignored"] += 1
            else:
                self.unreadable[name] = reason
        found = [piece for one in series for piece in self._slices(one)]
        known = [(piece, label) for piece, label in found if label is not None]
        self.classes = classes_of((label.name for _, label in known), options.classes, options.root)
        self.samples = [self._sample(piece, label) for piece, label in known if label.name in self.classes]
        self.ignored["slices of other classes ignored"] += len(known) - len(self.samples)
        self.ignored["slices without a class ignored"] += len(found) - len(known)
        self.ignored = +self.ignored

    def _files(self) -> Iterator[DicomFile]:
        root = self._options.root
        if not root.is_dir():
            raise InputError(f"there is no folder {printable(root)}")
        for above, folders, files in os.walk(root):
            folders[:] = sorted(name for name in folders if not is_junk(name))
            for name in sorted(files):
                path = Path(above, name)
                if is_junk(name) or not is_dicom(path):
                    self.ignored["files of other kinds ignored"] += not is_junk(name)
                    continue
                yield DicomFile(path.relative_to(root).as_posix(), path)

    def _slices(self, series: DicomSeries) -> Iterator[tuple[_Slice, Label | None]]:
        for place in self._options.chosen(len(series)):
            path = PurePosixPath(series.places[place].file.name)
            yield _Slice(series, place), self._labels.of(path, (series.patient, series.uid, series.study))

    def _sample(self, piece: _Slice, label: Label) -> Sample:
        name = piece.series.names[piece.place]
        self.slices[name] = piece
        return Sample(name, label.name, label.split, _patient(piece.series, self._options))


def _patient(series: DicomSeries, options: DicomOptions) -> str | None:
    """The patient; where the files name none, whom the study or the series is of: slices of one scan stay together."""
    if options.patients == "unknown":
        return None
    if options.patients == "plain" and series.patient:
        return series.patient
    known = series.patient or series.study or series.uid or series.name
    return hashlib.blake2b(known.encode(), key=options.salt.encode()[:64], digest_size=8).hexdigest()


def _write_slice(path: Path, values: NDArray[np.uint16], patient: str, place: int) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

    path.parent.mkdir(parents=True, exist_ok=True)
    number = int(hashlib.sha256(patient.encode()).hexdigest()[:12], 16)
    slice_ = Dataset()
    slice_.file_meta = FileMetaDataset()
    slice_.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    slice_.SOPClassUID = MRImageStorage
    slice_.StudyInstanceUID, slice_.SeriesInstanceUID = f"2.25.{number}", f"2.25.{number + 1}"
    slice_.SOPInstanceUID = f"2.25.{number + 2 + place}"
    slice_.Modality, slice_.PatientID, slice_.InstanceNumber = "MR", patient, place + 1
    slice_.ImagePositionPatient = [0, 0, 5 * place]
    slice_.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    slice_.Rows, slice_.Columns = values.shape
    slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
    slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 12, 11, 0
    slice_.PixelData = values.tobytes()
    slice_.save_as(path, enforce_file_format=True)
