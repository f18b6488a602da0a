"""The errors that btkit raises on purpose, and the exit status that each stands for.

A message is one clear sentence: what was expected, what was found, where (file, key, sample), what to do next.
"""

import re


class BtkitError(Exception):
    """An error whose message is meant for the user; the command line shows it without a traceback."""

    exit_status = 3


class InputError(BtkitError):
    """The user's input is at fault: a recipe, an argument, a file, a data set."""

    exit_status = 2


class ImageError(InputError):
    """One image cannot be read. Raised by `Source.image`; btkit adds the sample's id, counts it, and skips it
    or stops as the recipe's `on_bad_image` says."""


class PluginError(InputError):
    """A plugin is missing, broken, defined twice or written for another API version."""


class WorkError(BtkitError):
    """The work failed on the way (disk full, loss not finite, a worker lost). The message says what was saved
    and how to go on."""

    exit_status = 3


OUT_OF_MEMORY = re.compile(
    r"out of memory|not enough memory|can(?:no|')t allocate memory|could not create a memory|bad.alloc", re.IGNORECASE
)
"""How torch, oneDNN, the C++ library and the system say it, in errors of other kinds."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out. torch's own error for a device is no MemoryError, and torch may not be imported here."""
    if isinstance(error, BtkitError):
        return False
    said = isinstance(error, RuntimeError | OSError) and OUT_OF_MEMORY.search(str(error)) is not None
    return said or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
