"""DICOM files sorted into series, each in order of position whatever the files are called."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.contracts.pictures import printable
from braintumor_kit.contracts.volumes.dicom import DicomFile, frames_of, position_of, read_frame
from braintumor_kit.contracts.volumes.volume import Volume, damage_of
from braintumor_kit.errors import ImageError

if TYPE_CHECKING:
    from pydicom import Dataset

COPY = "is a copy"
"""What is said of a file that may be passed over where its folder was named."""

NEAR = 0.5
"""Directions of rows and columns that differ by less, in a sum over their six cosines, are one orientation."""


class Place(NamedTuple):
    """A frame of a series.

    Attributes:
        file: it is in.
        frame: its number there, from 0.
        of: how many the file has.
    """

    file: DicomFile
    frame: int
    of: int

    @property
    def name(self) -> str:
        return self.file.name if self.of == 1 else f"{self.file.name}#{self.frame + 1}"


@dataclass(frozen=True, eq=False)
class DicomSeries(Volume):
    """Frames of one series and one orientation, sorted along their normal; by instance number where no position is
    known.

    Frames that declare no window are shown from the lowest value of the series to its highest, so that they stay
    comparable.

    Attributes:
        name: as the user names it.
        places: its frames, in order.
        uid: the series' own; "" where it has none.
        patient: the patient's id as the files have it; "" where they have none.
        study: the study's UID.
    """

    name: str
    places: tuple[Place, ...]
    uid: str
    patient: str
    study: str = ""

    @property
    def names(self) -> Sequence[str]:
        return [place.name for place in self.places]

    def picture(self, place: int) -> NDArray[Any]:
        file, number, _ = self.places[place]
        frame = read_frame(file, number)
        return frame.picture(self._ends if frame.ready is None else None)

    def header(self, place: int) -> "Dataset":
        """Everything that the file of a slice says but its pixels.

        Raises:
            ImageError: where it cannot be read.
        """
        return self.places[place].file.header()

    @cached_property
    def _ends(self) -> tuple[float, float] | None:
        """Of the frames that can be read."""
        found = []
        for file, number, _ in self.places:
            try:
                found.append(read_frame(file, number).range)
            except ImageError:
                continue
        ends = [pair for pair in found if pair is not None]
        return (min(low for low, _ in ends), max(high for _, high in ends)) if ends else None


@dataclass(frozen=True)
class _Found:
    """A frame with what sorts it."""

    place: Place
    header: Mapping[str, Any]
    corner: NDArray[np.float64] | None
    directions: NDArray[np.float64] | None


def find_series(files: Iterable[DicomFile], folder: str) -> tuple[list[DicomSeries], dict[str, str]]:
    """Sorts files into series.

    Args:
        files: in any order.
        folder: the name that they have in common, from which series are named.

    Returns:
        Series in order of their first file's name, and the reason of each file that is none or has no picture.

    Raises:
        InputError: where the extra [dicom] is missing.
    """
    found: dict[tuple[Any, ...], list[_Found]] = {}
    known: dict[tuple[Any, ...], list[_Found]] = {}
    seen: dict[str, str] = {}
    bad = {}
    for file in sorted(files, key=lambda file: file.name):
        try:
            frames = _frames(file)
        except ImageError as error:
            bad[file.name] = str(error)
            continue
        first = seen.setdefault(frames[0].header["instance_uid"] or file.name, file.name)
        if first != file.name:
            bad[file.name] = f"{printable(file.name)} {COPY} of {printable(first)}, by the UID of its instance"
            continue
        for frame in frames:
            found.setdefault(_key(frame, known), []).append(frame)
    groups = [_sorted(frames) for frames in found.values()]
    names = _names(groups, folder)
    return [_series(name, frames) for name, frames in zip(names, groups, strict=True)], bad


def _frames(file: DicomFile) -> list[_Found]:
    header = file.header()
    with damage_of(file.name):  # what a header holds is converted when it is asked for
        return _frames_of(file, header)


def _frames_of(file: DicomFile, header: "Dataset") -> list[_Found]:
    words = {
        "series": str(header.get("SeriesInstanceUID") or os.path.dirname(file.name)),
        "instance_uid": str(header.get("SOPInstanceUID") or ""),
        "uid": str(header.get("SeriesInstanceUID") or ""),
        "study": str(header.get("StudyInstanceUID") or ""),
        "patient": str(header.get("PatientID") or "").strip(),
        "size": (header.Rows, header.Columns),
        "time": (_number(header, "TemporalPositionIdentifier"), _number(header, "AcquisitionNumber")),
        "instance": _number(header, "InstanceNumber"),
        "series_number": _number(header, "SeriesNumber"),
    }
    count = frames_of(header)
    return [
        _Found(Place(file, number, count), words, *position_of(header, number)) for number in range(count)
    ]  # fmt: skip


def _number(header: "Dataset", name: str) -> float:
    try:
        return float(header.get(name))
    except (TypeError, ValueError):
        return 0.0


def _key(frame: _Found, known: dict[tuple[Any, ...], list[_Found]]) -> tuple[Any, ...]:
    """What frames of one volume have in common; a localiser's three planes are three volumes.

    Args:
        known: the first frame of each orientation, by all that comes before it; this one is put in where it is new.
    """
    words = frame.header
    start = (words["patient"], words["study"], words["series"], words["size"])
    if frame.directions is None:
        return (*start, None)
    others = known.setdefault(start, [])
    for other in others:
        if other.directions is not None and np.abs(other.directions - frame.directions).sum() < NEAR:
            return (*start, tuple(other.directions))
    others.append(frame)
    return (*start, tuple(frame.directions))


def _sorted(frames: list[_Found]) -> list[_Found]:
    first = frames[0].directions
    located = first is not None and all(frame.corner is not None for frame in frames)
    normal = np.cross(first[:3], first[3:]) if first is not None else np.zeros(3)

    def order(frame: _Found) -> tuple[Any, ...]:
        along = round(float(normal @ frame.corner), 3) if located and frame.corner is not None else 0.0
        return along, *frame.header["time"], frame.header["instance"], frame.place.file.name, frame.place.frame

    return sorted(frames, key=order)


def _names(groups: Sequence[Sequence[_Found]], folder: str) -> list[str]:
    """A file that is a volume has its own name, one series alone the folder's, several the folder's and a number."""
    names = []
    for frames in groups:
        files = {frame.place.file.name for frame in frames}
        if len(files) == 1:
            names.append(next(iter(files)))
            continue
        try:
            names.append(os.path.commonpath([os.path.dirname(name) for name in files]) or folder)
        except ValueError:  # some names are absolute
            names.append(folder)
    seen: dict[str, int] = {}
    numbered = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        numbered.append(f"{name} (series {seen[name]})" if names.count(name) > 1 else name)
    return numbered


def _series(name: str, frames: Sequence[_Found]) -> DicomSeries:
    words = frames[0].header
    return DicomSeries(name, tuple(frame.place for frame in frames), words["uid"], words["patient"], words["study"])
