"""The way into an MLflow folder or server: nothing but what the recipe names is asked, and nobody waits long."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from braintumor_kit.errors import InputError
from braintumor_kit.recipe.mlflow_table import MlflowTable

if TYPE_CHECKING:
    from mlflow import MlflowClient

MANNERS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # MLflow tells its makers of its use unless it is asked not to
    "MLFLOW_ALLOW_FILE_STORE": "true",  # MLflow 3 refuses folders otherwise: they get no new features, and need none
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # of minutes by default, in which a training would stand still
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
"""MLflow's settings while btkit talks to it, where the user has none."""


DATABASE = re.compile(r"(sqlite|mysql|postgresql|mssql)[+\w]*:")
"""How addresses begin that mlflow-skinny has nothing to read with."""


def require_mlflow() -> None:
    """Raises an InputError that says how to get the extra where it is missing."""
    if find_spec("mlflow") is None:
        raise InputError("[mlflow] needs the package mlflow-skinny: pip install 'braintumor-kit[mlflow]'.")


def check_tracking(table: MlflowTable | None, runs: Path) -> None:
    """Finds before a training why nothing could be logged. Whether a server answers is not asked: it may later.

    Args:
        runs: the folder of runs.

    Raises:
        InputError: where the package is missing, or the address is none that it knows.
    """
    if table is None:
        return
    require_mlflow()
    address = address_of(table, runs)
    try:
        with manners():
            client_of(address)
    except Exception as error:  # MLflow's own, SQLAlchemy's and whatever a scheme's package raises
        whole = " Databases need all of MLflow: pip install mlflow." if DATABASE.match(address) else ""
        raise InputError(f"[mlflow] tracking_uri '{address}' cannot be used: {first_line(error)}.{whole}") from error


def address_of(table: MlflowTable, runs: Path) -> str:
    """Where a run is logged, as MLflow takes it.

    Args:
        runs: the folder of runs, which has `mlruns` inside unless the recipe says otherwise.
    """
    said = table.tracking_uri
    if said is not None and not os.path.isabs(said):
        return said
    return (Path(said) if said else runs.absolute() / "mlruns").as_uri()


def client_of(address: str) -> "MlflowClient":
    """MLflow's client of an address; to be called, and used, within `manners`."""
    from mlflow import MlflowClient  # an extra: not everyone has it

    return MlflowClient(tracking_uri=address, registry_uri=address)


@contextmanager
def manners() -> Iterator[None]:
    """Inside, MLflow keeps to `MANNERS`; the environment is then what it was."""
    added = {name: value for name, value in MANNERS.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def first_line(error: Exception) -> str:
    """What went wrong, on one line: MLflow and its parts append pages of advice."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    line = lines[0].rstrip(".")
    return line if len(line) <= 200 else f"{line[:200]}…"
