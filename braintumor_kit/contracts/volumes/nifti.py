"""A NIfTI volume, turned to the body's axes and cut in one plane.

Slices are seen as radiologists see them, and as DICOM stores them: axial ones from below with the front up, coronal
ones from the front, sagittal ones from the left, so that a model meets the pictures that it was trained on whatever way
the file happens to store its voxels.
"""

import gzip
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.contracts.pictures import MAX_PIXELS, has_suffix, opened, printable
from braintumor_kit.contracts.volumes.volume import (
    MAX_BYTES,
    MAX_VOXELS,
    PLANES,
    Volume,
    damage_of,
    finite_range,
    shown,
)
from braintumor_kit.errors import ImageError

MAX_OFFSET = 2**24
"""Bytes of a file before its voxels: header and extensions."""

_HEADERS = {348: ("Nifti1", 344, b"n+1"), 540: ("Nifti2", 4, b"n+2")}
"""By the size that a header gives itself: nibabel's word for its kind, and where it has to say what."""

_FIRST = 544
_RGB = {np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]), np.dtype([(c, "u1") for c in "RGBA"])}


def is_nifti(name: str) -> bool:
    """Whether a file of that name is taken for NIfTI: `.nii` or `.nii.gz`."""
    return has_suffix(name, {".nii"}) or name.lower().endswith(".nii.gz")


@dataclass(frozen=True)
class _Voxels:
    """What is stored.

    Attributes:
        stored: (columns, rows, slices) of the plane, or (columns, rows, slices, 3); before slope and intercept.
        slope, inter: of stored values.
        window: low and high end of what is shown; None where stored bytes are shown as they are.
    """

    stored: NDArray[Any]
    slope: float
    inter: float
    window: tuple[float, float] | None


@dataclass(frozen=True, eq=False)
class NiftiVolume(Volume):
    """A NIfTI-1 or NIfTI-2 file; of several volumes in one file (a time series) the first.

    Values are shown in the window that the header declares (`cal_min`, `cal_max`), else from the lowest of the volume
    to its highest; bytes without a scale are shown as they are.

    Args:
        name: as the user names it.
        content: the file, or what it holds.
        plane: "axial", "coronal" or "sagittal": the axis of the voxels that lies nearest to it is cut.
    """

    name: str
    content: Path | bytes
    plane: str = "axial"

    @cached_property
    def image(self) -> Any:
        """The file as nibabel sees it, its voxels not yet read.

        Raises:
            ImageError: where it is none, or too large.
        """
        import nibabel  # here and below: only who has volumes waits for it

        with damage_of(self.name):
            if isinstance(self.content, Path):
                with opened(self.content) as file:
                    _check(_start(file), self.name)
                return nibabel.load(self.content)
            content = _unpacked(self.content, self.name)
            header = _check(content[:_FIRST], self.name)
            kind = nibabel.Nifti2Image if isinstance(header, nibabel.Nifti2Header) else nibabel.Nifti1Image
            return kind.from_bytes(content)

    @cached_property
    def orientation(self) -> NDArray[np.float64]:
        """The turn from stored axes to the plane's, in nibabel's form.

        Raises:
            ImageError: where the header's affine says of no turn.
        """
        from nibabel.orientations import axcodes2ornt, ornt_transform

        turn: NDArray[np.float64] = ornt_transform(self._stored_axes, axcodes2ornt(tuple(PLANES[self.plane])))
        return turn

    @property
    def back(self) -> NDArray[np.float64]:
        """The turn from the plane's axes to the stored ones."""
        from nibabel.orientations import axcodes2ornt, ornt_transform

        turn: NDArray[np.float64] = ornt_transform(axcodes2ornt(tuple(PLANES[self.plane])), self._stored_axes)
        return turn

    @property
    def names(self) -> Sequence[str]:
        return [f"{self.name}#{number}" for number in range(1, self._count + 1)]

    def picture(self, place: int) -> NDArray[Any]:
        voxels = _voxels_of(self)
        with damage_of(self.name):
            values = np.swapaxes(voxels.stored[:, :, place], 0, 1)
            if voxels.window is None:
                return np.ascontiguousarray(values)
            return shown(values * voxels.slope + voxels.inter, *voxels.window)

    def marked(self, place: int) -> NDArray[np.bool_]:
        """Of a volume of labels: where one slice has any but zero, (H, W)."""
        voxels = _voxels_of(self)
        with damage_of(self.name):
            stored = voxels.stored[:, :, place]
            values = stored.any(axis=-1) if stored.ndim == 3 else stored * voxels.slope + voxels.inter
            return np.swapaxes(np.nan_to_num(values) != 0, 0, 1)

    @property
    def grid(self) -> tuple[int, ...]:
        """Voxels along the plane's columns, rows and slices."""
        return tuple(self._grid)

    def lies_like(self, other: "NiftiVolume") -> bool:
        """Whether each voxel of another volume of the same grid lies in the body where this one's does, to half a
        voxel."""
        corners = np.array(list(product(*((0, length - 1) for length in self.grid), (1,))))[:, :4]
        apart = np.abs(corners @ (self._turned - other._turned).T)[:, :3]
        return bool(apart.max() < 0.5 * np.linalg.norm(self._turned[:3, :3], axis=0).min())

    @cached_property
    def _turned(self) -> NDArray[np.float64]:
        """The affine of the plane's own axes."""
        from nibabel.orientations import inv_ornt_aff

        shape = (*self.image.shape[:3], 1, 1)[:3]
        turned: NDArray[np.float64] = self.image.affine @ inv_ornt_aff(self.orientation, shape)
        return turned

    @cached_property
    def _stored_axes(self) -> NDArray[np.float64]:
        from nibabel.orientations import io_orientation

        with damage_of(self.name):
            axes: NDArray[np.float64] = io_orientation(self.image.affine)
        if not np.isfinite(axes).all():
            raise ImageError(f"{printable(self.name)} does not say how it lies in the body: its affine is singular")
        return axes

    @cached_property
    def _grid(self) -> list[int]:
        shape = [*self.image.shape[:3], 1, 1][:3]
        order = np.argsort(self.orientation[:, 0])
        return [int(shape[axis]) for axis in order]

    @cached_property
    def _count(self) -> int:
        return self._grid[2]


