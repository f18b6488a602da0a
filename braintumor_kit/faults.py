"""Faults of btkit itself: written down where they happen, found again when they are reported."""

import json
import os
import platform
import stat
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from braintumor_kit import __version__

PREFIX = "btkit-fault-"
ARGUMENTS = "arguments "
"""How the line begins that has the command line, as a JSON list."""

RECENT = 24 * 3600.0
MOST = 3


def write_fault(arguments: Sequence[str], traceback: str) -> Path:
    """Writes a fault to a file of its own, which the user alone can read."""
    with tempfile.NamedTemporaryFile(
        "w", prefix=PREFIX, suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
    ) as file:
        head = [f"btkit {__version__}", f"python {platform.python_version()}", f"{ARGUMENTS}{json.dumps(arguments)}"]
        file.write("\n".join([*head, "", traceback]))
    return Path(file.name)


def recent_faults() -> list[Path]:
    """The user's own faults of the last day, the newest first, three at most."""
    found = []
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*.txt"):
        try:
            about = path.lstat()
        except OSError:  # another's, or gone
            continue
        mine = not hasattr(os, "getuid") or about.st_uid == os.getuid()
        if mine and stat.S_ISREG(about.st_mode) and time.time() - about.st_mtime < RECENT:
            found.append((about.st_mtime, path))
    return [path for _, path in sorted(found, reverse=True)[:MOST]]
