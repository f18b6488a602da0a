"""Processes that begin where torch and Keras are imported already, and nothing of btkit: a fork instead of seconds.

For tests that begin many processes and are about what these do, and not about how a process begins.
"""

import atexit
import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Warm:
    """Stands for the module `subprocess`, for those who call its `run` with arguments of this Python."""

    DEVNULL, TimeoutExpired = subprocess.DEVNULL, subprocess.TimeoutExpired

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "KERAS_BACKEND": "torch"},
        )  # fmt: skip

    def run(
        self, command: list[str], input: str = "", timeout: float = 600.0, cwd: Path | None = None, **others: object
    ) -> "subprocess.CompletedProcess[str]":
        """As `subprocess.run(command, input=input, capture_output=True, text=True, timeout=timeout, cwd=cwd)`."""
        assert command[0] == sys.executable
        assert others.items() <= {"capture_output": True, "text": True, "check": False, "stdin": self.DEVNULL}.items()
        with tempfile.TemporaryDirectory(prefix="btkit-warm-") as folder, self._turn:
            streams = [Path(folder, name) for name in ("in", "out", "err")]
            streams[0].write_text(input)
            wish = {"arguments": command[1:], "streams": [*map(str, streams)], "timeout": timeout,
                    "cwd": str(cwd or Path.cwd()), "environment": dict(os.environ)}  # fmt: skip
            assert self._process.stdin
            assert self._process.stdout
            print(json.dumps(wish), file=self._process.stdin, flush=True)
            status = json.loads(self._process.stdout.readline())
            out, err = (stream.read_text() for stream in streams[1:])
        if status is None:
            raise subprocess.TimeoutExpired(command, timeout, out, err)
        return subprocess.CompletedProcess(command, status, out, err)

    def end(self) -> None:
        """Ends what the others are forked from."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def ended(process: int, seconds: float) -> int | None:
    """The status of a process; none where it took too long and was killed."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return None


def leave(wish: Mapping[str, Any]) -> None:
    """Does what is wished and ends; taking down all that is imported here would take seconds."""
    status = 0
    try:
        become(wish)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def become(wish: Mapping[str, Any]) -> None:
    """Goes on in this process as Python would with these arguments."""
    for number, path in enumerate(wish["streams"]):
        file = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115  (what the parent has read ahead is not for this process)
    os.environ.clear()
    os.environ.update(wish["environment"])
    os.chdir(wish["cwd"])
    (way, what), rest = wish["arguments"][:2], wish["arguments"][2:]
    assert way in ("-c", "-m")
    sys.path[0] = wish["cwd"] if way == "-m" else ""
    sys.argv = [way, *rest]
    if way == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102  (what -c does)


def main() -> None:
    import keras  # noqa: F401

    gc.freeze()  # what is here stays, and is not to be looked through by each
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    while line := sys.stdin.readline():
        wish = json.loads(line)
        process = os.fork()
        if process == 0:
            leave(wish)
        print(json.dumps(ended(process, wish["timeout"])), file=answers, flush=True)


if __name__ == "__main__":
    main()
