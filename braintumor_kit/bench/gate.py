"""A contender's side of a race: it waits for its turn, and says how long its lap took."""

import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SAMPLED_EVERY = 0.05
"""Seconds between two looks at the memory."""


class Gate:
    """Turns over standard input and output: a line in means go, a line of JSON out tells of the lap.

    What else a contender prints must go to standard error.
    """

    def __init__(self) -> None:
        self._began = self._paused = 0.0
        self._most = 0.0
        threading.Thread(target=self._sample, daemon=True).start()

    def wait(self) -> bool:
        """Waits for the next turn and starts the clock; False when there is none any more."""
        if not sys.stdin.readline():
            return False
        self._paused = 0.0
        self._began = time.perf_counter()
        return True

    def pause(self) -> None:
        """Stops the clock for what is not part of the lap."""
        self._paused = time.perf_counter()

    def go_on(self) -> None:
        """Lets a stopped clock go on."""
        if self._paused:
            self._began += time.perf_counter() - self._paused
            self._paused = 0.0

    def ready(self, **facts: Any) -> None:
        """Says that the warm-up is over."""
        self._say(facts)

    def done(self, images: int, **facts: Any) -> None:
        """Says that a lap is over."""
        seconds = time.perf_counter() - self._began
        self._say({"images": images, "seconds": seconds, "memory": self._most, **facts})

    def laps(self) -> Iterator[None]:
        """One item a turn."""
        self.ready()
        while self.wait():
            yield

    def _sample(self) -> None:
        """Looks for the greatest memory: at the end of a lap, most of it is given back or is not, as the C library
        likes."""
        while True:
            self._most = max(self._most, anonymous_memory())
            time.sleep(SAMPLED_EVERY)

    def _say(self, facts: dict[str, Any]) -> None:
        print(json.dumps(facts), file=sys.stdout, flush=True)


def anonymous_memory(process: int | str = "self") -> float:
    """Resident memory of a process that no file backs, in MiB; a mapped cache does not count. 0 where the system does
    not tell, or the process is no more."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    lines = (line.split() for line in status.splitlines() if line.startswith("RssAnon:"))
    return next((int(words[1]) / 1024 for words in lines), 0.0)
