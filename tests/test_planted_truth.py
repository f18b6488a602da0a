"""Audits held against planted copies of real slices, whose slices and patients were told apart without btkit."""

import csv
import io
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from braintumor_kit.audit.leaks import set_members
from braintumor_kit.progress import Reporter
from braintumor_kit.recipe.load import DataRecipe, load_source_data
from braintumor_kit.workflows.audit import Audit, audit
from braintumor_kit.workflows.open_data import open_dataset, splits_of

pytestmark = pytest.mark.data

Grey = NDArray[np.uint8]
TUMOURS = ("glioma", "meningioma", "pituitary")
PER_CLASS = 125

ONE_SLICE = 0.998
"""Correlation with a slice of figshare from which both are that slice: those of Nickparvar's that are from there reach
0.998 to 1, all others stay below 0.97."""

ALIKE = 0.8
"""Correlation, grey levels equalised, from which two healthy heads may be one: no two such are planted. Nickparvar's
has slices twice, turned and zoomed, that reach 0.84 only."""


# What is known without btkit


def read(path: Path) -> Grey:
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))


def small(picture: Grey) -> NDArray[np.float32]:
    return np.asarray(Image.fromarray(picture).resize((32, 32), Image.Resampling.BOX), dtype=np.float32)


def flat(pictures: NDArray[np.floating]) -> NDArray[np.float32]:
    """Each as a vector of mean 0 and length 1: products of two are correlations."""
    rows = pictures.reshape(len(pictures), -1).astype(np.float32)
    rows = rows - rows.mean(axis=1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def equalised(picture: NDArray[np.float32]) -> NDArray[np.float64]:
    """The share of pixels that are no brighter."""
    levels = np.rint(picture).astype(int)
    return (np.bincount(levels.ravel(), minlength=256).cumsum() / levels.size)[levels]


def in_eight_turns(pictures: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    for quarters in range(4):
        rotated = np.rot90(pictures, quarters, axes=(1, 2))
        yield from (rotated, rotated[:, :, ::-1])


class Base(NamedTuple):
    """A slice that is planted: its class and, of a tumour, the patient."""

    path: Path
    label: str
    patient: str | None


def tumours(data: Path) -> Iterator[Base]:
    """Slices that figshare has too, no two of them the same slice there."""
    with (data / "figshare" / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    known = flat(np.stack([small(read(data / "figshare" / "images" / f"{row['id']}.webp")) for row in rows]))
    for label in TUMOURS:
        paths = sorted((data / "nickparvar" / "Training" / label).glob("*.webp"))[::6]
        pictures = np.stack([small(read(path)) for path in paths])
        likeness = np.maximum(flat(pictures) @ known.T, flat(pictures[:, :, ::-1]) @ known.T)
        slices: dict[int, Path] = {}
        for path, row in zip(paths, likeness, strict=True):
            if row.max() > ONE_SLICE:
                slices.setdefault(int(row.argmax()), path)
        for place, path in list(slices.items())[:PER_CLASS]:
            yield Base(path, label, rows[place]["group"])


def healthy(data: Path) -> Iterator[Base]:
    """Healthy heads of which no two resemble each other."""
    paths = sorted((data / "nickparvar" / "Training" / "notumor").glob("*.webp"))[::2]
    pictures = np.stack([equalised(small(read(path))) for path in paths])
    upright = flat(pictures)
    likeness = np.max([upright @ flat(turned).T for turned in in_eight_turns(pictures)], axis=0)
    chosen: list[int] = []
    for place in range(len(paths)):
        if likeness[place, chosen].max(initial=-1) < ALIKE:
            chosen.append(place)
    for place in chosen[:PER_CLASS]:
        yield Base(paths[place], "notumor", None)


# Copies


def encoded(picture: Grey, form: str = "PNG", **options: int) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(content, form, **options)
    return content.getvalue()


def rescaled(picture: Grey) -> Grey:
    height, width = (round(0.8 * side) for side in picture.shape)
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))


def cropped(picture: Grey, number: int) -> Grey:
    """By 4 % of each axis, now more at the one side and now at the other."""
    height, width = (round(0.96 * side) for side in picture.shape)
    top, left = number % (len(picture) - height + 1), number // 7 % (picture.shape[1] - width + 1)
    return picture[top : top + height, left : left + width]


COPIES: dict[str, Callable[[Grey, int], bytes]] = {
    "identical": lambda picture, number: encoded(picture),
    "mirrored": lambda picture, number: encoded(picture[:, ::-1]),
    "rotated": lambda picture, number: encoded(np.rot90(picture, 1 + 2 * (number % 2))),
    "rescaled": lambda picture, number: encoded(rescaled(picture)),
    "recompressed": lambda picture, number: encoded(picture, "JPEG", quality=40),
    "brightened": lambda picture, number: encoded(np.clip(1.3 * picture, 0, 255).astype(np.uint8)),
    "cropped": lambda picture, number: encoded(cropped(picture, number)),
}


class Planted(NamedTuple):
    """A folder of slices under Training and a copy of each under Testing.

    Attributes:
        kinds: of each planted pair, (slice, copy), what was done to it.
        patients: of slices and copies by id, None where the head is healthy.
    """

    folder: Path
    kinds: dict[frozenset[str], str]
    patients: dict[str, str | None]


@pytest.fixture(scope="module")
def planted(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Planted:
    folder = tmp_path_factory.mktemp("planted")
    bases = [*tumours(real_data), *healthy(real_data)]
    assert Counter(base.label for base in bases) == dict.fromkeys((*TUMOURS, "notumor"), PER_CLASS)
    kinds, patients = {}, {}
    for number, base in enumerate(bases):
        kind = list(COPIES)[number % len(COPIES)]
        suffix = "jpg" if kind == "recompressed" else "png"
        original, copy = f"Training/{base.label}/{number:03}.png", f"Testing/{base.label}/{kind} {number:03}.{suffix}"
        picture = read(base.path)
        for id, content in ((original, encoded(picture)), (copy, COPIES[kind](picture, number))):
            (folder / id).parent.mkdir(parents=True, exist_ok=True)
            (folder / id).write_bytes(content)
            patients[id] = base.patient
        kinds[frozenset({original, copy})] = kind
    return Planted(folder, kinds, patients)


def recipe_of(folder: Path, *settings: str) -> DataRecipe:
    return load_source_data("image_folder", [f"source.root={folder}", *settings])


@pytest.fixture(scope="module")
def audited(planted: Planted) -> Audit:
    return audit(recipe_of(planted.folder), None, Reporter(), as_it_comes=True)


def found_pairs(done: Audit) -> set[frozenset[str]]:
    """Every pair of pictures that the audit takes for copies, identical ones too."""
    members = set_members(done.subject.copies)
    ids = [sample.id for sample in done.subject.samples]
    found = {frozenset({ids[one], ids[other]}) for places in members.values() for one in places for other in places}
    for first, second in zip(done.subject.copies.first, done.subject.copies.second, strict=True):
        found |= {frozenset({ids[one], ids[other]}) for one in members[int(first)] for other in members[int(second)]}
    return {pair for pair in found if len(pair) == 2}


def test_planted_copies_are_found(planted: Planted, audited: Audit) -> None:
    found, total, recalled = found_pairs(audited), Counter(planted.kinds.values()), Counter[str]()
    recalled.update(kind for pair, kind in planted.kinds.items() if pair in found)
    print(", ".join(f"{kind} {recalled[kind]} of {count}" for kind, count in total.items()))
    assert min(total.values()) >= 70
    assert recalled.total() >= 0.98 * total.total()
    for kind, count in total.items():
        assert recalled[kind] >= 0.95 * count, kind
    assert recalled["identical"] == total["identical"]


def test_what_is_found_was_planted(planted: Planted, audited: Audit) -> None:
    others = []
    for pair in found_pairs(audited) - planted.kinds.keys():
        one, other = (planted.patients[id] for id in sorted(pair))
        if one is None or one != other:  # neighbouring slices of a patient count neither way
            others.append(sorted(pair))
    right = len(found_pairs(audited) & planted.kinds.keys())
    print(f"precision {right / (right + len(others)):.4f}; not planted: {others}")
    assert right >= 0.98 * (right + len(others))


def test_the_turn_of_a_copy_is_told(planted: Planted, audited: Audit) -> None:
    expected = {"mirrored": {1}, "rotated": {5, 6}, "rescaled": {0}, "recompressed": {0}, "brightened": {0}}
    members, turns = set_members(audited.subject.copies), defaultdict(list)
    ids, copies = [sample.id for sample in audited.subject.samples], audited.subject.copies
    for first, second, turn in zip(copies.first, copies.second, copies.turn, strict=True):
        pair = frozenset({ids[members[int(first)][0]], ids[members[int(second)][0]]})
        turns[planted.kinds.get(pair)].append(int(turn))
    for kind, right in expected.items():
        assert sum(turn in right for turn in turns[kind]) >= 0.98 * len(turns[kind]), kind


def test_the_split_row_counts_what_was_planted(planted: Planted, audited: Audit) -> None:
    (row,) = audited.findings["cross_split"]
    count = Counter(planted.kinds.values())
    print(row)
    assert (row["train"], row["test"], row["n_test"]) == ("train", "test", 500)
    assert row["identical"] == count["identical"]
    assert abs(row["near_duplicate"] - 500) <= 10
    assert row["clean"] <= 10


def test_recovered_patients_are_the_true_ones(planted: Planted, audited: Audit) -> None:
    wrong, without = [], Counter[str]()
    for sample in audited.subject.samples:
        patient = planted.patients[sample.id]
        if sample.group is None and patient is not None:
            without[sample.id.split("/")[-1].split()[0] if sample.split == "test" else "slices themselves"] += 1
        elif sample.group != patient:
            wrong.append(sample.id)
    print(f"wrong: {wrong}; not found: {dict(without)}")
    assert not wrong
    assert without.total() - without["cropped"] <= 0.02 * 6 * PER_CLASS


# Splits that keep copies together


def split_of_run(recipe: DataRecipe) -> dict[str, str]:
    """Where each picture would stand in a run of the recipe."""
    dataset = open_dataset(recipe, Reporter())
    (split,) = splits_of(recipe, dataset, range(len(dataset.samples)), Reporter())
    return dict(zip((sample.id for sample in dataset.samples), split, strict=True))


def split_of_audit(done: Audit) -> dict[str, str | None]:
    return dict(zip((sample.id for sample in done.subject.samples), done.subject.split, strict=True))


def no_leaks(done: Audit) -> None:
    rows = done.findings["cross_split"]
    assert [(row["train"], row["test"]) for row in rows] == [
        ("train", "validation"), ("train", "test"), ("validation", "test"),
    ]  # fmt: skip
    for row in rows:
        assert (row["identical"], row["near_duplicate"], row["same_group"]) == (0, 0, 0)
        assert row["clean"] == row["n_test"] > 0
    assert done.findings["divided_groups"] == []


@pytest.fixture
def _without_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longest and have no part in how a set is divided."""
    monkeypatch.setattr("braintumor_kit.workflows.audit.shortcut_probes", lambda subject: None)


@pytest.mark.usefixtures("_without_probes")
def test_a_deduplicated_split_divides_no_copy_and_no_patient(planted: Planted) -> None:
    recipe = recipe_of(planted.folder, "split.method=deduplicated", "source.recover_patients=true")
    done = audit(recipe, None, Reporter())
    no_leaks(done)
    part = split_of_run(recipe)
    assert split_of_audit(done) == part
    divided = [pair for pair in planted.kinds if len({part[id] for id in pair}) > 1]
    assert len(divided) <= 0.02 * len(planted.kinds)
    parts = defaultdict(set)
    for id, patient in planted.patients.items():
        if patient is not None and not any(id in pair for pair in divided):
            parts[patient].add(part[id])
    assert {patient for patient, found in parts.items() if len(found) > 1} == set()
    shares = Counter(part.values())
    assert shares["validation"] / 1000 == pytest.approx(0.15, abs=0.03)
    assert shares["test"] / 1000 == pytest.approx(0.15, abs=0.03)


@pytest.mark.usefixtures("_without_probes")
@pytest.mark.parametrize("settings", [("split.method=deduplicated",), ("split.validation=0.3",)])
def test_what_is_audited_is_the_split_of_the_run(planted: Planted, settings: tuple[str, ...]) -> None:
    # Patients that the audit recovers unasked must not change the split: the run does not know them.
    recipe = recipe_of(planted.folder, *settings)
    assert split_of_audit(audit(recipe, None, Reporter())) == split_of_run(recipe)


@pytest.mark.long
def test_the_whole_of_nickparvar_is_audited_in_three_minutes(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BTKIT_CACHE", str(tmp_path))
    begin = time.perf_counter()
    done = audit(recipe_of(real_data / "nickparvar"), None, Reporter(), as_it_comes=True)
    seconds = time.perf_counter() - begin
    counts = done.findings["patients"]["recovered"]["by_class"]
    print(f"{seconds:.0f} s; {counts}; {done.findings['cross_split']}")
    assert done.findings["images"] == 7019
    assert seconds <= 180
    matched = counts["glioma"]["matched"] + counts["pituitary"]["matched"]
    total = matched + counts["glioma"]["unmatched"] + counts["pituitary"]["unmatched"]
    assert matched >= 0.98 * total
    assert counts["notumor"]["matched"] == 0

    settings = ("split.method=deduplicated", "source.recover_patients=true")
    recipe = recipe_of(real_data / "nickparvar", *settings)
    divided = audit(recipe, None, Reporter())
    no_leaks(divided)
    assert split_of_audit(divided) == split_of_run(recipe)
