"""A run's double in MLflow: begun with it, told of each epoch, ended as it ends, and never in its way.

Whatever goes wrong with MLflow is one warning. The run folder stays the truth: what MLflow did not take is taken from
there once more when the run ends.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from braintumor_kit.errors import InputError
from braintumor_kit.files import read_csv, read_json, write_json
from braintumor_kit.interrupts import interrupted, raise_again
from braintumor_kit.recipe.mlflow_table import MlflowTable, Part
from braintumor_kit.runs import Run, fold_runs
from braintumor_kit.tracking.access import address_of, client_of, first_line, manners
from braintumor_kit.tracking.values import figures, parameters, tags

KEPT = "mlflow.json"
"""The file of a run folder that says which MLflow run is its double."""

FILES: Mapping[Part, tuple[str, ...]] = {
    "model": ("model.keras",),
    "metrics": ("metrics.json", "history.csv"),
    "recipe": ("recipe.toml", "resolved.json"),
    "figures": ("figures/*.png",),
    "report": ("report.html", "model_card.md"),
    "explanations": ("explanations/summary.png", "explanations/explanation*.*"),
    "predictions": ("predictions.csv", "split.csv"),
}
"""The files of a run folder that each word of `artifacts` stands for."""

AT_ONCE = 100
"""Parameters, tags or metrics in one request; MLflow takes no more."""

Say = Callable[[str], None]


class Tracker:
    """Tells nobody: what a run without [mlflow] has."""

    def begin(self) -> None:
        """The run has begun, or goes on; its record and resolved recipe are written."""

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        """An epoch, counted from 1, is over."""

    def end(self, status: str) -> None:
        """The run has ended, "finished", "failed" or "interrupted"; its files are written."""


@contextmanager
def tracked(run: Run, table: MlflowTable | None, say: Say, goes_on: bool = False) -> Iterator[Tracker]:
    """Inside, a run has its double in MLflow, which ends as the block does.

    Args:
        table: the recipe's [mlflow]; without it nothing is told.
        say: takes a line for the user.
        goes_on: with the MLflow run that the run folder names, where it names one.
    """
    tracker = Tracker() if table is None else MlflowTracker(run.folder, table, say, goes_on)
    try:
        yield tracker
    except BaseException as error:
        tracker.end("interrupted" if isinstance(error, KeyboardInterrupt) or interrupted() else "failed")
        raise
    tracker.end("finished")


class MlflowTracker(Tracker):
    """Tells MLflow.

    Args:
        folder: of the run.
        goes_on: whether it goes on with the MLflow run that `mlflow.json` names.
    """

    def __init__(self, folder: Path, table: MlflowTable, say: Say, goes_on: bool = False) -> None:
        self._folder, self._table, self._say = folder, table, say
        holder = folder.parent if (folder.parent / "record.json").is_file() else None  # of a fold, the whole
        self._whole = holder
        self._address = address_of(table, (holder or folder).parent)
        self._run_id = _kept_run(folder) if goes_on else None
        self._client: Any = None
        self._epochs: set[int] = set()
        self._begun = self._lost = False

    def begin(self) -> None:
        self._begun = True
        with self._harmless():
            self._open()

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        if not self._lost:
            with self._harmless():
                self._log_epoch(number, values)

    def end(self, status: str) -> None:
        """Logs what is missing, and how it ended."""
        if not self._begun:
            return
        missing: list[tuple[str, Callable[[], None]]] = [("all of it", self._open)]
        try:
            with manners():
                if self._client is None:
                    self._open()
                missing = [*self._rest(status == "finished"), ("that it has ended", lambda: self._close(status))]
                while missing:
                    missing[0][1]()
                    missing.pop(0)
        except Exception as error:
            if status == "finished":
                raise_again()  # where an interruption came, and MLflow made another error of it
            warning = "" if self._lost else "WARNING: "
            self._say(
                f"{warning}not logged to MLflow at {self._address} ({first_line(error)}): "
                f"{', '.join(words for words, _ in missing)}. {self._folder} has it"
            )
        else:
            if self._lost:
                self._say(f"MLflow at {self._address} has taken what was missing there")

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        """Inside, what goes wrong is told once and stops nothing."""
        try:
            with manners():
                yield
        except Exception as error:  # MLflow's own and those of all that it stands on
            raise_again()  # where an interruption came, and MLflow made another error of it
            self._lost = True
            self._say(
                f"WARNING: MLflow at {self._address} takes nothing ({first_line(error)}); training goes on, and what "
                "is missing there is logged at its end if it answers by then"
            )

    # The MLflow run

    def _open(self) -> None:
        """Finds or makes the MLflow run, and logs what is known at the beginning."""
        client = client_of(self._address)
        if self._run_id is None or not _is_there(client, self._run_id):
            self._run_id = self._make(client)
        else:
            client.update_run(self._run_id, status="RUNNING")
            self._epochs = {item.step for item in client.get_metric_history(self._run_id, "loss")}
        run = client.get_run(self._run_id).data
        wanted = parameters(read_json(self._folder / "resolved.json"))
        new = [(name, value) for name, value in wanted.items() if name not in run.params]
        for some in _portions(new):
            client.log_batch(self._run_id, params=[_entity("Param", *pair) for pair in some])
        for pair in tags(self._record(), self._folder.resolve().name).items():
            client.set_tag(self._run_id, *pair)
        self._client = client

    def _make(self, client: Any) -> str:
        known = {} if self._whole is None else {"mlflow.parentRunId": _kept_run(self._whole)}
        name = self._folder.name if self._whole is None else f"{self._whole.name}/{self._folder.name}"
        made = client.create_run(
            _experiment(client, self._table.experiment),
            tags={key: value for key, value in known.items() if value},
            run_name=name,
        )
        run_id = str(made.info.run_id)
        kept = {"tracking_uri": self._address, "experiment_id": str(made.info.experiment_id), "run_id": run_id}
        write_json(self._folder / KEPT, kept)
        return run_id

    def _close(self, status: str) -> None:
        for fold in fold_runs(Run(self._folder)):
            if run_id := _kept_run(fold.folder):  # made while the whole could not be
                self._client.set_tag(run_id, "mlflow.parentRunId", self._run_id)
        for pair in tags(self._record(), self._folder.resolve().name).items():
            self._client.set_tag(self._run_id, *pair)
        if reason := self._record().get("reason"):
            self._client.set_tag(self._run_id, "btkit.reason", str(reason)[:500])
        elif "btkit.reason" in self._client.get_run(self._run_id).data.tags:  # of when it was interrupted
            self._client.delete_tag(self._run_id, "btkit.reason")
        ends = {"finished": "FINISHED", "interrupted": "KILLED"}
        self._client.set_terminated(self._run_id, ends.get(status, "FAILED"))

    def _record(self) -> Mapping[str, Any]:
        return Run(self._folder).record  # read anew: it grows as the run goes on

    # What is logged

    def _rest(self, finished: bool) -> Iterator[tuple[str, Callable[[], None]]]:
        """What MLflow lacks, in words, and what logs it."""
        left = [row for row in self._history() if int(row["epoch"]) not in self._epochs]
        if left:
            yield f"figures of {len(left)} epochs", partial(self._log_epochs, left)
        if finished:
            yield "final figures", self._log_final
            for part in self._table.artifacts:
                yield f"files ({part})", partial(self._log_files, FILES[part])

    def _log_epochs(self, rows: Iterable[Mapping[str, str]]) -> None:
        for row in rows:
            self._log_epoch(int(row["epoch"]), {name: float(row[name]) for name in row if name != "epoch"})

    def _log_final(self) -> None:
        record = self._record()
        found = figures(read_json(self._folder / "metrics.json"))
        found |= {name: float(record[name]) for name in ("best_epoch", "batch_size") if record.get(name)}
        self._log_metrics(found, int(record.get("best_epoch") or 0))

    def _log_epoch(self, number: int, values: Mapping[str, float]) -> None:
        if number not in self._epochs:
            self._log_metrics(values, number)
            self._epochs.add(number)

    def _log_metrics(self, values: Mapping[str, float], step: int) -> None:
        now = time.time_ns() // 1_000_000
        for some in _portions(values.items()):
            self._client.log_batch(
                self._run_id, metrics=[_entity("Metric", name, float(value), now, step) for name, value in some]
            )

    def _log_files(self, patterns: tuple[str, ...]) -> None:
        for pattern in patterns:
            for path in sorted(self._folder.glob(pattern)):
                inside = path.parent.relative_to(self._folder).as_posix()
                self._client.log_artifact(self._run_id, str(path), None if inside == "." else inside)

    def _history(self) -> list[Mapping[str, str]]:
        path = self._folder / "history.csv"
        return read_csv(path) if path.is_file() else []


def _portions(items: Iterable[Any]) -> Iterator[list[Any]]:
    """As many as one request takes, again and again."""
    rest = iter(items)
    while some := list(islice(rest, AT_ONCE)):
        yield some


def _entity(name: str, *values: Any) -> Any:
    from mlflow import entities

    return getattr(entities, name)(*values)


def _experiment(client: Any, name: str) -> str:
    """The experiment's number; it is made where it is missing, if nobody else makes it at that moment."""
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except Exception:
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


def _is_there(client: Any, run_id: str) -> bool:
    """Whether MLflow knows the run still.

    Raises:
        MlflowException: where it cannot be asked.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    return True


def _kept_run(folder: Path) -> str | None:
    """The MLflow run that a run folder names; None where it names none."""
    if not (folder / KEPT).is_file():
        return None
    run_id = read_json(folder / KEPT).get("run_id")
    if not isinstance(run_id, str):
        raise InputError(
            f"{folder / KEPT} is damaged: run_id: it should be a text. Remove it to begin a new one there."
        )
    return run_id
