"""Unpacks for pydicom what Pillow does not: lossless JPEG, the usual syntax in clinics, and JPEG of twelve bits.

By imagecodecs, whose libjpeg-turbo refuses damaged data; decoders that end the process over it are no choice for files
of strangers. pydicom calls this module by its own rules for plugins, which fix the names below.
"""

from importlib.util import find_spec
from typing import Any

from pydicom.pixels import get_decoder
from pydicom.uid import (
    JPEG2000,
    UID,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

_NEEDED = ("imagecodecs>=2024.6.1",)
DECODER_DEPENDENCIES = {JPEGExtended12Bit: _NEEDED, JPEGLossless: _NEEDED, JPEGLosslessSV1: _NEEDED}

DECODERS = {
    JPEGBaseline8Bit: "pillow", JPEG2000: "pillow", JPEG2000Lossless: "pillow", JPEGLSLossless: "pyjpegls",
    JPEGLSNearLossless: "pyjpegls", RLELossless: "pydicom", **dict.fromkeys(DECODER_DEPENDENCIES, "btkit"),
}  # fmt: skip
"""What unpacks each."""


def is_available(uid: str) -> bool:
    """Whether this transfer syntax can be unpacked here."""
    return uid in DECODER_DEPENDENCIES and find_spec("imagecodecs") is not None


def _decode_frame(src: bytes, runner: Any) -> bytes:
    """The values of one frame, and to the runner how they lie."""
    import imagecodecs

    values = imagecodecs.jpeg8_decode(src)
    samples = runner.samples_per_pixel
    if values.shape != (runner.rows, runner.columns, *([samples] if samples > 1 else [])):
        raise ValueError(f"it holds {' x '.join(map(str, values.shape))} values")
    runner.set_option("bits_allocated", 8 * values.itemsize)
    if samples > 1:
        runner.set_option("planar_configuration", 0)
    content: bytes = values.tobytes()
    return content


def decoder_of(syntax: UID) -> str | None:
    """The plugin of pydicom that unpacks a compressed transfer syntax here; None where there is none.

    Named one by one: what pydicom would take besides may be a decoder that ends the process over a damaged file.
    """
    name = DECODERS.get(syntax)
    decoder = get_decoder(syntax) if name else None
    if decoder is not None and name == "btkit" and not _known(decoder):
        decoder.add_plugin("btkit", (__name__, "_decode_frame"))
    return name if decoder is not None and name in decoder.available_plugins else None


def _known(decoder: Any) -> bool:
    return any(text.split()[0] == "btkit" for text in (*decoder.available_plugins, *decoder.missing_dependencies))
