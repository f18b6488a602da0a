"""`btkit bench`: speed beside peers on this machine, as ratios."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from joblib import cpu_count

from braintumor_kit.bench.groups import GROUPS, Course
from braintumor_kit.bench.material import write_pictures
from braintumor_kit.files import make_folder, write_json
from braintumor_kit.model.precision import (
    computes_bfloat16,
    describe_device,
    multiplies_bfloat16_matrices,
    processor_name,
    resolve_precision,
)
from braintumor_kit.progress import Reporter
from braintumor_kit.report.ratios import draw_ratios
from braintumor_kit.runs import package_versions

PATIENTS = 96
"""Painted for a benchmark, four slices each."""


def bench(
    groups: Sequence[str],
    depths: Sequence[int],
    image_size: int,
    batch_size: int,
    rounds: int,
    out: Path,
    reporter: Reporter,
) -> dict[str, Any]:
    """Runs groups of comparisons; `bench.json` in `out` is whole after each, `bench.png` at the end.

    Returns:
        The content of `bench.json`: `machine`, `settings`, `packages` and `rows`.

    Raises:
        WorkError: where a contender fails.
    """
    result: dict[str, Any] = {
        "machine": machine(),
        "settings": {"image_size": image_size, "batch_size": batch_size, "rounds": rounds},
        "packages": package_versions(),
        "rows": [],
    }
    make_folder(out)
    with tempfile.TemporaryDirectory(prefix="btkit-bench-") as folder:
        with reporter.bar("painting pictures") as progress:
            write_pictures(Path(folder), PATIENTS, progress)
        precision = resolve_precision("auto")
        course = Course(Path(folder), depths, precision, image_size, batch_size, rounds, reporter.say)
        for group in groups:
            for row in GROUPS[group](course):
                reporter.say(f"  {row.name} / {row.peer}: {row.ratio:.2f}")
                result["rows"].append(row.as_json())
                write_json(out / "bench.json", result)
    draw_ratios(out / "bench.png", result)
    return result


def machine() -> dict[str, Any]:
    """Processor, cores, bf16 units and GPU, as `bench.json` has them."""
    device = describe_device()
    gpu = device["name"] if device["kind"] == "cuda" else None
    return {
        "processor": processor_name(),
        "cores": cpu_count(),
        "bf16_units": computes_bfloat16(),
        "bf16_matrix_units": multiplies_bfloat16_matrices(),
        "gpu": gpu,
    }
