"""Copies: fingerprints in all turns, similarity of changed copies, candidates, and what hangs together."""

import hashlib
import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from braintumor_kit.matching.alignment import similarity
from braintumor_kit.matching.candidates import ALIKE, Candidates, candidates
from braintumor_kit.matching.copies import SAME, Copies, find_copies
from braintumor_kit.matching.fingerprint import CROPS, TURNS, fingerprints, turn_pictures, turned

Picture = NDArray[np.uint8]

TURNED: tuple[Callable[[Picture], Picture], ...] = (
    lambda picture: picture,
    lambda picture: np.flip(picture, axis=1),
    lambda picture: np.flip(picture, axis=0),
    lambda picture: np.rot90(picture, 2),
    lambda picture: picture.T,
    lambda picture: np.rot90(picture, -1),
    lambda picture: np.rot90(picture, 1),
    lambda picture: np.rot90(picture, 2).T,
)
"""The eight symmetries of the square by numpy, in the order that `TURNS` gives in words."""


def head(seed: int, side: int = 200) -> Picture:
    """A bright rim around structure of several sizes, black outside: as much like a slice as a test needs."""
    random = np.random.default_rng(seed)
    noise = random.normal(size=(3, side, side))
    inside = sum(size * gaussian_filter(layer, size) for size, layer in zip((3, 7, 16), noise, strict=True))
    rows, columns = np.indices((side, side)) / (side - 1) * 2 - 1
    tall, wide = random.uniform(0.75, 0.9), random.uniform(0.65, 0.85)
    radius = np.hypot((rows - random.uniform(-0.05, 0.05)) / tall, (columns - random.uniform(-0.05, 0.05)) / wide)
    grey = np.where(radius < 0.93, 95 + 40 * inside / inside.std(), 150) * (radius < 1)
    return np.clip(np.rint(gaussian_filter(grey, 1.5)), 0, 255).astype(np.uint8)


def thumbnail(picture: Picture) -> Picture:
    return np.asarray(Image.fromarray(picture).resize((64, 64), Image.Resampling.BOX))


def jpeg(picture: Picture, quality: int) -> Picture:
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "JPEG", quality=quality)
    return np.asarray(Image.open(content))


def rescaled(picture: Picture, share: float) -> Picture:
    side = round(share * len(picture))
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC))


def brightened(picture: Picture, times: float) -> Picture:
    return np.clip(picture * times, 0, 255).astype(np.uint8)


CHANGES: dict[str, Callable[[Picture], Picture]] = {
    "brighter until it clips": lambda picture: brightened(picture, 1.5),
    "darker": lambda picture: brightened(picture, 0.6),
    "gamma 0.6": lambda picture: np.rint(255 * (picture / 255) ** 0.6).astype(np.uint8),
    "gamma 1.6": lambda picture: np.rint(255 * (picture / 255) ** 1.6).astype(np.uint8),
    "clipped at both ends": lambda picture: np.clip((picture.astype(float) - 40) * 1.4, 0, 255).astype(np.uint8),
    "cropped by 4 % on each side": lambda picture: picture[8:-8, 8:-8],
    "cropped at one corner": lambda picture: picture[8:, 8:],
    "JPEG of quality 40": lambda picture: jpeg(picture, 40),
    "rescaled to 80 %": lambda picture: rescaled(picture, 0.8),
}


@pytest.fixture(scope="module")
def heads() -> list[Picture]:
    return [head(seed) for seed in range(24)]


@pytest.fixture(scope="module")
def thumbnails(heads: list[Picture]) -> Picture:
    return np.stack([thumbnail(picture) for picture in heads])


