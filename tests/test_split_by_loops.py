"""Splits and folds once more, by loops, and to the letter: which unit goes where, and what is said where none can."""

import hashlib
from collections import Counter

import numpy as np
import pytest

from braintumor_kit.contracts import InputError, Sample
from braintumor_kit.data.split import check_trained, make_folds, make_split, split_digest
from braintumor_kit.recipe.tables import SplitTable


def settings(**values: object) -> SplitTable:
    return SplitTable.model_validate(values)


def patients(sizes: dict[str, list[int]]) -> list[Sample]:
    """Patients of each class with so many slices each; those of one slice are given without their patient."""
    return [
        Sample(f"{label}{patient:02}-{number}", label, group=f"{label}{patient:02}" if size > 1 else None)
        for label, of_class in sizes.items()
        for patient, size in enumerate(of_class)
        for number in range(size)
    ]


def shuffled(label: str, units: list[str], seed: int) -> list[str]:
    """The order in which a class's units are dealt: of their names, by the seed and the label's SHA-256."""
    order = sorted(units)
    word = int(hashlib.sha256(label.encode()).hexdigest()[:16], 16)
    np.random.default_rng([seed, word]).shuffle(order)
    return order


def units_of(samples: list[Sample]) -> dict[str, dict[str, list[int]]]:
    """Of each class, the places of each unit."""
    units: dict[str, dict[str, list[int]]] = {}
    for place, sample in enumerate(samples):
        name = f"sample {sample.id}" if sample.group is None else f"group {sample.group}"
        units.setdefault(sample.label, {}).setdefault(name, []).append(place)
    return units


def divided(samples: list[Sample], shares: list[tuple[str, float]], seed: int) -> list[str]:
    """Each share is filled while another unit brings it nearer to its size (or as near), and has one unit at least;
    one unit stays for each share that is to come and for training."""
    split = ["train"] * len(samples)
    for label, units in units_of(samples).items():
        order = shuffled(label, list(units), seed)
        total = sum(len(places) for places in units.values())
        for number, (part, share) in enumerate(shares):
            kept_back, taken = len(shares) - number, 0
            while len(order) > kept_back:
                size = len(units[order[0]])
                if taken and abs(taken + size - share * total) > abs(taken - share * total):
                    break
                for place in units[order.pop(0)]:
                    split[place] = part
                taken += size
    return split


CASES = {
    "many patients": {"a": [1 + n * 7 % 10 for n in range(30)], "b": [3] * 20, "c": [2, 9] * 8},
    "three patients a class": {"a": [2, 5, 3], "b": [4, 4, 4], "c": [9, 2, 2]},
    "a patient with most slices": {"a": [40, 2, 2, 2, 3], "b": [2, 2, 30, 2, 30]},
    "slices of a known size": {"a": [1] * 40, "b": [2] * 20},
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("validation", "test"), [(0.15, 0.15), (0.1, 0.3), (0.45, 0.45), (0.3, 0.05)])
@pytest.mark.parametrize("case", CASES)
def test_units_fill_test_and_validation_and_the_rest_trains(
    case: str, validation: float, test: float, seed: int
) -> None:
    samples = patients(CASES[case])
    expected = divided(samples, [("test", test), ("validation", validation)], seed)
    table = settings(method="grouped", validation=validation, test=test)
    assert list(make_split(samples, table, seed)) == expected
    assert set(expected) == {"train", "validation", "test"}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("folds", [2, 5])
def test_folds_are_dealt_the_largest_first_to_the_emptiest(folds: int, seed: int) -> None:
    samples = patients({"a": [1 + n * 7 % 10 for n in range(30)], "b": [3] * 20, "c": [2, 9] * 8})
    fold_of = {}
    for label, units in units_of(samples).items():
        slices = [0] * folds
        order = shuffled(label, list(units), seed)
        for size in range(10, 0, -1):
            for name in (name for name in order if len(units[name]) == size):
                emptiest = slices.index(min(slices))
                slices[emptiest] += size
                fold_of.update(dict.fromkeys(units[name], emptiest))
    for fold, split in enumerate(make_folds(samples, settings(method="kfold", folds=folds, validation=0.2), seed)):
        rest = [place for place in range(len(samples)) if fold_of[place] != fold]
        inner = divided([samples[place] for place in rest], [("validation", 0.2)], seed + fold)
        expected = ["test"] * len(samples)
        for place, part in zip(rest, inner, strict=True):
            expected[place] = part
        assert list(split) == expected


