"""Helpers for authors of sources: which files are pictures, and how one is read.

    for name in names:
        if not is_junk(name) and has_suffix(name, PICTURE_SUFFIXES):
            pixels = read_picture(root / name)

Pillow decodes; what comes out is what `Source.image` returns, whatever the file's format, mode and turn.
"""

import os
import struct
import warnings
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cache
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from braintumor_kit.errors import ImageError
from braintumor_kit.regular import open_regular

PICTURE_SUFFIXES = frozenset({
    ".apng", ".avif", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg",
    ".pbm", ".pcx", ".pgm", ".png", ".pnm", ".ppm", ".sgi", ".tif", ".tiff", ".webp",
})  # fmt: skip
"""Lower-case endings of the files that are taken for pictures."""

MAX_PIXELS = 2**25
"""Larger pictures are refused before they are decoded: a few kilobytes can claim gigabytes of pixels."""

MAX_SCANS = 100
"""Of a JPEG: a progressive one has ten or so, and each goes over the whole picture."""

_TILE_WIDTH, _TILE_HEIGHT = 322, 323  # tags of TIFF

# The raster formats that a slice may come in, whatever the file's name says, the usual ones first. Not TGA,
# which has no signature and so "opens" what is no picture; not EPS and WMF, which need other programs run.
_FORMATS = (
    "PNG", "JPEG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM", "MPO", "AVIF", "JPEG2000", "PCX", "SGI",
)  # fmt: skip

# What Pillow's decoders raise on damaged files, by its documentation and by damaging files of every format.
_DECODING_ERRORS = (
    OSError,  # most of them, truncation and UnidentifiedImageError included
    SyntaxError,  # broken headers and PNG chunks
    ValueError,  # impossible sizes and modes, text chunks that would decompress to too much
    RuntimeError,  # AVIF
    TypeError,
    IndexError,
    KeyError,
    EOFError,
    AssertionError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

_JUNK = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "$recycle.bin", "@eadir", "icon\r"})

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF orientation to the turn that sets the picture upright


def is_junk(name: str) -> bool:
    """Whether a file or folder of that name is no data but a system's or a program's own: `.DS_Store`, `._*`,
    `Thumbs.db`, `.ipynb_checkpoints`, `__MACOSX`, and anything else hidden."""
    return name.startswith(".") or name.lower() in _JUNK


def has_suffix(name: str, suffixes: Collection[str]) -> bool:
    """Whether the file's name ends in one of the lower-case `suffixes`, in any case."""
    return os.path.splitext(name)[1].lower() in suffixes


def printable(name: str | os.PathLike[str]) -> str:
    """A file's name as a message can show it: on one line, with odd characters escaped."""
    text = os.fspath(name)
    return text if text.isprintable() else ascii(text)[1:-1]


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """A file of a data set, to read its bytes.

    Raises:
        ImageError: where it cannot be opened or read.
    """
    try:
        with open_regular(path) as file:
            yield file
    except OSError as error:
        raise ImageError(f"{printable(path)} cannot be opened: {error.strerror or error}") from error


def read_picture(file: Path | BinaryIO) -> NDArray[Any]:
    """Reads a picture of any format and mode, upright as its EXIF orientation says; an animation's first.

    Args:
        file: a path, or an open binary file that can seek.

    Returns:
        uint8 or uint16, (H, W) for grey, (H, W, 3) for RGB; RGB whose channels are all equal comes as grey.
        Transparent pixels lie over black. Grey of 32 bits, whole or floating, becomes uint16: as it is where
        it fits, else stretched from its own range. Colour of 16 bits a channel is reduced to 8, by Pillow.

    Raises:
        ImageError: where there is no such file or it cannot be read, with the reason.
    """
    if not isinstance(file, Path):
        return _read(file, printable(str(getattr(file, "name", "the picture"))))
    name = printable(file)
    if not file.is_file():  # a named pipe would be waited for, for ever
        raise ImageError(f"{name} {'is not a file' if file.exists() else 'does not exist'}")
    with opened(file) as content:
        return _read(content, name)


