"""The run folder: what one `btkit run` leaves behind, and how a run is found again."""

import csv
import os
import re
import secrets
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from braintumor_kit.errors import BtkitError, InputError, WorkError
from braintumor_kit.files import read_csv, read_json, write_json, write_text
from braintumor_kit.locks import alone
from braintumor_kit.record import FORMAT, read_record

PACKAGES = (
    "braintumor-kit", "keras", "torch", "torchvision", "keras-hub", "numpy", "scipy", "pillow", "scikit-learn",
    "h5py", "nilearn", "matplotlib", "pydantic",
)  # fmt: skip
"""Packages that can change a result; their versions are recorded."""


@dataclass(frozen=True)
class Run:
    """A run folder.

    Attributes:
        folder: where it is.
    """

    folder: Path

    @property
    def model_path(self) -> Path:
        """The best model, `model.keras`; absent while training has not finished."""
        return self.folder / "model.keras"

    @cached_property
    def record(self) -> Mapping[str, Any]:
        """The content of `record.json`, of the kinds that `record.Record` has."""
        return read_record(self.folder / "record.json")

    @property
    def folds(self) -> int | None:
        """How many folds a cross-validation holds; None for a single training."""
        folds: int | None = self.record.get("folds")
        return folds

    @property
    def is_sweep(self) -> bool:
        """Whether it holds the trials of a sweep."""
        return bool(self.record.get("sweep"))

    @property
    def warning(self) -> str | None:
        """What the run's figures have to be read with: how its split leaks; None where it does not."""
        leaks = self.record.get("leaks")
        return f"the split of '{self.folder.name}' leaks: {leaks['warning']}" if leaks else None

    @cached_property
    def resolved(self) -> Mapping[str, Any]:
        """Every value of the recipe in force, the content of `resolved.json`."""
        return read_json(self.folder / "resolved.json")


def refuse_sweep(run: Run) -> None:
    """Says where the figures and models of a sweep are.

    Raises:
        InputError: where the run is one.
    """
    if run.is_sweep:
        one = run.record.get("best_trial") or "trial-0001"
        raise InputError(f"'{run.folder}' is a sweep and has a model a trial: name one, such as {run.folder / one}.")


def fold_runs(run: Run) -> list[Run]:
    """The folds of a cross-validation, in order; none of a single training."""
    return [Run(run.folder / f"fold-{number}") for number in range(1, (run.folds or 0) + 1)]


def table_of(run: Run, name: str, columns: Sequence[str] = ("id", "split")) -> list[Mapping[str, str]]:
    """Rows of a table that a run left, such as `split.csv`; each has those columns.

    Raises:
        InputError: where it has none, or it is damaged.
    """
    try:
        rows = read_csv(run.folder / name)
    except FileNotFoundError as error:
        raise InputError(f"run '{run.folder}' has no {name}: it has not finished.") from error
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{run.folder / name} cannot be read: {error}.") from error
    bad = next((number for number, row in enumerate(rows, 2) for key in columns if row.get(key) is None), None)
    if bad is not None or not rows:
        raise InputError(
            f"{run.folder / name} is damaged: line {bad or 1} lacks some of the columns {', '.join(columns)}."
        )
    return rows


def check_place(runs: Path, name: str | None) -> None:
    """Finds early, before hours of work, why a run cannot be written there.

    Raises:
        InputError: where the run exists already, or the name is no plain folder name.
        WorkError: where no folder can be made there.
    """
    try:
        with suppress(FileNotFoundError, NotADirectoryError):
            runs.lstat()  # raises of names and paths that are too long
        there = next((folder for folder in (runs, *runs.absolute().parents) if os.path.lexists(folder)), runs)
        if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
            raise WorkError(f"no run folder can be made in '{runs}': '{there}' is no folder that may be written to.")
        if name is not None and not re.fullmatch(r"\w[\w.+-]{0,199}", name):
            raise InputError(f"--name '{name}': use at most 200 letters, digits, '.', '_', '+' and '-'.")
        if name is not None and os.path.lexists(runs / name):
            begun = (runs / name / "record.json").is_file()
            what = f"run '{runs / name}' exists already" if begun else f"'{runs / name}' exists already and is no run"
            raise InputError(f"{what}; choose another --name{'' if begun else ', or remove it'}.")
    except OSError as error:
        raise WorkError(f"no run folder can be made in '{runs}': {error.strerror}.") from error


