"""Pictures in class folders, with or without split folders above them."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from braintumor_kit.contracts import InputError
from braintumor_kit.contracts.classes import canonical_class, canonical_split, chosen_classes, is_known_class
from braintumor_kit.contracts.folders import Folder, list_folder
from braintumor_kit.contracts.options import PluginOptions
from braintumor_kit.contracts.pictures import opened, printable, read_picture
from braintumor_kit.contracts.sources import Sample, Source

DESCENT = 2
"""How many folders down the data set may begin, as in `archive/classification_task/train/glioma`."""


class ImageFolderOptions(PluginOptions):
    root: Path = Field(description="Folder that holds Training/ and Testing/, or the class folders.")
    classes: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="Take these classes only, in this order; all that are found, alphabetically, by default.",
    )


class ImageFolder(Source[ImageFolderOptions]):
    """Pictures in class folders, alone or under Training/Testing or train/val/test (Kaggle's layouts).

    Class and split folders may be spelled as in any of the public sets (`no_tumor`, `notumor`, `healthy`;
    `val`, `Training`). Only pictures that lie directly in a class folder are samples. A sample's id is its
    path from the root; patients are unknown.
    """

    api_version = 1
    Options = ImageFolderOptions

    @classmethod
    def example(cls, folder: Path, variant: int = 0) -> ImageFolderOptions:
        """Two classes and two splits of one grey picture each."""
        for number, place in enumerate(("Training/glioma", "Training/notumor", "Testing/glioma", "Testing/no_tumor")):
            (folder / place).mkdir(parents=True)
            Image.new("L", (32, 24), 50 * number + variant).save(folder / place / "1.png")
        return ImageFolderOptions(root=folder)

    @cached_property
    def _contents(self) -> "_Contents":
        return _read_layout(self.options.root, self.options.classes)

    @property
    def classes(self) -> tuple[str, ...]:
        return self._contents.classes

    def samples(self) -> Iterator[Sample]:
        for leaf in self._contents.leaves:
            prefix = leaf.folder.path.relative_to(self.options.root).as_posix()
            for name in leaf.folder.files:
                yield Sample(id=f"{prefix}/{name}", label=leaf.label, split=leaf.split)

    def image(self, sample: Sample) -> NDArray[Any]:
        return read_picture(self.options.root / sample.id)

    def fingerprint(self, sample: Sample) -> bytes:
        """SHA-256 of the file's bytes."""
        with opened(self.options.root / sample.id) as file:
            return hashlib.file_digest(file, "sha256").digest()

    def notes(self) -> Mapping[str, int]:
        return self._contents.ignored


@dataclass(frozen=True)
class _Leaf:
    """A class folder, and what its place says about its pictures."""

    folder: Folder
    label: str
    split: str | None


@dataclass(frozen=True)
class _Contents:
    classes: tuple[str, ...]
    leaves: tuple[_Leaf, ...]
    ignored: Counter[str]


def _read_layout(root: Path, wanted: Sequence[str] | None) -> _Contents:
    ignored: Counter[str] = Counter()
    leaves = _find_leaves(list_folder(root), ignored)
    if _segmentation(leaf.label for leaf in leaves):
        raise InputError(_no_classes(list_folder(root)))
    classes = chosen_classes((leaf.label for leaf in leaves), wanted, root)
    ignored["pictures of other classes ignored"] += sum(
        len(leaf.folder.files) for leaf in leaves if leaf.label not in classes
    )
    leaves = [leaf for leaf in leaves if leaf.label in classes]
    _refuse_empty(leaves)
    _refuse_untrained(root, leaves)
    _count_merged(leaves, ignored)
    leaves.sort(key=lambda leaf: leaf.folder.path.relative_to(root).as_posix())
    return _Contents(classes, tuple(leaves), +ignored)


# Finding the class folders


def _find_leaves(root: Folder, ignored: Counter[str]) -> list[_Leaf]:
    top = _data_set_folder(root, DESCENT)
    ignored.update(top.ignored)
    ignored["pictures outside class folders ignored"] += len(top.files)
    if not _split_names(top):
        return _leaves(top, None, ignored)
    leaves = []
    for name in top.folders:
        if split := canonical_split(name):
            leaves += _split_leaves(top.subfolder(name), split, ignored)
        else:
            ignored["folders beside the split folders ignored"] += 1
    return leaves


def _split_leaves(folder: Folder, split: str, ignored: Counter[str]) -> list[_Leaf]:
    ignored.update(folder.ignored)
    ignored["pictures outside class folders ignored"] += len(folder.files)
    leaves = _leaves(folder, split, ignored)
    if not leaves:
        raise InputError(f"the split folder {printable(folder.path)} has no class folders in it")
    return leaves


def _leaves(folder: Folder, split: str | None, ignored: Counter[str]) -> list[_Leaf]:
    """The class folders right under `folder`; folders that hold nothing but folders are no classes."""
    leaves = []
    for name in folder.folders:
        inner = folder.subfolder(name)
        if inner.folders and not inner.files and not is_known_class(name):
            ignored["folders without pictures ignored"] += 1
            continue
        ignored.update(inner.ignored)
        ignored["folders inside class folders ignored"] += len(inner.folders)
        leaves.append(_Leaf(inner, canonical_class(name), split))
    return leaves


def _data_set_folder(folder: Folder, descent: int) -> Folder:
    """The folder itself, or the one below it in which the split or class folders stand."""
    if _split_names(folder) or _class_names(folder) or descent == 0:
        return folder
    inner = [_data_set_folder(folder.subfolder(name), descent - 1) for name in folder.folders]
    found = [candidate for candidate in inner if _holds_classes(candidate)]
    if len(found) > 1:
        names = ", ".join(printable(candidate.path.relative_to(folder.path)) for candidate in found)
        raise InputError(f"{printable(folder.path)} holds several data sets ({names}): take one of them as root")
    return found[0] if found else folder


def _split_names(folder: Folder) -> list[str]:
    return [name for name in folder.folders if canonical_split(name)]


def _class_names(folder: Folder) -> list[str]:
    return [name for name in folder.folders if is_known_class(name) or folder.subfolder(name).files]


def _holds_classes(folder: Folder) -> bool:
    """Whether class folders stand in it, by split or at once."""
    splits = _split_names(folder)
    return not _segmentation(_class_names(folder.subfolder(splits[0]) if splits else folder))


def _segmentation(names: Iterable[str]) -> bool:
    """Whether these are the folders of a segmentation set, or none at all."""
    return {name.lower() for name in names} <= {"images", "masks"}


# Checking them


def _no_classes(root: Folder) -> str:
    found = ", ".join([f"{printable(name)}/" for name in root.folders[:6]] or ["no folders"])
    return (
        f"{printable(root.path)} has no class folders: expected Training/<class>/ and Testing/<class>/, "
        f"or <class>/, with pictures in each, and found {found} and {len(root.files)} picture(s)"
    )


def _refuse_empty(leaves: list[_Leaf]) -> None:
    empty = sorted(printable(leaf.folder.path) for leaf in leaves if not leaf.folder.files)
    if empty:
        raise InputError(f"no picture in the class folder {', '.join(empty)}: fill it or remove it")


def _refuse_untrained(root: Path, leaves: list[_Leaf]) -> None:
    """Refuses classes that a split has and training lacks: a network cannot learn what it never sees."""
    trained = {leaf.label for leaf in leaves if leaf.split == "train"}
    for leaf in leaves:
        if trained and leaf.label not in trained:
            raise InputError(
                f"{printable(root)}: the {leaf.split} split has the class {printable(leaf.label)}, "
                f"which the train split lacks; training has {', '.join(sorted(trained))}"
            )


def _count_merged(leaves: list[_Leaf], ignored: Counter[str]) -> None:
    """Notes where two folders of one split are spellings of one class."""
    spellings: dict[tuple[str | None, str], list[str]] = {}
    for leaf in leaves:
        spellings.setdefault((leaf.split, leaf.label), []).append(leaf.folder.path.name)
    for (_, label), names in spellings.items():
        if len(names) > 1:
            ignored[f"folders taken for one class, {label} ({', '.join(sorted(names))})"] += len(names)
