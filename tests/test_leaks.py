"""A split is held to what it promises before anything is trained on it: no picture and no patient on two sides."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from heads import TINY_NETWORK, add_heads, head, save

from braintumor_kit.contracts import InputError, Sample
from braintumor_kit.data.cache import Slices
from braintumor_kit.data.dataset import Dataset
from braintumor_kit.data.held_out import HELD_OUT
from braintumor_kit.data.leaks import Leaks, check_leaks, find_leaks, same_pictures
from braintumor_kit.files import read_csv
from braintumor_kit.recipe.load import load_source
from braintumor_kit.recipe.tables import SplitTable

pytestmark = pytest.mark.usefixtures("two_layers")

TRAIN, VALIDATION, TEST = "train", "validation", "test"


def found(
    split: Sequence[str],
    files: Sequence[int] | None = None,
    pixels: Sequence[int] | None = None,
    groups: Sequence[str | None] | None = None,
    rows: Sequence[int] | None = None,
) -> Leaks:
    """Leaks of samples "0", "1" and so on; equal numbers are equal files, or equal pixels."""
    count = len(split)
    numbers = range(count)
    samples = tuple(Sample(str(n), "ab"[n % 2], group=(groups or [None] * count)[n]) for n in numbers)
    prints = tuple(bytes([n]) for n in (files or numbers))
    dataset = Dataset(load_source("phantom"), ("a", "b"), samples, prints, (), {})
    array = np.zeros((max(rows or numbers) + 1, 4, 4, 1), np.uint8)
    order = np.array(rows or numbers, dtype=np.int64)
    array[order, 0, 0, 0] = pixels or list(numbers)
    return find_leaks(dataset.samples, same_pictures(dataset, Slices(array, order)), tuple(split))


def test_a_clean_split_has_no_leaks() -> None:
    leaks = found([TRAIN, VALIDATION, TEST, TRAIN], groups=["A", "B", None, "A"])
    assert not leaks
    check_leaks(leaks, SplitTable())


def test_identical_files_across_the_split_are_found() -> None:
    leaks = found([TRAIN, TRAIN, TEST, TEST], files=[0, 1, 1, 3])
    assert leaks.identical == (("1", "2"),)
    assert leaks.patients == ()


def test_pictures_that_are_the_same_to_the_network_are_found() -> None:
    """Other files, and validation counts like test."""
    leaks = found([TRAIN, TRAIN, VALIDATION, TEST], pixels=[7, 1, 2, 7])
    assert leaks.identical == (("0", "3"),)
    assert found([TRAIN, TRAIN, VALIDATION, TEST], pixels=[0, 1, 9, 9]).identical == (("2", "3"),)


def test_copies_within_one_split_are_no_leak() -> None:
    assert not found([TRAIN, TRAIN, TEST, TEST], files=[1, 1, 2, 2], pixels=[1, 1, 2, 2])


def test_what_is_held_out_may_be_in_the_test_split_and_nowhere_else() -> None:
    assert not found([TRAIN, VALIDATION, TEST, HELD_OUT], groups=["A", "B", "C", "C"], files=[1, 2, 3, 3])
    leaks = found([TRAIN, VALIDATION, TEST, HELD_OUT], groups=["A", "B", "C", "B"], files=[1, 2, 3, 1])
    assert (leaks.identical, leaks.patients, leaks.held_out) == ((("0", "3"),), ("B",), True)


def test_slices_are_read_by_their_rows() -> None:
    """Where unreadable pictures were left out, a sample's place is not its row."""
    assert found([TRAIN, TRAIN, TEST], rows=[0, 2, 4], pixels=[5, 6, 5]).identical == (("0", "2"),)
    assert not found([TRAIN, TRAIN, TEST], rows=[0, 2, 4], pixels=[5, 6, 7])


def test_known_patients_across_the_split_are_found() -> None:
    leaks = found([TRAIN, TEST, TRAIN, VALIDATION, TRAIN, TEST], groups=["B", "B", "A", "A", None, None])
    assert leaks.patients == ("A", "B")
    assert leaks.identical == ()


def test_a_set_of_three_pictures_is_one_set() -> None:
    assert found([TRAIN, TEST, TEST, TRAIN], files=[1, 1, 1, 2], pixels=[1, 1, 1, 2]).identical == (("0", "1", "2"),)


def test_a_set_that_is_the_same_partly_by_file_and_partly_by_pixels_is_counted_once() -> None:
    """0 and 1 are one file; 2 is another file of the same pixels."""
    leaks = found([TRAIN, TEST, TEST], files=[1, 1, 2], pixels=[5, 5, 5])
    assert leaks.identical == (("0", "1", "2"),)
    assert leaks.as_json()["identical_sets"] == 1


def test_what_leaks_is_said_in_words_and_figures() -> None:
    leaks = Leaks((("a.png", "b.png", "c.png"), ("d.png", "e.png")), ("P1", "P2", "P3"))
    sentence = (
        "2 pictures stand identically in several splits (such as a.png = b.png) and 3 patients have slices in "
        "several splits (such as P1)"
    )
    assert leaks.sentence == sentence
    assert leaks.as_json() == {"identical_sets": 2, "patients": 3, "warning": sentence}


def test_one_leak_is_said_in_the_singular() -> None:
    assert Leaks((("a.png", "b.png"),), ()).sentence.startswith("1 picture stands identically in several splits")
    assert Leaks((), ("P1",)).sentence.startswith("1 patient has slices in several splits")


