"""Where the values of a sweep's trials come from: a grid, draws, or a search that learns from the trials before."""

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from braintumor_kit.errors import InputError
from braintumor_kit.recipe.sweep_table import MOST_TRIALS, RangeTable, SweepTable

TRIALS = 20
"""Where nobody says how many."""


@dataclass(frozen=True)
class Trial:
    """One training of a sweep.

    Attributes:
        number: from 1.
        values: keys of the recipe and their values, as JSON.
    """

    number: int
    values: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"trial-{self.number:04d}"

    @property
    def overrides(self) -> list[str]:
        """As `--set` takes them."""
        return [f"{key}={value}" for key, value in self.values]

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(f'{key} = {short(json.loads(value))}' for key, value in self.values)})"


def short(value: Any) -> str:
    """A value for people: numbers to four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class Search(Protocol):
    """Gives trials, and may hear what came of them."""

    def ask(self, count: int) -> list[Trial]:
        """The next trials, at most so many; none where there are no more."""

    def tell(self, trial: Trial, value: float) -> None:
        """What a trial came to: the figure that selects, at its best."""


def search_of(table: SweepTable, seed: int, select: str) -> Search:
    """The search that a recipe asks for.

    Args:
        seed: draws follow from it.
        select: "val_accuracy" or "val_loss".

    Raises:
        InputError: where a grid is too large, or Optuna or Ray Tune is missing.
    """
    if table.method == "optuna":
        from braintumor_kit.sweep.optuna_search import OptunaTrials

        return OptunaTrials(table, seed, select)
    return Listed(_grid(table) if table.method == "grid" else _draws(table, seed))


class Listed:
    """Trials that are known from the beginning."""

    def __init__(self, values: Iterator[Mapping[str, Any]]) -> None:
        self._trials = (trial_of(number, chosen) for number, chosen in enumerate(values, start=1))

    def ask(self, count: int) -> list[Trial]:
        return list(itertools.islice(self._trials, count))

    def tell(self, trial: Trial, value: float) -> None:
        """Nothing follows from it."""


def trial_of(number: int, values: Mapping[str, Any]) -> Trial:
    """The trial of that number with these values of keys."""
    return Trial(number, tuple((key, json.dumps(value)) for key, value in values.items()))


def ends(values: RangeTable) -> tuple[float, float]:
    """The least and the greatest value of a range, as trials have them."""
    return (round(values.low), round(values.high)) if values.whole else (values.low, values.high)


def _grid(table: SweepTable) -> Iterator[Mapping[str, Any]]:
    choices = [_steps(values) if isinstance(values, RangeTable) else values for values in table.space.values()]
    count = math.prod(len(values) for values in choices)
    if count > MOST_TRIALS:
        raise InputError(f"[sweep] space has {count} combinations, more than {MOST_TRIALS}: draw some with method = "
                         '"random".')  # fmt: skip
    return (dict(zip(table.space, chosen, strict=True)) for chosen in itertools.product(*choices))


def _steps(values: RangeTable) -> Sequence[float]:
    spaced = np.geomspace if values.log else np.linspace
    every = spaced(values.low, values.high, values.steps or 2).tolist()
    return list(dict.fromkeys(map(round, every))) if values.whole else [float(f"{value:.9g}") for value in every]


def _draws(table: SweepTable, seed: int) -> Iterator[Mapping[str, Any]]:
    """Each trial has a generator of its own, so that asking for more trials leaves those before as they are."""
    for number in range(table.trials or TRIALS):
        random = np.random.default_rng((seed, number))
        yield {key: _draw(values, random) for key, values in table.space.items()}


def _draw(values: Sequence[Any] | RangeTable, random: np.random.Generator) -> Any:
    if not isinstance(values, RangeTable):
        return values[int(random.integers(len(values)))]
    if values.whole and not values.log:
        return int(random.integers(round(values.low), round(values.high) + 1))
    low, high = (math.log(values.low), math.log(values.high)) if values.log else (values.low, values.high)
    drawn = random.uniform(low, high)
    drawn = math.exp(drawn) if values.log else drawn
    return round(drawn) if values.whole else float(f"{drawn:.9g}")
