"""A process that carries out cases and tells of each: what became of it, how long it took, and its memory.

    python tests/fuzz/worker.py KIND FOLDER --seed 1 --first 0 --count 100

A case follows from its seed and number alone: the same command with `--count 1` repeats one.
"""

import argparse
import json
import sys
import time
import traceback
from pathlib import Path

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind")
    parser.add_argument("folder", type=Path)
    for name in ("seed", "first", "count"):
        parser.add_argument(f"--{name}", type=int, required=True)
    given = parser.parse_args()
    import cases
    import volume_cases

    case = {**cases.KINDS, **volume_cases.KINDS}[given.kind](given.folder)
    case(np.random.default_rng(0), given.folder / "warm")  # what is imported and allocated once
    _tell(ready=True)
    idle = _memory("VmRSS")
    for number in range(given.first, given.first + given.count):
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        begun, fault, outcome = time.monotonic(), None, None
        try:
            outcome = case(np.random.default_rng([given.seed, number]), given.folder / f"{number}")
        except AssertionError as error:
            fault = str(error)
        except BaseException:
            fault = traceback.format_exc()
        _tell(
            case=number,
            outcome=outcome,
            seconds=time.monotonic() - begun,
            megabytes=(_memory("VmHWM") - idle) / 1024,
            fault=fault,
        )


def _memory(name: str) -> int:
    """In kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def _tell(**values: object) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
