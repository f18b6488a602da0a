"""Watches a process that carries out cases: that it goes on, in time and in memory, and what became of each."""

import json
import os
import queue
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

SECONDS, MEGABYTES = 10.0, 1024.0
"""What a case may take, beyond what the process holds when it is idle."""

STARTING = 120.0
WORKER = Path(__file__).with_name("worker.py")


def carried_out(kind: str, folder: Path, seed: int, count: int) -> Counter[str]:
    """How many cases ended how.

    Raises:
        AssertionError: with every case that did not end as it may, and how to repeat it.
    """
    outcomes: Counter[str] = Counter()
    faults, first = [], 0
    while first < count:
        said, ended = _batch(kind, folder, seed, first, count - first)
        for told in said:
            outcomes[told["outcome"] or "fault"] += 1
            if (fault := _fault(told)) is not None:
                faults.append(f"case {told['case']}: {fault}")
        first += len(said)
        if ended is not None:  # it was lost in a case; the others go on in a process of their own
            faults.append(f"case {first}: {ended}")
            first += 1
        assert len(faults) <= 20, _report(kind, folder, seed, faults)
    assert not faults, _report(kind, folder, seed, faults)
    return outcomes


def _report(kind: str, folder: Path, seed: int, faults: list[str]) -> str:
    again = f"python {WORKER} {kind} {folder} --seed {seed} --count 1 --first NUMBER"
    return "\n".join([f"{len(faults)} faults; repeat one with {again}", *faults])


def _fault(told: dict[str, Any]) -> str | None:
    if told["fault"] is not None:
        return str(told["fault"])
    if told["seconds"] > SECONDS:
        return f"took {told['seconds']:.1f} s"
    if told["megabytes"] > MEGABYTES:
        return f"took {told['megabytes']:.0f} MB"
    return None


def _batch(kind: str, folder: Path, seed: int, first: int, count: int) -> tuple[list[dict[str, Any]], str | None]:
    """What the process told of each case, and how it was lost, where it was."""
    words = ["--seed", seed, "--first", first, "--count", count]
    process = subprocess.Popen(
        [sys.executable, str(WORKER), kind, str(folder), *map(str, words)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # networks so small are slower with more
    )
    lines: queue.Queue[str | None] = queue.Queue()
    assert process.stdout is not None
    reader = threading.Thread(target=_read, args=(process.stdout, lines), daemon=True)
    reader.start()
    said: list[dict[str, Any]] = []
    lost = None
    ready = False
    try:
        while len(said) < count:
            # Twice what a case may take: one that is slow but ends tells its time itself.
            line = lines.get(timeout=2 * SECONDS if ready else STARTING)
            if line is None:
                lost = f"the process ended with {process.wait()}"
                break
            if ready:
                said.append(json.loads(line))
            ready = True
    except queue.Empty:
        lost = "hangs"
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stdout.close()
    assert ready, f"{kind}: the process did not begin: {lost}"
    return said, lost


def _read(stream: Any, lines: "queue.Queue[str | None]") -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)