def test_a_leak_stops_a_run_unless_it_is_allowed() -> None:
    leaks = Leaks((("a.png", "b.png"),), ())
    with pytest.raises(InputError) as caught:
        check_leaks(leaks, SplitTable())
    message = str(caught.value)
    assert message.startswith(f"the split leaks: {leaks.sentence}. What is reported would flatter the model.")
    assert '[split] method = "deduplicated"' in message
    assert "allow_leaks = true" in message
    check_leaks(leaks, SplitTable(allow_leaks=True))


@pytest.mark.parametrize(
    ("settings", "last", "way_out"),
    [
        ({"method": "grouped", "test": 0.2}, TEST, 'method = "deduplicated"'),
        ({"method": "kfold", "folds": 3}, TEST, 'keep_together = "copies"'),
        ({"method": "grouped", "test": 0.2, "hold_out": "c1"}, TEST, 'method = "deduplicated"'),
        ({"method": "grouped", "test": 0.2, "hold_out": "c1"}, HELD_OUT, 'than [split] hold_out = "c1"'),
    ],
)
def test_the_way_out_fits_the_method(settings: dict[str, Any], last: str, way_out: str) -> None:
    with pytest.raises(InputError) as caught:
        check_leaks(found([TRAIN, VALIDATION, TEST, last], files=[1, 2, 3, 1]), SplitTable(**settings))
    assert way_out in str(caught.value)


# Through the command line

RECIPE = (
    """
[source]
name = "image_folder"
root = "data"
"""
    + TINY_NETWORK
)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe of 32 heads divided by their source, one of which stands in training and in test."""
    root = tmp_path / "data"
    for number, label in enumerate(("glioma", "notumor")):
        add_heads(root / "Training" / label, range(100 * number, 100 * number + 12))
        add_heads(root / "Testing" / label, range(100 * number + 12, 100 * number + 16))
    shutil.copy(root / "Training" / "glioma" / "000.png", root / "Testing" / "glioma" / "again.png")
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return path


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


PAIR = "Testing/glioma/again.png = Training/glioma/000.png"


def test_a_leaking_source_split_stops_the_run_with_the_pair_and_the_way_out(recipe: Path, btkit: Callable) -> None:
    ended = btkit("run", recipe, "--runs", recipe.parent / "runs")
    assert ended.status == 2
    assert ended.err.count("btkit:") == 1
    message = " ".join(ended.err.split())
    assert PAIR in message
    assert "[split] allow_leaks = true" in message
    assert "Traceback" not in ended.err
    assert not (recipe.parent / "runs").exists()


def test_an_allowed_leak_is_told_by_every_output(recipe: Path, btkit: Callable) -> None:
    ended = btkit("run", recipe, "--set", "split.allow_leaks=true", "--runs", recipe.parent / "runs", "--name", "leaky")
    assert ended.status == 0
    run = recipe.parent / "runs" / "leaky"
    assert PAIR in load(run / "metrics.json")["warning"]
    record = load(run / "record.json")
    assert record["leaks"]["identical_sets"] == 1
    assert record["leaks"]["patients"] == 0
    assert PAIR in record["leaks"]["warning"]
    for stream in (ended.out, ended.err):
        assert PAIR in " ".join(stream.split())
        assert "WARNING: the split leaks" in stream
    for words in (["evaluate", run], ["explain", run, "--limit", "1"], ["predict", run, run / "figures"]):
        assert PAIR in " ".join(btkit(*words).err.split()), words
    assert PAIR in load(run / "evaluations" / "test" / "metrics.json")["warning"]


def test_the_same_pixels_in_another_file_stop_the_run_too(recipe: Path, btkit: Callable) -> None:
    testing = recipe.parent / "data" / "Testing"
    (testing / "glioma" / "again.png").unlink()
    save(head(100), testing / "notumor" / "again.bmp")
    ended = btkit("run", recipe, "--runs", recipe.parent / "runs")
    assert ended.status == 2
    assert "Testing/notumor/again.bmp = Training/notumor/100.png" in " ".join(ended.err.split())


def test_pictures_that_are_the_same_once_prepared_are_kept_together(recipe: Path, btkit: Callable) -> None:
    """Black pictures of several sizes: other files and other pixels, one picture to the network."""
    for number in range(8):
        black = np.zeros((40 + number, 40), np.uint8)
        save(black, recipe.parent / "data" / "Training" / "notumor" / f"black{number}.png")
    wish = ("--set", "split.method=deduplicated", "--set", "split.validation=0.3", "--set", "split.test=0.3")
    ended = btkit("run", recipe, *wish, "--runs", recipe.parent / "runs", "--name", "clean")
    assert ended.status == 0, ended.err
    rows = read_csv(recipe.parent / "runs" / "clean" / "split.csv")
    assert len({row["split"] for row in rows if "black" in row["id"]}) == 1


def test_a_clean_split_says_nothing_of_leaks(recipe: Path, btkit: Callable) -> None:
    (recipe.parent / "data" / "Testing" / "glioma" / "again.png").unlink()
    ended = btkit("run", recipe, "--runs", recipe.parent / "runs", "--name", "clean")
    assert ended.status == 0
    assert "leak" not in ended.out + ended.err
    assert "warning" not in load(recipe.parent / "runs" / "clean" / "metrics.json")
    assert load(recipe.parent / "runs" / "clean" / "record.json")["leaks"] is None
