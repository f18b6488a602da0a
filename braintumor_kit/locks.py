"""One process at a time: locks that the system takes from a process that has ended, however it ended."""

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from braintumor_kit.errors import InputError, WorkError
from braintumor_kit.files import make_folder, reason_of

UNKNOWN = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
"""What file systems say that know no locks."""

log = logging.getLogger("btkit")


@contextmanager
def alone(lock: Path, place: Path, wait: float = 0.0) -> Iterator[None]:
    """Inside, no other process works in a folder.

    Args:
        lock: the file that is locked, and gone afterwards. The folder above its own has to be there.
        place: the folder, as the user is told of it.
        wait: for another process, in seconds.

    Raises:
        InputError: where another process is at work there.
        WorkError: where the lock cannot be made.
    """
    make_folder(lock.parent, parents=False)
    held = FileLock(lock)
    try:
        held.acquire(timeout=wait)
    except Timeout as error:
        raise InputError(f"another process is at work in '{place}': wait for it, or stop it first.") from error
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in UNKNOWN:
            verb = "locked" if error.errno == errno.EACCES else "written"  # by another user, who left the file
            raise WorkError(f"'{place}' cannot be {verb}: {reason_of(error)}.") from error
        log.warning(f"'{place}' lies where nothing can be locked: see to it that no other process works there")
    try:
        yield
    finally:
        with suppress(OSError):  # on Windows it cannot be removed while it is held
            lock.unlink(missing_ok=True)  # filelock begins anew where the file that it has locked is gone
        held.release()


def inside(place: Path) -> Path:
    """The lock of a folder that stays where it is: a hidden file in it."""
    return place / ".lock"


def beside(place: Path) -> Path:
    """The lock of a folder that is itself moved: a hidden file next to it.

    Raises:
        InputError: of the root of a file system.
    """
    place = place.resolve()
    if not place.name:
        raise InputError(f"'{place}' cannot be replaced; name another folder.")
    return place.with_name(f".{place.name}.lock")
