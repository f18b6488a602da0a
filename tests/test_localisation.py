"""Where maps lie, against values worked out by hand."""

import numpy as np
import pytest
from scipy import ndimage

from braintumor_kit.explanation.localisation import (
    TOLERANCE,
    centre_blob,
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
    assert mask.mean() == 0.1  # what chance scores
    for name in ("pointing_game", "pointing_game_strict", "relevance_mass", "relevance_rank", "iou"):
        assert figures[name] == pytest.approx(0.1), name  # 15 / 224 of 10 pixels reach no other pixel
    assert figures["outside_head"] == pytest.approx(0.9)
    assert figures["peak_outside_head"] == pytest.approx(0.9)


def test_random_maps_score_chance_on_average() -> None:
    random = np.random.default_rng(0)
    mask = random.random((20, 20)) < 0.2
    found = [localise(random.random((20, 20)).astype(np.float32), mask) for _ in range(400)]
    hit = ndimage.binary_dilation(mask).mean()  # 15 / 224 of 20 pixels reach the next one, but not across a corner
    expected = {"pointing_game": hit, **dict.fromkeys(("pointing_game_strict", "relevance_mass"), mask.mean())}
    for name, value in {**expected, "relevance_rank": mask.mean()}.items():
        assert np.mean([one[name] for one in found]) == pytest.approx(value, abs=0.05), name


@pytest.mark.parametrize(
    ("down", "across", "hit"),
    [(0, 0, 1.0), (15, 0, 1.0), (0, -15, 1.0), (16, 0, 0.0), (9, 12, 1.0), (-9, 12, 1.0), (11, 11, 0.0)],
)
def test_a_peak_fifteen_pixels_from_the_mask_still_points_at_it(down: int, across: int, hit: float) -> None:
    """At 224 pixels, as Zhang et al. count; (9, 12) is 15 away, (11, 11) is 15.6."""
    mask = np.zeros((224, 224), bool)
    mask[100, 100] = True
    values = np.zeros((224, 224), np.float32)
    values[100 + down, 100 + across] = 1
    figures = localise(values, mask)
    assert figures["pointing_game"] == hit
    assert figures["pointing_game_strict"] == float(down == across == 0)


def test_the_tolerance_grows_with_the_longer_side() -> None:
    assert TOLERANCE == 15 / 224
    for shape, reach in (((448, 100), 30), ((28, 56), 3), ((8, 8), 0)):  # 3.75 and 0.54 pixels
        mask = np.zeros(shape, bool)
        mask[0, 0] = True
        at = {}
        for distance in (reach, reach + 1):
            values = np.zeros(shape, np.float32)
            values.flat[distance * shape[1]] = 1  # so many rows down
            at[distance] = localise(values, mask)["pointing_game"]
        assert at == {reach: 1.0, reach + 1: 0.0}, shape


def test_of_several_peaks_the_share_that_is_near_enough_counts() -> None:
    mask = np.zeros((1, 9), bool)
    mask[0, 0] = True
    r = np.array([[2, 0, 2, 2, 0, 0, 0, 0, 2]], np.float32)
    assert [pointing_game(r, mask, tolerance) for tolerance in (0, 2, 2.5, 3, 8)] == [0.25, 0.5, 0.5, 0.75, 1.0]


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
    assert figures["chance"]["pointing_game_strict"] == pytest.approx(mask.mean())
    # 4.3 pixels around 12 x 12: four strips of 4 x 12, and in each corner 4 + 3 + 3 + 1 pixels
    assert figures["chance"]["pointing_game"] == pytest.approx((12 * 12 + 4 * 4 * 12 + 4 * 11) / 64**2)
    assert figures["centre_blob"]["relevance_mass"] > 5 * figures["chance"]["relevance_mass"]
    assert figures["centre_blob"]["outside_head"] < 0.02 < figures["chance"]["outside_head"]
