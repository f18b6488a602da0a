"""The classifier of pictures given tables, so that scikit-learn's checks can be held to it: they know no pictures."""

from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted, validate_data

from braintumor_kit.estimator.classifier import BrainTumorClassifier

PLUGINS = Path(__file__).parent / "small_plugins"
RECIPE = str(PLUGINS / "two_layers.toml")


class OnTables(BrainTumorClassifier):
    """Each row of a table becomes a picture of grey stripes, a stripe a column. Pictures have no columns, so that their
    number is the table's own matter; all else is as it is."""

    def __init__(self, recipe: str = RECIPE, *, random_state: Any = None, plugins: tuple[str, ...] = (str(PLUGINS),)):
        super().__init__(recipe, random_state=random_state, plugins=plugins)

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        table = np.asarray(X)
        if is_plain(table):
            self.n_features_in_ = table.shape[1]
            self.low_, self.high_ = table.astype(float).min(axis=0), table.astype(float).max(axis=0)
        return super().fit(self.pictures(X), y, groups)

    def predict_proba(self, X: Any) -> Any:
        check_is_fitted(self)
        if is_plain(np.asarray(X)) and hasattr(self, "n_features_in_"):
            validate_data(self, np.asarray(X), reset=False)
        return super().predict_proba(self.pictures(X))

    def pictures(self, X: Any) -> Any:
        """uint8 (N, 32, 32); what is no table of numbers as it is, or one row high, to be refused."""
        table = np.asarray(X)
        if not is_plain(table):
            return table[:, np.newaxis] if table.ndim == 2 else X
        span = np.where(self.high_ > self.low_, self.high_ - self.low_, 1.0)
        grey = np.clip(32 + 192 * (table.astype(float) - self.low_) / span, 0, 255).astype(np.uint8)
        return np.repeat(grey[:, np.newaxis].repeat(32, axis=1), -(-32 // grey.shape[1]), axis=2)[:, :, :32]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array, tags.input_tags.string = True, False, False
        return tags


def is_plain(table: Any) -> bool:
    """Whether it is a table of finite numbers with something in it."""
    if table.ndim != 2 or table.size == 0 or table.dtype.kind not in "uifbO":
        return False
    return bool(np.isfinite(table.astype(float)).all())
