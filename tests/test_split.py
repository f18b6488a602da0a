"""Splits: patients apart, classes balanced, the source's own division kept."""

from collections import Counter

import pytest

from braintumor_kit.contracts import InputError, Sample
from braintumor_kit.data.split import make_split, split_digest
from braintumor_kit.recipe.tables import SplitTable


def patients(count: int, slices: int = 5, classes: str = "abc") -> list[Sample]:
    return [
        Sample(f"{patient}-{number}", classes[patient % len(classes)], group=f"p{patient}")
        for patient in range(count)
        for number in range(1 + (patient * 7 + slices) % (2 * slices))
    ]


def settings(**values: object) -> SplitTable:
    return SplitTable.model_validate(values)


@pytest.mark.parametrize("seed", range(5))
def test_no_patient_stands_in_two_splits(seed: int) -> None:
    samples = patients(90)
    split = make_split(samples, settings(method="grouped"), seed)
    parts = {(sample.group, part) for sample, part in zip(samples, split, strict=True)}
    assert len(parts) == 90


def test_shares_are_met_class_by_class() -> None:
    samples = patients(300)
    split = make_split(samples, settings(method="grouped", validation=0.2, test=0.3), 0)
    for label in "abc":
        counts = Counter(p for s, p in zip(samples, split, strict=True) if s.label == label)
        total = counts.total()
        assert counts["validation"] / total == pytest.approx(0.2, abs=0.02)
        assert counts["test"] / total == pytest.approx(0.3, abs=0.02)


def test_stratified_takes_exact_shares_of_slices() -> None:
    samples = [Sample(str(n), "ab"[n % 2]) for n in range(200)]
    split = make_split(samples, settings(method="stratified", validation=0.1, test=0.2), 3)
    assert Counter(zip((s.label for s in samples), split, strict=True)) == {
        (label, part): count for label in "ab" for part, count in (("train", 70), ("validation", 10), ("test", 20))
    }


def test_a_split_follows_from_the_seed_and_not_from_the_order() -> None:
    samples = patients(60)
    first = make_split(samples, settings(method="grouped"), 1)
    again = make_split(samples[::-1], settings(method="grouped"), 1)
    assert first == again[::-1]
    assert split_digest(samples, first) == split_digest(samples[::-1], again)
    other = make_split(samples, settings(method="grouped"), 2)
    assert first != other
    assert first == make_split(samples, settings(method="grouped", seed=1), 99)


def test_another_class_leaves_the_split_of_this_one_alone() -> None:
    one, two = patients(60, classes="ab"), [Sample(f"z{n}", "z", group=f"z{n}") for n in range(20)]
    alone = make_split(one, settings(method="grouped"), 0)
    beside = make_split([*one, *two], settings(method="grouped"), 0)
    assert beside[: len(one)] == alone


def divided(train: int = 40, test: int = 10, label: str = "a") -> list[Sample]:
    parts = ["train"] * train + ["test"] * test
    return [Sample(f"{label}{n}", label, split=part) for n, part in enumerate(parts)]


def test_source_split_takes_validation_from_training_alone() -> None:
    samples = divided() + divided(label="b")
    split = make_split(samples, settings(validation=0.25), 0)
    assert [p for s, p in zip(samples, split, strict=True) if s.split == "test"] == ["test"] * 20
    assert Counter(split) == {"train": 60, "validation": 20, "test": 20}


def test_reference_protocol_validates_on_the_test_part_and_reports_none() -> None:
    samples = divided() + divided(label="b")
    split = make_split(samples, settings(source_test_as="validation"), 0)
    assert Counter(split) == {"train": 80, "validation": 20}


def test_an_undivided_source_is_refused_with_the_way_out() -> None:
    with pytest.raises(InputError, match=r"does not say in which split '0-0' stands; choose method = \"grouped\""):
        make_split(patients(5), settings(), 0)


def test_a_class_that_training_lacks_is_refused() -> None:
    with pytest.raises(InputError, match="class 'b' stands in the test split and is missing from training"):
        make_split([*divided(), Sample("x", "b", split="test")], settings(), 0)


def test_too_few_patients_are_refused() -> None:
    samples = [Sample(f"{n}", "ab"[n % 2], group=f"p{n % 4}") for n in range(40)]
    with pytest.raises(InputError, match="class 'a' has 2 patients: too few for test, validation and training"):
        make_split(samples, settings(method="grouped"), 0)


def test_grouped_without_patients_is_refused() -> None:
    samples = [Sample(str(n), "ab"[n % 2]) for n in range(200)]
    with pytest.raises(InputError, match='the source knows no patients; method = "stratified" divides by slice'):
        make_split(samples, settings(method="grouped"), 0)
