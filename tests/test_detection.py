"""Tumour or none: shares counted by hand."""

import numpy as np
import pytest

from braintumor_kit.evaluation.detection import detection

CLASSES = ("glioma", "No_Tumor", "pituitary")


def said(*answers: int) -> np.ndarray:
    return np.eye(3)[list(answers)] * 0.7 + 0.1


def test_shares_are_those_counted_by_hand() -> None:
    labels = np.array([0, 0, 2, 2, 2, 1, 1, 1])
    answers = said(0, 1, 0, 1, 2, 1, 0, 1)
    abstain = np.array([False, True, False, False, True, True, False, False])
    found = detection(labels, answers, [f"p{number}" for number in range(8)], CLASSES, abstain)
    assert found is not None
    tumours, healthy = found["tumours"], found["healthy"]
    assert (tumours["n"], healthy["n"]) == (5, 3)
    assert tumours["called_tumour"] == pytest.approx(3 / 5)  # another tumour's name is no miss
    assert tumours["found"] == pytest.approx(2 / 5)
    assert tumours["missed"] == pytest.approx(1 / 5)
    assert tumours["abstained"] == pytest.approx(2 / 5)
    assert tumours["not_missed"] == pytest.approx(4 / 5)
    assert healthy["called_tumour"] == pytest.approx(1 / 3)
    assert healthy["cleared"] == pytest.approx(1 / 3)
    assert healthy["false_alarm"] == pytest.approx(1 / 3)
    assert healthy["not_alarmed"] == pytest.approx(2 / 3)
    assert tumours["found_ci"][0] <= 2 / 5 <= tumours["found_ci"][1]


def test_intervals_go_over_patients() -> None:
    """Two patients of twenty slices each, one found and one not: a resample has both, or either twice."""
    labels, units = np.zeros(40, np.int64), ["a"] * 20 + ["b"] * 20
    found = detection(labels, said(*[0] * 20, *[1] * 20), units, CLASSES)
    assert found is not None
    assert found["tumours"]["called_tumour_ci"] == [0.0, 1.0]
    assert "abstained" not in found["tumours"]
    assert found["healthy"] is None


@pytest.mark.parametrize("classes", [("glioma", "meningioma", "pituitary"), ("cat", "notumor", "glioma")])
def test_classes_that_do_not_tell_tumours_from_none_have_none(classes: tuple[str, ...]) -> None:
    assert detection(np.array([0]), said(0), ["a"], classes) is None


def test_yes_and_no_are_told_apart_too() -> None:
    found = detection(np.array([0, 1]), np.eye(2), ["a", "b"], ("yes", "no"))
    assert found is not None
    assert (found["tumours"]["called_tumour"], found["healthy"]["called_tumour"]) == (1.0, 0.0)
