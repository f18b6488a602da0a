"""A run of ten seconds, and how its files are read to their ends."""

import json
import os
import shutil
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from PIL import Image
from safetensors import safe_open

from braintumor_kit import files
from braintumor_kit.files import read_csv, read_json

TRAINING = (
    "source.patients=12", "source.size=64", "pixels.image_size=64", "training.epochs=1", "training.batch_size=8",
    "training.precision=float32", "backbone.depth=18", "explain.0.limit=1", "report=false",
)  # fmt: skip
OPTIONS = [item for value in TRAINING for item in ("--set", value)]
TINY = ["backbone.name=two_layers" if item == "backbone.depth=18" else item for item in OPTIONS]
"""With the fixture `two_layers`: a run of two seconds."""

LARGE = (".keras", ".h5", ".safetensors", ".npy", ".npz", ".png")


def kind(path: Path) -> str:
    """Of a file of a run: those that there are many of go by the folder that they lie in, best weights without their
    epoch."""
    if path.name.startswith("best-"):
        return "best.weights.h5"
    return {"maps": "map.npy", "overlays": "overlay.png", "batches": "batch.json"}.get(path.parent.name, path.name)


def read_whole(path: Path) -> None:
    """Reads a file to its end, by what it is; raises where it is not whole."""
    readers: dict[str, Callable[[Path], object]] = {
        ".json": lambda path: json.loads(path.read_text()),
        ".jsonl": lambda path: [json.loads(line) for line in path.read_text().splitlines()],
        ".csv": lambda path: [len(row) for row in read_csv(path)],
        ".toml": lambda path: tomllib.loads(path.read_text()),
        ".png": lambda path: Image.open(path).load(),
        ".npy": np.load,
        ".npz": lambda path: zipfile.ZipFile(path).testzip(),
        ".keras": lambda path: zipfile.ZipFile(path).testzip(),
        ".h5": lambda path: h5py.File(path).visititems(lambda name, item: None),
        ".safetensors": lambda path: safe_open(path, framework="pt").metadata(),
        ".txt": lambda path: path.read_text(),
        "": lambda path: path.read_bytes(),  # a lock
        ".lock": lambda path: path.read_bytes(),
    }
    found = readers[path.suffix](path)
    assert found is None or path.suffix not in (".npz", ".keras"), f"{found} in {path} is damaged"


def whole_files(run: Path) -> set[str]:
    """Kinds of the files of a run, each read."""
    found = [path for path in run.rglob("*") if path.is_file()]
    for path in found:
        assert not path.name.startswith(files.TEMPORARY)
        read_whole(path)
    return {kind(path) for path in found}


def copy_run(run: Path, folder: Path) -> Path:
    """Copies a run; its large files, which btkit never changes in place, are shared."""

    def copy(one: str, other: str) -> None:
        (os.link if Path(one).suffix in LARGE else shutil.copy2)(one, other)

    return Path(shutil.copytree(run, folder, copy_function=copy, dirs_exist_ok=True))


def put_file(path: Path, content: bytes) -> None:
    """Puts another file in the place of one that may be shared."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def same_results(one: Path, other: Path) -> bool:
    names = ("predictions.csv", "metrics.json", "split.csv", "explanations/explanations.csv")
    results = [read_json(run / "record.json")["results"] for run in (one, other)]
    return results[0] == results[1] and all((one / name).read_bytes() == (other / name).read_bytes() for name in names)
