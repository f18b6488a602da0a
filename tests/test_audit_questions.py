"""Each question of the audit on a hand-made subject: partners, contradictions, shortcuts, differences, standing."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from heads import head
from numpy.typing import NDArray

from braintumor_kit.audit.balance import cramers_v, form, imbalance, planes
from braintumor_kit.audit.collections import described, propose
from braintumor_kit.audit.failings import FAILINGS, failings
from braintumor_kit.audit.leaks import (
    copies_within,
    cross_split,
    divided_groups,
    label_conflicts,
    leaked,
    pairs,
    partners,
)
from braintumor_kit.audit.probes import neighbour_across, shortcut_probes
from braintumor_kit.audit.standing import standing
from braintumor_kit.audit.subject import Subject
from braintumor_kit.contracts import Sample
from braintumor_kit.data.held_out import HELD_OUT
from braintumor_kit.data.survey import RECORD, record_of
from braintumor_kit.matching.copies import Copies
from braintumor_kit.recipe.tables import PixelsTable

PIXELS = PixelsTable(image_size=64)


def subject(
    labels: Sequence[str],
    split: Sequence[str | None],
    groups: Sequence[str | None] | None = None,
    identical: Sequence[int] | None = None,
    near: Sequence[tuple[int, int]] = (),
    records: NDArray[Any] | None = None,
    suffixes: Sequence[str] | None = None,
) -> Subject:
    """Samples "0.png", "1.png" and so on; `near` are pairs of numbers of sets of identical ones."""
    count = len(labels)
    samples = [
        Sample(f"{n}{(suffixes or ['.png'] * count)[n]}", label, group=(groups or [None] * count)[n])
        for n, label in enumerate(labels)
    ]
    first, second = np.array(near, dtype=np.int64).reshape(-1, 2).T
    copies = Copies(
        np.array(range(count) if identical is None else identical, dtype=np.int64), first, second,
        np.ones(len(first), np.int64), np.full(len(first), 0.98, np.float32),
    )  # fmt: skip
    if records is None:
        records = np.zeros(count, RECORD)
        records["height"] = records["width"] = 64
    return Subject(samples, tuple(sorted(set(labels))), tuple(split), records, copies, None)


TRAIN, VALIDATION, TEST = "train", "validation", "test"

# Sets of identical pictures: 0 is samples 0 and 6, 2 is samples 2 and 3, the others have one sample each.
# Near-duplicates: sets 1 and 3 (samples 1 and 4, both in training), sets 5 and 4 (7 in test, 5 in validation).
# Patients: A has 2 and 3 in training and 8 in test, B has 4 in training and 5 in validation, C has 9 alone.
EXAMPLE = subject(
    labels=["a", "a", "a", "a", "b", "b", "b", "b", "a", "b"],
    split=[TRAIN, TRAIN, TRAIN, TRAIN, TRAIN, VALIDATION, TEST, TEST, TEST, TEST],
    groups=[None, None, "A", "A", "B", "B", None, None, "A", "C"],
    identical=[0, 1, 2, 2, 3, 4, 0, 5, 6, 7],
    near=[(1, 3), (5, 4)],
)


def places(mask: NDArray[np.bool_]) -> list[int]:
    return np.flatnonzero(mask).tolist()


def test_partners_in_training_are_found_for_samples_of_every_split() -> None:
    found = partners(EXAMPLE, EXAMPLE.within(TRAIN))
    assert places(found.identical) == [2, 3, 6]
    assert places(found.near_duplicate) == [1, 2, 3, 4, 6]
    assert places(found.same_group) == [2, 3, 5, 8]
    assert places(found.any) == [1, 2, 3, 4, 5, 6, 8]


def test_a_sample_is_never_its_own_partner() -> None:
    alone = subject(["a"] * 3, [TRAIN] * 3, groups=["A", "B", None])
    found = partners(alone, alone.within(TRAIN))
    assert not found.any.any()
    everyone = partners(EXAMPLE, np.ones(10, dtype=bool))
    assert places(everyone.identical) == [0, 2, 3, 6]
    assert 9 not in places(everyone.any)  # patient C's only slice


def test_pairs_of_splits_are_counted_from_the_later_side() -> None:
    columns = ("train", "test", "n_test", "identical", "near_duplicate", "same_group", "clean")
    assert [tuple(row[name] for name in columns) for row in cross_split(EXAMPLE)] == [
        (TRAIN, VALIDATION, 1, 0, 0, 1, 0),
        (TRAIN, TEST, 4, 1, 1, 1, 2),
        (VALIDATION, TEST, 4, 0, 1, 0, 3),
    ]


def test_what_is_held_out_must_share_nothing_with_training() -> None:
    whole = subject(["a"] * 6, [TRAIN, VALIDATION, TEST, HELD_OUT, HELD_OUT, HELD_OUT], groups=list("ABCACD"))
    rows = {(row["train"], row["test"]): row["same_group"] for row in cross_split(whole)}
    assert rows[TRAIN, HELD_OUT] == 1
    assert rows[VALIDATION, HELD_OUT] == 0
    assert (TEST, HELD_OUT) not in rows  # neither was selected on
    assert divided_groups(whole) == [{"group": "A", "slices": {TRAIN: 1, HELD_OUT: 1}}]


def test_leaked_is_what_has_a_partner_in_any_earlier_split() -> None:
    assert places(leaked(EXAMPLE, TEST)) == [6, 7, 8]
    assert places(leaked(EXAMPLE, VALIDATION)) == [5]
    assert places(leaked(EXAMPLE, TRAIN)) == []


def test_copies_within_a_split_leave_patients_and_other_splits_aside() -> None:
    assert [(row["n"], row["identical"], row["near_duplicate"]) for row in copies_within(EXAMPLE)] == [
        (5, 2, 4),
        (1, 0, 0),
        (4, 0, 0),
    ]


def test_divided_groups_are_patients_in_several_splits() -> None:
    assert divided_groups(EXAMPLE) == [
        {"group": "A", "slices": {TRAIN: 2, TEST: 1}},
        {"group": "B", "slices": {TRAIN: 1, VALIDATION: 1}},
    ]


def test_conflicts_are_copies_with_several_labels_and_not_patients() -> None:
    found = [(item["kind"], item["ids"], item["labels"]) for item in label_conflicts(EXAMPLE)]
    assert found == [
        ("identical", ["0.png", "6.png"], ["a", "b"]),
        ("near_duplicate", ["1.png", "4.png"], ["a", "b"]),
    ]


def test_pairs_across_splits_are_shown_before_pairs_within_one() -> None:
    shown = pairs(EXAMPLE, 10)
    across = [set(pair["ids"]) for pair in shown if pair["splits"][0] != pair["splits"][1]]
    within = [set(pair["ids"]) for pair in shown if pair["splits"][0] == pair["splits"][1]]
    assert [set(pair["ids"]) for pair in shown] == across + within
    assert sorted(map(sorted, across)) == [["0.png", "6.png"], ["5.png", "7.png"]]
    assert sorted(map(sorted, within)) == [["1.png", "4.png"], ["2.png", "3.png"]]
    assert len(pairs(EXAMPLE, 3)) == 3


# How much accuracy stands on leaks


def test_standing_takes_accuracy_apart_into_leaked_and_clean() -> None:
    """Test: 3, 4, 5 are copies of training's 0, 1, 2 and all right; of the clean 6, 7, 8 only 6 is right."""
    whole = subject(
        ["a", "a", "b", "a", "a", "b", "a", "b", "b"], [TRAIN] * 3 + [TEST] * 6, identical=[0, 1, 2, 0, 1, 2, 3, 4, 5]
    )
    predicted = dict(zip([f"{n}.png" for n in range(9)], "aabaabaaa", strict=True))
    found = standing(whole, predicted)
    assert found is not None
    assert found["split"] == TEST
    figures = {name: (found[name]["n"], found[name]["accuracy"]) for name in ("all", "leaked", "clean")}
    assert figures == {"all": (6, pytest.approx(4 / 6)), "leaked": (3, 1.0), "clean": (3, pytest.approx(1 / 3))}
    for name in figures:
        low, high = found[name]["accuracy_ci"]
        assert 0 <= low <= found[name]["accuracy"] <= high <= 1
    # recall of a: 3/3 on all, 1/1 on clean; of b: 1/3 on all, 0/2 on clean; the mean gap is (0 + 1/3) / 2
    assert found["balanced_accuracy_on_leaks"] == pytest.approx(1 / 6)


