"""image_folder over layouts made by hand, and over the real Nickparvar folder."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from btkit_plugins.sources.image_folder import ImageFolder, ImageFolderOptions
from PIL import Image

from braintumor_kit.errors import ImageError, InputError


def source(root: Path, classes: tuple[str, ...] | None = None) -> ImageFolder:
    return ImageFolder(ImageFolderOptions(root=root, classes=classes))


def put(root: Path, *paths: str) -> Path:
    """Makes small pictures, each of another shade of grey."""
    for shade, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 3), shade).save(root / path, "PNG")
    return root


def listed(found: ImageFolder) -> list[tuple[str, str, str | None]]:
    return [(sample.id, sample.label, sample.split) for sample in found.samples()]


def refusal(root: Path, classes: tuple[str, ...] | None = None) -> str:
    with pytest.raises(InputError) as caught:
        list(source(root, classes).samples())
    return str(caught.value)


# Layouts


def test_training_and_testing(tmp_path: Path) -> None:
    put(
        tmp_path,
        "Training/no_tumor/b.png",
        "Training/no_tumor/a.png",
        "Training/glioma_tumor/x.jpg",
        "Testing/no_tumor/a.png",
    )
    found = source(tmp_path)
    assert found.classes == ("glioma", "notumor")
    assert listed(found) == [
        ("Testing/no_tumor/a.png", "notumor", "test"),
        ("Training/glioma_tumor/x.jpg", "glioma", "train"),
        ("Training/no_tumor/a.png", "notumor", "train"),
        ("Training/no_tumor/b.png", "notumor", "train"),
    ]
    assert found.notes() == {}
    assert all(sample.group is None and not sample.has_mask for sample in found.samples())


def test_train_val_test(tmp_path: Path) -> None:
    put(tmp_path, "train/a/1.png", "val/a/1.png", "test/a/1.png")
    assert {split for _, _, split in listed(source(tmp_path))} == {"train", "validation", "test"}


def test_flat(tmp_path: Path) -> None:
    put(tmp_path, "yes/1.png", "no/1.png")
    assert listed(source(tmp_path)) == [("no/1.png", "notumor", None), ("yes/1.png", "tumour", None)]


@pytest.mark.parametrize("above", ["archive", "archive/data"])
def test_data_set_a_folder_or_two_further_down(tmp_path: Path, above: str) -> None:
    put(tmp_path, f"{above}/Training/glioma/1.png")
    assert listed(source(tmp_path)) == [(f"{above}/Training/glioma/1.png", "glioma", "train")]


def test_brisc(tmp_path: Path) -> None:
    put(
        tmp_path,
        "classification_task/train/glioma/1.jpg",
        "classification_task/test/glioma/1.jpg",
        "segmentation_task/train/images/1.jpg",
        "segmentation_task/train/masks/1.png",
    )
    ids = [id for id, _, _ in listed(source(tmp_path))]
    assert ids == ["classification_task/test/glioma/1.jpg", "classification_task/train/glioma/1.jpg"]
    assert len(listed(source(tmp_path / "classification_task"))) == 2
    assert "has no class folders" in refusal(tmp_path / "segmentation_task")


def test_several_data_sets(tmp_path: Path) -> None:
    put(tmp_path, "one/train/a/1.png", "two/train/a/1.png")
    assert refusal(tmp_path) == f"{tmp_path} holds several data sets (one, two): take one of them as root"


def test_two_spellings_of_a_class_merge_and_are_noted(tmp_path: Path) -> None:
    put(tmp_path, "train/no_tumor/1.png", "train/notumor/1.png", "train/glioma/1.png", "test/healthy/1.png")
    found = source(tmp_path)
    assert found.classes == ("glioma", "notumor")
    assert Counter(label for _, label, _ in listed(found)) == {"notumor": 3, "glioma": 1}
    assert found.notes() == {"folders taken for one class, notumor (no_tumor, notumor)": 2}


def test_classes_choose_and_order(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png", "b/1.png", "b/2.png", "no_tumor/1.png")
    found = source(tmp_path, ("No-Tumor", "a"))
    assert found.classes == ("notumor", "a")
    assert [id for id, _, _ in listed(found)] == ["a/1.png", "no_tumor/1.png"]
    assert found.notes() == {"pictures of other classes ignored": 2}


# What is passed over


def test_junk_and_other_files_are_counted(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png", "a/._1.png", "a/inner/2.png", "b/1.png", "stray.png", ".hidden/1.png")
    put(tmp_path, "a/.ipynb_checkpoints/1.png", "docs/more/1.png")
    for name in ("a/.DS_Store", "b/Thumbs.db", "b/notes.txt", "LICENSE"):
        (tmp_path / name).write_text("x")
    (tmp_path / "linked").symlink_to(tmp_path / "a")
    found = source(tmp_path)
    assert [id for id, _, _ in listed(found)] == ["a/1.png", "b/1.png"]
    assert found.notes() == {
        "system files ignored": 5,
        "files of other kinds ignored": 2,
        "pictures outside class folders ignored": 1,
        "folders inside class folders ignored": 1,
        "folders without pictures ignored": 1,
        "links to folders ignored": 1,
    }


def test_folder_links_that_loop_are_not_followed(tmp_path: Path) -> None:
    put(tmp_path, "train/a/1.png")
    (tmp_path / "train/a/loop").symlink_to(tmp_path)
    (tmp_path / "train/b").symlink_to(tmp_path / "train/a")
    assert len(listed(source(tmp_path))) == 1


def test_linked_files_are_followed_and_broken_links_reported(tmp_path: Path) -> None:
    put(tmp_path, "elsewhere.png", "set/a/1.png")
    (tmp_path / "set/a/2.png").symlink_to(tmp_path / "elsewhere.png")
    (tmp_path / "set/a/3.png").symlink_to(tmp_path / "gone.png")
    found = source(tmp_path / "set")
    _, linked, broken = found.samples()
    assert found.image(linked).shape == (3, 4)
    with pytest.raises(ImageError, match=r"3\.png does not exist$"):
        found.image(broken)
    with pytest.raises(ImageError, match=r"3\.png cannot be opened: No such file or directory$"):
        found.fingerprint(broken)


def test_odd_names_work(tmp_path: Path) -> None:
    put(tmp_path, "a/-dash.png", "a/new\nline.png", "a/größe, 1.PNG", "a/'q'.png")
    found = source(tmp_path)
    samples = list(found.samples())
    assert len(samples) == 4
    assert all(found.image(sample).shape == (3, 4) for sample in samples)


def test_names_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png")
    with open(os.fsencode(tmp_path / "a") + b"/\xff.png", "wb"):
        pass
    assert refusal(tmp_path) == (
        f"{tmp_path / 'a'} holds 1 name(s) that are not UTF-8, such as \\udcff.png: rename them"
    )


# Bad input


def test_missing_root(tmp_path: Path) -> None:
    assert refusal(tmp_path / "gone") == f"there is no folder {tmp_path / 'gone'}"


def test_root_that_is_a_file(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    assert refusal(tmp_path / "a.png") == f"{tmp_path / 'a.png'} is a file where a folder was expected"


def test_no_class_folders(tmp_path: Path) -> None:
    put(tmp_path, "1.png", "2.png")
    assert refusal(tmp_path) == (
        f"{tmp_path} has no class folders: expected Training/<class>/ and Testing/<class>/, or <class>/, "
        "with pictures in each, and found no folders and 2 picture(s)"
    )


def test_split_folder_without_classes(tmp_path: Path) -> None:
    put(tmp_path, "train/a/1.png", "test/1.png")
    assert refusal(tmp_path) == f"the split folder {tmp_path / 'test'} has no class folders in it"


def test_empty_class_folder(tmp_path: Path) -> None:
    put(tmp_path, "Training/glioma/1.png", "Training/notumor/1.png", "Testing/glioma/1.png")
    (tmp_path / "Testing/notumor").mkdir()
    folder = tmp_path / "Testing/notumor"
    assert refusal(tmp_path) == f"no picture in the class folder {folder}: fill it or remove it"


def test_class_that_training_lacks(tmp_path: Path) -> None:
    put(tmp_path, "train/a/1.png", "train/b/1.png", "test/a/1.png", "test/c/1.png")
    assert refusal(tmp_path) == (
        f"{tmp_path}: the test split has the class c, which the train split lacks; training has a, b"
    )


def test_test_split_alone_is_fine(tmp_path: Path) -> None:
    put(tmp_path, "Testing/a/1.png")
    assert listed(source(tmp_path)) == [("Testing/a/1.png", "a", "test")]


def test_classes_that_are_not_there(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png", "b/1.png")
    assert refusal(tmp_path, ("a", "z")) == f"{tmp_path} has no class z, which `classes` asks for; it has a, b"
    assert refusal(tmp_path, ("a", "a")) == "`classes` names a class twice: a, a"


def test_unreadable_pictures_are_listed_and_reported_one_by_one(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png", "a/2.png")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a/cut.jpg")
    (tmp_path / "a/cut.jpg").write_bytes((tmp_path / "a/cut.jpg").read_bytes()[:1500])
    (tmp_path / "a/empty.jpg").touch()
    (tmp_path / "a/text.jpg").write_text("no picture")
    found = source(tmp_path)
    reasons = []
    for sample in found.samples():
        try:
            assert found.image(sample).shape == (3, 4)
        except ImageError as error:
            reasons.append(str(error).removeprefix(f"{tmp_path}/a/"))
    assert reasons[0].startswith("cut.jpg is cut off or damaged: image file is truncated")
    assert reasons[1:] == ["empty.jpg is empty", "text.jpg is not a picture that Pillow can read"]


# Fingerprints


def test_fingerprint_follows_content_and_not_time(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png")
    found = source(tmp_path)
    (sample,) = found.samples()
    before = found.fingerprint(sample)
    os.utime(tmp_path / "a/1.png", (1, 1))
    assert found.fingerprint(sample) == before
    Image.new("L", (4, 3), 9).save(tmp_path / "a/1.png")
    assert found.fingerprint(sample) != before


@pytest.mark.data
def test_nickparvar(real_data: Path) -> None:
    found = source(real_data / "nickparvar")
    samples = list(found.samples())
    assert found.classes == ("glioma", "meningioma", "notumor", "pituitary")
    assert Counter(sample.split for sample in samples) == {"train": 5708, "test": 1311}
    test = Counter(sample.label for sample in samples if sample.split == "test")
    assert test == {"glioma": 300, "meningioma": 306, "notumor": 405, "pituitary": 300}
    assert found.notes() == {}
    assert len({sample.id for sample in samples}) == 7019
    assert found.image(samples[0]).shape[:2] == (224, 224)
