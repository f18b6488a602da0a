"""Figures and intervals once more, by loops: stacks of matrices, absent classes, mixed patients, edges, parts."""

from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from braintumor_kit.evaluation import intervals
from braintumor_kit.evaluation.intervals import (
    RESAMPLES,
    bootstrap,
    confusion_matrices,
    mean_intervals,
    paired_bootstrap,
    units_of,
)
from braintumor_kit.evaluation.metrics import (
    HEADLINES,
    accuracy,
    balanced_accuracy,
    evaluate,
    expected_calibration_error,
    f1,
    macro_f1,
    precision,
    recall,
    reliability,
    spread,
)
from braintumor_kit.evaluation.selective import area_under_risk_coverage

RANDOM = np.random.default_rng(12)
LABELS, PREDICTED = RANDOM.integers(0, 3, 60), RANDOM.integers(0, 3, 60)
PATIENTS = [f"p{number}" for number in RANDOM.integers(0, 12, 60)]


def answers(predicted: np.ndarray, sure: float = 0.6, classes: int = 3) -> np.ndarray:
    """Probabilities that answer so."""
    p = np.full((len(predicted), classes), (1 - sure) / (classes - 1))
    p[np.arange(len(predicted)), predicted] = sure
    return p


# Figures


def test_stacks_of_matrices_are_taken_one_by_one() -> None:
    stack = np.random.default_rng(0).integers(0, 9, (5, 3, 3)).astype(float)
    stack[1, 2] = 0  # a class that does not occur, though it is predicted
    stack[2, :, 1] = 0  # one that is never predicted, though it occurs
    stack[3, 0], stack[3, :, 0] = 0, 0  # one that is neither
    for place, matrix in enumerate(stack):
        truth = [i for i in range(3) for j in range(3) for _ in range(int(matrix[i, j]))]
        guess = [j for i in range(3) for j in range(3) for _ in range(int(matrix[i, j]))]
        options: Any = {"labels": [0, 1, 2], "average": None, "zero_division": 0}
        occurs = matrix.sum(axis=1) > 0
        np.testing.assert_allclose(recall(stack)[place], sk.recall_score(truth, guess, **options))
        np.testing.assert_allclose(precision(stack)[place], sk.precision_score(truth, guess, **options))
        np.testing.assert_allclose(f1(stack)[place], sk.f1_score(truth, guess, **options))
        assert accuracy(stack)[place] == pytest.approx(sk.accuracy_score(truth, guess))
        for figure, of_class in ((balanced_accuracy, sk.recall_score), (macro_f1, sk.f1_score)):
            assert figure(stack)[place] == pytest.approx(of_class(truth, guess, **options)[occurs].mean())


def test_what_never_occurs_is_nought_whatever_memory_held() -> None:
    empty = np.zeros((2000, 3, 3))
    for _ in range(20):
        dirt = np.full((2000, 3), 7.0)
        del dirt
        assert not recall(empty).any()
        assert not precision(empty).any()
        assert not f1(empty).any()


def test_what_a_split_tells_of_itself() -> None:
    p = answers(PREDICTED)
    alone = evaluate(LABELS, p, [None] * 60, ("a", "b", "c"))
    mixed = evaluate(LABELS, p, [*PATIENTS[:59], None], ("a", "b", "c"))
    assert alone is not None
    assert mixed is not None
    assert (alone["interval_over"], mixed["interval_over"]) == ("slices", "patients")
    assert alone["by_group"] is None
    assert alone["ece"] == expected_calibration_error(LABELS, p) == pytest.approx(abs(0.6 - alone["accuracy"]))
    assert alone["aurc"] == area_under_risk_coverage(LABELS, p) == pytest.approx(1 - alone["accuracy"])  # all as sure
    assert all(isinstance(cell, int) for row in alone["confusion_matrix"] for cell in row)
    assert all(isinstance(cell, int) for row in mixed["by_group"]["confusion_matrix"] for cell in row)


def test_intervals_of_a_split_are_over_patients_and_of_patients_too() -> None:
    groups = [*PATIENTS[:50], *[None] * 10]
    p = answers(PREDICTED)
    found = evaluate(LABELS, p, groups, ("a", "b", "c"))
    assert found is not None
    units = [group or f"slice {place}" for place, group in enumerate(groups)]
    by_name = {unit: np.zeros((3, 3)) for unit in sorted({f"group {u}" if u in PATIENTS else u for u in units})}
    for label, guess, unit in zip(LABELS, PREDICTED, units, strict=True):
        by_name[f"group {unit}" if unit in PATIENTS else unit][label, guess] += 1
    for name, figure in HEADLINES.items():
        expected = _resampled_by_hand(list(by_name.values()), figure)
        np.testing.assert_allclose(found[f"{name}_ci"], expected)
    known = sorted({group for group in groups if group})
    members = [[place for place, group in enumerate(groups) if group == one] for one in known]
    truth = [np.bincount(LABELS[places]).argmax() for places in members]
    guess = [p[places].mean(axis=0).argmax() for places in members]
    matrices = [np.zeros((3, 3)) for _ in known]
    for matrix, one, other in zip(matrices, truth, guess, strict=True):
        matrix[one, other] = 1
    assert found["by_group"]["n"] == len(known)
    for name, figure in HEADLINES.items():
        np.testing.assert_allclose(found["by_group"][f"{name}_ci"], _resampled_by_hand(matrices, figure))


