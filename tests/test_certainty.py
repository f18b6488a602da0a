"""Calibration, risk and coverage, and pictures unlike the training, against values worked out by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from braintumor_kit.contracts import InputError
from braintumor_kit.evaluation.calibration import fit_temperature, negative_log_likelihood, scaled
from braintumor_kit.evaluation.certainty import fit_certainty, load_certainty, save_certainty
from braintumor_kit.evaluation.metrics import evaluate
from braintumor_kit.evaluation.outliers import OutlierDetector
from braintumor_kit.evaluation.selective import area_under_risk_coverage, risk_coverage


def drawn(count: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from softmax(logits / temperature), and the probabilities softmax(logits) that a model claims."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 3, (count, 4))

    def softmax(values: np.ndarray) -> np.ndarray:
        powers = np.exp(values - values.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    truth = softmax(logits / temperature)
    return (truth.cumsum(axis=1) > random.random((count, 1))).argmax(axis=1), softmax(logits)


def named(rows: np.ndarray) -> list[str]:
    """Each row a patient of its own."""
    return [f"patient {place}" for place in range(len(rows))]


def test_scaling_by_hand() -> None:
    # log 0.8 / 2 and log 0.2 / 2 are the logs of sqrt(0.8) and sqrt(0.2), which stand as 2 to 1
    np.testing.assert_allclose(scaled(np.array([[0.8, 0.2]]), 2.0), [[2 / 3, 1 / 3]])
    np.testing.assert_allclose(scaled(np.array([[0.8, 0.2]]), 0.5), [[16 / 17, 1 / 17]])


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_that_labels_were_drawn_with_is_found(temperature: float) -> None:
    labels, claimed = drawn(20_000, temperature)
    assert fit_temperature(labels, claimed) == pytest.approx(temperature, rel=0.05)


def test_calibration_lowers_the_loss_and_changes_no_answer() -> None:
    labels, claimed = drawn(2_000, 3.0)
    unseen, claims = drawn(2_000, 3.0, seed=1)
    sure = scaled(claims, fit_temperature(labels, claimed))
    assert negative_log_likelihood(unseen, sure) < negative_log_likelihood(unseen, claims)
    np.testing.assert_array_equal(sure.argmax(axis=1), claims.argmax(axis=1))


def test_certain_and_wrong_is_no_infinite_loss() -> None:
    temperature = fit_temperature(np.array([1, 0]), np.array([[1.0, 0.0], [1.0, 0.0]]))
    assert np.isfinite(temperature)


def test_where_nothing_is_wrong_nothing_is_learnt() -> None:
    sure = np.array([[0.7, 0.3], [0.2, 0.8], [0.6, 0.4]])
    assert fit_temperature(np.array([0, 1, 0]), sure) == 1.0  # the likeliest temperature would be none at all
    assert fit_temperature(np.array([0, 1, 1]), sure) != 1.0


def test_few_patients_move_the_temperature_little() -> None:
    """Ten patients of forty slices each say less than four hundred slices would."""
    labels, claimed = drawn(400, 3.0)
    of_slices = fit_temperature(labels, claimed)
    of_patients = fit_temperature(labels, claimed, [f"patient {place // 40}" for place in range(400)])
    assert 1 < of_patients < of_slices
    assert of_slices == pytest.approx(3.0, rel=0.2)
    # one patient with p = 0.8 and wrong: the slope of (log T / 0.2)^2 / 2 is that of -log(1 / (1 + 4^(1/T)))
    alone = fit_temperature(np.array([1]), np.array([[0.8, 0.2]]))
    log = np.log(alone)
    odds = 4 ** (1 / alone)
    assert log / 0.2**2 == pytest.approx(odds / (1 + odds) * np.log(4) / alone, rel=1e-3)


def test_copies_of_a_patient_s_slice_change_nothing() -> None:
    labels, claimed = drawn(60, 2.0)
    units = [f"patient {place}" for place in range(60)]
    again = fit_temperature(np.repeat(labels, 5), np.repeat(claimed, 5, axis=0), list(np.repeat(units, 5)))
    assert again == pytest.approx(fit_temperature(labels, claimed, units), rel=1e-3)


def test_risk_and_coverage_by_hand() -> None:
    # confidences 0.9 right, 0.8 wrong, 0.8 right (tied), 0.6 wrong
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.8, 0.2], [0.4, 0.6]])
    coverage, risk = risk_coverage(np.array([0, 1, 0, 0]), probabilities)
    np.testing.assert_allclose(coverage, [0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(risk, [0, 1 / 3, 1 / 3, 1 / 2])  # the tied two are answered together
    assert area_under_risk_coverage(np.array([0, 1, 0, 0]), probabilities) == pytest.approx(
        (0 + 1 / 3 + 1 / 3 + 0.5) / 4
    )


def test_metrics_tell_loss_and_gap_before_and_after() -> None:
    labels, claimed = drawn(500, 3.0)
    sure = scaled(claimed, 3.0)
    figures = evaluate(labels, claimed, [None] * 500, "abcd", sure)
    assert figures is not None
    assert figures["nll_calibrated"] == pytest.approx(-np.log(sure[np.arange(500), labels]).mean())
    assert figures["nll"] > figures["nll_calibrated"]
    assert figures["ece"] > figures["ece_calibrated"]


def features(count: int, seed: int, shift: float = 0.0) -> list[np.ndarray]:
    """Two layers of correlated features, moved away from where training lies."""
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(10, 64))
    plain = random.normal(size=(count, 10)) @ mixing + 0.05 * random.normal(size=(count, 64))
    return [(plain + shift * np.sign(mixing[0])).astype(np.float32), random.normal(size=(count, 5)).astype(np.float32)]


def test_what_lies_apart_is_far_and_what_is_alike_is_not() -> None:
    detector = OutlierDetector.fitted(features(800, 0), features(400, 1))
    threshold = np.quantile(detector.scores(features(400, 1)), 0.95)
    assert (detector.scores(features(1000, 2)) > threshold).mean() == pytest.approx(0.05, abs=0.03)
    assert (detector.scores(features(200, 3, shift=3.0)) > threshold).all()  # off the directions, not far along them


def test_a_detector_is_kept_whole(tmp_path: Path) -> None:
    labels, claimed = drawn(400, 2.0)
    certainty = fit_certainty(labels, claimed, named(claimed), (features(800, 0), features(400, 1)), 0.05, 0.1)
    save_certainty(certainty, tmp_path)
    again = load_certainty(tmp_path)
    assert again is not None
    assert again.detector is not None
    assert certainty.detector is not None
    others = features(50, 5, shift=0.5)
    np.testing.assert_allclose(again.detector.scores(others), certainty.detector.scores(others), rtol=1e-3, atol=1e-3)
    assert json.loads((tmp_path / "certainty.json").read_text())["abstain"] == 0.1
    assert (again.calibrated(claimed).max(axis=1) < again.abstain_below).mean() == pytest.approx(0.1, abs=0.01)


def test_abstaining_is_for_the_unlike_and_the_unsure() -> None:
    labels, claimed = drawn(400, 1.0)
    certainty = fit_certainty(labels, claimed, named(claimed), None, 0.05, 0.05)
    assert certainty.detector is None
    sure = np.array([[0.97, 0.01, 0.01, 0.01], [0.26, 0.25, 0.25, 0.24], [0.97, 0.01, 0.01, 0.01]])
    limits = certainty.limits._replace(threshold=1.0)
    found = limits.verdict(sure, np.array([0.0, 0.0, 2.0]))
    np.testing.assert_array_equal(found.abstain, [False, True, True])


@pytest.mark.parametrize("damage", ["cut", "text", "missing"])
def test_damaged_files_are_named(tmp_path: Path, damage: str) -> None:
    labels, claimed = drawn(100, 1.0)
    save_certainty(
        fit_certainty(labels, claimed, named(claimed), (features(80, 0), features(100, 1)), 0.05, 0.05), tmp_path
    )
    arrays = tmp_path / "certainty.npz"
    if damage == "cut":
        arrays.write_bytes(arrays.read_bytes()[:200])
    elif damage == "text":
        arrays.write_text("nothing")
    else:
        arrays.unlink()
    with pytest.raises(InputError, match="certainty"):
        load_certainty(tmp_path)


def test_a_run_without_it_is_no_fault(tmp_path: Path) -> None:
    assert load_certainty(tmp_path) is None
