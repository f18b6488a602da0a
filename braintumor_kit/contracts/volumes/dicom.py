"""One frame of a DICOM file, from stored values to what a viewer shows (DICOM PS3.3, C.11.1, C.11.2 and C.7.6.3).

pydicom reads and decodes; it is in the extra [dicom], with what unpacks the usual compressed transfer syntaxes.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.contracts.pictures import MAX_PIXELS, has_suffix, opened, printable
from braintumor_kit.contracts.volumes.opening import BEGINNING, Bounded, begins_as_dicom, unpacked
from braintumor_kit.contracts.volumes.volume import MAX_BYTES, damage_of, finite_range, shown
from braintumor_kit.errors import ImageError, InputError

if TYPE_CHECKING:
    from pydicom import Dataset

DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})
"""Lower-case endings of files that are taken for DICOM; others are where they begin as DICOM does."""

MAX_FRAMES = 10_000
"""Of one file."""

NO_SCANS = frozenset({"SEG", "RTDOSE", "RTSTRUCT", "RTPLAN", "PR", "KO", "SR", "REG"})
"""Modalities of what is made from scans."""

NO_PICTURE = "holds no picture"
"""What is said of a file that may be passed over where its folder was named."""

_FARTHEST = 1e15
"""Beyond every stored value, and near enough for the arithmetic of a window."""

# What says how the frame is shown stands in the file, or of enhanced objects in groups of its own.
_TRANSFORMS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM: by its ending, or where it has none that is known, by its first bytes."""
    if has_suffix(path.name, DICOM_SUFFIXES):
        return True
    try:
        with opened(path) as file:
            return begins_as_dicom(file.read(BEGINNING))
    except ImageError:
        return False


def require_dicom() -> None:
    """Finds out whether DICOM can be read here.

    Raises:
        InputError: where the extra is missing.
    """
    if find_spec("pydicom") is None:
        raise InputError("DICOM needs the package pydicom: pip install 'braintumor-kit[dicom]'.")


@dataclass(frozen=True)
class DicomFile:
    """A DICOM file, read when it is asked for.

    Attributes:
        name: as the user names it.
        content: the file, or what it holds.
    """

    name: str
    content: Path | bytes

    def header(self) -> "Dataset":
        """Everything but the pixels.

        Raises:
            InputError: where the extra is missing.
            ImageError: where it is no DICOM file, holds no picture of a scan or too large a one.
        """
        require_dicom()
        import pydicom

        with self._open() as file, damage_of(self.name):
            bounded: Any = Bounded(file, self.name)
            try:
                header = pydicom.dcmread(bounded, stop_before_pixels=True)
            except Exception as error:  # pydicom has words of its own for what the reader raised
                raise bounded.fault or error from None
            _check_size(header, self.name)
            return header

    def values(self, frame: int, header: "Dataset") -> NDArray[Any]:
        """Stored values of one frame, (H, W) or (H, W, 3), decoded and not yet rescaled.

        Raises:
            ImageError: where they cannot be read.
        """
        from pydicom.pixels import pixel_array

        index = None if frames_of(header) == 1 else frame
        with self._open() as file, damage_of(self.name):
            decoder = _decoder(header, self.name)
            # Of several frames the file is parsed once, where it is not too large to be kept.
            several = index is not None and file.seek(0, os.SEEK_END) <= MAX_BYTES
            file.seek(0)
            source: Any = _whole(self, self._stamp()) if several else file
            found: NDArray[Any] = pixel_array(source, index=index, decoding_plugin=decoder)
        if found.shape[:2] != (header.Rows, header.Columns) or found.ndim not in (2, 3):
            raise ImageError(f"{printable(self.name)} is cut off or damaged: it says {header.Rows} x {header.Columns} "
                             f"pixels and holds {' x '.join(map(str, found.shape))}")  # fmt: skip
        return found

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        """The file, unpacked where all of it is deflated."""
        if isinstance(self.content, bytes):
            yield unpacked(io.BytesIO(self.content), self.name, self.content, 0)
            return
        with opened(self.content) as file:
            yield unpacked(file, self.name, self.content, self._stamp())

    def _stamp(self) -> int:
        """Another one when the file has changed."""
        try:
            return 0 if isinstance(self.content, bytes) else os.stat(self.content).st_mtime_ns
        except OSError:
            return -1