def _read(file: BinaryIO, name: str) -> NDArray[Any]:
    if file.seek(0, os.SEEK_END) == 0:
        raise ImageError(f"{name} is empty")
    file.seek(0)
    try:
        # What Pillow warns of, such as tags that are cut off, is either no matter or an error that follows.
        with warnings.catch_warnings(action="ignore"), Image.open(file, formats=_formats()) as image:
            _check_size(image, name)
            _check_tiles(image, name)
            _check_scans(image, file, name)
            image.load()
            return _pixels(_upright(image))
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} has more than the {MAX_PIXELS:,} pixels that are allowed") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is not a picture that Pillow can read") from error
    except _NotFiniteError as error:
        raise ImageError(f"{name} has pixels that are not finite") from error
    except _DECODING_ERRORS as error:
        raise ImageError(f"{name} is cut off or damaged: {error or type(error).__name__}") from error


@cache
def _formats() -> list[str]:
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _check_size(image: Image.Image, name: str) -> None:
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        size = f"{pixels:,} pixels ({image.width} x {image.height})"
        raise ImageError(f"{name} has {size}, more than the {MAX_PIXELS:,} that are allowed")


def _check_tiles(image: Image.Image, name: str) -> None:
    """A TIFF of few pixels may lie in a tile of many, which is unpacked whole."""
    tags = getattr(image, "tag_v2", None) or {}
    width, height = (tags.get(tag, 1) for tag in (_TILE_WIDTH, _TILE_HEIGHT))
    if isinstance(width, int) and isinstance(height, int) and width * height > MAX_PIXELS:
        raise ImageError(
            f"{name} has tiles of {width} x {height} pixels, more than the {MAX_PIXELS:,} that are allowed"
        )


def _check_scans(image: Image.Image, file: BinaryIO, name: str) -> None:
    if image.format not in ("JPEG", "MPO"):
        return
    place, scans = file.tell(), 0
    file.seek(0)
    while piece := file.read(2**20):
        scans += piece.count(b"\xff\xda")
    file.seek(place)
    if scans > MAX_SCANS:
        raise ImageError(f"{name} has {scans:,} scans, more than the {MAX_SCANS} that are allowed")


def _upright(image: Image.Image) -> Image.Image:
    turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image if turn is None else image.transpose(turn)


def _pixels(image: Image.Image) -> NDArray[Any]:
    if image.mode in ("1", "L") and not image.has_transparency_data:
        return np.asarray(image.convert("L"))
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if image.mode in ("I", "F"):
        return to_uint16(np.asarray(image))
    if image.has_transparency_data or image.mode in ("LA", "La"):
        return _grey_if_equal(np.asarray(_over_black(image)))
    return _grey_if_equal(np.asarray(image.convert("RGB")))


def _over_black(image: Image.Image) -> Image.Image:
    black = Image.new("RGBA", image.size, (0, 0, 0, 255))
    return Image.alpha_composite(black, image.convert("RGBA")).convert("RGB")


def _grey_if_equal(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    red = rgb[..., 0]
    if np.array_equal(red, rgb[..., 1]) and np.array_equal(red, rgb[..., 2]):
        return np.ascontiguousarray(red)
    return rgb


class _NotFiniteError(ValueError):
    """Floating-point pixels that are infinite or no numbers."""


def to_uint16(values: NDArray[Any]) -> NDArray[np.uint16]:
    """Whole numbers that fit stay as they are; others are stretched from their own range to 0..65535.

    Raises:
        ValueError: where they are infinite or no numbers.
    """
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind == "i" and low >= 0 and high <= 65535:
        return values.astype(np.uint16)
    if not np.isfinite(values).all():
        raise _NotFiniteError
    if high == low:
        return np.zeros(values.shape, np.uint16)
    return np.rint((values.astype(np.float64) - low) * (65535 / (high - low))).astype(np.uint16)