def smooth_noise(count: int, seed: int = 0) -> Picture:
    """Thumbnails of nothing but smooth noise, each unlike the others."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(count, 64, 64)), (0, 4, 4), mode="wrap")
    return np.clip(128 + 45 * noise / noise.std(axis=(1, 2), keepdims=True), 0, 255).astype(np.uint8)


def quiet(done: int, total: int) -> None:
    pass


def scores(first: Picture, second: Picture) -> NDArray[np.float32]:
    return similarity(torch.from_numpy(first.copy()).float(), torch.from_numpy(second.copy()).float()).numpy()


def digests(pictures: Picture) -> NDArray[np.void]:
    return np.array([hashlib.blake2b(picture.tobytes(), digest_size=16).digest() for picture in pictures], dtype="V16")


# Fingerprints


def test_a_fingerprint_is_the_low_cosines_weighted_by_frequency(thumbnails: Picture) -> None:
    small = thumbnails.reshape(-1, 32, 2, 32, 2).mean(axis=(2, 4))
    places, order = np.arange(32) + 0.5, np.arange(6)
    waves = np.sqrt(2 / 32) * np.cos(np.pi / 32 * order[:, None] * places)
    waves[0] /= np.sqrt(2)
    expected = waves @ small @ waves.T * np.sqrt(order[:, None] ** 2 + order**2)
    expected /= np.sqrt((expected**2).sum(axis=(1, 2), keepdims=True))
    np.testing.assert_allclose(fingerprints(thumbnails, 6), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("crop", "rows", "columns"),
    [
        ((0.5, 0, 0, 0.5), slice(32, 64), slice(0, 32)),
        ((0, 0.5, 0.5, 0), slice(0, 32), slice(32, 64)),
        ((0.25, 0.25, 0.25, 0.25), slice(16, 48), slice(16, 48)),
    ],
)
def test_a_crop_is_cut_off_at_the_top_left_bottom_and_right(
    thumbnails: Picture, crop: tuple[float, ...], rows: slice, columns: slice
) -> None:
    rest = thumbnails[:, rows, columns].repeat(2, axis=1).repeat(2, axis=2)  # of whole pixels: nothing is interpolated
    np.testing.assert_allclose(fingerprints(thumbnails, 12, crop), fingerprints(rest, 12), atol=1e-5)


def test_fingerprints_are_of_unit_length(thumbnails: Picture) -> None:
    for crop in CROPS:
        length = np.linalg.norm(fingerprints(thumbnails, 12, crop).reshape(len(thumbnails), -1), axis=1)
        np.testing.assert_allclose(length, 1, atol=1e-5)


@pytest.mark.parametrize("turn", range(8))
def test_a_turned_fingerprint_is_that_of_the_turned_picture(thumbnails: Picture, turn: int) -> None:
    by_numpy = np.stack([TURNED[turn](picture) for picture in thumbnails])
    np.testing.assert_array_equal(turn_pictures(torch.from_numpy(thumbnails), turn).numpy(), by_numpy)
    prints = list(turned(fingerprints(thumbnails, 12)))
    assert len(prints) == len(TURNS) == 8
    np.testing.assert_allclose(prints[turn], fingerprints(by_numpy, 12), atol=1e-5)


def test_brightness_leaves_a_fingerprint_as_it_is(thumbnails: Picture) -> None:
    darker = np.rint(thumbnails * 0.5 + 20).astype(np.uint8)
    np.testing.assert_allclose(fingerprints(darker, 12), fingerprints(thumbnails, 12), atol=0.01)


def test_flat_pictures_have_no_fingerprint_and_match_nothing(thumbnails: Picture) -> None:
    flat = np.stack([np.full((64, 64), level, np.uint8) for level in (0, 0, 9, 130, 255)])
    flat[2, :32] += 3  # less contrast than anything to be seen
    assert not fingerprints(flat, 12).any()
    every = np.concatenate([flat, thumbnails])
    found = candidates(every, np.arange(len(every)), quiet)
    assert not {*found.first.tolist(), *found.second.tolist()} & set(range(5))
    assert (scores(flat, np.roll(flat, 1, axis=0)) < 0.5).all()
    assert (scores(flat, thumbnails[:5]) < 0.5).all()


# Similarity


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_the_same_picture_in_either_order(heads: list[Picture], change: str) -> None:
    originals = np.stack([thumbnail(picture) for picture in heads])
    copies = np.stack([thumbnail(CHANGES[change](picture)) for picture in heads])
    assert scores(originals, copies).min() > 0.98
    assert scores(copies, originals).min() > 0.98


def test_a_picture_is_the_same_as_itself(thumbnails: Picture) -> None:
    np.testing.assert_allclose(scores(thumbnails, thumbnails), 1, atol=1e-4)


def test_a_turned_copy_is_the_same_picture_once_it_is_turned_back(thumbnails: Picture) -> None:
    for turn, by_numpy in enumerate(TURNED):
        other = np.stack([by_numpy(picture) for picture in thumbnails])
        upright = turn_pictures(torch.from_numpy(thumbnails).float(), turn)
        assert similarity(upright, torch.from_numpy(other).float()).min() > 0.9999
        assert turn == 0 or scores(thumbnails, other).max() < SAME


def test_other_pictures_are_not_the_same(thumbnails: Picture) -> None:
    one, other = np.triu_indices(len(thumbnails), 1)
    assert scores(thumbnails[one], thumbnails[other]).max() < SAME - 0.1


def test_other_structure_in_the_same_head_is_not_the_same(heads: list[Picture]) -> None:
    # As neighbouring slices have it: one outline, and half of what is inside comes from elsewhere.
    mixed = []
    for first, second in zip(heads, heads[1:] + heads[:1], strict=True):
        grey = np.where((first > 0) & (second > 0), first / 2 + second / 2, first)
        mixed.append(thumbnail(np.rint(grey).astype(np.uint8)))
    assert scores(np.stack([thumbnail(picture) for picture in heads]), np.stack(mixed)).max() < SAME


# Candidates


def all_likenesses(thumbnails: Picture) -> NDArray[np.float64]:
    """How alike each, turned by numpy and cropped, is to each as it comes: (turn, N, N)."""
    plain = fingerprints(thumbnails, 12).reshape(len(thumbnails), -1)
    result = np.empty((8, len(thumbnails), len(thumbnails)))
    for turn, by_numpy in enumerate(TURNED):  # the crops are a set that no turn changes: the order does not matter
        upright = np.stack([by_numpy(picture) for picture in thumbnails])
        cropped = [fingerprints(upright, 12, crop).reshape(len(thumbnails), -1) @ plain.T for crop in CROPS]
        result[turn] = np.max(cropped, axis=0)
    return result


def pairs(found: Candidates) -> set[tuple[int, int]]:
    return {(min(pair), max(pair)) for pair in zip(found.first.tolist(), found.second.tolist(), strict=True)}


def with_copies(originals: Picture, count: int) -> Picture:
    """Followed by changed copies of the first `count`, each turned in another way."""
    changes = list(CHANGES.values())
    copies = [
        thumbnail(TURNED[number % 8](changes[number % len(changes)](rescaled(originals[number], 3))))
        for number in range(count)
    ]
    return np.concatenate([originals, np.stack(copies)])


def test_every_alike_pair_is_a_candidate_once() -> None:
    every = with_copies(smooth_noise(90), 45)
    found = candidates(every, np.arange(len(every)), quiet)
    assert len(pairs(found)) == len(found.first)
    assert not (found.first == found.second).any()
    likeness = all_likenesses(every)
    either = likeness.max(axis=0)
    either = np.triu(np.maximum(either, either.T), 1)
    certain, possible = (set(map(tuple, np.argwhere(either > ALIKE + by).tolist())) for by in (1e-4, -1e-4))
    assert certain <= pairs(found) <= possible
    assert {(number, 90 + number) for number in range(45)} <= certain
    best = either[np.minimum(found.first, found.second), np.maximum(found.first, found.second)]
    np.testing.assert_allclose(likeness[found.turn, found.first, found.second], best, atol=1e-4)


def test_candidates_are_looked_for_among_the_given_places() -> None:
    every = with_copies(smooth_noise(30), 10)
    places = np.array([37, 2, 20, 7, 32])  # two pairs of original and copy, one on its own
    found = candidates(every, places, quiet)
    assert pairs(found) == {(0, 3), (1, 4)}  # places in `places`


def test_progress_ends_at_the_total() -> None:
    told: list[tuple[int, int]] = []
    candidates(smooth_noise(40), np.arange(40), lambda done, total: told.append((done, total)))
    assert told == [(16, 40), (32, 40), (40, 40)]


def test_the_index_finds_nearly_all_that_exact_search_finds() -> None:
    every = with_copies(smooth_noise(400), 200)
    places = np.arange(len(every))
    exact, indexed = (candidates(every, places, quiet, **limit) for limit in ({}, {"exact": 0}))
    assert len({(number, 400 + number) for number in range(200)} & pairs(exact)) >= 198
    assert len(pairs(indexed)) == len(indexed.first)
    assert len(pairs(exact) & pairs(indexed)) >= 0.98 * len(pairs(exact))
    assert len(pairs(indexed) - pairs(exact)) <= 0.02 * len(pairs(exact))  # half precision, at the threshold
    assert (all_likenesses(every)[indexed.turn, indexed.first, indexed.second] > ALIKE - 0.01).all()


# Copies


def test_identical_sets_are_numbered_in_the_order_of_their_first_pictures(thumbnails: Picture) -> None:
    every = thumbnails[[7, 3, 7, 1, 3, 7, 0]]
    found = find_copies(every, digests(every))
    assert found.identical.tolist() == [0, 1, 0, 2, 1, 0, 3]
    assert found.sets == 4
    assert len(found.first) == 0
    assert found.components().tolist() == [0, 1, 0, 2, 1, 0, 3]


def test_pairs_refer_to_sets_and_say_how_the_first_lies_on_the_second(thumbnails: Picture) -> None:
    for turn, by_numpy in enumerate(TURNED[1:], start=1):
        copy = by_numpy(thumbnails[5])
        every = np.stack([thumbnails[2], thumbnails[5], thumbnails[2], copy, thumbnails[9], thumbnails[5], copy])
        found = find_copies(every, digests(every))
        assert found.identical.tolist() == [0, 1, 0, 2, 3, 1, 2], turn
        assert pairs(Candidates(found.first, found.second, found.turn)) == {(1, 2)}
        where = {0: 0, 1: 1, 2: 3, 3: 4}
        one, other = every[where[int(found.first[0])]], every[where[int(found.second[0])]]
        np.testing.assert_array_equal(TURNED[int(found.turn[0])](one), other)
        assert found.similarity[0] > 0.9999
        assert found.graph.toarray().tolist() == [[0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]]


def test_all_planted_copies_are_found_and_nothing_else(heads: list[Picture]) -> None:
    changes = list(CHANGES.values())
    copies = [TURNED[(3 * n) % 8](changes[n % len(changes)](picture)) for n, picture in enumerate(heads)]
    every = np.stack([thumbnail(picture) for picture in [*heads, *copies]])
    found = find_copies(every, digests(every))
    assert found.sets == 48
    assert pairs(Candidates(found.first, found.second, found.turn)) == {(n, 24 + n) for n in range(24)}
    assert found.components().tolist() == [*range(24), *range(24)]
    assert (found.similarity >= SAME).all()


def test_how_far_the_search_is_gets_told(thumbnails: Picture) -> None:
    told: dict[str, tuple[int, int]] = {}

    def progress(title: str) -> Callable[[int, int], None]:
        return lambda done, total: told.update({title: (done, total)})

    every = np.concatenate([thumbnails[:3], np.flip(thumbnails[:2], axis=2)])
    find_copies(every, digests(every), progress)
    assert told == {"looking for alike pictures": (5, 5), "comparing pairs": (2, 2)}


def by_hand(identical: list[int], near: list[tuple[int, int]]) -> Copies:
    sides = np.array(near, dtype=np.int64).reshape(-1, 2)
    blank = np.zeros(len(near), np.int64)
    return Copies(np.array(identical), sides[:, 0], sides[:, 1], blank, np.ones(len(near), np.float32))


def together(numbers: NDArray[np.int64]) -> set[frozenset[int]]:
    """The pictures of each component, whatever its number."""
    return {frozenset(np.flatnonzero(numbers == number).tolist()) for number in set(numbers.tolist())}


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        # Pictures 0 and 2 are identical (set 0), set 0 is like set 2, set 2 like set 3: pictures 3 and 4.
        (None, [{0, 2, 3, 4}, {1}, {5}, {6}]),
        ([None] * 7, [{0, 2, 3, 4}, {1}, {5}, {6}]),
        (["p", "q", "p", None, None, "r", None], [{0, 2, 3, 4}, {1}, {5}, {6}]),
        ([None, "p", None, None, None, "p", None], [{0, 2, 3, 4}, {1, 5}, {6}]),
        # Picture 6 has the patient of picture 4, which is a copy of a copy of picture 0.
        ([None, None, None, None, "p", None, "p"], [{0, 2, 3, 4, 6}, {1}, {5}]),
        # A patient on each end of a chain, and one patient that two unlike pictures share.
        (["a", "b", None, None, "b", "a", None], [{0, 1, 2, 3, 4, 5}, {6}]),
    ],
)
def test_components_join_copies_of_copies_and_patients(
    groups: list[str | None] | None, expected: list[set[int]]
) -> None:
    copies = by_hand([0, 1, 0, 2, 3, 4, 5], [(0, 2), (2, 3)])
    numbers = copies.components(groups)
    assert together(numbers) == set(map(frozenset, expected))
    assert set(numbers.tolist()) == set(range(len(expected)))


def test_the_graph_of_pairs_goes_both_ways() -> None:
    graph = by_hand([0, 1, 0, 2], [(2, 0)]).graph
    assert graph.toarray().tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]


# Nothing to be found


def test_a_set_without_copies_has_none(thumbnails: Picture) -> None:
    found = find_copies(thumbnails, digests(thumbnails))
    assert found.identical.tolist() == list(range(24))
    assert len(found.first) == len(found.second) == len(found.turn) == len(found.similarity) == 0
    assert found.components().tolist() == list(range(24))
    assert found.graph.nnz == 0


def test_a_single_picture_has_no_copy(thumbnails: Picture) -> None:
    found = find_copies(thumbnails[:1], digests(thumbnails[:1]))
    assert (found.identical.tolist(), found.sets, len(found.first)) == ([0], 1, 0)
    assert found.components(["p"]).tolist() == [0]


@pytest.mark.parametrize("count", [1, 5])
def test_black_pictures_are_identical_at_most(count: int) -> None:
    black = np.zeros((count, 64, 64), np.uint8)
    alike = find_copies(black, digests(black))
    assert (alike.identical.tolist(), len(alike.first)) == ([0] * count, 0)
    sizes = np.array([bytes([number] * 16) for number in range(count)], dtype="V16")  # black, of different sizes
    apart = find_copies(black, sizes)
    assert (apart.identical.tolist(), len(apart.first)) == (list(range(count)), 0)
    assert together(apart.components()) == {frozenset({number}) for number in range(count)}