@pytest.mark.parametrize("seed", range(3))
def test_another_seed_of_validation_leaves_the_test_part(seed: int) -> None:
    samples = patients({"a": [1 + n * 7 % 10 for n in range(30)], "b": [3] * 20, "c": [2, 9] * 8})
    plain = make_split(samples, settings(method="grouped", validation=0.15, test=0.25), 1)
    rest = [place for place in range(len(samples)) if plain[place] != "test"]
    inner = iter(divided([samples[place] for place in rest], [("validation", 0.2)], seed))  # 0.15 of 1 - 0.25
    expected = tuple("test" if part == "test" else next(inner) for part in plain)
    table = settings(method="grouped", validation=0.15, test=0.25, validation_seed=seed)
    assert make_split(samples, table, 1) == expected != plain


@pytest.mark.parametrize("seed", range(3))
def test_another_seed_of_validation_leaves_the_folds(seed: int) -> None:
    samples = patients({"a": [1 + n * 7 % 10 for n in range(30)], "b": [3] * 20, "c": [2, 9] * 8})
    table = settings(method="kfold", folds=4, validation=0.2, seed=5, validation_seed=seed)
    plain = make_folds(samples, settings(method="kfold", folds=4, validation=0.2), 5)
    for fold, (split, before) in enumerate(zip(make_folds(samples, table, 99), plain, strict=True)):
        rest = [sample for sample, part in zip(samples, before, strict=True) if part != "test"]
        inner = iter(divided(rest, [("validation", 0.2)], seed + fold))
        assert split == tuple("test" if part == "test" else next(inner) for part in before)


def test_another_seed_of_validation_within_the_source_s_training_part() -> None:
    samples, contents = source()
    plain, other = (
        make_split(samples, settings(validation=0.25, validation_seed=number), 1, None, contents)
        for number in (None, 2)
    )
    assert other == make_split(samples, settings(validation=0.25), 2, None, contents) != plain


