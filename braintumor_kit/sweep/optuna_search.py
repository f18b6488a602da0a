"""A search by Optuna's tree of Parzen estimators (Akiba et al. 2019, doi:10.1145/3292500.3330701), through Ray Tune."""

import importlib.util
import logging
from collections.abc import Sequence
from typing import Any

from braintumor_kit.errors import InputError
from braintumor_kit.recipe.sweep_table import RangeTable, SweepTable
from braintumor_kit.sweep.trials import TRIALS, Trial, trial_of


class OptunaTrials:
    """Asks Ray Tune's `OptunaSearch`. The same answers in the same order give the same trials.

    Raises:
        InputError: where Optuna or Ray Tune is missing.
    """

    def __init__(self, table: SweepTable, seed: int, select: str) -> None:
        missing = [name for name in ("ray", "optuna") if importlib.util.find_spec(name) is None]
        if missing:
            raise InputError(
                f"[sweep] method = \"optuna\" needs {' and '.join(missing)}: pip install 'braintumor-kit[ray]'."
            )
        import optuna
        from ray.tune.search.optuna import OptunaSearch

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        logging.getLogger("ray.tune.search.optuna").setLevel(logging.ERROR)
        space = {key: _distribution(values, optuna.distributions) for key, values in table.space.items()}
        self._select, self._left, self._given = select, table.trials or TRIALS, 0
        mode = "min" if select == "val_loss" else "max"
        self._lists = {key: values for key, values in table.space.items() if not isinstance(values, RangeTable)}
        self._search = OptunaSearch(space=space, metric=select, mode=mode, seed=seed)

    def ask(self, count: int) -> list[Trial]:
        asked = []
        for _ in range(min(count, self._left - self._given)):
            self._given += 1
            values = self._search.suggest(str(self._given)) or {}
            asked.append(trial_of(self._given, {key: self._value(key, value) for key, value in values.items()}))
        return asked

    def _value(self, key: str, value: Any) -> Any:
        """Lists are searched by place: Optuna takes no lists as choices."""
        return self._lists[key][value] if key in self._lists else value

    def tell(self, trial: Trial, value: float) -> None:
        self._search.on_trial_complete(str(trial.number), {self._select: value})


def _distribution(values: Sequence[Any] | RangeTable, kinds: Any) -> Any:
    if not isinstance(values, RangeTable):
        return kinds.CategoricalDistribution(list(range(len(values))))
    if values.whole:
        return kinds.IntDistribution(round(values.low), round(values.high), log=values.log)
    return kinds.FloatDistribution(values.low, values.high, log=values.log)
