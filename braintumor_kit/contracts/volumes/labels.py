"""The class of a scan: the class folder that it lies in, or a table."""

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol

from braintumor_kit.contracts.classes import canonical_class, canonical_split, chosen_classes
from braintumor_kit.contracts.pictures import printable
from braintumor_kit.errors import InputError
from braintumor_kit.regular import open_regular

_ENDING = re.compile(r"\.(nii|nii\.gz|dcm|dicom|ima)$", re.IGNORECASE)

MAX_BYTES = 2**26
"""Of a table; a million scans have less."""


class Label(NamedTuple):
    """What is known of a scan before its pixels."""

    name: str
    split: str | None


class Labels(Protocol):
    """Knows the class of scans."""

    def of(self, path: PurePosixPath, names: Iterable[str]) -> Label | None:
        """The class of a scan; None where it is not one of the data set.

        Args:
            path: its file from the root of the data set.
            names: that it has beside, such as its patient's.
        """


class FolderLabels:
    """`<class>/...` or `<split>/<class>/...`, spelled as in any of the public sets."""

    def of(self, path: PurePosixPath, names: Iterable[str]) -> Label | None:
        folders = path.parts[:-1]
        split = canonical_split(folders[0]) if folders else None
        inside = folders[1:] if split else folders
        return Label(canonical_class(inside[0]), split) if inside else None


@dataclass(frozen=True)
class TableLabels:
    """Rows of a CSV file: `name,label`, and `split` where the set comes divided.

    Attributes:
        rows: by name: of the patient, the series, a file, or a folder above it.
    """

    rows: Mapping[str, Label]

    def of(self, path: PurePosixPath, names: Iterable[str]) -> Label | None:
        stem = _ENDING.sub("", path.name)
        parents = [above.as_posix() for above in path.parents if above.parts]
        for name in (*names, path.as_posix(), path.name, stem, *parents, *(above.name for above in path.parents)):
            if name and name in self.rows:
                return self.rows[name]
        return None


def read_labels(table: Path | None) -> Labels:
    """Labels by folder, or from a table.

    Raises:
        InputError: where the table cannot be read.
    """
    return FolderLabels() if table is None else TableLabels(dict(_rows(table)))


def _rows(table: Path) -> Iterable[tuple[str, Label]]:
    name = printable(table)
    try:
        with open_regular(table) as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise InputError(f"{name} has more than the {MAX_BYTES:,} bytes that are allowed")
        reader = csv.DictReader(content.decode("utf-8-sig").splitlines(), strict=True)
        if not {"name", "label"} <= set(reader.fieldnames or ()):
            raise InputError(f"{name} needs the columns name and label, and may have split")
        seen = set()
        for number, row in enumerate(reader, start=2):
            if not row["name"] or not row["label"]:
                raise InputError(f"{name}, line {number}: name and label must both be given")
            if row["name"] in seen:
                raise InputError(f"{name}, line {number}: {printable(row['name'])} stands in the table twice")
            seen.add(row["name"])
            yield row["name"], Label(canonical_class(row["label"]), _split(row.get("split"), f"{name}, line {number}"))
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{name} is no CSV file in UTF-8: {error}") from error


def _split(text: str | None, where: str) -> str | None:
    if not text:
        return None
    split = canonical_split(text)
    if split is None:
        raise InputError(f"{where}: the split '{printable(text)}' is none of train, validation and test")
    return split


def classes_of(found: Iterable[str], wanted: tuple[str, ...] | None, root: Path) -> tuple[str, ...]:
    """The classes of a source: those that are wanted, in that order, or all, in alphabetical order.

    Raises:
        InputError: where there are none, or one that is wanted is not there.
    """
    have = set(found)
    if not have:
        raise InputError(f"{printable(root)} holds no scan whose class is known: put scans into a folder for each "
                         "class, or name a table with `labels`")  # fmt: skip
    return chosen_classes(have, wanted, root)