def _resampled_by_hand(matrices: list[np.ndarray], figure: Any, seed: int = 0) -> list[float]:
    draws = np.random.default_rng(seed).multinomial(len(matrices), [1 / len(matrices)] * len(matrices), size=RESAMPLES)
    with np.errstate(invalid="ignore"):
        values = [float(figure(sum(n * m for n, m in zip(row, matrices, strict=True)))) for row in draws]
    return [float(np.quantile(values, tail)) for tail in (0.025, 0.975)]


def test_means_and_deviations_over_folds() -> None:
    names = ("accuracy", "balanced_accuracy", "macro_f1", "nll", "ece", "nll_calibrated", "ece_calibrated")
    folds: list[dict[str, Any]] = [
        {name: value + place for place, name in enumerate(names)} | {"by_group": dict.fromkeys(names, 5 * value)}
        for value in (1.0, 2.0, 6.0)
    ]
    for fold in folds:
        fold["by_group"].pop("nll")
    found = spread(folds)
    deviation = np.sqrt((4 + 1 + 9) / 2)
    for place, name in enumerate(names):
        assert found.pop(name) == {"mean": 3 + place, "sd": pytest.approx(deviation)}
    by_group = {"mean": 15, "sd": pytest.approx(5 * deviation)}
    assert found == {f"by_group_{name}": by_group for name in names[:3]}

    folds[1]["by_group"] = None  # no patients are known there
    folds[2]["nll_calibrated"] = None
    assert set(spread(folds)) == set(names) - {"nll_calibrated"}


def test_bins_of_reliability_at_both_ends() -> None:
    even = np.full((3, 20), 0.05)  # of twenty classes the surest has 1/20, which lies in the first bin of 15
    count, confidence, correct = reliability(np.array([0, 0, 5]), even)
    assert count.tolist() == [3.0, *[0.0] * 14]
    assert confidence[0] == pytest.approx(0.05)
    assert correct[0] == pytest.approx(2 / 3)
    sure = np.array([[1 + 1e-7, 0.0], [0.0, 1.0], [0.95, 0.05]])  # float32 may say a little more than one
    count, confidence, correct = reliability(np.array([0, 0, 0]), sure)
    assert count.tolist() == [*[0.0] * 14, 3.0]
    assert correct[14] == pytest.approx(2 / 3)
    assert [len(values) for values in reliability(np.array([0]), sure[:1], bins=4)] == [4, 4, 4]


# Intervals


def test_units_are_patients_or_slices() -> None:
    assert units_of(["a", None, "a", "1"], [1, 1, 2, 3]) == ["group a", "slice 1", "group a", "group 1"]


def test_the_same_interval_is_given_each_time() -> None:
    matrices = confusion_matrices(LABELS, PREDICTED, PATIENTS, 3)
    figures = {"accuracy": accuracy}
    assert bootstrap(matrices, figures) == bootstrap(matrices, figures, seed=0)
    assert bootstrap(matrices, figures) != bootstrap(matrices, figures, seed=1)
    assert bootstrap(matrices, figures)["accuracy"] == pytest.approx(_resampled_by_hand(list(matrices), accuracy))
    values = np.random.default_rng(1).random((60, 2))
    assert mean_intervals(values, PATIENTS) == mean_intervals(values, PATIENTS, seed=0)


def test_means_are_those_of_resampled_patients() -> None:
    values = np.random.default_rng(2).random((60, 3))
    names = sorted(set(PATIENTS))
    draws = np.random.default_rng(4).multinomial(len(names), [1 / len(names)] * len(names), size=RESAMPLES)
    for column, found in zip(values.T, mean_intervals(values, PATIENTS, seed=4), strict=True):
        means = []
        for row in draws:
            times = np.array([row[names.index(patient)] for patient in PATIENTS])
            means.append((times * column).sum() / times.sum())
        assert found == pytest.approx([np.quantile(means, 0.025), np.quantile(means, 0.975)])


@pytest.mark.parametrize("at_once", [1, 7, 300, 1999])
def test_parts_are_as_the_whole(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    matrices = np.random.default_rng(3).random((6, 4))
    whole = intervals._resampled(matrices, np.random.default_rng(0))
    assert whole.shape == (RESAMPLES, 4)
    monkeypatch.setattr(intervals, "_AT_ONCE", 6 * at_once)
    np.testing.assert_allclose(intervals._resampled(matrices, np.random.default_rng(0)), whole)


def test_two_models_are_compared_on_the_same_patients() -> None:
    other = np.where(RANDOM.random(60) < 0.3, LABELS, PREDICTED)
    first, second = (confusion_matrices(LABELS, guess, PATIENTS, 3) for guess in (other, PREDICTED))
    figures = {"accuracy": accuracy, "macro_f1": macro_f1}
    found = paired_bootstrap(first, second, figures)
    draws = np.random.default_rng(0).multinomial(len(first), [1 / len(first)] * len(first), size=RESAMPLES)
    for name, figure in figures.items():
        differences = [
            float(figure(np.tensordot(row, first, 1)) - figure(np.tensordot(row, second, 1))) for row in draws
        ]
        assert found[name] == pytest.approx([np.quantile(differences, 0.025), np.quantile(differences, 0.975)])
    assert found["accuracy"][0] > 0  # it is right wherever the other is
    assert paired_bootstrap(first, first, figures) == {"accuracy": [0.0, 0.0], "macro_f1": [0.0, 0.0]}
    assert paired_bootstrap(first, second, figures, seed=1) != found
