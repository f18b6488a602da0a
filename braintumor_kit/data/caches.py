"""The folder of caches: shared by all runs at once, checked on opening, bounded in size.

An entry is a folder, `<kind>/<key>`, whose key is a digest of all that its content depends on. Whoever builds it holds
its lock, `<kind>/<key>.lock`, which the system takes from a process that has ended, however it ended; others wait. An
entry appears under its name when it is whole. One that is removed while a run uses it stays on the disk until that run
lets go of it.
"""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from braintumor_kit.errors import InputError, WorkError
from braintumor_kit.files import reason_of

ENVIRONMENT = "BTKIT_CACHE"
LIMIT = "BTKIT_CACHE_GB"
DEFAULT_LIMIT = 20.0

BUILDING = ".building-"

log = logging.getLogger("btkit")


@dataclass(frozen=True)
class Entry:
    """One cache.

    Attributes:
        folder: of it; its name is the key.
        size: in bytes.
        used: when it was last opened, in seconds since 1970.
    """

    folder: Path
    size: int
    used: float


@dataclass(frozen=True)
class Cleared:
    """What was removed: how many caches, their bytes; and how many stay because a process is at work on them."""

    count: int
    size: int
    busy: int


def cache_folder() -> Path:
    """Where caches are kept: `BTKIT_CACHE`, else the user's cache folder."""
    return Path(os.environ.get(ENVIRONMENT) or user_cache_path("btkit"))


def cache_limit() -> int:
    """Bytes that caches may have together: `BTKIT_CACHE_GB`, else 20 GB.

    Raises:
        InputError: where the variable is no number above 0.
    """
    text = os.environ.get(LIMIT) or str(DEFAULT_LIMIT)
    try:
        limit = float(text)
    except ValueError:
        limit = 0.0
    if not 0 < limit < float("inf"):
        raise InputError(f"{LIMIT} = '{text}': give a number of gigabytes above 0, such as {DEFAULT_LIMIT:g}.")
    return int(limit * 1e9)


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """Inside, this process alone builds that entry: in the empty folder that it is given, which becomes the entry when
    the block ends well and is gone when it does not. What a process that was killed left of it is removed first.

    Raises:
        WorkError: where the cache cannot be written.
    """
    with _alone(folder):
        beside = folder.with_name(BUILDING + folder.name)
        try:
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir()
            yield beside
            shutil.rmtree(folder, ignore_errors=True)  # one that was found to be damaged
            beside.replace(folder)
        except OSError as error:
            raise _unwritable(folder, error) from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    lock = _lock(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.warning("another process is building the same cache; waiting for it")
            lock.acquire()
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        yield
    finally:
        lock.release()


def _lock(folder: Path) -> FileLock:
    return FileLock(folder.with_name(f"{folder.name}.lock"))


def _unwritable(folder: Path, error: OSError) -> WorkError:
    return WorkError(
        f"the cache in {folder.parent} cannot be written: {reason_of(error)}. "
        f"Make room, with `btkit doctor --clear-cache` or otherwise, or set {ENVIRONMENT} to another folder."
    )


def mark_used(folder: Path) -> None:
    """Notes that an entry is used now: the one that was not used for longest goes first when room is needed."""
    try:
        os.utime(folder)
    except OSError:  # of someone else, or read-only: it may be used all the same
        return


def entries() -> list[Entry]:
    """Every cache, the one that was not used for longest first."""
    found = []
    for folder in cache_folder().glob("*/[!.]*/"):
        try:
            found.append(Entry(folder, _size(folder), folder.stat().st_mtime))
        except OSError:  # another process has just removed it
            continue
    return sorted(found, key=lambda entry: entry.used)


def make_room(size: int) -> None:
    """Removes what was not used for longest, until so many bytes more stay within the limit or nothing is left.

    Raises:
        InputError: where the limit is no number.
    """
    _remove_torn()
    kept = entries()
    over = sum(entry.size for entry in kept) + size - cache_limit()
    for entry in kept:
        if over <= 0:
            return
        if _remove(entry.folder):
            over -= entry.size


def clear() -> Cleared:
    """Removes all caches but those that a process is building."""
    _remove_torn()
    removed, busy = [], 0
    for entry in entries():
        if _remove(entry.folder):
            removed.append(entry)
        else:
            busy += 1
    return Cleared(len(removed), sum(entry.size for entry in removed), busy)


def _remove_torn() -> None:
    """Removes what processes left that were killed while they built a cache."""
    for beside in cache_folder().glob(f"*/{BUILDING}*/"):
        _remove(beside, beside.with_name(beside.name.removeprefix(BUILDING)))


def _remove(folder: Path, entry: Path | None = None) -> bool:
    """Whether a folder could be removed: not while a process holds the lock of its entry."""
    lock = _lock(entry or folder)
    try:
        with lock.acquire(timeout=0):
            shutil.rmtree(folder)
    except (Timeout, OSError):
        return False
    return True


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