def test_standing_without_a_clean_slice_of_a_class_claims_no_gap() -> None:
    whole = subject(["a", "b", "a", "b", "a"], [TRAIN, TRAIN, TEST, TEST, TEST], groups=["A", "B", "C", "B", "A"])
    found = standing(whole, {"2.png": "a", "3.png": "b", "4.png": "b"})
    assert found is not None
    assert (found["clean"]["n"], found["clean"]["accuracy"]) == (1, 1.0)
    assert (found["leaked"]["n"], found["leaked"]["accuracy"]) == (2, 0.5)
    assert found["balanced_accuracy_on_leaks"] is None


def test_standing_falls_back_on_validation_and_counts_only_what_was_predicted() -> None:
    whole = subject(["a", "b", "a", "b"], [TRAIN, TRAIN, VALIDATION, VALIDATION])
    found = standing(whole, {"2.png": "a"})
    assert found is not None
    assert (found["split"], found["all"]["n"], found["leaked"], found["clean"]["n"]) == (VALIDATION, 1, None, 1)
    assert standing(whole, {}) is None
    assert standing(subject(["a", "b"], [None, None]), {"0.png": "a"}) is None


# Shortcuts


def surveyed(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[Any]:
    return np.array([record_of(picture, PIXELS) for picture in pictures], dtype=RECORD)


@pytest.fixture(scope="module")
def plain() -> NDArray[Any]:
    """Records of 100 heads that have nothing to do with the labels."""
    return surveyed([head(seed) for seed in range(100)])


LABELS = ["a", "b"] * 50
UNDIVIDED = [None] * 100


def test_probes_of_heads_without_a_shortcut_stay_near_chance(plain: NDArray[Any]) -> None:
    found = shortcut_probes(subject(LABELS, UNDIVIDED, records=plain))
    assert found is not None
    assert found.pop("chance") == 0.5
    # of 100 fair guesses fewer than 30 or more than 70 are right once in 25,000 times
    assert {name: value for name, value in found.items() if not 0.3 <= value <= 0.7} == {}
    assert set(found) == {
        "border", "background", "intensity_statistics", "file_format", "nearest_neighbour_thumbnail"
    }  # fmt: skip


def framed(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    framed = picture.copy()
    framed[:3] = framed[-3:] = np.maximum(framed[:3], 14)
    framed[:, :3] = framed[:, -3:] = 14
    return framed


def test_a_border_that_gives_the_class_away_is_seen(plain: NDArray[Any]) -> None:
    records = plain.copy()
    records[1::2] = surveyed([framed(head(seed)) for seed in range(1, 100, 2)])
    found = shortcut_probes(subject(LABELS, UNDIVIDED, records=records))
    assert found is not None
    assert found["border"] >= 0.97
    assert found["background"] >= 0.97  # the frame lies outside of the head
    assert found["file_format"] == pytest.approx(0.5, abs=0.2)
    assert "shortcut" in failings(findings(shortcut_probes=found))


def test_file_sizes_that_give_the_class_away_are_seen_by_the_format_alone(plain: NDArray[Any]) -> None:
    records = plain.copy()
    records["width"][1::2], records["height"][1::2] = 128, 112
    found = shortcut_probes(subject(LABELS, UNDIVIDED, records=records))
    assert found is not None
    assert found["file_format"] == 1.0
    assert found["border"] == pytest.approx(0.5, abs=0.2)


def test_kinds_of_file_that_give_the_class_away_are_seen(plain: NDArray[Any]) -> None:
    found = shortcut_probes(subject(LABELS, UNDIVIDED, records=plain, suffixes=[".png", ".jpg"] * 50))
    assert found is not None
    assert found["file_format"] == 1.0


def test_probes_are_not_flattered_by_copies(plain: NDArray[Any]) -> None:
    """Every head stands twice: its nearest thumbnail is its copy, unless copies stay on one side."""
    twice, labels, sets = np.repeat(plain, 2), list(np.repeat(LABELS, 2)), np.repeat(np.arange(100), 2)
    unaware = shortcut_probes(subject(labels, [None] * 200, records=twice))
    aware = shortcut_probes(subject(labels, [None] * 200, records=twice, identical=sets.tolist()))
    by_patient = shortcut_probes(subject(labels, [None] * 200, records=twice, groups=[f"P{n}" for n in sets]))
    assert unaware is not None
    assert aware is not None
    assert by_patient is not None
    assert unaware["nearest_neighbour_thumbnail"] > 0.9
    assert aware["nearest_neighbour_thumbnail"] < 0.72
    assert by_patient["nearest_neighbour_thumbnail"] < 0.72


def test_chance_is_the_commonest_class_and_a_tiny_set_has_no_probes(plain: NDArray[Any]) -> None:
    records = plain[:24]
    found = shortcut_probes(subject(["a"] * 18 + ["b"] * 6, [None] * 24, records=records))
    assert found is not None
    assert found["chance"] == 0.75
    assert shortcut_probes(subject(["a"] * 20 + ["b"] * 4, [None] * 24, records=records)) is None
    # six slices of b, but of four patients only
    groups = [None] * 18 + ["P1", "P1", "P1", "P2", "P3", "P4"]
    assert shortcut_probes(subject(["a"] * 18 + ["b"] * 6, [None] * 24, groups, records=records)) is None


def test_the_nearest_training_thumbnail_is_looked_for_across_the_split(plain: NDArray[Any]) -> None:
    """Test repeats four training pictures, three of them with the same label."""
    records = np.concatenate([plain[:6], plain[:4]])
    whole = subject(["a", "b", "a", "b", "a", "b", "a", "b", "a", "a"], [TRAIN] * 6 + [TEST] * 4, records=records)
    assert neighbour_across(whole) == 0.75
    assert neighbour_across(subject(["a", "b"], [None, None], records=plain[:2])) is None


# What differs between splits


@pytest.mark.parametrize(
    ("table", "value"),
    [
        # phi square = (10 x 20 - 30 x 40)^2 / (40 x 60 x 50 x 50) = 1 / 6, without Yates' correction; by chance 1 / 99
        ([[10, 30], [40, 20]], math.sqrt((1 / 6 - 1 / 99) / (98 / 99))),
        ([[10, 20], [30, 40]], 0.0),  # phi square 0.008, no more than by chance
        ([[7, 0], [0, 5]], 1.0),
        # phi square 1 - 2/14, 3 rows count for 3 - 4/14 and 2 columns for 2 - 1/14
        ([[7, 0], [0, 5], [3, 0]], math.sqrt((12 / 14) / (13 / 14))),
        ([[4, 8, 12], [2, 4, 6]], 0.0),
        # expected 20 everywhere: chi square = 4 x 100 / 20 = 20 of 120, by chance 2 / 119; the smaller side has 2
        ([[30, 20, 10], [10, 20, 30]], math.sqrt((20 / 120 - 2 / 119) / (118 / 119))),
        ([[7, 5]], 0.0),
        ([[7, 5], [0, 0]], 0.0),
        ([[7, 0], [5, 0]], 0.0),
    ],
)
def test_cramers_v_is_what_it_is_by_hand(table: list[list[int]], value: float) -> None:
    assert cramers_v(np.array(table)) == pytest.approx(value, abs=1e-12)


def test_what_differs_between_splits_is_counted_and_called_notable() -> None:
    """Train has 30 a and 10 b, test 10 a and 30 b: phi square 0.25, by chance 1 / 79. All of one size."""
    whole = subject(["a"] * 30 + ["b"] * 10 + ["a"] * 10 + ["b"] * 30, [TRAIN] * 40 + [TEST] * 40)
    rows = {row["property"]: row for row in imbalance(whole, ["all"] * 80)}
    assert set(rows) == {"class", "size and format", "plane", "collection"}
    assert rows["class"]["cramers_v"] == pytest.approx(math.sqrt((0.25 - 1 / 79) / (78 / 79)))
    assert rows["class"]["notable"] is True
    assert rows["class"]["counts"] == {"a": {TRAIN: 30, TEST: 10}, "b": {TRAIN: 10, TEST: 30}}
    assert (rows["size and format"]["cramers_v"], rows["size and format"]["notable"]) == (0.0, False)


def test_many_values_do_not_differ_between_splits_by_chance() -> None:
    """200 values, 40 pictures each, dealt at random: Cramer's V as it stands would be sqrt(199 / 8000) = 0.16."""
    drawn = np.random.default_rng(0).integers(0, 2, 8000)
    table = np.array([[np.sum(drawn[number::200] == part) for part in (0, 1)] for number in range(200)])
    assert cramers_v(table) < 0.1


def test_size_depth_and_colour_are_put_in_words() -> None:
    grey = head(0)[:80]
    colour = np.zeros((64, 64, 3), np.uint8)
    colour[16:48, 16:48] = (200, 60, 60)
    records = surveyed([grey, np.repeat(grey[..., None], 3, axis=2), colour, grey.astype(np.uint16) * 200])
    whole = subject(["a"] * 4, UNDIVIDED[:4], records=records, suffixes=[".png", ".PNG", ".jpg", ".tif"])
    assert form(whole) == [
        "png 96 x 80 8-bit grey", "png 96 x 80 8-bit grey", "jpg 64 x 64 8-bit colour", "tif 96 x 80 16-bit grey"
    ]  # fmt: skip


def test_a_head_seen_from_the_side_is_told_from_a_symmetric_one() -> None:
    side = np.zeros((96, 96), np.uint8)
    side[10:50, 20:80] = 180
    side[50:90, 20:45] = 120
    front = head(0)
    front = np.maximum(front, front[:, ::-1])
    assert planes(subject(["a"] * 2, UNDIVIDED[:2], records=surveyed([side, front]))) == ["from the side", "symmetric"]


def test_collections_are_proposed_by_format_and_told_from_the_class() -> None:
    whole = subject(["a"] * 30 + ["b"] * 30, UNDIVIDED[:60], suffixes=[".png"] * 30 + [".jpg"] * 30)
    proposed = propose(whole)
    assert len(set(proposed)) == 2
    assert len(set(proposed[:30])) == len(set(proposed[30:])) == 1
    found = described(whole, proposed)
    assert found["cramers_v_with_class"] == pytest.approx(1.0)
    assert [(row["n"], sorted(row["by_class"].values())) for row in found["proposed"]] == [(30, [0, 30])] * 2
    assert set(propose(subject(["a", "b"], [None, None]))) == {"all"}


# Which kinds of fault were found


def findings(**changes: Any) -> dict[str, Any]:
    """Findings of a data set without a fault, with changes."""
    clean = {
        "unreadable": [], "foreign": [], "identical_groups": 0, "near_duplicate_pairs": 0, "label_conflicts": [],
        "cross_split": [{"clean": 5, "n_test": 5}], "imbalance": [{"property": "class", "notable": False}],
        "shortcut_probes": {"border": 0.6, "background": 0.5, "file_format": 0.3, "chance": 0.25,
                            "intensity_statistics": 1.0, "nearest_neighbour_thumbnail": 1.0},
    }  # fmt: skip
    return {**clean, **changes}


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"unreadable": [{}]}, ["unreadable"]),
        ({"foreign": [{}]}, ["foreign"]),
        ({"identical_groups": 1}, ["duplicate"]),
        ({"near_duplicate_pairs": 1}, ["duplicate"]),
        ({"label_conflicts": [{}]}, ["conflict"]),
        ({"cross_split": [{"clean": 5, "n_test": 5}, {"clean": 4, "n_test": 5}]}, ["leak"]),
        ({"imbalance": [{"property": "plane", "notable": True}]}, ["imbalance"]),
        ({"imbalance": [{"property": "collection", "notable": True}]}, []),  # collections are proposals
        ({"shortcut_probes": {"chance": 0.25, "border": 0.62}}, []),
        ({"shortcut_probes": {"chance": 0.25, "border": 0.625}}, ["shortcut"]),  # halfway from chance to certainty
        ({"shortcut_probes": {"chance": 0.25, "file_format": 0.9}}, ["shortcut"]),
        ({"shortcut_probes": None}, []),
        ({"unreadable": [{}], "label_conflicts": [{}]}, ["unreadable", "conflict"]),
    ],
)
def test_failings_name_what_was_found(changes: dict[str, Any], found: list[str]) -> None:
    assert failings(findings(**changes)) == found
    assert set(found) <= set(FAILINGS)
