"""Someone who reads every file of a run folder while it is written never sees a part of one."""

import os
import subprocess
import time
from collections import Counter
from pathlib import Path

from small_runs import OPTIONS, kind, read_whole
from test_resume import command

from braintumor_kit.files import TEMPORARY


def files_of(folder: Path) -> list[Path]:
    """All below a folder; where a folder goes while it is read, without its own (pathlib's glob would stop)."""
    return [Path(place, name) for place, _, names in os.walk(folder) for name in names]


def test_a_reader_never_sees_a_part_of_a_file(tmp_path: Path) -> None:
    run, seen, read_at = tmp_path / "watched", Counter[str](), dict[Path, int]()
    begin = [*command("resnet_adam"), *OPTIONS, "--set", "training.checkpoint_seconds=0"]
    with subprocess.Popen([*begin, "--runs", str(tmp_path), "--name", run.name], stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            for path in files_of(run):
                try:
                    changed = path.stat().st_mtime_ns
                    if path.name.startswith(TEMPORARY) or read_at.get(path) == changed:
                        continue
                    if path.name == "log.jsonl":
                        assert (path.read_text() or "\n").endswith("\n")  # by lines: none, or whole ones
                    read_whole(path)
                except FileNotFoundError:
                    continue  # replaced or removed between being listed and being opened
                seen[kind(path)] += 1
                read_at[path] = changed
            time.sleep(0.001)
    assert process.returncode == 0
    assert seen["latest.safetensors"] >= 3
    assert seen["history.csv"]
    assert seen["record.json"] >= 2
    assert {"best.weights.h5", "model.keras", "predictions.csv", "metrics.json", "batch.json", "map.npy"} <= set(seen)
