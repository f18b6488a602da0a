"""Ctrl-C, and what schedulers send before they kill: heard even where a library swallows it.

Python raises KeyboardInterrupt wherever it happens to be. C extensions that are just being imported make an
ImportError of it, and destructors and callbacks drop it. So that it came is remembered, too: an error that follows is
taken for an interruption, and bars of progress raise it again.
"""

import signal
import threading
from types import FrameType

_came = False


def listen() -> None:
    """Hears SIGINT and SIGTERM, unless whoever began the process has them ignored. For the main thread."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _hear)


def stop_listening() -> None:
    """From here on both end the process at once, as they do with any program. For the main thread."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) == _hear:
            signal.signal(number, signal.SIG_DFL)


def _hear(number: int, frame: FrameType | None) -> None:
    global _came
    _came = True
    threading.excepthook = _drop
    raise KeyboardInterrupt


def _drop(error: threading.ExceptHookArgs) -> None:
    """Threads of libraries stumble over what an interruption takes from them; their tracebacks would tell nothing."""


def interrupted() -> bool:
    """Whether an interruption came."""
    return _came


def raise_again() -> None:
    """Stops work that went on though an interruption came.

    Raises:
        KeyboardInterrupt: where one came.
    """
    if _came:
        raise KeyboardInterrupt
