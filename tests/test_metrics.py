"""Figures against values worked out by hand and against scikit-learn."""

from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as sk

from braintumor_kit.evaluation.intervals import bootstrap, confusion_matrices
from braintumor_kit.evaluation.metrics import (
    HEADLINES,
    accuracy,
    auroc,
    evaluate,
    expected_calibration_error,
    negative_log_likelihood,
    reliability,
)
from braintumor_kit.report import figures

CLASSES = ("a", "b", "c")


def made_up(n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, n)
    scores = random.normal(size=(n, 3)) + 1.5 * np.eye(3)[labels]
    exponent = np.exp(scores)
    return labels, exponent / exponent.sum(axis=1, keepdims=True)


def test_headlines_agree_with_scikit_learn() -> None:
    labels, p = made_up()
    predicted = p.argmax(axis=1)
    figures = evaluate(labels, p, [None] * len(labels), CLASSES)
    assert figures is not None
    assert figures["accuracy"] == pytest.approx(sk.accuracy_score(labels, predicted))
    assert figures["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels, predicted))
    assert figures["macro_f1"] == pytest.approx(sk.f1_score(labels, predicted, average="macro"))
    assert figures["auroc"] == pytest.approx(sk.roc_auc_score(labels, p, multi_class="ovr", average="macro"))
    assert figures["nll"] == pytest.approx(sk.log_loss(labels, p))
    assert figures["confusion_matrix"] == sk.confusion_matrix(labels, predicted).tolist()
    by_class = sk.precision_recall_fscore_support(labels, predicted)
    for place, name in enumerate(CLASSES):
        ours = figures["per_class"][name]
        assert [ours["precision"], ours["recall"], ours["f1"], ours["support"]] == pytest.approx(
            [column[place] for column in by_class]
        )


def test_four_slices_by_hand() -> None:
    labels = np.array([0, 0, 1, 1])
    p = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]])
    figures = evaluate(labels, p, ["x", "x", "y", "y"], ("a", "b"))
    assert figures is not None
    assert figures["accuracy"] == 0.75
    assert figures["confusion_matrix"] == [[1, 1], [0, 2]]
    assert figures["per_class"]["b"]["precision"] == pytest.approx(2 / 3)
    assert figures["nll"] == pytest.approx(-np.log([0.9, 0.4, 0.8, 0.7]).mean())
    # patient x has mean probabilities (0.65, 0.35) and patient y (0.25, 0.75): both are right
    assert figures["by_group"]["n"] == 2
    assert figures["by_group"]["accuracy"] == 1.0
    assert figures["interval_over"] == "patients"


def test_calibration_error_by_hand() -> None:
    labels = np.array([0, 0, 1, 0])
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.6, 0.4]])
    # bin of 0.9: three slices, two right, gap |0.9 - 2/3|; bin of 0.6: one slice, right, gap 0.4
    assert expected_calibration_error(labels, p) == pytest.approx((3 * (0.9 - 2 / 3) + 0.4) / 4)


def test_a_probability_on_an_edge_belongs_to_the_bin_below() -> None:
    count, confidence, _ = reliability(np.array([0]), np.array([[0.8, 0.2]]), bins=5)
    assert count.tolist() == [0, 0, 0, 1, 0]
    assert confidence[3] == pytest.approx(0.8)


def test_a_certain_mistake_costs_finitely_much() -> None:
    assert negative_log_likelihood(np.array([1]), np.array([[1.0, 0.0]])) == pytest.approx(-np.log(1e-12))


def test_auroc_is_unknown_where_a_class_is_absent() -> None:
    assert auroc(np.array([0, 1]), np.full((2, 3), 1 / 3)) is None


def test_an_absent_class_takes_no_part_in_means() -> None:
    figures = evaluate(np.array([0, 1]), np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]]), [None, None], CLASSES)
    assert figures is not None
    assert figures["balanced_accuracy"] == 1.0
    assert figures["macro_f1"] == 1.0


def test_a_split_without_samples_has_no_figures() -> None:
    assert evaluate(np.zeros(0, int), np.zeros((0, 3)), [], CLASSES) is None


def test_interval_of_independent_slices_is_the_binomial_one() -> None:
    labels = np.zeros(400, int)
    predicted = np.where(np.arange(400) < 320, 0, 1)
    matrices = confusion_matrices(labels, predicted, [str(place) for place in range(400)], 2)
    low, high = bootstrap(matrices, {"accuracy": accuracy})["accuracy"]
    deviation = np.sqrt(0.8 * 0.2 / 400)
    assert low == pytest.approx(0.8 - 1.96 * deviation, abs=0.006)
    assert high == pytest.approx(0.8 + 1.96 * deviation, abs=0.006)


def test_slices_of_one_patient_do_not_narrow_the_interval() -> None:
    """Ten copies of each slice, grouped, give the interval of the slices alone."""
    labels, p = made_up(100)
    once = confusion_matrices(labels, p.argmax(axis=1), [str(n) for n in range(100)], 3)
    tenfold = confusion_matrices(
        np.repeat(labels, 10), np.repeat(p.argmax(axis=1), 10), [str(n // 10) for n in range(1000)], 3
    )
    alone, grouped = bootstrap(once, dict(HEADLINES)), bootstrap(tenfold, dict(HEADLINES))
    for name in HEADLINES:
        assert alone[name] == pytest.approx(grouped[name])


def test_no_mistake_in_20_patients_still_has_a_lower_bound() -> None:
    labels = np.zeros(20, int)
    matrices = confusion_matrices(labels, labels, [str(n) for n in range(20)], 2)
    low, high = bootstrap(matrices, {"accuracy": accuracy})["accuracy"]
    assert (low, high) == (pytest.approx(0.8316, abs=1e-4), 1.0)  # Clopper and Pearson for 20 of 20


def test_confusions_are_drawn_by_slice_and_by_patient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(figures, "_confusion", lambda axes, counts, labels: drawn.append(counts.tolist()))
    labels = np.array([0, 0, 0, 1, 1])
    answers = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.4, 0.6]])
    reported = evaluate(labels, answers, ["A", "A", "A", "B", "C"], ("a", "b"))
    selecting = evaluate(labels, answers, [None] * 5, ("a", "b"))
    figures.confusion_matrices(tmp_path / "known.png", {"validation": selecting, "test": reported})
    assert drawn == [[[2, 1], [0, 2]], [[2, 1], [0, 2]], [[1, 0], [0, 2]]]  # A's three slices are one patient
    drawn.clear()
    figures.confusion_matrices(tmp_path / "unknown.png", {"validation": selecting})
    assert drawn == [[[2, 1], [0, 2]]]
