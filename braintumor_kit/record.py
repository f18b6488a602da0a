"""What `record.json` of a run holds, and how it is read: whole, of this layout, every value of its kind."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from braintumor_kit.errors import InputError
from braintumor_kit.files import read_json

FORMAT = 1
"""Rises when the layout of the run folder changes."""


class _Part(BaseModel):
    """Further keys are welcome; a value of another kind is not: whoever reads it must be able to rely on it."""

    model_config = ConfigDict(extra="allow", strict=True)


class Code(_Part):
    """The checkout that btkit ran from."""

    commit: str | None = None
    dirty: bool = False


class Device(_Part):
    """What the work ran on."""

    kind: str = ""
    threads: int | None = None


class Left(_Part):
    """A picture that could not be read."""

    id: str
    reason: str = ""


class Leaks(_Part):
    """What stands on both sides of the split."""

    warning: str


class WentOn(_Part):
    """One `--resume`."""

    at: str = ""
    argv: list[str] = []
    changes: list[str] = []


class Results(_Part):
    """What the run came to: see `workflows/results.py`."""

    history: list[dict[str, float]] = []
    weights: str = ""
    predictions: str = ""
    metrics: dict[str, dict[str, float | dict[str, float] | None]] = {}
    folds: list["Results"] = []


class Record(_Part):
    """`record.json`; what is not known yet, or does not apply, is missing or None."""

    format: int = Field(FORMAT, ge=1, le=FORMAT)
    status: str = ""
    argv: list[str] = []
    seed: int = 0
    started: str = ""
    ended: str | None = None
    reason: str | None = None
    code: Code | None = None
    packages: dict[str, str | None] = {}
    recipe_name: str = ""
    recipe: dict[str, Any] = {}
    recipe_digest: str = ""
    device: Device | None = None
    precision: str = ""
    plugins: dict[str, Any] = {}
    classes: list[str] = []
    samples: int = 0
    groups: int | None = None
    bad_images: list[Left] = []
    source_notes: dict[str, Any] = {}
    data_digest: str = ""
    split_digest: str = ""
    split_digests: list[str] = []
    folds: int | None = Field(None, ge=2)
    sweep: bool = False
    trials: int | None = None
    best_trial: str | None = None
    leaks: Leaks | None = None
    backbone_weights: str = ""
    explain_layer: str | None = None
    parameters: int = 0
    selected_on: str = ""
    reported_on: str | None = None
    best_epoch: int = 0
    batch_size: int = 0
    resumed: list[WentOn] = []
    results: Results | None = None


def read_record(path: Path) -> Mapping[str, Any]:
    """The content of a `record.json`, as it stands in the file.

    Raises:
        InputError: where the file cannot be read, is of a newer btkit, or holds something else than a record.
    """
    value = read_json(path)
    written = value.get("format")
    if isinstance(written, int) and written > FORMAT:
        raise InputError(f"{path} is of a newer btkit (format {written}; this one knows {FORMAT}): update it.")
    try:
        Record.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        said = first["msg"].removeprefix("Input ")
        raise InputError(f"{path} is damaged: {place}: {said[:1].lower()}{said[1:]}.") from error
    return value
