"""The content of explanation_metrics.json, its intervals and its sentences, worked out by hand."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike

from braintumor_kit.evaluation.intervals import mean_intervals
from braintumor_kit.explanation.metrics import VALUES, Measured, findings, summarise

CLASSES = ("glioma", "pituitary", "notumor")


def measured(
    name: str,
    values: Mapping[str, float],
    label: str | None = "glioma",
    predicted: str = "glioma",
    group: str | None = None,
    method: str = "gradcam",
    peak: str = "centre",
) -> Measured:
    return Measured(name, group, label, predicted, method, values, peak)


FIVE = [
    measured("a", {"pointing_game": 1.0, "outside_head": 0.1, "road": 0.2}, group="p1"),
    measured("b", {"pointing_game": 0.0, "outside_head": 0.3, "road": 0.4}, predicted="pituitary", group="p1"),
    measured("c", {"pointing_game": 1.0, "outside_head": 0.2}, "pituitary", "pituitary", group="p2"),
    measured("d", {"outside_head": 0.6}, "pituitary", "glioma", group="p3"),
    measured("a", {"pointing_game": 0.0}, group="p1", method="rise"),
]
BASELINES = [
    measured("a", {"pointing_game": 0.05}, group="p1", method="chance"),
    measured("c", {"pointing_game": 0.07}, "pituitary", group="p2", method="chance"),
    measured("a", {"pointing_game": 0.0}, group="p1", method="centre_blob"),
    measured("c", {"pointing_game": 1.0}, "pituitary", group="p2", method="centre_blob"),
]


def test_five_maps_by_hand() -> None:
    figures = summarise(FIVE, BASELINES, CLASSES, "test")
    assert figures["split"] == "test"
    assert figures["n"] == 4
    assert list(figures["methods"]) == ["gradcam", "rise"]
    gradcam = figures["methods"]["gradcam"]
    assert (gradcam["n"], gradcam["n_with_mask"], gradcam["interval_over"]) == (4, 3, "patients")
    assert gradcam["pointing_game"] == pytest.approx(2 / 3)
    assert gradcam["outside_head"] == pytest.approx(0.3)
    assert gradcam["road"] == pytest.approx(0.3)
    glioma, notumor = gradcam["by_class"]["glioma"], gradcam["by_class"]["notumor"]
    assert (glioma["n"], glioma["n_with_mask"], glioma["pointing_game"]) == (2, 2, 0.5)
    assert (notumor["n"], notumor["pointing_game"], notumor["pointing_game_ci"]) == (0, None, None)
    correct, wrong = gradcam["by_outcome"]["correct"], gradcam["by_outcome"]["wrong"]
    assert (correct["n"], correct["pointing_game"], correct["outside_head"]) == (2, 1.0, pytest.approx(0.15))
    assert (wrong["n"], wrong["pointing_game"], wrong["outside_head"]) == (2, 0.0, pytest.approx(0.45))
    assert figures["methods"]["rise"]["n"] == 1
    chance, blob = figures["baselines"]["chance"], figures["baselines"]["centre_blob"]
    assert chance["pointing_game"] == pytest.approx(0.06)
    assert blob["pointing_game"] == 0.5
    assert blob["by_class"]["pituitary"]["pointing_game"] == 1.0
    assert blob["road"] is None


def every_value(figures: Any) -> list[Any]:
    if isinstance(figures, dict):
        return [value for inside in figures.values() for value in every_value(inside)]
    return [value for inside in figures for value in every_value(inside)] if isinstance(figures, list) else [figures]


def test_every_section_has_every_key_and_plain_json() -> None:
    figures = summarise(FIVE, BASELINES, CLASSES, "test")
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert {type(value) for value in every_value(figures)} <= {float, int, str, type(None)}
    for section in (*figures["methods"].values(), *figures["baselines"].values()):
        assert list(section["by_class"]) == list(CLASSES)
        for part in (section, *section["by_class"].values(), *section.get("by_outcome", {}).values()):
            assert {"n", "n_with_mask", *VALUES, *(f"{name}_ci" for name in VALUES)} <= set(part)


def test_no_baselines_and_no_labels() -> None:
    figures = summarise([measured("a", {"iou": 0.5}, label=None)], [], CLASSES, "test")
    assert figures["baselines"]["chance"]["iou"] is None
    assert figures["methods"]["gradcam"]["iou"] == 0.5
    assert figures["methods"]["gradcam"]["interval_over"] == "slices"
    assert figures["methods"]["gradcam"]["by_outcome"]["wrong"]["n"] == 0
    assert summarise([], [], CLASSES, "test")["methods"] == {}


def test_values_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"iou of 'a' by gradcam is nan: expected a finite number"):
        summarise([measured("a", {"iou": float("nan")})], [], CLASSES, "test")
    with pytest.raises(ValueError, match=r"'iuo' of 'a' by chance: expected one of pointing_game, "):
        summarise([], [measured("a", {"iuo": 0.5}, method="chance")], CLASSES, "test")


def test_intervals_are_over_patients_and_over_slices_where_patients_are_not_known() -> None:
    random = np.random.default_rng(0)
    hits = random.integers(0, 2, 60).astype(float)
    tenfold = [
        measured(f"{n}-{k}", {"pointing_game": hit}, group=f"p{n}") for n, hit in enumerate(hits) for k in range(10)
    ]
    alone = [measured(f"{n}", {"pointing_game": hit}) for n, hit in enumerate(hits)]
    by_patient, by_slice = (
        summarise(maps, [], CLASSES, "test")["methods"]["gradcam"]["pointing_game_ci"] for maps in (tenfold, alone)
    )
    deviation = np.sqrt(hits.mean() * (1 - hits.mean()) / 60)
    assert by_patient == pytest.approx([hits.mean() - 1.96 * deviation, hits.mean() + 1.96 * deviation], abs=0.02)
    assert by_slice == pytest.approx(by_patient, abs=0.02)
    as_slices = summarise([measured(one.id, one.values) for one in tenfold], [], CLASSES, "test")
    narrow = as_slices["methods"]["gradcam"]["pointing_game_ci"]
    assert narrow[1] - narrow[0] < 0.4 * (by_patient[1] - by_patient[0])


def mean_interval(values: ArrayLike, units: list[str]) -> list[float] | None:
    return mean_intervals(np.asarray(values, dtype=float)[:, None], units)[0]


def test_mean_interval_of_a_normal_sample() -> None:
    values = np.random.default_rng(0).normal(0.4, 0.1, 200)
    low, high = mean_interval(values, [str(n) for n in range(200)]) or [0.0, 0.0]
    error = values.std() / np.sqrt(200)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_mean_interval_of_two_patients_by_hand() -> None:
    """Resamples of a patient with one 1 and one with three 0s: means 1, 1/4 and 0, with chances 1/4, 1/2, 1/4."""
    assert mean_interval([1, 0, 0, 0], ["a", "b", "b", "b"]) == [0.0, 1.0]


def test_all_or_none_of_20_patients_still_have_a_width() -> None:
    units = [str(n // 2) for n in range(40)]
    full, empty, mixed = mean_intervals(np.stack([np.ones(40), np.zeros(40), np.arange(40) % 2], axis=1), units)
    assert full == [pytest.approx(0.8316, abs=1e-4), 1.0]  # Clopper and Pearson for 20 of 20
    assert empty == [0.0, pytest.approx(1 - 0.8316, abs=1e-4)]
    assert mixed == pytest.approx([0.5, 0.5])  # each patient has one of two


def test_one_patient_has_no_interval_and_no_values_are_refused() -> None:
    assert mean_interval([0.2, 0.4], ["a", "a"]) is None
    with pytest.raises(ValueError, match="0 values of 0 units"):
        mean_interval([], [])
    with pytest.raises(ValueError, match="2 values of 1 units"):
        mean_interval([1, 0], ["a"])


def outside(count: int, peak: str, share: float = 1.0, start: int = 0) -> list[Measured]:
    names = (f"s{start + n}" for n in range(count))
    return [measured(name, {"peak_outside_head": share}, peak=peak) for name in names]


def said(maps: list[Measured], baselines: list[Measured] | None = None, **added: object) -> list[str]:
    metrics = summarise(maps, baselines or [], CLASSES, "test")
    metrics["methods"]["gradcam"] |= added
    return findings(metrics, maps)


def test_a_mark_outside_of_the_head_is_told_with_its_place() -> None:
    maps = [*outside(50, "top left"), *outside(5, "right", start=50), *outside(5, "centre", 0.0, start=55)]
    assert said(maps) == [
        "gradcam, glioma: the peak of relevance lies outside of the head in 92 % of 60 slices, mostly top left: "
        "what decides there may be a mark, the border or the background."
    ]


def test_scattered_peaks_have_no_place_and_few_are_not_worth_a_word() -> None:
    (sentence,) = said([*outside(2, "top"), *outside(2, "left", start=2), *outside(4, "centre", 0.0, start=4)])
    assert "in 50 % of 8 slices: what decides" in sentence
    assert said([*outside(2, "top"), *outside(7, "centre", 0.0, start=2)]) == []
    assert said(outside(4, "top")) == []  # of so few slices nothing is said
    assert len(said(outside(5, "top"))) == 1


def pointing(hits: int, n: int = 40, method: str = "gradcam") -> list[Measured]:
    return [measured(f"s{k}", {"pointing_game": float(k < hits)}, method=method) for k in range(n)]


def test_a_method_no_better_than_the_blob_is_told_so() -> None:
    blob = pointing(14, method="centre_blob")
    (sentence,) = said(pointing(16), blob)
    assert sentence.startswith("gradcam: the pointing game, 0.40 [0.2")
    assert "is not above the 0.35 of a blob at the centre of the picture" in sentence
    assert said(pointing(36), blob) == []
    assert said(pointing(16)) == []  # without a blob there is nothing to compare with


def test_maps_that_ignore_the_weights_are_told_of() -> None:
    assert said(pointing(36), randomisation_passed=True) == []
    assert said(pointing(36), randomisation_passed=None) == []
    (sentence,) = said(pointing(36), randomisation_passed=False)
    assert sentence.startswith("gradcam: the maps hardly change when the network's weights are randomised")
