"""Which pairs are looked at: how many of a picture, in which direction, by all pairs or by an index; and how many at a
time an index of patients takes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from test_matching import all_likenesses, digests, head, pairs, quiet, smooth_noise, thumbnail, with_copies

from braintumor_kit.errors import InputError
from braintumor_kit.matching import candidates as module
from braintumor_kit.matching import patients
from braintumor_kit.matching.candidates import ALIKE, candidates
from braintumor_kit.matching.copies import find_copies
from braintumor_kit.matching.fingerprint import CROPS, TURNS, WIDENED, fingerprints, turned
from braintumor_kit.matching.patients import ORDER, build_index, match, save_index


def test_the_better_direction_is_kept_of_the_first_picture_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crop is undone by cropping the original, which is 0 here, and not by cropping the copy."""
    monkeypatch.setattr(module, "ALIKE", 0.7)  # so that the worse direction is found, too
    every = np.roll(with_copies(smooth_noise(12), 12), -5, axis=0)  # 5 was cropped by 4 % on each side
    found = candidates(every, np.arange(len(every)), quiet)
    (place,) = np.flatnonzero((found.first == 0) | (found.second == 0))
    assert (found.first[place], found.second[place]) == (0, 12)
    likeness = all_likenesses(every)[:, [0, 12], [12, 0]].max(axis=0)
    assert likeness[0] > likeness[1] + 0.01 > 0.71


def test_of_each_picture_the_most_alike_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    random = np.random.default_rng(0)
    base = smooth_noise(1)[0].astype(float)
    every = np.stack([np.clip(base + 6 * step * smooth_noise(1, step + 1)[0] / 128, 0, 255) for step in range(7)])
    every = every[random.permutation(7)].astype(np.uint8)
    likeness = all_likenesses(every).max(axis=0)
    np.fill_diagonal(likeness, -1)
    assert likeness.max(axis=0).min() > ALIKE
    top = {(i, int(j)) for i in range(7) for j in np.argsort(-likeness[i])[:3]}
    expected = {(min(pair), max(pair)) for pair in top if likeness[pair] > ALIKE}
    assert pairs(candidates(every, np.arange(7), quiet)) == expected


def test_large_sets_go_through_the_index(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def said(name: str) -> Callable:
        original = getattr(module, name)
        return lambda *arguments: (asked.append(name), original(*arguments))[1]

    for name in ("_all_pairs", "_index"):
        monkeypatch.setattr(module, name, said(name))
    every = smooth_noise(60)
    for exact in (60, 59):
        candidates(every, np.arange(60), quiet, exact=exact)
    assert asked == ["_all_pairs", "_index"]


def test_an_index_is_laid_out_on_a_sample_of_a_large_set() -> None:
    thumbnails = smooth_noise(300)
    index = module._trained_index(thumbnails, np.resize(np.arange(300), 30_000))
    assert index.is_trained
    assert (index.nlist, index.nprobe, index.ntotal) == (692, 16, 0)  # four times the root of 30,000


def test_comparing_is_told_turn_by_turn() -> None:
    heads = np.stack([thumbnail(head(seed)) for seed in range(2)])
    every = np.concatenate([heads, np.flip(heads[:1], axis=2), np.flip(heads[1:], axis=1)])
    told: list[tuple[int, int]] = []
    find_copies(every, digests(every), lambda title: lambda done, total: told.append((done, total)))
    assert told == [(4, 4), (1, 2), (2, 2)]


@pytest.mark.parametrize("crop", [*CROPS, *WIDENED])
def test_what_lies_outside_repeats_the_edge(crop: tuple[float, ...]) -> None:
    """Sampled once more by hand, at the middle of each of 32 x 32 cells of what is left."""
    thumbnails = smooth_noise(3)
    top, left, bottom, right = (64 * side for side in crop)
    cells = (np.arange(32) + 0.5) / 32
    rows = np.clip(top + cells * (64 - top - bottom) - 0.5, 0, 63)
    columns = np.clip(left + cells * (64 - left - right) - 0.5, 0, 63)

    def between(values: np.ndarray, places: np.ndarray, axis: int) -> np.ndarray:
        low = np.minimum(places.astype(int), 62)
        share = (places - low)[:, None] if axis == 1 else places - low
        return values.take(low, axis) * (1 - share) + values.take(low + 1, axis) * share

    small = between(between(thumbnails.astype(float), rows, 1), columns, 2)
    # one that is of 32 x 32 cells of two pixels already: nothing is lost when it is taken as it is
    again = np.repeat(np.repeat(small, 2, axis=1), 2, axis=2)
    np.testing.assert_allclose(fingerprints(thumbnails, 12, crop), fingerprints(again, 12), atol=2e-3)


# Indexes of patients


def an_index(count: int = 3) -> patients.PatientIndex:
    names = [str(number) for number in range(count)]
    return build_index("heads", np.stack([thumbnail(head(seed)) for seed in range(count)]), names, names, names)


def test_matching_is_by_the_best_crop_turn_and_margin() -> None:
    index = an_index()
    queries = np.stack([thumbnail(head(0)[9:-9, 9:-9]), thumbnail(np.flip(head(1), 1)), smooth_noise(1)[0]])
    found = match(index, queries, quiet)
    base = index.fingerprints / np.linalg.norm(index.fingerprints.astype(float), axis=1, keepdims=True)
    best = np.full(3, -1.0)
    for crop in (*CROPS, *WIDENED):
        for pieces in turned(fingerprints(queries, ORDER, crop)):
            best = np.maximum(best, (pieces.reshape(3, -1) @ base.T).max(axis=1))
    np.testing.assert_allclose(found.likeness, best, atol=1e-5)
    assert found.place.tolist() == [0, 1, -1]
    assert TURNS[found.turn[1]] == (False, False, True)
    assert (found.place.dtype, found.turn.dtype, found.likeness.dtype) == (np.int64, np.int64, np.float32)


def test_a_flat_slice_has_a_row_of_zeros_in_an_index() -> None:
    thumbnails = np.stack([thumbnail(head(0)), np.full((64, 64), 7, np.uint8)])
    with np.errstate(all="raise"):
        index = build_index("one flat", thumbnails, ["a", "b"], ["x", "x"], ["p", "q"])
    assert index.fingerprints[0].any()
    assert not index.fingerprints[1].any()


def test_an_index_holds_so_many_slices_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patients, "_MOST", 3)
    an_index(3)
    with pytest.raises(InputError) as caught:
        an_index(4)
    assert str(caught.value) == "an index of patients holds 3 slices at most, not 4."


def test_an_index_whose_words_are_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = an_index()
    size = 3 * 256 + 3 * 3 * 4  # fingerprints, and three columns of three letters of four bytes
    monkeypatch.setattr(patients, "_LARGEST", size + 10_000)  # so much is kept for the rest of the file
    save_index(index, tmp_path / "index.npz")
    monkeypatch.setattr(patients, "_LARGEST", size + 9_999)
    with pytest.raises(InputError) as caught:
        save_index(index, tmp_path / "index.npz")
    assert str(caught.value) == "the ids of so many slices are too long for an index of patients."