def test_a_seed_of_validation_keeps_copies_together() -> None:
    samples = [Sample(f"{label}{n:02}", label) for label in "ab" for n in range(40)]
    copies = [n // 2 for n in range(80)]
    for method in ("deduplicated", "kfold"):
        kept = {"keep_together": "copies"} if method == "kfold" else {}
        table = settings(method=method, validation_seed=3, **kept)
        splits = make_folds(samples, table, 1, copies) if method == "kfold" else [make_split(samples, table, 1, copies)]
        for split in splits:
            assert [split[n] for n in range(0, 80, 2)] == [split[n] for n in range(1, 80, 2)]


def test_slices_take_shares_that_are_met_exactly() -> None:
    # 0.25 of 8 is two: a third slice would be as far from it as one, and the second is taken
    samples = [Sample(f"{label}{n}", label) for label in "ab" for n in range(8)]
    split = make_split(samples, settings(method="stratified", validation=0.25, test=0.25), 0)
    assert Counter(split) == {"train": 8, "validation": 4, "test": 4}
    # and half a slice more is taken: 0.3125 of 8 is two and a half
    split = make_split(samples, settings(method="stratified", validation=0.25, test=0.3125), 0)
    assert Counter(split) == {"train": 6, "validation": 4, "test": 6}


def test_a_share_of_nothing_still_has_one_unit() -> None:
    samples = patients({"a": [2] * 9, "b": [2] * 9})
    split = make_split(samples, settings(method="grouped", validation=0.01, test=0.01), 0)
    assert Counter(split) == {"train": 28, "validation": 4, "test": 4}


# Validation from a divided source


def source(identical: bool = False) -> tuple[list[Sample], list[str]]:
    """Twelve patients a class of three slices that train, and three slices that test; and what is in the pictures,
    where patients 0 and 1, 2 and 3, .. share one picture if `identical`."""
    samples, contents = [], []
    for label in "ab":
        for patient in range(12):
            for number in range(3):
                samples.append(Sample(f"{label}{patient}-{number}", label, split="train", group=f"{label}{patient:02}"))
                shared = identical and number == 2
                contents.append(f"{label}{patient // 2} shared" if shared else samples[-1].id)
        samples += [Sample(f"{label}-test-{n}", label, split="test") for n in range(3)]
        contents += [samples[-3 + n].id for n in range(3)]
    return samples, contents


@pytest.mark.parametrize("seed", range(4))
def test_validation_from_training_divides_no_patient_and_no_set_of_copies(seed: int) -> None:
    samples, contents = source()
    training = [sample for sample in samples if sample.split == "train"]
    expected = iter(divided(training, [("validation", 0.25)], seed))
    by_loops = tuple(next(expected) if sample.split == "train" else "test" for sample in samples)
    table = settings(validation=0.25)
    assert make_split(samples, table, seed) == make_split(samples, table, seed, None, contents) == by_loops

    samples, contents = source(identical=True)
    split = make_split(samples, table, seed, None, contents)
    pairs = {
        (sample.label, int(sample.group[1:]) // 2, part)
        for sample, part in zip(samples, split, strict=True)
        if sample.group
    }
    assert len(pairs) == 12  # six pairs of patients in each class, none divided
    assert Counter(split) == {"train": 48, "validation": 24, "test": 6}  # 9 of 36 slices a class: one pair, or two


def test_a_set_of_copies_has_the_first_name_of_its_patients() -> None:
    samples, contents = source(identical=True)
    named = [
        Sample(sample.id, sample.label, split="train", group=f"{sample.label}{int(sample.group[1:]) // 2 * 2:02}")
        for sample in samples
        if sample.group
    ]
    table = settings(validation=0.25)
    split = make_split(samples, table, 5, None, contents)
    expected = divided(named, [("validation", 0.25)], 5)
    assert [part for sample, part in zip(samples, split, strict=True) if sample.group] == expected


def test_a_source_with_validation_keeps_it() -> None:
    samples = [Sample(f"{n}", "ab"[n % 2], split=("train", "validation", "test")[n // 4]) for n in range(12)]
    assert make_split(samples, settings(), 0) == ("train",) * 4 + ("validation",) * 4 + ("test",) * 4
    with pytest.raises(InputError) as caught:
        make_split(samples, settings(source_test_as="validation"), 0)
    assert str(caught.value) == (
        '[split] source_test_as = "validation", but the source has a validation part of its own.'
    )


def test_too_few_patients_to_validate_are_named() -> None:
    samples = [Sample(f"{label}{n}", label, split="train", group=f"{label}") for label in "ab" for n in range(9)]
    with pytest.raises(InputError) as caught:
        make_split(samples, settings(), 0)
    assert str(caught.value) == "class 'a' has 1 patients: too few for validation and training."


def test_too_few_in_a_fold_are_named_in_its_own_unit() -> None:
    samples = [Sample(f"{label}{n}", label) for label in "ab" for n in range(2)]
    with pytest.raises(InputError) as caught:
        make_folds(samples, settings(method="kfold", folds=2, keep_together="nothing"), 0)
    assert str(caught.value) == "class 'a' has 1 slices: too few for validation and training."


# What is said


def test_a_split_without_training_says_so() -> None:
    samples = [Sample(f"{n}", "a", split=part) for n, part in enumerate(["validation", "test"] * 3)]
    with pytest.raises(InputError) as caught:
        make_split(samples, settings(), 0)
    assert str(caught.value) == "the split has no train part; [split] says how one is made."


@pytest.mark.parametrize(
    ("method", "otherwise"),
    [
        ("grouped", 'method = "stratified" divides by slice, "deduplicated" keeps copies together'),
        ("kfold", 'keep_together = "nothing" deals slice by slice, "copies" keeps copies together'),
    ],
)
def test_a_source_without_patients_is_told_its_ways_out(method: str, otherwise: str) -> None:
    samples = [Sample(f"{n}", "ab"[n % 2]) for n in range(40)]
    table = settings(method=method)
    with pytest.raises(InputError) as caught:
        make_folds(samples, table, 0) if method == "kfold" else make_split(samples, table, 0)
    assert str(caught.value) == (
        f'[split] method = "{method}" keeps patients apart, but the source knows no patients; {otherwise}, and '
        "[source] recover_patients = true may find them."
    )


@pytest.mark.parametrize(("mixed", "more"), [(5, ""), (6, " and 1 more"), (7, " and 2 more")])
def test_five_mixed_patients_are_named_and_the_others_counted(mixed: int, more: str) -> None:
    samples = [Sample(f"{n}", "ab"[n % 2], group=f"p{n // 2}") for n in range(2 * mixed)]
    with pytest.raises(InputError) as caught:
        make_split(samples, settings(method="grouped"), 0)
    named = "; ".join(f"p{n}: a, b" for n in range(5))
    assert f"({named}{more})." in str(caught.value)


def test_copies_without_their_numbers_are_a_fault_of_the_caller() -> None:
    with pytest.raises(ValueError, match=r"^copies are kept together: their numbers are needed$"):
        make_split(patients(CASES["many patients"]), settings(method="deduplicated"), 0)


def test_numbers_of_copies_change_nothing_where_patients_are_kept_together() -> None:
    samples = patients(CASES["many patients"])
    table = settings(method="grouped")
    assert make_split(samples, table, 0, [0] * len(samples)) == make_split(samples, table, 0)


def test_the_digest_is_of_sorted_lines_of_ids_and_parts() -> None:
    samples = [Sample("b", "x"), Sample("a\udcff", "x")]  # an id from a file name that is not UTF-8
    expected = hashlib.sha256(b"a\xff\0test\nb\0train").hexdigest()
    assert split_digest(samples, ("train", "test")) == expected


def test_a_split_of_another_length_is_a_fault_of_the_caller() -> None:
    samples = patients({"a": [2, 2]})
    for checked in (split_digest, check_trained):
        with pytest.raises(ValueError, match=r"shorter|longer"):
            checked(samples, ("train",) * 3)