@lru_cache(maxsize=1)  # frames of one file follow each other
def _whole(file: DicomFile, stamp: int) -> "Dataset":
    import pydicom

    with file._open() as content:
        return pydicom.dcmread(content)


@lru_cache(maxsize=2)
def _header_once(file: DicomFile, stamp: int) -> "Dataset":
    return file.header()


@dataclass(frozen=True)
class Frame:
    """A frame, nearly ready to be shown.

    Attributes:
        values: rescaled, float64 (H, W); stored colours as they are.
        ready: what a viewer shows, uint8 or uint16, where the file alone decides that: colour, bytes that are shown as
            they are, or values through the window or table that it declares. None where the range of values decides.
        range: the lowest and highest value, padding aside; None where there are none.
        inverted: whether low values are bright.
    """

    values: NDArray[Any]
    ready: NDArray[Any] | None
    range: tuple[float, float] | None = None
    inverted: bool = False

    def picture(self, ends: tuple[float, float] | None) -> NDArray[Any]:
        """What a viewer shows: uint8 or uint16.

        Args:
            ends: values that are black and white where the file alone does not decide.
        """
        if self.ready is not None:
            return self.ready
        grey = shown(self.values, *(ends or (0.0, 0.0)))
        return 255 - grey if self.inverted else grey


def read_frame(file: DicomFile, frame: int) -> Frame:
    """One frame: stored values, rescaled, with what decides how they are shown.

    Raises:
        ImageError: where it cannot be read.
    """
    header = _header_once(file, file._stamp())
    stored = file.values(frame, header)
    with damage_of(file.name):
        kind = str(header.get("PhotometricInterpretation", "MONOCHROME2")).strip().upper()
        if kind == "PALETTE COLOR":
            from pydicom.pixels import apply_color_lut

            stored = apply_color_lut(stored, header)
            if stored.dtype != np.uint8:  # entries of 16 bits; their high bytes are the colour
                stored = (stored >> 8).astype(np.uint8)
        if stored.ndim == 3:
            return Frame(stored, _colour(stored))
        return _grey(stored, _words_of(header, frame), inverted=kind == "MONOCHROME1")


def _grey(stored: NDArray[Any], words: "Dataset", inverted: bool) -> Frame:
    from pydicom.pixels import apply_modality_lut

    values = apply_modality_lut(stored, words).astype(np.float64)
    ready = _windowed(values, words)
    if ready is None and stored.dtype == np.uint8 and words.get("BitsStored") == 8 and (values == stored).all():
        ready = stored
    if ready is not None:
        return Frame(values, 255 - ready if inverted else ready)
    padding = words.get("PixelPaddingValue")
    inside = values if padding is None else values[stored != padding]
    return Frame(values, None, finite_range(inside), inverted)


def _windowed(values: NDArray[np.float64], words: "Dataset") -> NDArray[np.uint8] | None:
    """Values through the window or table that the file declares first, on 0..255; None where it declares none."""
    from pydicom.pixels import apply_voi, apply_windowing

    if words.get("VOILUTSequence"):
        table = apply_voi(np.rint(values).astype(np.int64), words)
        return shown(table, 0, 2 ** int(words.VOILUTSequence[0].LUTDescriptor[2]) - 1)
    centre, width = (_first(words.get(name)) for name in ("WindowCenter", "WindowWidth"))
    linear = str(words.get("VOILUTFunction") or "LINEAR").upper() == "LINEAR"
    if centre is None or width is None or not (width >= 1 if linear else width > 0):
        return None  # a window of no width, which some scanners write, shows nothing
    low, high = apply_windowing(np.array([-_FARTHEST, _FARTHEST]), words)
    return shown(apply_windowing(values, words), float(low), float(high))


def _first(value: Any) -> float | None:
    """A number, or the first of several; None where there is none."""
    try:
        return float(value[0] if hasattr(value, "append") else value)
    except (TypeError, ValueError, IndexError):
        return None


def _colour(stored: NDArray[Any]) -> NDArray[Any]:
    """(H, W, 3) of uint8 or uint16, grey where all channels are one."""
    if stored.shape[2] < 3:
        raise ImageError(f"it has {stored.shape[2]} channels, neither grey nor colour")
    colour = stored[..., :3]
    if colour.dtype not in (np.uint8, np.uint16):
        colour = (shown(colour, *(finite_range(colour) or (0.0, 0.0)))).astype(np.uint8)
    same = (colour == colour[..., :1]).all()
    return np.ascontiguousarray(colour[..., 0] if same else colour)


