"""`BrainTumorClassifier` keeps to scikit-learn's conventions: its own checks, and what they cannot ask of pictures."""

import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import keras
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from on_tables import PLUGINS, RECIPE, OnTables
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from braintumor_kit.contracts import InputError
from braintumor_kit.data.arrays import prepared
from braintumor_kit.estimator import classifier as module
from braintumor_kit.estimator.classifier import BrainTumorClassifier
from braintumor_kit.recipe.tables import PixelsTable
from braintumor_kit.training.fit import fit as fit_loop

pytestmark = pytest.mark.usefixtures("one_thread")

DO_NOT_APPLY = {
    "check_estimators_empty_data_messages": "of pictures without pixels it says that they have no pixels, not that a "
    "table has no columns",
    "check_array_api_input": "pictures are decoded and prepared by NumPy and Pillow; arrays of other libraries are "
    "converted, not computed with",
}
"""Checks that ask for what pictures do not have, and why."""


@parametrize_with_checks([OnTables()], expected_failed_checks=lambda estimator: DO_NOT_APPLY)
def test_scikit_learn_s_checks(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


# Pictures


def pictures(count: int = 48, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[Any], NDArray[np.int64]]:
    """Noise, with a bright square on those of the class "spot"; three pictures a patient."""
    draw = np.random.default_rng(seed)
    found = draw.integers(0, 60, (count, 32, 32)).astype(np.uint8)
    labels = np.array(["plain", "spot"])[np.arange(count) // 6 % 2]
    found[labels == "spot", 8:24, 8:24] += 150
    return found, labels, np.arange(count) // 3


def small(**changes: Any) -> BrainTumorClassifier:
    return BrainTumorClassifier(RECIPE, plugins=(str(PLUGINS),), **{"random_state": 3, "epochs": 8, **changes})


@pytest.fixture(scope="module")
def fitted() -> BrainTumorClassifier:
    """Fitted to `pictures`; not to be changed."""
    X, y, groups = pictures()
    return small().fit(X, y, groups)


def test_it_learns_and_generalises(fitted: BrainTumorClassifier) -> None:
    X, y, _ = pictures(seed=9)
    assert fitted.classes_.tolist() == ["plain", "spot"]
    assert fitted.score(X, y) == 1.0
    probabilities = fitted.predict_proba(X)
    assert probabilities.shape == (48, 2)
    assert fitted.predict(X).tolist() == fitted.classes_[probabilities.argmax(axis=1)].tolist()
    assert [row["epoch"] for row in fitted.history_] == list(range(1, 9))
    best = max(row["val_accuracy"] for row in fitted.history_)
    assert fitted.history_[fitted.best_epoch_ - 1]["val_accuracy"] == best


def test_it_is_the_model_s_own_answer(fitted: BrainTumorClassifier) -> None:
    X, _, _ = pictures(6)
    batch = torch.from_numpy(np.repeat(X[..., np.newaxis].astype(np.float32), fitted.model_.input_shape[-1], axis=3))
    np.testing.assert_allclose(
        fitted.predict_proba(X), keras.ops.convert_to_numpy(fitted.model_(batch, training=False)), atol=1e-6
    )


def test_the_same_number_gives_the_same_and_the_process_s_own_randomness_stays(fitted: BrainTumorClassifier) -> None:
    X, y, groups = pictures()
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    again, other = small().fit(X, y, groups), small(random_state=4).fit(X, y, groups)
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    one, two, three = (item.predict_proba(X) for item in (fitted, again, other))
    assert (one == two).all()
    assert (one != three).any()


def test_it_trains_by_btkit_s_own_loop_and_validates_on_other_patients(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, Any]] = []
    divide = module.material_of

    def spied_material(*arguments: Any) -> Any:
        seen.append((divide(*arguments), None))
        return seen[-1][0]

    def spied_fit(classifier: Any, task: Any, *rest: Any) -> Any:
        seen.append((task, None))
        return fit_loop(classifier, task, *rest)

    monkeypatch.setattr(module, "material_of", spied_material)
    monkeypatch.setattr(module, "fit", spied_fit)
    X, y, groups = pictures()
    small(epochs=1, validation=0.25).fit(X, y, groups)
    material, task = seen[0][0], seen[1][0]
    sides = {part: set(groups[material.places(part)]) for part in ("train", "validation")}
    assert not sides["train"] & sides["validation"]
    assert len(sides["validation"]) == 4  # a quarter of 16
    assert task.validation.samples == 12
    assert task.train.samples == 36


def test_numbers_of_any_kind_and_files_are_taken_alike(fitted: BrainTumorClassifier, tmp_path: Path) -> None:
    X, _, _ = pictures(4)
    X[:, 0, 0], X[:, 0, 1] = 0, 255  # so that its own range is 0..255
    wanted = fitted.predict_proba(X)
    for other in (X.astype(np.uint16), X.astype(np.float32), X / 255, X.astype(int).tolist(), np.stack([X] * 3, -1)):
        np.testing.assert_allclose(fitted.predict_proba(other), wanted, atol=1e-5)
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for path, picture in zip(paths, X, strict=True):
        Image.fromarray(picture).save(path)
    assert (fitted.predict_proba(paths) == wanted).all()
    assert (fitted.predict_proba([str(path) for path in paths]) == wanted).all()


def test_pictures_of_any_sizes_are_prepared_as_recipes_say() -> None:
    settings = PixelsTable(image_size=32, fit="pad")
    found = prepared([np.full((64, 32), 200, np.uint8), np.linspace(0, 1, 32 * 32).reshape(32, 32)], settings)
    assert found.shape == (2, 32, 32, 1)
    assert found[0, :, 8:24].min() == found[0].max() == 200  # twice as high as wide: half of the width is black
    assert found[0, :, :8].max() == found[0, :, 24:].max() == 0
    assert (found[1].min(), found[1].max()) == (0, 255)


def test_it_is_cloned_searched_and_cross_validated() -> None:
    X, y, groups = pictures()
    copy = clone(small(learning_rate=0.1))
    assert copy.get_params()["learning_rate"] == 0.1
    assert copy.set_params(epochs=2).epochs == 2
    pipeline = make_pipeline(FunctionTransformer(np.fliplr), small(epochs=2))
    scores = cross_val_score(pipeline, X, y, groups=groups, cv=GroupKFold(2), error_score="raise")
    assert scores.shape == (2,)
    assert scores.min() > 0.7
    search = GridSearchCV(small(), {"epochs": [1, 2]}, cv=2, refit=False, error_score="raise").fit(list(X), y)
    assert len(search.cv_results_["params"]) == 2


@pytest.mark.parametrize("labels", [[3, 7], [False, True], ["a", "b"]], ids=["numbers", "truth values", "texts"])
def test_labels_come_back_as_they_were_also_from_a_folder(labels: list[Any], tmp_path: Path) -> None:
    X, y, _ = pictures(12)
    y = np.array(labels)[(y == "spot").astype(int)]
    one = small(epochs=1).fit(X, y)
    assert one.predict(X).dtype == y.dtype
    two = BrainTumorClassifier.load(one.save(tmp_path / "kept"))
    assert two.classes_.tolist() == labels
    assert (two.predict_proba(X) == one.predict_proba(X)).all()


def test_joblib_keeps_it(fitted: BrainTumorClassifier) -> None:
    X, _, _ = pictures(6)
    kept = io.BytesIO()
    joblib.dump(fitted, kept)
    kept.seek(0)
    assert (joblib.load(kept).predict_proba(X) == fitted.predict_proba(X)).all()


def test_a_saved_one_is_a_run_to_the_commands(
    fitted: BrainTumorClassifier, btkit: Callable[..., Any], tmp_path: Path
) -> None:
    X, _, _ = pictures(12)
    Image.fromarray(X[11]).save(tmp_path / "spot.png")
    folder = fitted.save(tmp_path / "kept")
    done = btkit("predict", folder, tmp_path / "spot.png", "--csv")
    assert done.status == 0
    header, row = (line.split(",") for line in done.out.splitlines())
    assert header == ["path", "predicted", "p_plain", "p_spot"]
    assert float(row[3]) == fitted.predict_proba(X[11:])[0, 1]
    done = btkit("explain", folder, tmp_path / "spot.png", "--out", tmp_path / "maps", "--style", "none")
    assert done.status == 0
    assert np.load(next((tmp_path / "maps/maps").glob("*.npy"))).shape == (32, 32)
    with pytest.raises(InputError, match="exists already; choose another folder"):
        fitted.save(folder)
    done = btkit("explain", folder)
    assert done.status == 2
    assert done.err.startswith("btkit: the recipe has ")
    assert "there is no source plugin named 'arrays'" in done.err


@pytest.mark.parametrize(
    ("X", "y", "said"),
    [
        (np.zeros((4, 9)), list("abab"), r"pictures are wanted, .*, and this is float64 \(4, 9\). Reshape your data"),
        (np.zeros((4, 8, 8, 2)), list("abab"), r"picture 0 is float64 \(8, 8, 2\); numbers \(H, W\) or \(H, W, 3\)"),
        (np.full((4, 8, 8), np.nan), list("abab"), r"picture 0 has pixels that are not finite \(NaN or inf\)"),
        (np.zeros((4, 8, 8)), list("aaaa"), "y has one class only, 'a': a classifier needs two"),
        (np.zeros((4, 8, 8)), list("aaab"), "class 'b' has one picture only: training and validation need one each"),
        (np.zeros((4, 8, 8)), list("aab"), "inconsistent numbers of samples"),
        (np.zeros((4, 8, 8)), None, "requires y to be passed"),
        (np.zeros((4, 8, 8)), [0.5, 1.5, 0.25, 3], "Unknown label type: continuous"),
        ([], [], "there are no pictures to fit to"),
        (["nowhere.png"] * 4, list("abab"), "nowhere.png"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_a_value_error(X: Any, y: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        small().fit(X, y)


def test_recipes_and_parameters_are_checked_as_ever() -> None:
    X, y, _ = pictures(12)
    with pytest.raises(InputError, match="did you mean the shipped recipe 'resnet_adam'"):
        BrainTumorClassifier("resnet_adm").fit(X, y)
    with pytest.raises(
        InputError, match=r"Python: \[training\] learning_rat: unknown key; did you mean 'learning_rate'"
    ):
        small(overrides={"training": {"learning_rat": 1}}).fit(X, y)
    with pytest.raises(InputError, match=r"training\.workers is for btkit run"):
        small(overrides={"training": {"workers": 2}}).fit(X, y)
    with pytest.raises(NotFittedError):
        small().predict(X)
