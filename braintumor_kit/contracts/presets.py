"""Folders of pretrained weights: on this machine, on Kaggle, on the Hugging Face hub."""

from pathlib import Path

import kagglehub
from huggingface_hub import snapshot_download

from braintumor_kit.contracts.pretrained import WeightsUnavailableError, root_cause
from braintumor_kit.errors import InputError

KAGGLE = "kaggle://"
HUGGING_FACE = "hf://"

_WANTED = ["*.json", "model*.weights.h5", "model.safetensors"]  # not the same weights in other formats too
_INSTEAD = "a local folder (a keras-hub preset or a timm checkpoint)"


def preset_folder(handle: str, weights: str) -> Path:
    """The folder that holds a preset, downloaded on first use.

    Args:
        handle: an absolute path, `kaggle://owner/model/framework/variation/version` or `hf://owner/name`.
        weights: what the preset holds, as a person would name it.

    Raises:
        WeightsUnavailableError: if it has to be downloaded, and cannot be.
        InputError: if the path is no folder with a config.json, or the handle is malformed.
    """
    if not handle.startswith((KAGGLE, HUGGING_FACE)):
        return _checked(Path(handle))
    try:
        return Path(_download(handle))
    except ValueError as error:
        raise InputError(f"{handle} is not the address of a preset: {root_cause(error)}") from error
    except Exception as error:  # the hubs raise some twenty unrelated classes; by any of them, there are no weights
        raise WeightsUnavailableError(weights, root_cause(error), _INSTEAD) from error


def _download(handle: str) -> str:
    if handle.startswith(KAGGLE):
        return kagglehub.model_download(handle.removeprefix(KAGGLE))
    # As one snapshot: for a single file, where there is no network, this hub tries six times over 23 seconds.
    return snapshot_download(handle.removeprefix(HUGGING_FACE), allow_patterns=_WANTED)


def _checked(folder: Path) -> Path:
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder of weights")
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{folder} has no config.json: expected a keras-hub preset or a timm checkpoint (config.json and "
            "model.safetensors)"
        )
    return folder
