"""What an audit needs of each picture, in one record, from one look at it."""

import hashlib
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import stats

from braintumor_kit.data.cache import cache_key, seen_digest
from braintumor_kit.data.caches import cache_folder
from braintumor_kit.data.dataset import BadImage, Dataset, Progress, quiet
from braintumor_kit.data.pixels import head_mask, prepare, to_colour, to_display
from braintumor_kit.data.rows import rows_of
from braintumor_kit.engines.engine import Engine
from braintumor_kit.recipe.tables import PixelsTable

VERSION = 3
"""Rises when the record changes; surveys of other versions are not used."""

THUMBNAIL = 64
CELLS = 28
"""The border is looked at in the outermost cells of a grid of so many each way."""

BACKGROUND = 14
SMALL = 16

INTENSITY = (
    "mean", "standard deviation", "skewness", "kurtosis", "1st percentile", "25th percentile", "median",
    "75th percentile", "99th percentile", "entropy",
)  # fmt: skip
"""The ten statistics of a prepared picture's grey levels; entropy in bits."""

COLOURED = 32
"""A pixel whose channels differ by more is coloured; lossy compression makes grey pixels differ by a little."""

RECORD = np.dtype(
    [
        ("thumbnail", np.uint8, (THUMBNAIL, THUMBNAIL)),
        ("digest", "V16"),
        ("seen", "V16"),
        ("height", np.uint32),
        ("width", np.uint32),
        ("bits", np.uint8),
        ("channels", np.uint8),
        ("coloured", np.float32),
        ("contrast", np.float32),
        ("margins", np.float32, (4,)),
        ("head", np.float32),
        ("border", np.float16, (4 * (CELLS - 1),)),
        ("background", np.float16, (BACKGROUND * BACKGROUND,)),
        ("intensity", np.float32, (len(INTENSITY),)),
        ("small", np.uint8, (SMALL, SMALL)),
    ]
)
"""Of the picture as it comes: `thumbnail`, the whole of it in grey, stretched to a square; `digest` of its pixels,
equal for grey pictures however their channels are stored; its size, `bits` and `channels`; the share of `coloured`
pixels; `contrast`, from the 1st to the 99th percentile of grey; `margins` around the head at the top, left, bottom
and right, and the share that the `head` fills.

Of the picture as `[pixels]` prepares it: the digest of what is `seen` by a network, its `border`, its `background`
with the head blackened, `intensity` statistics and a `small` copy."""


def survey(
    dataset: Dataset, pixels: PixelsTable, progress: Progress = quiet, engine: Engine | None = None
) -> tuple[NDArray[Any], list[BadImage]]:
    """Looks at every picture of a data set.

    Args:
        engine: that looks; None is the cores of this machine.

    Returns:
        Records of type `RECORD`, (N,), memory-mapped, in the order of the samples, and the samples that cannot be
        read, whose records are zero.

    Raises:
        WorkError: where the cache cannot be written.
    """
    folder = cache_folder() / "surveys" / cache_key(dataset, pixels, VERSION)
    return rows_of(dataset, folder, np.zeros((), RECORD), partial(record_of, pixels=pixels), progress, engine)


def record_of(picture: NDArray[Any], pixels: PixelsTable) -> Any:
    """The record of one picture as a source gives it.

    Raises:
        ImageError: where it is no picture.
    """
    shown = prepare(picture, pixels)  # which refuses what is no picture
    prepared = to_colour(shown.squeeze(), "grey")
    channels = 1 if picture.ndim == 2 else picture.shape[2]
    if channels > 1 and (picture == picture[..., :1]).all():
        picture = picture[..., 0]  # grey, however it is stored
    grey = np.rint(to_colour(to_display(picture), "grey")).astype(np.uint8)
    head = head_mask(grey)
    record = np.zeros((), RECORD)
    record["thumbnail"] = _resized(grey, THUMBNAIL)
    record["digest"] = _digest(picture)
    record["seen"] = seen_digest(shown)
    record["height"], record["width"] = grey.shape
    record["bits"] = 8 * picture.dtype.itemsize
    record["channels"] = channels
    record["coloured"] = _coloured(picture)
    low, high = np.percentile(grey, [1, 99])
    record["contrast"] = high - low
    record["margins"], record["head"] = _framing(head)
    _describe_prepared(record, prepared, head if np.array_equal(prepared, grey) else head_mask(prepared))
    return record


def _describe_prepared(record: Any, prepared: NDArray[np.uint8], head: NDArray[np.bool_]) -> None:
    cells = _resized(prepared, CELLS, np.float32)
    record["border"] = np.concatenate([cells[0], cells[-1], cells[1:-1, 0], cells[1:-1, -1]])
    record["background"] = _resized(np.where(head, 0, prepared), BACKGROUND, np.float32).ravel()
    record["intensity"] = _statistics(prepared)
    record["small"] = _resized(prepared, SMALL)


def _resized(picture: NDArray[Any], side: int, dtype: Any = np.uint8) -> NDArray[Any]:
    """Each cell is the mean of what it covers."""
    image = Image.fromarray(picture.astype(dtype))
    return np.asarray(image.resize((side, side), Image.Resampling.BOX))


def _digest(picture: NDArray[Any]) -> bytes:
    digest = hashlib.blake2b(f"{picture.dtype}{picture.shape}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(picture).tobytes())
    return digest.digest()


def _coloured(picture: NDArray[Any]) -> float:
    if picture.ndim == 2:
        return 0.0
    display = to_display(picture).astype(np.int16)
    return float((display.max(axis=2) - display.min(axis=2) > COLOURED).mean())


def _framing(head: NDArray[np.bool_]) -> tuple[tuple[float, ...], float]:
    """Margins around the head as fractions of the picture's height and width, and the share that the head fills."""
    if not head.any():
        return (0.0, 0.0, 0.0, 0.0), 0.0
    height, width = head.shape
    rows, columns = np.flatnonzero(head.any(axis=1)), np.flatnonzero(head.any(axis=0))
    margins = (rows[0] / height, columns[0] / width, 1 - (rows[-1] + 1) / height, 1 - (columns[-1] + 1) / width)
    return tuple(map(float, margins)), float(head.mean())


def _statistics(picture: NDArray[np.uint8]) -> list[float]:
    """In the order of `INTENSITY`, all from the histogram."""
    share = np.bincount(picture.ravel(), minlength=256) / picture.size
    levels = np.arange(256)
    mean = float(share @ levels)
    deviation = float(share @ (levels - mean) ** 2) ** 0.5
    standard = (levels - mean) / deviation if deviation > 0 else np.zeros(256)
    percentiles = np.searchsorted(share.cumsum(), [0.01, 0.25, 0.5, 0.75, 0.99])
    shape = (float(share @ standard**3), float(share @ standard**4) - 3.0)
    return [mean, deviation, *shape, *map(float, percentiles), float(stats.entropy(share, base=2))]
