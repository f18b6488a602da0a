"""`BrainTumorClassifier`: btkit's own training behind the methods that scikit-learn knows."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d

from braintumor_kit.contracts import InputError
from braintumor_kit.contracts.randomness import seeded
from braintumor_kit.data.arrays import Images, prepared
from braintumor_kit.data.split import split_digest
from braintumor_kit.estimator.material import NAME, material_of
from braintumor_kit.files import make_folder, whole, write_json
from braintumor_kit.model.build import bytes_of_file
from braintumor_kit.model.infer import Predictor
from braintumor_kit.progress import Reporter
from braintumor_kit.recipe.load import Recipe, load_recipe, without_none
from braintumor_kit.recipe.shipped import find_recipe
from braintumor_kit.registry import Registry
from braintumor_kit.runs import Run, end_record, find_run, start_record
from braintumor_kit.training.fit import check, fit
from braintumor_kit.training.task import Watch
from braintumor_kit.workflows.learning import build, make_task
from braintumor_kit.workflows.trained import trained_of

KEYS = {
    "backbone": ("backbone", "name"),
    "depth": ("backbone", "depth"),
    "weights": ("backbone", "weights"),
    "image_size": ("pixels", "image_size"),
    "epochs": ("training", "epochs"),
    "batch_size": ("training", "batch_size"),
    "learning_rate": ("training", "learning_rate"),
    "precision": ("training", "precision"),
    "validation": ("split", "validation"),
}
"""The parameters that stand for a key of the recipe."""


class BrainTumorClassifier(ClassifierMixin, BaseEstimator):
    """A classifier of pictures for scikit-learn's tools, trained as `btkit run` trains.

    What the parameters leave open is as the recipe says: its [pixels], [augment], [backbone], [training] and
    [callbacks], and of [split] the share of validation. Its source, explanations and report are not asked for.

    Args:
        recipe: a recipe's file, or the name of one that ships with btkit.
        backbone, depth, weights, image_size, epochs, batch_size, learning_rate, precision, validation: keys of the
            recipe, each as the recipe has it where None.
        overrides: further ones, by table, such as {"training": {"label_smoothing": 0.1}}.
        random_state: every draw follows from it; the recipe's seed where None. In float32 on a CPU the same data and
            number give the same classifier.
        plugins: folders of plugins of yours.

    Attributes:
        classes_: the labels, sorted.
        model_: the Keras model of the best epoch: pictures (N, S, S, C) in 0..255 to probabilities.
        history_: of each epoch, the columns of `history.csv`; empty after `load`.
        best_epoch_: counted from 1; 0 after `load`.
    """

    def __init__(
        self,
        recipe: str | Path = "resnet_adam",
        *,
        backbone: str | None = None,
        depth: int | None = None,
        weights: str | None = None,
        image_size: int | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        precision: str | None = None,
        validation: float | None = None,
        overrides: Mapping[str, Any] | None = None,
        random_state: int | np.random.RandomState | None = None,
        plugins: Sequence[str | Path] = (),
    ) -> None:
        self.recipe = recipe
        self.backbone = backbone
        self.depth = depth
        self.weights = weights
        self.image_size = image_size
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.precision = precision
        self.validation = validation
        self.overrides = overrides
        self.random_state = random_state
        self.plugins = plugins

    def fit(self, X: Images, y: ArrayLike, groups: Sequence[object] | None = None) -> Self:
        """Trains on pictures, a part of which is set aside to choose the epoch.

        Args:
            X: (N, H, W) or (N, H, W, 3), or a list of such pictures or of paths, of any sizes. uint8 is taken as
                0..255, other numbers are stretched to it from each picture's own range.
            y: a label a picture, of two classes or more.
            groups: the patient of each picture, so that validation is of other patients than training.
                `cross_val_score` hands its `groups` to the splitter alone; `params={"groups": groups}` are for here.

        Raises:
            ValueError: where X or y does not fit; InputError where the recipe does not.
        """  # fmt: skip
        recipe = self._recipe()
        if recipe.tables.training.workers > 1:
            raise InputError("training.workers is for btkit run: here one process fits, with all of its threads.")
        if recipe.tables.training.mask_weight:
            raise InputError("training.mask_weight is for btkit run: arrays have no tumour masks.")
        with _as_value_error():
            labels = _checked_labels(y, type(self).__name__)
            check_consistent_length(X, labels, groups)
            self.classes_, numbers = np.unique(labels, return_inverse=True)
            _check_classes(self.classes_, numbers)
            slices = prepared(X, recipe.tables.pixels)
            seed, names = recipe.tables.seed, _names(self.classes_)
            material = material_of(slices, numbers.astype(np.int64), names, groups, recipe.tables.split, seed)
        quiet = Reporter()
        with seeded(seed), TemporaryDirectory(prefix="btkit-fit-") as folder:
            classifier = build(recipe, material.dataset)
            check(classifier, recipe.tables.training, recipe.tables.callbacks)
            fitted = fit(classifier, make_task(recipe, material, quiet), Path(folder), Watch(lambda row: None))
        classifier.model.trainable = True
        self.model_ = classifier.model
        self.history_ = [asdict(row) for row in fitted.history]
        self.best_epoch_ = fitted.best_epoch
        self._known: dict[str, Any] = {
            "classes": list(names),
            "recipe": {**recipe.resolved(), "source": {"name": NAME}},
            "recipe_name": recipe.path.stem,
            "explain_layer": classifier.explain_layer,
            "backbone_weights": classifier.weights,
            "data_digest": material.dataset.digest,
            "split_digest": split_digest(material.dataset.samples, material.split),
            "samples": len(slices),
            "best_epoch": fitted.best_epoch,
        }
        self._pixels = recipe.tables.pixels
        return self

    def predict_proba(self, X: Images) -> NDArray[np.float32]:
        """Probabilities (N, classes) as the model gives them, in the order of `classes_`, computed in float32.

        Raises:
            ValueError: where X is not as `fit` takes it.
            NotFittedError: before `fit`.
        """
        check_is_fitted(self)
        with _as_value_error():
            slices = prepared(X, self._pixels)
        predictor = Predictor(self.model_)
        size = predictor.batch_size
        rows = [predictor(slices[start : start + size]) for start in range(0, len(slices), size)]
        return np.concatenate(rows) if rows else np.empty((0, len(self.classes_)), np.float32)

    def predict(self, X: Images) -> NDArray[Any]:
        """The likeliest label of each picture, (N,)."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]

    def save(self, folder: str | Path) -> Path:
        """Writes what was fitted into a folder that does not exist yet; `btkit predict`, `explain`, `serve` and
        `braintumor_kit.load` take it for a run.

        Raises:
            InputError: where the folder is there, or a label is no text, whole number or truth value.
            WorkError: where it cannot be written.
        """
        check_is_fitted(self)
        labels = self.classes_.tolist()
        if not all(isinstance(label, str | int) for label in labels):
            raise InputError(f"labels such as {labels[0]!r} cannot be kept in a file; fit with texts or whole numbers.")
        run = Run(Path(folder))
        if run.folder.exists():
            raise InputError(f"'{folder}' exists already; choose another folder.")
        make_folder(run.folder)
        with whole(run.model_path, bytes_of_file(self.model_)) as beside:
            self.model_.save(beside)
        write_json(run.folder / "resolved.json", self._known["recipe"])
        known = {**self._known, "labels": labels}
        start_record(run, ["BrainTumorClassifier"], self._known["recipe"]["seed"], datetime.now(UTC), known)
        end_record(run, "finished")
        return run.folder

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The classifier that `save`, or a `btkit run`, left in a folder.

        Raises:
            InputError: where there is none, or a file is damaged.
        """
        trained = trained_of(run := find_run(str(folder), Path()))
        recipe = dict(run.resolved)
        loaded = cls(overrides=without_none({key: recipe[key] for key in recipe if key not in ("source", "explain")}))
        labels = run.record.get("labels")
        loaded.classes_ = np.array(labels if _fits(labels, trained.classes) else trained.classes)
        loaded.model_, loaded._pixels = trained.model, trained.pixels
        loaded.history_, loaded.best_epoch_ = [], 0
        kept = ("classes", "recipe_name", "explain_layer", "backbone_weights", "data_digest", "split_digest", "samples")
        loaded._known = {**{key: run.record.get(key) for key in kept}, "recipe": recipe}
        return loaded

    def _recipe(self) -> Recipe:
        changes: dict[str, Any] = {table: dict(keys) for table, keys in (self.overrides or {}).items()
                                   if isinstance(keys, Mapping)}  # fmt: skip
        changes |= {key: value for key, value in (self.overrides or {}).items() if not isinstance(value, Mapping)}
        for name, (table, key) in KEYS.items():
            if getattr(self, name) is not None:
                changes.setdefault(table, {})[key] = _plain(getattr(self, name))
        if self.random_state is not None:
            changes["seed"] = _seed(self.random_state)
        registry = Registry.from_environment([Path(folder) for folder in self.plugins])
        recipe = load_recipe(find_recipe(str(self.recipe)), (), registry, changes)
        return replace(recipe, explainers=(), tables=recipe.tables.model_copy(update={"explain": (), "mlflow": None}))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array, tags.input_tags.string = False, True, True
        return tags


def _checked_labels(y: ArrayLike, name: str) -> NDArray[Any]:
    if y is None:
        raise InputError(f"{name} requires y to be passed, but the target y is None.")
    labels = column_or_1d(y, warn=True)
    check_classification_targets(labels)
    return labels


def _check_classes(classes: NDArray[Any], numbers: NDArray[np.int64]) -> None:
    if len(classes) == 0:
        raise InputError("there are no pictures to fit to.")
    if len(classes) == 1:
        raise InputError(f"y has one class only, {classes.tolist()[0]!r}: a classifier needs two.")
    rarest = np.bincount(numbers).argmin()
    if np.bincount(numbers)[rarest] < 2:
        label = classes.tolist()[rarest]
        raise InputError(f"class {label!r} has one picture only: training and validation need one each.")


def _names(classes: NDArray[Any]) -> tuple[str, ...]:
    """Names of the labels for files and messages, each another one."""
    names = tuple(str(label) for label in classes.tolist())
    return names if len(set(names)) == len(names) else tuple(f"class_{number}" for number in range(len(names)))


def _fits(labels: Any, classes: Sequence[str]) -> bool:
    return isinstance(labels, list) and [str(label) for label in labels] == list(classes)


def _seed(random_state: int | np.random.RandomState) -> int:
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31))


def _plain(value: Any) -> Any:
    """A number of NumPy's, as searches over parameters give them, as Python's own."""
    return value.item() if isinstance(value, np.generic) else value


@contextmanager
def _as_value_error() -> Iterator[None]:
    """Inside, what is wrong with X or y is told as scikit-learn's tools expect it."""
    try:
        yield
    except InputError as error:
        raise ValueError(str(error)) from error