def new_run(runs: Path, recipe: str, name: str | None, started: datetime) -> Run:
    """Makes an empty run folder, `<recipe>-<UTC time>-<6 hex>` or as named.

    Raises:
        InputError: as `check_place`.
        WorkError: where the folder cannot be made.
    """
    check_place(runs, name)
    stem = re.sub(r"[^\w.+-]", "_", recipe)[:100]
    folder = runs / (name or f"{stem}-{started:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}")
    try:
        folder.mkdir(parents=True, exist_ok=False)
    except OSError as error:
        raise WorkError(f"the run folder '{folder}' cannot be made: {error.strerror}.") from error
    return Run(folder)


def find_run(text: str | None, runs: Path, folds: bool = False) -> Run:
    """The run that the user means: a folder with a `record.json`, that in which a `.keras` or `.onnx` file stands, or
    the newest with a finished model under `runs`.

    Args:
        folds: the newest may be a cross-validation, which has a model a fold.

    Raises:
        InputError: where there is none.
    """
    if text is None:
        return _newest(runs, folds)
    folder = Path(text).parent if text.endswith((".keras", ".onnx")) else Path(text)
    if not (folder / "record.json").is_file():
        raise InputError(f"'{text}' is no run: it holds no record.json. A run is a folder that `btkit run` left.")
    return Run(folder)


def is_run(text: str) -> bool:
    """Whether an argument names a run rather than an image or a folder of images."""
    return (Path(text) / "record.json").is_file()


def _newest(runs: Path, folds: bool) -> Run:
    found = [Run(path.parent) for path in runs.glob("*/record.json")]
    finished = [run for run in found if run.model_path.is_file() or (folds and _cross_validated(run))]
    dated = [(started, run.folder.name, run) for run in finished if (started := _started(run))]
    if not dated:
        raise InputError(f"no finished run under '{runs}'; name one, or make one with `btkit run RECIPE`.")
    return max(dated, key=lambda item: item[:2])[2]


def _cross_validated(run: Run) -> bool:
    try:
        return run.folds is not None and run.record.get("status") == "finished"
    except InputError:
        return False


def _started(run: Run) -> str | None:
    """When a run began; None where its record is damaged, which must not hide the other runs."""
    try:
        return str(run.record["started"])
    except (InputError, KeyError):
        return None


@contextmanager
def locked(run: Run) -> Iterator[None]:
    """Inside, no other process may work in the run folder.

    Raises:
        InputError: where another process is at work there.
        WorkError: where the folder cannot be written.
    """
    with alone(run.folder / "checkpoints" / "lock", run.folder):
        yield


def start_record(run: Run, argv: list[str], seed: int, started: datetime, extra: Mapping[str, Any]) -> None:
    """Writes `record.json` at the start of a run: what is known then, `status` "running"."""
    record = {
        "format": FORMAT,
        "status": "running",
        "argv": argv,
        "seed": seed,
        "started": started.isoformat(timespec="seconds"),
        "ended": None,
        **versions(),
        **extra,
    }
    write_json(run.folder / "record.json", record)


def versions() -> dict[str, Any]:
    """What a result may depend on beside recipe and data: `code` and `packages` of a record."""
    return {"code": commit(), "packages": package_versions()}


def update_record(run: Run, **changes: Any) -> None:
    """Adds to `record.json`."""
    record = {**read_json(run.folder / "record.json"), **changes}
    write_json(run.folder / "record.json", record)


def end_record(run: Run, status: str, **changes: Any) -> None:
    """Marks the run's end; `status` is "finished", "failed" or "interrupted"."""
    update_record(run, status=status, ended=datetime.now(UTC).isoformat(timespec="seconds"), **changes)


def try_to_end_record(run: Run, status: str, reason: str) -> None:
    """The same after a failure. The disk may be what failed: then the record stays at "running" and the first error
    is the one that counts."""
    try:
        end_record(run, status, reason=reason)
    except (BtkitError, OSError):
        return


def save_recipe(run: Run, text: str, resolved: Mapping[str, Any]) -> None:
    """Writes `recipe.toml` as given and `resolved.json`."""
    write_text(run.folder / "recipe.toml", text)
    write_json(run.folder / "resolved.json", resolved)


def package_versions() -> dict[str, str | None]:
    """Installed versions of the packages that can change a result."""
    return {name: installed_version(name) for name in PACKAGES}


def installed_version(name: str) -> str | None:
    """Version of a distribution, or None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def commit() -> dict[str, Any] | None:
    """Commit of the checkout that btkit runs from and whether it is dirty; None where it runs from a wheel."""
    root = Path(__file__).resolve().parents[1]
    if not (root / "setup.cfg").is_file():
        return None
    try:
        head = _git(root, "rev-parse", "HEAD")
        return {"commit": head, "dirty": bool(_git(root, "status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True, timeout=20)
    return done.stdout.strip()
