"""The table [sweep]: which values of a recipe's keys are tried, in what order, and which trials stop early."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from braintumor_kit.recipe.table import Table

Choice = bool | int | float | str | tuple[bool | int | float | str, ...]
MOST_TRIALS = 10_000


class RangeTable(Table):
    """Numbers from `low` to `high`."""

    low: float = Field(description="The least value.")
    high: float = Field(description="The greatest value.")
    log: bool = Field(False, description="Even on a logarithmic scale.")
    whole: bool = Field(False, description="Whole numbers only.")
    steps: int | None = Field(None, ge=2, le=1000, description="With method = grid: how many values, ends included.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low has to be less than high, not {self.low:g} and {self.high:g}.")
        if self.log and self.low <= 0:
            raise ValueError("low has to be more than 0 on a logarithmic scale.")
        return self


class AshaTable(Table):
    """Stop trials that are not among the best at an epoch that others have come to: asynchronous successive halving
    (Li et al. 2020, doi:10.48550/arXiv.1810.05934)."""

    grace_epochs: int = Field(1, ge=1, description="No trial stops before that many epochs.")
    reduction: int = Field(3, ge=2, le=100, description="Of so many trials that come to an epoch, one goes on.")


class SweepTable(Table):
    """Train the recipe several times with other values, and choose among them on validation."""

    method: Literal["grid", "random", "optuna"] = Field(
        "grid",
        description='"grid": every combination; "random": draws that follow from the seed; "optuna": draws that learn '
        "from the trials before, by Optuna's TPE through Ray Tune (extra [ray]).",
    )
    trials: int | None = Field(
        None, ge=1, le=MOST_TRIALS, description="How many, 20 by default; a grid has as many as combinations."
    )
    select: Literal["val_accuracy", "val_loss"] | None = Field(
        None, description="What picks the best trial, by its best epoch; training.select by default."
    )
    asha: AshaTable | None = Field(None, description="Stop trials early that fall behind.")
    space: dict[str, tuple[Choice, ...] | RangeTable] = Field(
        description='The keys and their values: "training.batch_size" = [16, 32], or a range such as '
        '"training.learning_rate" = { low = 1e-4, high = 1e-2, log = true }.',
    )

    @field_validator("space", mode="before")
    @classmethod
    def _flat(cls, space: Any) -> Any:
        """Keys may be written as tables too: training.batch_size without quotes."""
        if not isinstance(space, Mapping):
            return space
        return {key: _choices(key, value) for key, value in _flattened(space)}

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if not self.space:
            raise ValueError("space names no key to vary.")
        for key, values in self.space.items():
            if isinstance(values, tuple) and not values:
                raise ValueError(f"space.{key} lists no value.")
            if isinstance(values, RangeTable) and (self.method == "grid") != (values.steps is not None):
                wants = "needs" if self.method == "grid" else "does not go with"
                raise ValueError(f'space.{key} {wants} steps with method = "{self.method}".')
        if self.method == "grid" and self.trials is not None:
            raise ValueError('trials goes with method = "random" or "optuna"; a grid has every combination.')
        fixed = ("sweep", "resources", "extends")
        own = next((key for key in self.space if key.partition(".")[0] in fixed or key == "training.workers"), None)
        if own is not None:
            raise ValueError(f"space.{own} is nothing that a trial could vary.")
        return self


def _flattened(space: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in space.items():
        name = f"{above}.{key}" if above else str(key)
        if isinstance(value, Mapping) and not {"low", "high"} & value.keys():
            yield from _flattened(value, name)
        else:
            yield name, value


def _choices(key: str, values: Any) -> tuple[Choice, ...] | RangeTable:
    if isinstance(values, Mapping):
        try:
            return RangeTable.model_validate(values, strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join((key, *map(str, first["loc"])))
            raise ValueError(f"{place}: {first['msg'].removeprefix('Value error, ')}") from error
    chosen = _as_tuple(values)
    if not (isinstance(chosen, tuple) and all(_is_choice(value) for value in chosen)):
        raise ValueError(f"{key}: list its values, or give a range such as {{ low = 1e-4, high = 1e-2 }}.")
    return chosen


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def _is_choice(value: Any) -> bool:
    plain = value if isinstance(value, tuple) else (value,)
    return all(isinstance(item, bool | int | float | str) for item in plain)
