"""What `btkit audit` finds among pictures with planted faults: copies, contradictions, strangers, patients."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from heads import SIDE, add_heads, head, save
from PIL import Image
from sklearn.datasets import load_sample_image

from braintumor_kit.commands.main import run_command_line
from braintumor_kit.files import read_csv
from braintumor_kit.matching.patients import build_index, save_index


def audited(root: Path, folder: Path, *sets: str) -> dict[str, Any]:
    """What `audit.json` says of the pictures under `root`."""
    values = [item for value in (f"source.root={root}", *sets) for item in ("--set", value)]
    assert run_command_line(["audit", "--source", "image_folder", *values, "--out", str(folder)]) == 0
    return json.loads((folder / "audit.json").read_text())


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 heads, 9 copies of some of them, and a file that is no picture."""
    root = tmp_path_factory.mktemp("planted")
    train, test = root / "Training", root / "Testing"
    add_heads(train / "glioma", range(0, 8))
    add_heads(train / "notumor", range(8, 16))
    add_heads(test / "glioma", range(16, 20))
    add_heads(test / "notumor", range(20, 24))
    shutil.copy(train / "glioma" / "000.png", test / "glioma" / "same_file.png")
    save(head(1), test / "glioma" / "other_format.bmp")
    save(np.repeat(head(2)[..., None], 3, axis=2), test / "glioma" / "as_rgb.png")
    save(head(3)[:, ::-1], test / "glioma" / "mirrored.png")
    shutil.copy(train / "glioma" / "004.png", test / "notumor" / "other_label.png")
    save(head(8)[:, ::-1], test / "glioma" / "mirrored_other_label.png")
    shutil.copy(train / "notumor" / "009.png", train / "notumor" / "within.png")
    for number in (1, 2):
        shutil.copy(train / "notumor" / "010.png", test / "notumor" / f"twin{number}.png")
    (train / "glioma" / "text.png").write_text("no picture at all")
    return root