def _voxels_of(volume: NiftiVolume) -> _Voxels:
    """What a volume stores, turned to its plane."""
    found = _read_once(volume)
    if isinstance(found, ImageError):
        raise ImageError(str(found)) from found
    return found


@lru_cache(maxsize=2)  # a volume and its mask: slices of one volume follow each other
def _read_once(volume: NiftiVolume) -> _Voxels | ImageError:
    """The voxels, or why they cannot be read: a damaged file is not unpacked anew for each of its slices."""
    try:
        return _read(volume)
    except ImageError as error:
        return error


def forget() -> None:
    """Lets go of the volumes that were read last."""
    _read_once.cache_clear()


def _read(volume: NiftiVolume) -> _Voxels:
    from nibabel.orientations import apply_orientation

    proxy = volume.image.dataobj
    with damage_of(volume.name):
        stored = _first_volume(np.asanyarray(proxy.get_unscaled()))
        slope, inter = float(proxy.slope), float(proxy.inter)
        stored = apply_orientation(stored, volume.orientation)
    if not (np.isfinite(slope) and np.isfinite(inter)):
        raise ImageError(f"{printable(volume.name)} has a scale that is not finite")
    return _Voxels(stored, slope, inter, _window(volume, stored, slope, inter))


def _window(volume: NiftiVolume, stored: NDArray[Any], slope: float, inter: float) -> tuple[float, float] | None:
    low, high = float(volume.image.header["cal_min"]), float(volume.image.header["cal_max"])
    if stored.ndim == 4:
        return None
    if np.isfinite([low, high]).all() and high > low:
        return low, high
    if stored.dtype == np.uint8 and (slope, inter) == (1.0, 0.0):
        return None
    ends = finite_range(stored)
    if ends is None:
        raise ImageError(f"{printable(volume.name)} has no voxels that are finite")
    first, last = (end * slope + inter for end in ends)
    return min(first, last), max(first, last)


def _first_volume(stored: NDArray[Any]) -> NDArray[Any]:
    """Three axes; colour as a fourth."""
    while stored.ndim > 3:
        stored = stored[..., 0]
    stored = stored.reshape(*stored.shape, *([1] * (3 - stored.ndim)))
    if stored.dtype.names:
        return np.stack([stored[name] for name in "RGB"], axis=-1)
    return stored


def _start(file: BinaryIO) -> bytes:
    """The first bytes, unpacked where the file is packed."""
    packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    return gzip.GzipFile(fileobj=file).read(_FIRST) if packed else file.read(_FIRST)


def _unpacked(content: bytes, name: str) -> bytes:
    if content[:2] != b"\x1f\x8b":
        return content
    unpacked = gzip.GzipFile(fileobj=io.BytesIO(content)).read(MAX_BYTES + MAX_OFFSET + 1)
    if len(unpacked) > MAX_BYTES + MAX_OFFSET:
        raise ImageError(f"{printable(name)} unpacks to more than the {MAX_BYTES:,} bytes that are allowed")
    return unpacked


def _check(start: bytes, name: str) -> Any:
    """The header of a file that can be read within bounds, found before anything is made of it."""
    import nibabel

    sizes = int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big")
    found = next((_HEADERS[size] for size in sizes if size in _HEADERS), None)
    if found is None or start[found[1] : found[1] + 3] != found[2]:
        raise ImageError(f"{printable(name)} is not a NIfTI file")
    kind_of_header = getattr(nibabel, f"{found[0]}Header")
    header = kind_of_header(start[: kind_of_header.sizeof_hdr], check=False)
    shape, kind = header.get_data_shape(), header.get_data_dtype()
    if not 2 <= len(shape) <= 5 or min(shape) < 1:
        raise ImageError(f"{printable(name)} has a grid of {' x '.join(map(str, shape)) or 'nothing'}, not of voxels")
    if not (kind in _RGB or (kind.kind in "iuf" and kind.itemsize <= 8)):
        raise ImageError(f"{printable(name)} has voxels of {kind}, which are no intensities")
    voxels = int(np.prod([int(length) for length in shape], dtype=object))
    if voxels > MAX_VOXELS or voxels * kind.itemsize > MAX_BYTES or max(shape) ** 2 > MAX_PIXELS * 8:
        raise ImageError(f"{printable(name)} has {voxels:,} voxels, more than the {MAX_VOXELS:,} that are allowed")
    if not 0 <= float(header["vox_offset"]) <= MAX_OFFSET:
        raise ImageError(f"{printable(name)} says that its voxels begin at byte {float(header['vox_offset']):.0f}")
    return header
