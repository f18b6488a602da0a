"""The spellings of classes and splits that public data sets use, and the one name that btkit has for each."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from braintumor_kit.contracts.pictures import printable
from braintumor_kit.errors import InputError

_CLASSES = {
    "glioma": ("glioma", "gliomas", "glioma tumour", "gl"),
    "meningioma": ("meningioma", "meningiomas", "meningioma tumour", "me"),
    "notumor": ("no tumour", "no", "none", "non tumour", "healthy", "normal"),
    "pituitary": ("pituitary", "pituitary tumour", "pituitary adenoma", "adenoma", "pi"),
    "tumour": ("tumour", "yes"),
}

_SPLITS = {
    "train": ("train", "training", "tr"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "te"),
}


def _plain(name: str) -> str:
    """The name without case, punctuation, blanks and the difference between tumour and tumor."""
    return re.sub(r"[\W_]+", "", name.casefold()).replace("tumour", "tumor")


_CLASS_OF = {_plain(spelling): name for name, spellings in _CLASSES.items() for spelling in spellings}
_SPLIT_OF = {_plain(spelling): name for name, spellings in _SPLITS.items() for spelling in spellings}


def canonical_class(name: str) -> str:
    """btkit's name of a class: `No_Tumor`, `healthy` and `no` are all `notumor`; unknown names stay.

    In sets that only tell tumour from none, such as `yes/` and `no/`, the classes are `tumour` and `notumor`.
    """
    return _CLASS_OF.get(_plain(name), name)


def is_known_class(name: str) -> bool:
    """Whether `name` is a spelling of a class that the table knows."""
    return _plain(name) in _CLASS_OF


def canonical_split(name: str) -> str | None:
    """Says "train", "validation" or "test" for `Training`, `val`, `Testing` and the like, else None."""
    return _SPLIT_OF.get(_plain(name))


def chosen_classes(found: Iterable[str], wanted: Sequence[str] | None, root: Path) -> tuple[str, ...]:
    """The classes of a source: those that are wanted, in that order, or all that are found, in alphabetical order.

    Args:
        root: of the data set, which messages name.

    Raises:
        InputError: where one that is wanted is not there, or wanted twice.
    """
    have = sorted(set(found))
    if wanted is None:
        return tuple(have)
    chosen = tuple(canonical_class(name) for name in wanted)
    if missing := [name for name in chosen if name not in have]:
        raise InputError(
            f"{printable(root)} has no class {', '.join(missing)}, which `classes` asks for; it has {', '.join(have)}"
        )
    if len(set(chosen)) < len(chosen):
        raise InputError(f"`classes` names a class twice: {', '.join(wanted)}")
    return chosen