@pytest.fixture(scope="module")
def findings(planted: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return audited(planted, tmp_path_factory.mktemp("findings"))


def test_copies_across_the_split_are_counted_by_kind(findings: dict[str, Any]) -> None:
    # identical: same_file, other_format, as_rgb, other_label and both twins; copies: also the two mirrored ones
    assert findings["cross_split"] == [
        {
            "train": "train", "test": "test", "n_test": 16, "identical": 6, "near_duplicate": 8, "same_group": 0,
            "clean": 8,
        }
    ]  # fmt: skip


def test_copies_within_a_split_are_counted_apart(findings: dict[str, Any]) -> None:
    # in training head 9 and its copy, in test the twins; what is across the split does not count here
    assert findings["within_split"] == [
        {"split": "train", "n": 17, "identical": 2, "near_duplicate": 2},
        {"split": "test", "n": 16, "identical": 2, "near_duplicate": 2},
    ]


def test_sets_of_identical_pictures_are_counted_once(findings: dict[str, Any]) -> None:
    assert findings["images"] == 34
    assert findings["identical_groups"] == 6  # heads 0, 1, 2, 4, 9 and 10, the last of three pictures
    assert findings["near_duplicate_pairs"] == 2  # heads 3 and 8, mirrored
    assert findings["different_pictures"] == 24


def test_copies_with_different_labels_are_named(findings: dict[str, Any]) -> None:
    found = {item["kind"]: dict(zip(item["ids"], item["labels"], strict=True)) for item in findings["label_conflicts"]}
    assert len(findings["label_conflicts"]) == 2
    assert found == {
        "identical": {"Training/glioma/004.png": "glioma", "Testing/notumor/other_label.png": "notumor"},
        "near_duplicate": {"Training/notumor/008.png": "notumor", "Testing/glioma/mirrored_other_label.png": "glioma"},
    }


def test_an_unreadable_file_is_listed_and_stops_nothing(findings: dict[str, Any]) -> None:
    (bad,) = findings["unreadable"]
    assert bad["id"] == "Training/glioma/text.png"
    assert bad["reason"]


def test_copies_that_were_changed_are_found(tmp_path: Path) -> None:
    """Turned, resized, brightened and recompressed: each is a near-duplicate of its head and of no other picture."""
    train, test = tmp_path / "data" / "Training", tmp_path / "data" / "Testing"
    for label, first in (("glioma", 0), ("notumor", 10)):
        add_heads(train / label, range(first, first + 6))
        add_heads(test / label, range(first + 6, first + 8))
    save(np.rot90(head(0)), test / "glioma" / "rotated.png")
    save(np.rint(40 + 0.8 * head(1)).astype(np.uint8), test / "glioma" / "brighter.png")
    Image.fromarray(head(2)).resize((150, 130)).save(test / "glioma" / "resized.png")
    Image.fromarray(head(3)).save(test / "glioma" / "recompressed.jpg", quality=60)
    found = audited(tmp_path / "data", tmp_path / "out")
    assert found["near_duplicate_pairs"] == 4
    assert found["identical_groups"] == 0
    (row,) = found["cross_split"]
    assert (row["identical"], row["near_duplicate"], row["clean"], row["n_test"]) == (0, 4, 4, 8)


def test_three_splits_are_compared_pair_by_pair(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for place, part in enumerate(("train", "val", "test")):
        for number, label in enumerate(("glioma", "notumor")):
            add_heads(root / part / label, range(20 * place + 10 * number, 20 * place + 10 * number + 4))
    save(head(0), root / "val" / "glioma" / "of_train.png")
    save(head(20), root / "test" / "glioma" / "of_validation.png")
    save(head(21)[:, ::-1], root / "test" / "glioma" / "mirrored_of_validation.png")
    rows = audited(root, tmp_path / "out")["cross_split"]
    columns = ("train", "test", "n_test", "identical", "near_duplicate", "clean")
    assert [tuple(row[name] for name in columns) for row in rows] == [
        ("train", "validation", 9, 1, 1, 8),
        ("train", "test", 10, 0, 0, 10),
        ("validation", "test", 10, 1, 2, 8),
    ]


def test_an_undivided_set_has_copies_and_no_leaks(tmp_path: Path) -> None:
    root = tmp_path / "data"
    add_heads(root / "glioma", range(0, 6))
    add_heads(root / "notumor", range(6, 12))
    save(head(0)[::-1], root / "glioma" / "upside_down.png")
    save(head(1), root / "glioma" / "again.png")
    found = audited(root, tmp_path / "out")
    assert found["cross_split"] == found["imbalance"] == found["divided_groups"] == []
    assert found["within_split"] == [{"split": None, "n": 14, "identical": 2, "near_duplicate": 4}]
    assert found["nearest_neighbour_across_split"] is None
    assert {row["split"] for row in read_csv(tmp_path / "out" / "collections.csv")} == {""}


STRANGERS = {
    "Training/glioma/china.jpg": "coloured",
    "Training/glioma/empty.png": "empty",
    "Training/notumor/inverted.png": "inverted",
    "Testing/notumor/grey_flower.jpg": "unlike the others",
}


def test_pictures_of_another_kind_are_named_and_heads_are_not(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for number, label in enumerate(("glioma", "notumor")):
        add_heads(root / "Training" / label, range(100 * number, 100 * number + 26))
        add_heads(root / "Testing" / label, range(100 * number + 26, 100 * number + 34))
    save(load_sample_image("china.jpg"), root / "Training" / "glioma" / "china.jpg")
    save(np.full((SIDE, SIDE), 3, np.uint8), root / "Training" / "glioma" / "empty.png")
    save(255 - head(999), root / "Training" / "notumor" / "inverted.png")
    flower = load_sample_image("flower.jpg").mean(axis=2).astype(np.uint8)
    save(flower, root / "Testing" / "notumor" / "grey_flower.jpg")
    reasons = {item["id"]: item["reason"] for item in audited(root, tmp_path / "out")["foreign"]}
    for name, word in STRANGERS.items():
        assert reasons.pop(name).startswith(word)
    assert len(reasons) <= 2  # of 68 heads


def test_patients_are_recovered_from_an_index_and_counted_across_the_split(tmp_path: Path) -> None:
    """Heads 0 to 5 stand in the index, two a patient; patient A is on both sides, B in training alone."""
    thumbnails = np.stack([np.asarray(Image.fromarray(head(seed)).resize((64, 64))) for seed in range(6)])
    labels = ["glioma", "glioma", "glioma", "glioma", "pituitary", "notumor"]
    index = build_index(
        "six heads", thumbnails, [f"index{n}" for n in range(6)], labels, ["A", "A", "B", "B", "C", "D"]
    )
    save_index(index, tmp_path / "index.npz")
    root = tmp_path / "data"
    add_heads(root / "Training" / "glioma", (0, 2, 3, 4, 10, 11))
    save(head(5)[:, ::-1], root / "Training" / "glioma" / "mirrored.png")
    add_heads(root / "Training" / "notumor", range(20, 26))
    save(head(1)[:, ::-1], root / "Testing" / "glioma" / "mirrored.png")
    add_heads(root / "Testing" / "glioma", (12, 13))
    add_heads(root / "Testing" / "notumor", (30, 31))
    found = audited(
        root, tmp_path / "out", "source.recover_patients=true", f"source.patient_index={tmp_path}/index.npz"
    )
    assert found["patients"] == {
        "groups": 4,
        "slices_without": 12,
        "recovered": {
            "index": "six heads",
            "by_class": {"glioma": {"matched": 6, "unmatched": 4}, "notumor": {"matched": 0, "unmatched": 8}},
            "mirrored_or_turned": 2,
        },
    }
    assert found["divided_groups"] == [{"group": "A", "slices": {"train": 1, "test": 1}}]
    (row,) = found["cross_split"]
    assert (row["near_duplicate"], row["same_group"], row["clean"], row["n_test"]) == (0, 1, 4, 5)
    # head 5 is notumor in the index; head 4's label there, pituitary, is no class of this data set
    (conflict,) = found["label_conflicts"]
    assert conflict == {
        "ids": ["Training/glioma/mirrored.png", "index: index5"], "labels": ["glioma", "notumor"],
        "kind": "patient_index",
    }  # fmt: skip


def test_a_data_set_of_nothing_but_unreadable_files_is_refused(tmp_path: Path, btkit: Callable) -> None:
    for label in ("glioma", "notumor"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "text.png").write_text("no picture")
    ended = btkit("audit", "--source", "image_folder", "--set", f"source.root={tmp_path}", "--out", tmp_path / "out")
    assert ended.status == 2
    assert "none of the 2 pictures can be read" in ended.err
    assert not (tmp_path / "out").exists()
