"""Files are whole or absent: everything is written beside its place and moved there when it is complete."""

import csv
import errno
import json
import os
import re
import tempfile
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from braintumor_kit.errors import InputError, WorkError
from braintumor_kit.regular import open_regular

if TYPE_CHECKING:
    from numpy.typing import NDArray

TEMPORARY = ".writing-"
"""How the names of files begin that are being written."""

MAX_COLUMNS = 1000
"""Of a table: each row is filled up to as many."""

HIDDEN = re.compile(r"(?:errno = |os error )(\d+)")


@contextmanager
def whole(path: Path, room: int = 0, lasting: bool = False) -> Iterator[Path]:
    """A temporary path beside `path`, of the same suffix, to write to; moved to `path` when the block ends well.

    Its folder has to be there: one that someone removed meanwhile must not come back with half of what it held.

    Args:
        room: so many bytes have to be free before the block begins, for libraries that do not survive a disk that fills
            while they write: HDF5 ends the process.
        lasting: where the machine stops right afterwards, too, the file is there in full, or still the one before.

    Raises:
        WorkError: where the file system refuses (disk full, read-only, name too long), naming the file; nothing is left
            behind.
    """
    temporary: Path | None = None
    try:
        _check_name(path)
        handle, name = tempfile.mkstemp(prefix=TEMPORARY, suffix=f"-{path.name[-40:]}", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            take_space(file, room)
            file.truncate(0)
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        if lasting:
            _to_disk(temporary)
        temporary.replace(path)
        if lasting:
            _to_disk(path.parent)
    except Exception as error:
        number = _system_error(error)
        if number is None:
            raise
        raise WorkError(
            f"{path} could not be written: {reason_of(error)}. Files written before are whole; {_cure(number)}."
        ) from error
    finally:
        if temporary is not None:
            with suppress(OSError):  # gone with its folder
                temporary.unlink(missing_ok=True)


def make_folder(path: Path, parents: bool = True) -> Path:
    """Makes a folder where it is missing.

    Args:
        parents: and those above it. Not inside of a folder that is being written: one that someone removes or moves
            meanwhile must not come back.

    Raises:
        WorkError: where it cannot be made.
    """
    try:
        path.mkdir(parents=parents, exist_ok=True)
    except OSError as error:
        raise WorkError(f"the folder {path} cannot be made: {reason_of(error)}.") from error
    return path


def _to_disk(path: Path) -> None:
    """Waits until the disk has what was written to a file, or which files a folder holds."""
    try:
        number = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders
        return
    try:
        os.fsync(number)
    finally:
        os.close(number)


def remove_torn(folder: Path) -> None:
    """Removes what `whole` leaves in a folder, and below it, of a process that is killed. Nobody may be writing there.

    Raises:
        OSError: where that cannot be done.
    """
    for torn in folder.rglob(f"{TEMPORARY}*"):
        torn.unlink()


def _check_name(path: Path) -> None:
    """Finds what is wrong with a name before work is put into the file."""
    with suppress(FileNotFoundError):
        path.stat()


def _system_error(error: Exception) -> int | None:
    """The system's number of what went wrong with a file (0 where it is not told); None of an error of another kind.
    HDF5 and safetensors hide the number in the text of errors of their own."""
    if isinstance(error, OSError):
        return error.errno or int((HIDDEN.search(str(error)) or [0, 0])[1])
    hidden = HIDDEN.search(str(error))
    return int(hidden[1]) if hidden else None


def _cure(number: int) -> str:
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "make room, then go on"
    if number in (errno.ENAMETOOLONG, errno.EROFS, errno.EACCES, errno.EPERM):
        return "choose another folder or name"
    if number in (errno.ENOENT, errno.ENOTDIR):
        return "its folder is gone; choose one that stays"
    return "make room or choose another folder, then run again"


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text."""
    with whole(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes JSON, indented, keys in the order given; a value that JSON lacks (NaN) is refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a table with its header; None becomes an empty cell."""
    with whole(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def read_text(path: Path) -> str:
    """The UTF-8 text in a file.

    Raises:
        InputError: where it cannot be read.
    """
    try:
        with open_regular(path) as file:
            return file.read().decode()
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        InputError: where the file cannot be read or holds something else.
    """
    try:
        with open_regular(path) as file:
            text = file.read().decode()
        value = json.loads(text)
        if "\\ud" in text.lower():  # half a letter may be written so, and could never be written again
            json.dumps(value, ensure_ascii=False).encode()
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no JSON object.")
    return value


def read_csv(path: Path) -> list[Mapping[str, str]]:
    """Rows of a table as mappings from its header.

    Raises:
        OSError, ValueError, csv.Error: where it cannot be read, or has more than a thousand columns.
    """
    with TextIOWrapper(open_regular(path), encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if len(reader.fieldnames or ()) > MAX_COLUMNS:
            raise ValueError(f"it has more than {MAX_COLUMNS:,} columns")
        return list(reader)


def read_arrays(path: Path, largest: int, what: str, otherwise: str) -> dict[str, "NDArray[Any]"]:
    """The arrays of a `.npz` file; nothing in it is ever run.

    Args:
        largest: bytes that they may have together.
        what: the file is, such as "the index".
        otherwise: what to say of a file that is none, after its name, such as "no index".

    Raises:
        InputError: where the file cannot be read, is none, or is too large.
    """
    import numpy as np

    arrays: dict[str, NDArray[Any]] = {}
    try:
        with open_regular(path) as whole_file, zipfile.ZipFile(whole_file) as archive:
            if sum(item.file_size for item in archive.infolist()) > largest:
                raise InputError(f"{path} is too large to be read.")
            with warnings.catch_warnings(action="ignore"):  # of headers of other times, which are read all the same
                for name in archive.namelist():
                    with archive.open(name) as file:
                        arrays[name.removesuffix(".npy")] = np.lib.format.read_array(file, allow_pickle=False)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{what} {path} cannot be read: {reason_of(error)}.") from error
    except Exception as error:  # what damaged archives and headers make zipfile, zlib and NumPy raise is of many kinds
        raise InputError(f"{path} is {otherwise}.") from error
    return arrays


def take_space(file: BinaryIO, size: int) -> None:
    """Takes the disk space of a whole file, such as one that is to be written through a memory map: on a full disk that
    would kill the process.

    Raises:
        OSError: where there is no room.
    """
    if size and hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)


def reason_of(error: Exception) -> str:
    """The system's own words; libraries such as HDF5 hide them in a page of theirs."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    number = _system_error(error)
    return os.strerror(number) if number else next(iter(str(error).strip().splitlines()), type(error).__name__)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
