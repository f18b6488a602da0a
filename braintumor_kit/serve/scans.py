"""What an upload is: a picture, a NIfTI volume, a DICOM file, or a tar of the DICOM files of a series."""

import hashlib
import tarfile
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from numpy.typing import NDArray

from braintumor_kit.contracts.pictures import read_picture
from braintumor_kit.contracts.volumes import nifti
from braintumor_kit.contracts.volumes.dicom import DicomFile
from braintumor_kit.contracts.volumes.nifti import NiftiVolume
from braintumor_kit.contracts.volumes.opening import begins_as_dicom
from braintumor_kit.contracts.volumes.series import find_series
from braintumor_kit.contracts.volumes.volume import Volume
from braintumor_kit.errors import ImageError, InputError

MOST = 2_000
"""Slices of one upload."""

_GZIP, _NIFTI_SIZES = b"\x1f\x8b", (348, 540)


@dataclass(frozen=True)
class Scan:
    """An upload that can be looked at.

    Attributes:
        volume: of several slices, or of one that is DICOM or NIfTI; None of a picture.
        content: of a picture.
        note: what the sender should know of it.
    """

    volume: Volume | None
    content: bytes
    note: str | None = None

    @property
    def slices(self) -> int | None:
        """How many; None of a picture."""
        return None if self.volume is None else len(self.volume)

    def place(self, number: int | None) -> int:
        """Of a slice by its number from 1, from 0; of the middle one where none is asked for.

        Raises:
            InputError: where there is no such slice.
        """
        count = self.slices or 1
        if number is None:
            return count // 2
        if not 1 <= number <= count:
            raise InputError(f"slice {number} is none of the {count} that there are.")
        return number - 1

    def picture(self, place: int) -> NDArray[Any]:
        """One slice as it is stored; a picture is its own first.

        Raises:
            ImageError: where it cannot be read.
        """
        return read_picture(_Named(self.content)) if self.volume is None else self.volume.picture(place)


class Scans:
    """Opens uploads, and keeps the last: the slices of a volume are asked for one after the other."""

    def __init__(self) -> None:
        self._key: tuple[bytes, str] | None = None
        self._last: Scan | None = None

    def opened(self, content: bytes, plane: str) -> Scan:
        """An upload, looked into.

        Raises:
            ImageError: where it holds nothing that can be read.
            InputError: where the extra [dicom] is missing.
        """
        key = hashlib.sha256(content).digest(), plane
        if self._last is None or key != self._key:
            self._forget()  # before the next is opened, so that two never stand side by side
            scan = _volume(content, plane) if is_volume(content) else Scan(None, content)
            self._key, self._last = key, scan
        return self._last

    def _forget(self) -> None:
        self._key = self._last = None
        nifti.forget()


def is_volume(content: bytes) -> bool:
    """Whether an upload is anything but a picture, by its first bytes."""
    return _is_nifti(content) or begins_as_dicom(content) or _is_tar(content)


def _is_nifti(content: bytes) -> bool:
    sizes = int.from_bytes(content[:4], "little"), int.from_bytes(content[:4], "big")
    return content[:2] == _GZIP or any(size in _NIFTI_SIZES for size in sizes)


def _is_tar(content: bytes) -> bool:
    return content[257:262] == b"ustar"


def _volume(content: bytes, plane: str) -> Scan:
    if _is_nifti(content):
        return _checked(Scan(NiftiVolume("the volume", content, plane), b""))
    members = [("the picture", content)] if begins_as_dicom(content) else _members(content)
    series, bad = find_series([DicomFile(name, inside) for name, inside in members], "the series")
    if not series:
        raise ImageError(next(iter(bad.values()), "the tar holds no DICOM file"))
    series.sort(key=len, reverse=True)
    notes = [
        f"It holds {len(series)} series; this is the longest." if len(series) > 1 else "",
        f"{len(bad)} of its files cannot be read or hold no picture." if bad else "",
    ]
    return _checked(Scan(series[0], b"", " ".join(filter(None, notes)) or None))


def _members(content: bytes) -> list[tuple[str, bytes]]:
    """Files of a tar that begin as DICOM does; read in memory, and together no larger than the tar."""
    found: list[tuple[str, bytes]] = []
    left = len(content)
    try:
        with tarfile.open(fileobj=BytesIO(content), mode="r:") as tar:
            for number, member in enumerate(tar):
                left -= member.size
                if number >= 2 * MOST:
                    raise ImageError(f"the tar holds more than {2 * MOST:,} files")
                if left < 0 or member.issparse():
                    raise ImageError("the tar is cut off or damaged: its files claim more than its bytes")
                inside = tar.extractfile(member) if member.isreg() else None
                if inside is not None and begins_as_dicom(piece := inside.read()):
                    found.append((f"{number:06d} {member.name}", piece))
    except (tarfile.TarError, OSError, EOFError, ValueError, RecursionError) as error:
        raise ImageError(f"the tar is cut off or damaged: {error}") from error
    return found


def _checked(scan: Scan) -> Scan:
    if (scan.slices or 0) > MOST:
        raise ImageError(f"the volume has {scan.slices:,} slices, more than the {MOST:,} that are taken")
    return scan


class _Named(BytesIO):
    """An upload, by the name that messages have for it."""

    name = "the picture"