def _words_of(header: "Dataset", frame: int) -> "Dataset":
    """What says how a frame is shown, for all that is said of it alone."""
    from pydicom import Dataset

    groups = _groups(header, frame)
    if not groups:
        return header
    words = Dataset()
    for tag in ("BitsAllocated", "BitsStored", "PixelRepresentation", "PixelPaddingValue", "SamplesPerPixel",
                "PhotometricInterpretation"):  # fmt: skip
        if tag in header:
            words.add(header[tag])
    for group in groups:
        for name in _TRANSFORMS:
            for item in (group.get(name) or [])[:1]:
                words.update(item)
    return words


def spacing_of(header: "Dataset", frame: int) -> dict[str, Any]:
    """PixelSpacing and SliceThickness (mm) of a frame, as far as the file says them."""
    found = {name: header.get(name) for name in ("PixelSpacing", "SliceThickness")}
    for group in _groups(header, frame):
        for item in (group.get("PixelMeasuresSequence") or [])[:1]:
            found |= {name: item.get(name, value) for name, value in found.items()}
    return {name: value for name, value in found.items() if value is not None}


def position_of(header: "Dataset", frame: int) -> tuple[Any, Any]:
    """Where a frame lies: its corner (mm; x towards the patient's left, y back, z up), and the directions of its rows
    and of its columns; None for what the file does not say (PS3.3, C.7.6.2.1.1)."""
    corner, directions = header.get("ImagePositionPatient"), header.get("ImageOrientationPatient")
    for group in _groups(header, frame):
        for item in (group.get("PlanePositionSequence") or [])[:1]:
            corner = item.get("ImagePositionPatient", corner)
        for item in (group.get("PlaneOrientationSequence") or [])[:1]:
            directions = item.get("ImageOrientationPatient", directions)
    return _numbers(corner, 3), _numbers(directions, 6)


def _groups(header: "Dataset", frame: int) -> list["Dataset"]:
    """What an enhanced object says of all frames, then of this one (PS3.3, C.7.6.16)."""
    shared = (header.get("SharedFunctionalGroupsSequence") or [])[:1]
    own = (header.get("PerFrameFunctionalGroupsSequence") or [])[frame : frame + 1]
    return [*shared, *own]


def _numbers(values: Any, count: int) -> NDArray[np.float64] | None:
    try:
        found = np.array([float(value) for value in values or ()])
    except (TypeError, ValueError):
        return None
    return found if found.shape == (count,) and np.isfinite(found).all() else None


def frames_of(header: "Dataset") -> int:
    """How many frames a file says that it has."""
    try:
        return max(1, int(header.get("NumberOfFrames") or 1))
    except (TypeError, ValueError):
        return 1


def _check_size(header: "Dataset", name: str) -> None:
    rows, columns = header.get("Rows"), header.get("Columns")
    made = str(header.get("Modality")) in NO_SCANS or str(header.get("Manufacturer")) == "btkit"
    if made or not (isinstance(rows, int) and isinstance(columns, int) and rows > 0 and columns > 0):
        raise ImageError(f"{printable(name)} is DICOM and {NO_PICTURE} of a scan ({_kind(header)})")
    samples, frames = int(header.get("SamplesPerPixel") or 1), frames_of(header)
    if rows * columns > MAX_PIXELS or samples not in (1, 3, 4):
        raise ImageError(f"{printable(name)} has {rows} x {columns} pixels of {samples} values, more than the "
                         f"{MAX_PIXELS:,} pixels that are allowed")  # fmt: skip
    if frames > MAX_FRAMES:
        raise ImageError(f"{printable(name)} has {frames:,} frames, more than the {MAX_FRAMES:,} that are allowed")


def _kind(header: "Dataset") -> str:
    return str(header.get("Modality") or "of an unknown kind")[:40]


def _decoder(header: "Dataset", name: str) -> str:
    """What of pydicom unpacks a file; "" where it is not compressed."""
    from braintumor_kit.contracts.volumes.codecs import decoder_of  # it imports pydicom

    syntax = header.file_meta.TransferSyntaxUID
    if not syntax.is_compressed:
        return ""
    found = decoder_of(syntax)
    if found is None:
        raise ImageError(
            f"{printable(name)} is compressed ({syntax.name}), and nothing here unpacks that: "
            "pip install 'braintumor-kit[dicom]'"
        )
    return found
