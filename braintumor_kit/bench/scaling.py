"""How far a cluster carries: a simulation of an engine's work, fed with what its parts cost on one machine.

    python -m braintumor_kit.bench.scaling RUN [--slices 2048] [--out scaling.json]

measures these costs with the slices of a run (`scaling_costs.py`), simulates 1, 8, 64 and 512 workers over a million
slices, and prints both as the tables of recipes/scaling.md.

The simulation goes from event to event. One process hands tasks out, one after the other, and takes what comes back. A
task reads its slices from a store that all share, works, and writes its part there. Workers come up one after the other
on each machine. Durations vary as they were measured to vary, by a lognormal factor that follows from the seed.
"""

import heapq
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

WORKERS = (1, 8, 64, 512)
MILLION = 1_000_000


@dataclass(frozen=True)
class Load:
    """What one kind of work costs, and the machines it runs on.

    Attributes:
        per_slice: seconds of a worker's core.
        variation: of a task's duration, standard deviation over mean.
        per_task: seconds of the process that hands out, a task.
        before, after: seconds of that process alone, a slice: what is listed before, and put together after.
        start: seconds until a worker has opened its model.
        slices: of a task.
        read, written: bytes a slice from and to the store.
        bandwidth: of the store, bytes a second for all.
        at_once: workers that a machine can bring up at a time.
        per_machine: workers of a machine.
    """

    per_slice: float
    variation: float
    per_task: float
    before: float
    after: float
    start: float
    slices: int
    read: float
    written: float
    bandwidth: float = 1.25e9
    at_once: int = 4
    per_machine: int = 32


@dataclass(frozen=True)
class Course:
    """What a simulation came to.

    Attributes:
        workers: how many.
        seconds: from the command to its end.
        busy: share of the workers' time, from the first task to the last, in which they worked.
        handing_out, store: share of that time in which the one process, and the store, were busy.
    """

    workers: int
    seconds: float
    busy: float
    handing_out: float
    store: float

    @property
    def saturated(self) -> str:
        """What bounds it."""
        shares = {"the workers": self.busy, "handing out": self.handing_out, "the store": self.store}
        most = max(shares, key=lambda name: shares[name])
        return most if shares[most] > 0.9 else "the last tasks, and coming up"


def simulate(load: Load, workers: int, slices: int = MILLION, seed: int = 0) -> Course:
    """The course of some work on so many workers."""
    random = np.random.default_rng(seed)
    tasks = math.ceil(slices / load.slices)
    spread = math.sqrt(math.log1p(load.variation**2))
    durations = random.lognormal(-(spread**2) / 2, spread, tasks) * load.per_slice * load.slices
    moved = (load.read + load.written) * load.slices / load.bandwidth
    idle = [(_up(number, load), number) for number in range(workers)]
    heapq.heapify(idle)
    handing, store, busy, first, last = 0.0, 0.0, 0.0, math.inf, 0.0
    for duration in durations:
        free, number = heapq.heappop(idle)
        handing = max(handing, free) + load.per_task
        store = max(store, handing) + moved
        end = max(store, handing + moved) + duration
        busy += end - handing
        first, last = min(first, handing), max(last, end)
        heapq.heappush(idle, (end, number))
    span = last - first
    serial = (load.before + load.after) * slices
    return Course(
        workers, serial + last, busy / (workers * span), tasks * load.per_task / span, min(tasks * moved / span, 1.0)
    )


def _up(number: int, load: Load) -> float:
    """When a worker has come up: machines bring up some at a time."""
    return load.start * (1 + (number % load.per_machine) // load.at_once)


def courses(load: Load, slices: int = MILLION) -> list[Course]:
    """Of each number of workers."""
    return [simulate(load, workers, slices) for workers in WORKERS]


def smaller_tasks(load: Load, workers: int, slices: int = MILLION) -> int:
    """The size of a task with which so many workers end soonest, among halves and doubles of the load's."""
    sizes = [load.slices * 2**power // 16 for power in range(8) if load.slices * 2**power // 16]
    return min(sizes, key=lambda size: simulate(replace(load, slices=size), workers, slices).seconds)


def table(name: str, load: Load) -> str:
    """One kind of work as a table of Markdown."""
    rows = courses(load)
    alone = rows[0]
    lines = [
        f"| {name}: workers | time for a million slices | slices/s | of {WORKERS[0]} worker's share | bounded by |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        share = alone.seconds / row.seconds / row.workers
        lines.append(
            f"| {row.workers} | {_time(row.seconds)} | {MILLION / row.seconds:,.0f} | {share:.2f} | {row.saturated} |"
        )
    return "\n".join(lines)


def _time(seconds: float) -> str:
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def main(arguments: Sequence[str]) -> None:
    """Measures, simulates and prints."""
    import click

    from braintumor_kit.bench.scaling_costs import measure

    @click.command()
    @click.argument("run", type=click.Path(path_type=Path, exists=True))
    @click.option("--slices", default=2048, show_default=True, type=click.IntRange(64), help="To measure with.")
    @click.option("--out", default="scaling.json", show_default=True, type=click.Path(path_type=Path))
    def command(run: Path, slices: int, out: Path) -> None:
        costs: dict[str, Any] = measure(run, slices)
        loads = {name: Load(**values) for name, values in costs["loads"].items()}
        found = {name: [asdict(row) for row in courses(load)] for name, load in loads.items()}
        out.write_text(json.dumps({**costs, "courses": found}, indent=2))
        for stage, seconds in costs["stages"].items():
            click.echo(f"| {stage} | {1e3 * seconds:.2f} ms | {_time(seconds * MILLION)} |")
        for name, load in loads.items():
            click.echo("\n" + table(name, load))
            click.echo(f"512 workers end soonest with {smaller_tasks(load, 512)} slices a task.")

    command(list(arguments))


if __name__ == "__main__":
    main(sys.argv[1:])
