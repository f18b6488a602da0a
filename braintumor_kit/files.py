"""Files are whole or absent: everything is written beside its place and moved there when it is complete."""

import csv
import json
import os
import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from braintumor_kit.errors import InputError, WorkError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, of the same suffix, to write to; moved to `path` when the block ends well.

    Raises:
        WorkError: where the file system refuses (disk full, read-only), naming the file; nothing is left behind.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".writing-", suffix=f"-{path.name}", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise WorkError(
            f"{path} could not be written: {reason_of(error)}. Files written before are whole; "
            f"make room or choose another folder, then run again."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


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


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        InputError: where the file cannot be read or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no JSON object.")
    return value


def read_csv(path: Path) -> list[Mapping[str, str]]:
    """Rows of a table as mappings from its header."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


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
        with zipfile.ZipFile(path) as archive:
            if sum(item.file_size for item in archive.infolist()) > largest:
                raise InputError(f"{path} is too large to be read.")
            for name in archive.namelist():
                with archive.open(name) as file:
                    arrays[name.removesuffix(".npy")] = np.lib.format.read_array(file, allow_pickle=False)
    except OSError as error:
        raise InputError(f"{what} {path} cannot be read: {reason_of(error)}.") from error
    # What damaged archives and headers make zipfile, zlib and NumPy raise is not one kind of error.
    except (ValueError, LookupError, EOFError, RuntimeError, MemoryError, TypeError, SyntaxError, OverflowError,
            zipfile.BadZipFile, zlib.error) as error:  # fmt: skip
        raise InputError(f"{path} is {otherwise}.") from error
    return arrays


def take_space(file: BinaryIO, size: int) -> None:
    """Takes the disk space of a whole file that is to be written through a memory map: on a full disk that would kill
    the process.

    Raises:
        OSError: where there is no room.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)


def reason_of(error: OSError) -> str:
    """The system's own words; libraries such as HDF5 hide them in a page of theirs."""
    if error.errno:
        return os.strerror(error.errno)
    hidden = re.search(r"error message = '([^']+)'", str(error))
    return hidden[1] if hidden else str(error).strip().splitlines()[0]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
