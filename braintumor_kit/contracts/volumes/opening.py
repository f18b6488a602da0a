"""DICOM files before anything is made of them: what they begin with, how much is read, what is unpacked."""

import io
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from braintumor_kit.contracts.pictures import printable
from braintumor_kit.contracts.volumes.volume import damage_of
from braintumor_kit.errors import ImageError

MAX_HEADER = 2**23
"""Bytes before the pixels; of two thousand frames that are each described in full some four million."""

MAX_ITEMS = 100_000
"""Of all lists before the pixels."""

MAX_INFLATED = 2**27
"""Bytes of a deflated file, unpacked."""

_PREAMBLE, _MAGIC = 128, b"DICM"
BEGINNING = _PREAMBLE + len(_MAGIC)
"""Bytes that say whether a file is DICOM."""

_DEFLATED, _PLAIN = b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.1\0\0\0"


def begins_as_dicom(content: bytes) -> bool:
    """Whether these are the first bytes of a DICOM file."""
    return content[_PREAMBLE : _PREAMBLE + len(_MAGIC)] == _MAGIC


class Bounded:
    """A file of which only so much may be read: before its pixels, DICOM has words and no more."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name, self._left, self._items = file, name, MAX_HEADER, 0
        self.fault: ImageError | None = None
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size if 0 <= size <= self._left else self._left + 1)
        self._left -= len(content)
        # A list of empty items takes a hundred times its bytes, and seconds.
        self._items += content.count(b"\xfe\xff\x00\xe0") + content.count(b"\xff\xfe\xe0\x00")
        if self._left < 0 or self._items > MAX_ITEMS:
            self.fault = ImageError(
                f"{printable(self._name)} has more than the {MAX_HEADER:,} bytes or {MAX_ITEMS:,} list items that are "
                "allowed before its pixels"
            )
            raise self.fault
        return content


def unpacked(file: BinaryIO, name: str, content: Path | bytes, stamp: int) -> BinaryIO:
    """A DICOM file to read from its beginning, unpacked where all of it is deflated.

    Args:
        content: the same file, or what it holds.
        stamp: another one when the file has changed.

    Raises:
        ImageError: where it is none, or unpacks to too much.
    """
    from pydicom.filereader import _read_file_meta_info  # the public one takes paths alone

    if not begins_as_dicom(file.read(BEGINNING)):
        raise ImageError(f"{printable(name)} is not a DICOM file")
    with damage_of(name):
        bounded: Any = Bounded(file, name)
        deflated = str(_read_file_meta_info(bounded).get("TransferSyntaxUID", "")).encode() == _DEFLATED
        place = file.tell()
    file.seek(0)
    return io.BytesIO(_inflated(content, name, place, stamp)) if deflated else file


@lru_cache(maxsize=1)
def _inflated(content: Path | bytes, name: str, place: int, stamp: int) -> bytes:
    """A deflated file, from `place` on, as if it were none: pydicom would unpack it whole, however large."""
    stored = content if isinstance(content, bytes) else content.read_bytes()
    with damage_of(name):
        inside = zlib.decompressobj(-zlib.MAX_WBITS).decompress(stored[place:], MAX_INFLATED + 1)
    if len(inside) > MAX_INFLATED:
        raise ImageError(f"{printable(name)} unpacks to more than the {MAX_INFLATED:,} bytes that are allowed")
    return stored[:place].replace(_DEFLATED, _PLAIN) + inside
