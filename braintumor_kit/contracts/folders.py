"""Helper for authors of sources over files: what a folder holds, all that is no data set aside."""

import os
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from braintumor_kit.contracts.pictures import PICTURE_SUFFIXES, has_suffix, is_junk, printable
from braintumor_kit.errors import InputError

SYSTEM_FILES = "system files ignored"
OTHER_FILES = "files of other kinds ignored"
LINKED_FOLDERS = "links to folders ignored"


@dataclass(frozen=True)
class Folder:
    """What one folder holds, in alphabetical order.

    Attributes:
        path: where it is.
        folders: names of its subfolders. Links to folders are left out: they may loop or leave the data set.
        files: names of its files of the kind asked for, links to files included.
        ignored: how many entries were set aside, by reason.
    """

    path: Path
    folders: tuple[str, ...]
    files: tuple[str, ...]
    ignored: Counter[str] = field(default_factory=Counter)

    def subfolder(self, name: str, suffixes: Collection[str] = PICTURE_SUFFIXES) -> "Folder":
        """Lists one of its subfolders."""
        return list_folder(self.path / name, suffixes)


def list_folder(path: Path, suffixes: Collection[str] = PICTURE_SUFFIXES) -> Folder:
    """Lists a folder, looking for files that end in one of the lower-case `suffixes`.

    Raises:
        InputError: where there is no such folder, it may not be read, or a name in it is not UTF-8.
    """
    folders, files, ignored = [], [], Counter[str]()
    for entry in _entries(path):
        if is_junk(entry.name):
            ignored[SYSTEM_FILES] += 1
        elif entry.is_dir(follow_symlinks=False):
            folders.append(entry.name)
        elif entry.is_dir():
            ignored[LINKED_FOLDERS] += 1
        elif has_suffix(entry.name, suffixes) and (entry.is_file() or _is_broken_link(entry)):
            files.append(entry.name)  # a broken link is a missing file, which reading it reports
        else:
            ignored[OTHER_FILES] += 1
    _refuse_undecodable(path, folders + files)
    return Folder(path, tuple(sorted(folders)), tuple(sorted(files)), ignored)


def _is_broken_link(entry: "os.DirEntry[str]") -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)


def _entries(path: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return list(entries)
    except FileNotFoundError as error:
        raise InputError(f"there is no folder {printable(path)}") from error
    except NotADirectoryError as error:
        raise InputError(f"{printable(path)} is a file where a folder was expected") from error
    except OSError as error:
        raise InputError(f"the folder {printable(path)} cannot be read: {error.strerror or error}") from error


def _refuse_undecodable(path: Path, names: list[str]) -> None:
    """Refuses names that are not UTF-8, which no table or JSON that btkit writes could hold."""
    try:
        "".join(names).encode()
    except UnicodeEncodeError as error:
        odd = [name for name in names if not is_utf8(name)]
        raise InputError(
            f"{printable(path)} holds {len(odd)} name(s) that are not UTF-8, such as {printable(min(odd))}: rename them"
        ) from error


def is_utf8(name: str) -> bool:
    """Whether tables and JSON can hold the name of a file."""
    return not any("\udc80" <= letter <= "\udcff" for letter in name)
