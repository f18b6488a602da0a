"""Folds of a cross-validation, splits that keep copies together, and patients with several labels."""

from collections import Counter, defaultdict
from collections.abc import Sequence

import pytest

from braintumor_kit.contracts import InputError, Sample
from braintumor_kit.data.split import Split, make_folds, make_split
from braintumor_kit.recipe.tables import SplitTable


def patients(count: int, classes: str = "abc") -> list[Sample]:
    """Patients of 1 to 10 slices, dealt to the classes in turn."""
    return [
        Sample(f"{patient}-{number}", classes[patient % len(classes)], group=f"p{patient}")
        for patient in range(count)
        for number in range(1 + patient * 7 % 10)
    ]


def settings(**values: object) -> SplitTable:
    return SplitTable.model_validate({"method": "kfold", **values})


def folds_testing(splits: Sequence[Split]) -> list[list[int]]:
    """The folds in which each sample is tested."""
    return [[fold for fold, split in enumerate(splits) if split[place] == "test"] for place in range(len(splits[0]))]


@pytest.mark.parametrize("folds", [2, 3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_every_sample_is_tested_exactly_once(folds: int, seed: int) -> None:
    splits = make_folds(patients(90), settings(folds=folds), seed)
    assert len(splits) == folds
    assert {len(found) for found in folds_testing(splits)} == {1}
    for split in splits:
        assert set(split) == {"train", "validation", "test"}


@pytest.mark.parametrize("seed", range(3))
def test_no_patient_is_divided_by_the_folds_or_within_one(seed: int) -> None:
    samples = patients(90)
    splits = make_folds(samples, settings(folds=5), seed)
    fold_of: dict[str | None, set[int]] = defaultdict(set)
    for sample, (fold,) in zip(samples, folds_testing(splits), strict=True):
        fold_of[sample.group].add(fold)
    assert {len(found) for found in fold_of.values()} == {1}
    for split in splits:
        assert len({(sample.group, part) for sample, part in zip(samples, split, strict=True)}) == 90


def test_folds_hold_near_equal_shares_of_every_class() -> None:
    samples = patients(300)
    splits = make_folds(samples, settings(folds=5, validation=0.2), 0)
    for label in "abc":
        total = sum(sample.label == label for sample in samples)
        for split in splits:
            counts = Counter(part for sample, part in zip(samples, split, strict=True) if sample.label == label)
            # the largest are dealt first, so folds end within the smallest patient's one slice or so of each other
            assert counts["test"] == pytest.approx(total / 5, abs=2)
            assert counts["validation"] / (total - counts["test"]) == pytest.approx(0.2, abs=0.03)


def test_folds_follow_from_the_seed_and_not_from_the_order() -> None:
    samples = patients(60)
    first = make_folds(samples, settings(folds=4), 1)
    backwards = make_folds(samples[::-1], settings(folds=4), 1)
    assert [split[::-1] for split in backwards] == first
    assert make_folds(samples, settings(folds=4), 2) != first
    assert make_folds(samples, settings(folds=4, seed=1), 99) == first


def test_another_class_leaves_the_folds_of_this_one_alone() -> None:
    one, other = patients(60, classes="ab"), [Sample(f"z{n}", "z", group=f"z{n}") for n in range(20)]
    beside = make_folds([*one, *other], settings(folds=4), 0)
    assert [split[: len(one)] for split in beside] == make_folds(one, settings(folds=4), 0)


def test_five_folds_are_the_default() -> None:
    assert len(make_folds(patients(60), settings(), 0)) == 5


def test_more_folds_than_patients_of_a_class_are_refused_with_the_counts() -> None:
    samples = [*patients(40, classes="a"), *(Sample(f"r{n}", "rare", group=f"r{n % 4}") for n in range(40))]
    with pytest.raises(InputError, match=r"folds = 5, but class 'rare' has 4 patients only; choose fewer folds"):
        make_folds(samples, settings(folds=5), 0)
    assert len(make_folds(samples, settings(folds=4), 0)) == 4


def test_folds_without_patients_are_refused_with_the_ways_out() -> None:
    samples = [Sample(str(n), "ab"[n % 2]) for n in range(200)]
    with pytest.raises(InputError, match='method = "kfold" keeps patients apart, but the source knows no patients'):
        make_folds(samples, settings(folds=5), 0)


def test_slices_without_a_patient_count_as_patients_beside_known_ones() -> None:
    samples = [*patients(40), *(Sample(f"lone{n}", "abc"[n % 3]) for n in range(60))]
    splits = make_folds(samples, settings(folds=5), 0)
    lone = [found[0] for sample, found in zip(samples, folds_testing(splits), strict=True) if sample.group is None]
    assert set(lone) == set(range(5))


def test_dealing_slice_by_slice_divides_patients() -> None:
    """What keep_together = "nothing" is for: to show what that flatters."""
    samples = [Sample(f"{n}", "ab"[n // 5 % 2], group=f"p{n // 5}") for n in range(200)]  # 40 patients of 5 slices
    splits = make_folds(samples, settings(folds=5, keep_together="nothing"), 0)
    assert {len(found) for found in folds_testing(splits)} == {1}
    assert [Counter(split)["test"] for split in splits] == [40] * 5
    folds_of: dict[str | None, set[int]] = defaultdict(set)
    for sample, (fold,) in zip(samples, folds_testing(splits), strict=True):
        folds_of[sample.group].add(fold)
    assert sum(len(found) > 1 for found in folds_of.values()) > 30


def copies(samples: Sequence[Sample]) -> list[int]:
    """Components of three samples each, one of every third of the list, numbered from the back."""
    third = len(samples) // 3
    return [third - 1 - place % third for place in range(len(samples))]


def test_folds_keep_copies_together_where_they_are_told_to() -> None:
    samples = [Sample(f"{n:03}", "ab"[n % 2]) for n in range(180)]  # a third is 60, so copies share the label
    numbers = copies(samples)
    splits = make_folds(samples, settings(folds=5, keep_together="copies"), 0, numbers)
    assert {len(found) for found in folds_testing(splits)} == {1}
    for split in splits:
        assert len(set(zip(numbers, split, strict=True))) == 60
    renumbered = [number * 7 % 60 for number in numbers]
    assert make_folds(samples, settings(folds=5, keep_together="copies"), 0, renumbered) == splits
    with pytest.raises(ValueError, match="their numbers are needed"):
        make_folds(samples, settings(folds=5, keep_together="copies"), 0)


def test_too_many_folds_for_the_copies_are_refused() -> None:
    samples = [Sample(str(n), "ab"[n % 2]) for n in range(40)]
    with pytest.raises(InputError, match="class 'a' has 2 unrelated pictures only"):
        make_folds(samples, settings(folds=3, keep_together="copies"), 0, [n % 4 for n in range(40)])


# Splits that keep copies together


@pytest.mark.parametrize("seed", range(5))
def test_a_deduplicated_split_divides_no_set_of_copies(seed: int) -> None:
    samples = [Sample(f"{n:03}", "ab"[n % 2]) for n in range(180)]
    numbers = copies(samples)
    split = make_split(samples, settings(method="deduplicated", validation=0.2, test=0.2), seed, numbers)
    assert len(set(zip(numbers, split, strict=True))) == 60
    for label in "ab":
        counts = Counter(part for sample, part in zip(samples, split, strict=True) if sample.label == label)
        assert counts == {"train": 54, "validation": 18, "test": 18}  # of 30 sets of three


def test_a_deduplicated_split_does_not_follow_from_the_order_or_the_numbers() -> None:
    samples = [Sample(f"{n:03}", "ab"[n % 2]) for n in range(180)]
    numbers = copies(samples)
    table = settings(method="deduplicated")
    first = make_split(samples, table, 3, numbers)
    assert make_split(samples[::-1], table, 3, numbers[::-1])[::-1] == first
    assert make_split(samples, table, 3, [number * 7 % 60 for number in numbers]) == first


def test_copies_with_different_labels_count_for_the_commonest() -> None:
    """Sets of three slices: two of a and one of b, or two of b and one of a."""
    samples = [Sample(f"{n:03}", "aabbba"[n % 6]) for n in range(120)]
    numbers = [n // 3 for n in range(120)]
    split = make_split(samples, settings(method="deduplicated", validation=0.2, test=0.2), 0, numbers)
    assert len(set(zip(numbers, split, strict=True))) == 40
    main = ["ab"[number % 2] for number in numbers]
    for label in "ab":
        assert Counter(part for name, part in zip(main, split, strict=True) if name == label)["test"] == 12  # 4 sets


# Patients with several labels

MIXED = [
    Sample(f"{n}-{k}", "b" if n in (0, 2) and k == 0 else "a" if n < 20 else "b", group=f"p{n:02}")
    for n in range(40)
    for k in range(3)
]
"""Patients p00 and p02 have one slice of b and two of a."""


@pytest.mark.parametrize("method", ["grouped", "kfold"])
def test_patients_with_several_labels_are_named(method: str) -> None:
    table = settings(method=method)
    with pytest.raises(InputError) as caught:
        make_folds(MIXED, table, 0) if method == "kfold" else make_split(MIXED, table, 0)
    message = str(caught.value)
    assert message.startswith("2 patients have slices of several classes (p00: a, b; p02: a, b).")
    assert 'mixed_patients = "allow"' in message


def test_one_mixed_patient_is_told_in_the_singular_and_many_in_short() -> None:
    one = [sample for sample in MIXED if sample.group != "p02"]
    with pytest.raises(InputError, match=r"^1 patient has slices of several classes \(p00: a, b\)"):
        make_split(one, settings(method="grouped"), 0)
    many = [Sample(f"{n}", "ab"[n % 2], group=f"p{n // 2}") for n in range(16)]
    with pytest.raises(InputError, match=r"^8 patients have .*p4: a, b and 3 more\)"):
        make_split(many, settings(method="grouped"), 0)


def test_mixed_patients_stay_whole_where_they_are_allowed() -> None:
    table = settings(method="grouped", mixed_patients="allow")
    split = make_split(MIXED, table, 0)
    assert len({(sample.group, part) for sample, part in zip(MIXED, split, strict=True)}) == 40
    splits = make_folds(MIXED, settings(folds=4, mixed_patients="allow"), 0)
    fold_of = {(sample.group, fold) for sample, (fold,) in zip(MIXED, folds_testing(splits), strict=True)}
    assert len(fold_of) == 40
    # each counts for its commonest label: 20 patients of each class in four folds
    assert Counter((int(str(group)[1:]) < 20, fold) for group, fold in fold_of) == {
        (first, fold): 5 for first in (True, False) for fold in range(4)
    }


def test_methods_that_divide_patients_do_not_mind_their_labels() -> None:
    assert set(make_split(MIXED, settings(method="stratified"), 0)) == {"train", "validation", "test"}
