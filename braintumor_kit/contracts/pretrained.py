"""What backbones with pretrained weights share: downloads, a missing network, other channels than RGB."""

import logging
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from braintumor_kit.contracts.options import PluginOptions
from braintumor_kit.errors import InputError

RGB = 3

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
IMAGENET_SCALE = tuple(1 / 255 / std for std in _STD)
IMAGENET_OFFSET = tuple(-mean / std for mean, std in zip(_MEAN, _STD, strict=True))
"""ImageNet's normalisation, (pixel / 255 - mean) / std, as `pixel * scale + offset`."""

_CONNECT_SECONDS = 10

log = logging.getLogger("btkit")


class DownloadedWeightsOptions(PluginOptions):
    """Options of a backbone whose pretrained weights are downloaded once."""

    if_unavailable: Literal["error", "none"] = Field(
        "error",
        description="What to do when the weights need a network and there is none: stop, or begin from random ones.",
    )


class WeightsUnavailableError(InputError):
    """Weights have to be downloaded, and cannot be.

    Attributes:
        weights: the weights that were wanted, as a person would name them.
        reason: why they cannot be had, in a few words.
    """

    def __init__(self, weights: str, reason: str, local: str) -> None:
        """`local`: what can be given instead when there is no network, such as "a local .pth file"."""
        super().__init__(
            f"{weights} could not be downloaded ({reason}): that needs a network once; without one, give "
            f'{local} as weights, set weights = "none", or use the backbone efficientnet_lite0, whose '
            "ImageNet weights are installed with btkit"
        )
        self.weights = weights
        self.reason = reason


def random_instead(error: WeightsUnavailableError, if_unavailable: Literal["error", "none"]) -> str:
    """What to record as the weights' origin when they are random because of `error`; warns about it.

    Raises:
        WeightsUnavailableError: `error` itself, unless the user allowed random weights.
    """
    if if_unavailable == "error":
        raise error
    log.warning("%s could not be downloaded (%s): beginning from random weights", error.weights, error.reason)
    return f"random ({error.weights} could not be had: {error.reason})"


def download(url: str, weights: str, local: str) -> Path:
    """A .pth file from torch's cache of downloads, fetched into it on first use.

    Args:
        url: as torch publishes it, its name ending in the first digits of the file's SHA-256.
        weights: what the file holds, as a person would name it.
        local: what can be given instead when there is no network.

    Raises:
        WeightsUnavailableError: if it is not there and cannot be fetched whole.
    """
    name = url.rpartition("/")[2]
    file = Path(torch.hub.get_dir(), "checkpoints", name)
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        digest = Path(name).stem.rpartition("-")[2]
        log.info("downloading %s to %s", url, file)
        try:
            with _socket_timeout(_CONNECT_SECONDS):
                torch.hub.download_url_to_file(url, str(file), hash_prefix=digest)
        except (OSError, RuntimeError) as error:  # no network; a file that was damaged on the way
            raise WeightsUnavailableError(weights, root_cause(error), local) from error
    return file


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """torch opens addresses without a timeout: behind a firewall that drops packets it waits for minutes."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def root_cause(error: BaseException) -> str:
    """The innermost reason of an error in one line: "Name or service not known", not its wrappings."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.strip().splitlines()[0]


def fit_channels(kernel: np.ndarray, channels: int, axis: int) -> np.ndarray:
    """A first convolution's kernel for another number of input channels.

    Each of `channels` gets the sum over the old ones divided by `channels`, so that a grey picture repeated
    to `channels` gives the answer that it gave repeated to the old number. With as many channels as before,
    the kernel stays as it is.

    Args:
        kernel: with its input channels along `axis`.
    """
    if kernel.shape[axis] == channels:
        return kernel
    return np.repeat(kernel.sum(axis, keepdims=True) / channels, channels, axis)


def fit_scaling(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """A scale or offset a colour, for another number of channels: their mean for all of them."""
    return tuple(values) if len(values) in (1, channels) else (sum(values) / len(values),)
