"""Where maps lie, against values worked out by hand."""

import numpy as np
import pytest

from braintumor_kit.explanation.localisation import (
    centre_blob,
    chance,
    iou,
    localise,
    localise_baselines,
    outside_head,
    peak_outside_head,
    peak_place,
    pointing_game,
    relevance,
    relevance_mass,
    relevance_rank,
)

MAP = np.array([[8, 4, 0], [2, 1, 1], [0, 0, -5]], np.float32)
MASK = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0]], bool)


def test_nine_pixels_by_hand() -> None:
    r = relevance(MAP)
    assert r.min() == 0
    assert r.dtype == np.float32
    assert relevance_mass(r, MASK) == 11 / 16
    assert relevance_rank(r, MASK) == pytest.approx(2 / 3)  # of 8, 4 and 2, the 4 lies outside
    assert pointing_game(r, MASK) == 1.0
    assert iou(r, MASK) == 1 / 4  # 8 and 4 are chosen; one of them and two others are in the mask
    assert iou(r, MASK, threshold=0.25) == 2 / 4
    assert outside_head(r, MASK) == 5 / 16
    assert peak_outside_head(r, MASK) == 0.0


def test_a_minus_speaks_against_the_class_and_is_no_peak() -> None:
    figures = localise(-10 * np.ones((2, 2), np.float32), np.eye(2, dtype=bool))
    assert figures["pointing_game"] == figures["relevance_mass"] == figures["iou"] == 0.0


def test_tied_peaks_count_by_their_share() -> None:
    r = np.array([[3, 3], [3, 0]], np.float32)
    mask = np.array([[1, 0], [0, 0]], bool)
    assert pointing_game(r, mask) == pytest.approx(1 / 3)
    assert peak_outside_head(r, mask) == pytest.approx(2 / 3)


def test_rank_ties_are_the_mean_over_all_orders() -> None:
    r = np.array([[5, 2, 2], [2, 0, 0]], np.float32)
    mask = np.array([[1, 1, 0], [0, 1, 0]], bool)
    # 5 is in; two of the three 2s come next, one of the three lies inside: (1 + 2/3) of 3
    assert relevance_rank(r, mask) == pytest.approx((1 + 2 / 3) / 3)


@pytest.mark.parametrize("flip", [False, True])
def test_a_constant_map_scores_chance_wherever_the_mask_lies(flip: bool) -> None:
    mask = np.zeros((10, 10), bool)
    mask[:2, :5] = True
    mask = mask[::-1] if flip else mask
    figures = localise(np.full((10, 10), 0.3, np.float32), mask, mask)
    assert chance(mask) == 0.1
    for name in ("pointing_game", "relevance_mass", "relevance_rank", "iou"):
        assert figures[name] == pytest.approx(0.1), name
    assert figures["outside_head"] == pytest.approx(0.9)
    assert figures["peak_outside_head"] == pytest.approx(0.9)


def test_random_maps_score_chance_on_average() -> None:
    random = np.random.default_rng(0)
    mask = random.random((20, 20)) < 0.2
    found = [localise(random.random((20, 20)).astype(np.float32), mask) for _ in range(400)]
    for name in ("pointing_game", "relevance_mass", "relevance_rank"):
        assert np.mean([one[name] for one in found]) == pytest.approx(mask.mean(), abs=0.05), name


def test_a_map_that_is_the_mask_scores_full() -> None:
    mask = np.zeros((16, 16), bool)
    mask[3:7, 2:9] = True
    assert set(localise(mask.astype(np.float32), mask).values()) == {1.0}


def test_an_empty_map_scores_nothing_and_is_not_nan() -> None:
    figures = localise(np.zeros((4, 4), np.float32), np.eye(4, dtype=bool), np.eye(4, dtype=bool))
    assert figures.pop("relevance_rank") == 0.25  # as any constant map
    assert set(figures.values()) == {0.0}


def test_what_is_not_known_is_left_out() -> None:
    assert localise(MAP) == {}
    assert localise(MAP, np.zeros((3, 3), bool)) == {}
    assert set(localise(MAP, head=MASK)) == {"outside_head", "peak_outside_head"}
    assert relevance_rank(MAP, np.zeros((3, 3), bool)) == 0.0


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a map of shape \(3, 3\) and a head of shape \(2, 2\): expected the same"):
        localise(MAP, MASK, np.ones((2, 2), bool))
    with pytest.raises(ValueError, match="a mask, a head or both"):
        localise_baselines()


@pytest.mark.parametrize(
    ("row", "column", "place"),
    [
        (0, 0, "top left"), (2, 4, "top"), (1, 8, "top right"), (4, 1, "left"), (3, 5, "centre"), (5, 6, "right"),
        (6, 2, "bottom left"), (8, 3, "bottom"), (8, 8, "bottom right"),
    ],
)  # fmt: skip
def test_places_by_thirds(row: int, column: int, place: str) -> None:
    r = np.zeros((9, 9), np.float32)
    r[row, column] = 1
    assert peak_place(r) == place


def test_the_place_of_tied_peaks() -> None:
    assert peak_place(np.ones((9, 9), np.float32)) == "centre"
    corners = np.zeros((9, 9), np.float32)
    corners[0, 0] = corners[8, 8] = 1
    assert peak_place(corners) in ("top left", "bottom right")  # a place that has one, not the mean of both


def test_the_blob_is_a_gaussian_at_the_centre() -> None:
    blob = centre_blob(81, 41)
    assert blob.shape == (81, 41)
    assert blob[40, 20] == 1.0
    assert blob[40, 20 + 5] == pytest.approx(np.exp(-((5 / (41 / 8)) ** 2) / 2))
    assert blob[40 - 10, 20] == pytest.approx(np.exp(-((10 / (81 / 8)) ** 2) / 2))
    np.testing.assert_allclose(blob, blob[::-1, ::-1])


def test_the_blob_beats_chance_on_what_lies_at_the_centre() -> None:
    mask = np.zeros((64, 64), bool)
    mask[26:38, 26:38] = True
    head = np.zeros((64, 64), bool)
    head[8:56, 8:56] = True
    figures = localise_baselines(mask, head)
    assert figures["centre_blob"]["pointing_game"] == 1.0
    assert figures["chance"]["pointing_game"] == pytest.approx(mask.mean())
    assert figures["centre_blob"]["relevance_mass"] > 5 * figures["chance"]["relevance_mass"]
    assert figures["centre_blob"]["outside_head"] < 0.02 < figures["chance"]["outside_head"]
