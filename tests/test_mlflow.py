"""A run's double in MLflow: what the local store then holds, how it ends, and that nothing of it stops a training."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from mlflow import MlflowClient
from small_runs import TRAINING

from braintumor_kit import __version__
from braintumor_kit.commands.main import run_command_line
from braintumor_kit.errors import InputError, WorkError
from braintumor_kit.files import read_csv, write_csv, write_json, write_text
from braintumor_kit.recipe.mlflow_table import MlflowTable
from braintumor_kit.runs import Run, end_record, start_record
from braintumor_kit.tracking import access, tracker
from braintumor_kit.tracking.access import MANNERS, address_of, check_tracking
from braintumor_kit.tracking.tracker import tracked
from braintumor_kit.tracking.values import figures, parameters, tags
from braintumor_kit.workflows import train

SMALL = ("--plugins", str(Path(__file__).parent / "small_plugins"))
SETS = [*(value for value in TRAINING if not value.startswith(("backbone", "explain"))), "backbone.name=two_layers",
        "training.epochs=2", "explain=[]"]  # fmt: skip
OPTIONS = [item for value in SETS for item in ("--set", value)]
RECIPES = Path(__file__).resolve().parents[1] / "recipes"
NOTICE = "Research use only, not a medical device."


@pytest.fixture(autouse=True)
def store(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], MlflowClient]:
    """A client of MLflow's own on a folder of runs; what a session has set elsewhere is not seen."""
    for name in MANNERS:
        monkeypatch.delenv(name, raising=False)

    def client(runs: Path) -> MlflowClient:
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        try:
            return MlflowClient((runs / "mlruns").as_uri())
        finally:
            monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")

    return client


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


# From a recipe to the store


class Stopped(NamedTuple):
    """A run, and what MLflow had of it when it was interrupted."""

    folder: Path
    kept: dict[str, Any]
    status: str
    epochs: list[int]
    files: list[Any]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Stopped:
    """A run of two epochs with [mlflow], interrupted in the second and gone on with; not to be changed."""
    runs = tmp_path_factory.mktemp("runs")
    sets = [
        "--set",
        "mlflow.experiment=phantoms",
        "--set",
        "mlflow.artifacts=['model', 'metrics', 'recipe', 'figures']",
    ]
    arguments = [*SMALL, "run", "resnet_adam", *OPTIONS, *sets, "--runs", str(runs), "--name", "whole"]
    line = train._epoch_line
    with pytest.MonkeyPatch.context() as patch:

        def stop(row: Any) -> str:
            if row.epoch == 2:
                raise KeyboardInterrupt
            return line(row)

        patch.setattr(train, "_epoch_line", stop)
        assert run_command_line(arguments) == 130
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        client, kept = MlflowClient((runs / "mlruns").as_uri()), load(runs / "whole" / "mlflow.json")
        epochs = [item.step for item in client.get_metric_history(kept["run_id"], "loss")]
        found = client.get_run(kept["run_id"])
        assert found.data.tags["btkit.reason"] == "KeyboardInterrupt: "
        before = Stopped(runs / "whole", kept, found.info.status, epochs, client.list_artifacts(kept["run_id"]))
    assert run_command_line([*SMALL, "run", "--resume", str(runs / "whole")]) == 0
    return before


@pytest.fixture(scope="module")
def finished(stopped: Stopped) -> Path:
    """The folder of the same."""
    return stopped.folder


def test_the_local_store_holds_parameters_metrics_and_files(finished: Path) -> None:
    """Read from MLflow's files, without MLflow."""
    kept = load(finished / "mlflow.json")
    place = finished.parent / "mlruns" / kept["experiment_id"]
    assert kept["tracking_uri"] == (finished.parent / "mlruns").as_uri()
    assert yaml.safe_load((place / "meta.yaml").read_text())["name"] == "phantoms"
    place /= kept["run_id"]
    said = {path.name: path.read_text() for path in (place / "params").iterdir()}
    expected = {
        "seed": "7", "source.name": "phantom", "source.patients": "12", "backbone.name": "two_layers",
        "report": "false",
        "training.optimizer": "adam", "training.epochs": "2", "training.learning_rate": "0.001",
        "callbacks.reduce_lr_on_plateau.patience": "2", "augment.rotate": "15.0", "mlflow.experiment": "phantoms",
    }  # fmt: skip
    resolved = load(finished / "resolved.json")
    expected["seed"], expected["augment.rotate"] = str(resolved["seed"]), str(resolved["augment"]["rotate"])
    expected["callbacks.reduce_lr_on_plateau.patience"] = str(resolved["callbacks"]["reduce_lr_on_plateau"]["patience"])
    assert {name: said[name] for name in expected} == expected
    rows = read_csv(finished / "history.csv")
    assert float((place / "metrics" / "images_per_second").read_text().split()[1]) > 0
    for name in ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"):
        lines = [line.split() for line in (place / "metrics" / name).read_text().splitlines()]
        assert [(float(value), int(step)) for _, value, step in lines] == [
            (float(row[name]), number) for number, row in enumerate(rows, 1)
        ]
    files = {path.relative_to(place / "artifacts").as_posix() for path in place.rglob("artifacts/**/*.*")}
    assert files == {
        "model.keras", "metrics.json", "history.csv", "recipe.toml", "resolved.json", "figures/confusion_matrix.png",
        "figures/learning_curves.png", "figures/reliability.png", "figures/risk_coverage.png",
        "figures/sample_sheet.png",
    }  # fmt: skip
    for name in files:
        assert (place / "artifacts" / name).read_bytes() == (finished / name).read_bytes()


def test_mlflow_s_own_client_reads_it(finished: Path, store: Callable[[Path], MlflowClient]) -> None:
    client = store(finished.parent)
    run = client.get_run(load(finished / "mlflow.json")["run_id"])
    assert (run.info.status, run.info.run_name) == ("FINISHED", "whole")
    record, metrics = load(finished / "record.json"), load(finished / "metrics.json")
    assert {name: run.data.tags[name] for name in run.data.tags if name.startswith(("btkit", "mlflow.note"))} == {
        "btkit.notice": NOTICE, "mlflow.note.content": NOTICE, "btkit.run": "whole", "btkit.recipe": "resnet_adam",
        "btkit.version": __version__, "btkit.dirty": json.dumps(record["code"]["dirty"]), "btkit.precision": "float32",
        "btkit.recipe_digest": record["recipe_digest"], "btkit.data_digest": record["data_digest"],
        "btkit.split_digest": record["split_digest"], "btkit.reported_on": "test",
    }  # fmt: skip
    assert run.data.tags["mlflow.source.git.commit"] == record["code"]["commit"]
    test = metrics["test"]
    assert {name: value for name, value in run.data.metrics.items() if name.startswith("test.acc")} == {
        "test.accuracy": test["accuracy"], "test.accuracy_ci_low": test["accuracy_ci"][0],
        "test.accuracy_ci_high": test["accuracy_ci"][1],
    }  # fmt: skip
    assert run.data.metrics["test.per_class.glioma.f1"] == test["per_class"]["glioma"]["f1"]
    assert run.data.metrics["test.by_group.accuracy"] == test["by_group"]["accuracy"]
    assert run.data.metrics["best_epoch"] == record["best_epoch"]
    history = client.get_metric_history(run.info.run_id, "test.accuracy")
    assert [item.step for item in history] == [record["best_epoch"]]


def test_an_interrupted_run_is_killed_and_goes_on_as_the_same(
    stopped: Stopped, store: Callable[[Path], MlflowClient]
) -> None:
    assert (stopped.status, stopped.epochs, stopped.files) == ("KILLED", [1, 2], [])
    assert load(stopped.folder / "mlflow.json") == stopped.kept
    client = store(stopped.folder.parent)
    run = client.get_run(stopped.kept["run_id"])
    assert run.info.status == "FINISHED"
    assert "btkit.reason" not in run.data.tags
    assert [item.step for item in client.get_metric_history(run.info.run_id, "loss")] == [1, 2]
    assert len(client.search_runs([stopped.kept["experiment_id"]])) == 1


# Runs that are only folders


def begun(folder: Path, **extra: Any) -> Run:
    """A run as it stands before its first epoch."""
    from datetime import UTC, datetime

    folder.mkdir(parents=True)
    run = Run(folder)
    write_json(folder / "resolved.json", {"seed": 7, "training": {"epochs": 3}})
    write_csv(folder / "history.csv", ("epoch", "loss"), [])
    start_record(run, ["btkit", "run"], 7, datetime.now(UTC), {"recipe_name": "r", **extra})
    return run


def ended(run: Run, epochs: int) -> None:
    write_csv(run.folder / "history.csv", ("epoch", "loss"), [(n, 1 / n) for n in range(1, epochs + 1)])
    write_json(run.folder / "metrics.json", {"test": {"accuracy": 0.5}})
    end_record(run, "finished")


def losses(client: MlflowClient, run: Run) -> list[tuple[int, float]]:
    history = client.get_metric_history(load(run.folder / "mlflow.json")["run_id"], "loss")
    return [(item.step, item.value) for item in history]


TABLE = MlflowTable(artifacts=("metrics",))
HALF = [(1, 1.0), (2, 0.5)]


def test_folds_are_nested(tmp_path: Path, store: Callable[[Path], MlflowClient]) -> None:
    said: list[str] = []
    whole = begun(tmp_path / "cv", folds=2)
    with tracked(whole, TABLE, said.append, True) as outer:
        outer.begin()
        for number in (1, 2):
            fold = begun(whole.folder / f"fold-{number}")
            with tracked(fold, TABLE, said.append) as inner:
                inner.begin()
                inner.epoch(1, {"loss": 1.0})
                ended(fold, 1)
        ended(whole, 0)
    client, parent = store(tmp_path), load(whole.folder / "mlflow.json")
    runs = {run.info.run_name: run for run in client.search_runs([parent["experiment_id"]])}
    assert set(runs) == {"cv", "cv/fold-1", "cv/fold-2"}
    assert {runs[name].data.tags.get("mlflow.parentRunId") for name in ("cv/fold-1", "cv/fold-2")} == {parent["run_id"]}
    assert "mlflow.parentRunId" not in runs["cv"].data.tags
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert said == []
    assert not (whole.folder / "mlruns").exists()


def test_a_failed_run_says_so(tmp_path: Path, store: Callable[[Path], MlflowClient]) -> None:
    run = begun(tmp_path / "r")
    with pytest.raises(WorkError), tracked(run, TABLE, print) as told:  # noqa: PT012 (it fails in the middle)
        told.begin()
        end_record(run, "failed", reason="WorkError: the loss is not finite")
        raise WorkError("the loss is not finite")
    found = store(tmp_path).get_run(load(run.folder / "mlflow.json")["run_id"])
    assert (found.info.status, found.data.tags["btkit.reason"]) == ("FAILED", "WorkError: the loss is not finite")


def test_a_dead_server_is_one_warning_and_costs_no_training(tmp_path: Path) -> None:
    said: list[str] = []
    run = begun(tmp_path / "r")
    with tracked(run, MlflowTable(tracking_uri="http://127.0.0.1:9"), said.append) as told:
        told.begin()
        for number in (1, 2):
            told.epoch(number, {"loss": 1.0})
        ended(run, 2)
    assert len(said) == 2
    assert re.fullmatch(
        r"WARNING: MLflow at http://127\.0\.0\.1:9 takes nothing \(.+\); training goes on, and what is missing there "
        r"is logged at its end if it answers by then",
        said[0],
    )
    assert re.fullmatch(
        rf"not logged to MLflow at http://127\.0\.0\.1:9 \(.+\): all of it\. {run.folder} has it", said[1]
    )
    assert not (run.folder / "mlflow.json").exists()


@pytest.fixture
def shaky(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """MLflow refuses what stands in the list."""
    refused: list[str] = []
    real = access.client_of

    class Shaky:
        def __init__(self, client: MlflowClient) -> None:
            self._client = client

        def __getattr__(self, name: str) -> Any:
            if name in refused:
                raise OSError("the server is away")
            return getattr(self._client, name)

    monkeypatch.setattr(tracker, "client_of", lambda address: Shaky(real(address)))
    return refused


def test_what_a_server_missed_is_logged_when_it_is_back(
    tmp_path: Path, shaky: list[str], store: Callable[[Path], MlflowClient]
) -> None:
    said: list[str] = []
    run = begun(tmp_path / "r")
    with tracked(run, TABLE, said.append) as told:
        told.begin()
        told.epoch(1, {"loss": 1.0})
        shaky.append("log_batch")
        told.epoch(2, {"loss": 0.5})
        ended(run, 2)
        shaky.clear()
    assert losses(store(tmp_path), run) == HALF
    address = (tmp_path / "mlruns").as_uri()
    assert said == [
        f"WARNING: MLflow at {address} takes nothing (the server is away); training goes on, and what is missing there "
        "is logged at its end if it answers by then",
        f"MLflow at {address} has taken what was missing there",
    ]


def test_what_is_not_logged_is_named(tmp_path: Path, shaky: list[str]) -> None:
    said: list[str] = []
    run = begun(tmp_path / "r")
    with tracked(run, TABLE, said.append) as told:
        told.begin()
        ended(run, 2)
        shaky.append("log_artifact")
    assert said == [
        f"WARNING: not logged to MLflow at {(tmp_path / 'mlruns').as_uri()} (the server is away): files (metrics), "
        f"that it has ended. {run.folder} has it"
    ]


def test_a_run_that_goes_on_logs_no_epoch_twice(tmp_path: Path, store: Callable[[Path], MlflowClient]) -> None:
    run = begun(tmp_path / "r")
    for goes_on in (False, True):
        with tracked(run, TABLE, print, goes_on) as told:
            told.begin()
            told.epoch(1, {"loss": 1.0})
            ended(run, 2)
    assert losses(store(tmp_path), run) == HALF


def test_a_run_that_begins_anew_and_one_whose_double_is_gone_have_another(
    tmp_path: Path, store: Callable[[Path], MlflowClient]
) -> None:
    run, found = begun(tmp_path / "r"), []
    for goes_on, removed in ((False, False), (False, False), (True, True)):
        if removed:
            kept = load(run.folder / "mlflow.json")
            shutil.rmtree(tmp_path / "mlruns" / kept["experiment_id"] / kept["run_id"])
        with tracked(run, TABLE, print, goes_on) as told:
            told.begin()
            ended(run, 2)
        found.append(load(run.folder / "mlflow.json")["run_id"])
        assert losses(store(tmp_path), run) == HALF
    assert len(set(found)) == 3


# What is flattened


def test_values_are_flat_and_short() -> None:
    resolved = {"a": {"b": None, "c": True, "d": [1, 2]}, "e": [{"f": "x"}, {"f": 1e-4}], "g": "y" * 600}
    assert parameters(resolved) == {
        "a.c": "true", "a.d": "[1, 2]", "e.0.f": "x", "e.1.f": "0.0001", "g": "y" * 499 + "…",
    }  # fmt: skip
    metrics = {
        "train": None,
        "test": {"n": 4, "f": 0.5, "f_ci": [0.25, 0.75], "labels": ["a"], "confusion_matrix": [[1, 2], [3, 4]],
                 "per_class": {"a/b": {"f1": 1.0}, "a:b": {"f1": 0.5}}, "interval_over": "patients"},
        "folds": [{"f": 1.0}], "over_folds": {"f": {"mean": 0.5, "sd": 0.25}}, "ok": True,
    }  # fmt: skip
    assert figures(metrics) == {
        "test.n": 4.0, "test.f": 0.5, "test.f_ci_low": 0.25, "test.f_ci_high": 0.75, "test.per_class.a_b.f1": 1.0,
        "test.per_class.a_b.f1_": 0.5, "over_folds.f.mean": 0.5, "over_folds.f.sd": 0.25,
    }  # fmt: skip
    record = {"leaks": {"warning": "2 patients"}, "resumed": [{"changes": ["keras was 1 and is 2"]}], "code": None}
    assert tags(record, "r") == {
        "mlflow.source.type": "LOCAL", "mlflow.note.content": NOTICE, "btkit.notice": NOTICE, "btkit.run": "r",
        "btkit.leaks": "2 patients", "btkit.changes": '["keras was 1 and is 2"]',
    }  # fmt: skip


# What is refused before a training


def test_a_missing_package_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    check_tracking(None, tmp_path)
    monkeypatch.setattr(access, "find_spec", {"mlflow": None}.__getitem__)
    with pytest.raises(InputError) as caught:
        check_tracking(MlflowTable(), tmp_path)
    assert str(caught.value) == "[mlflow] needs the package mlflow-skinny: pip install 'braintumor-kit[mlflow]'."


def test_an_address_that_mlflow_does_not_know_is_told(btkit: Callable[..., Any], tmp_path: Path) -> None:
    done = btkit(*SMALL, "run", "resnet_adam", *OPTIONS, "--set", "mlflow.tracking_uri=odd://x", "--runs", tmp_path)
    assert done.status == 2
    assert done.err.startswith("btkit: [mlflow] tracking_uri 'odd://x' cannot be used: ")
    assert done.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_password_in_an_address_is_refused(btkit: Callable[..., Any]) -> None:
    done = btkit("recipe", "check", "resnet_adam", "--set", "mlflow.tracking_uri=https://me:secret@host/")
    assert done.status == 2
    assert done.err.splitlines()[1] == (
        "  --set: [mlflow] tracking_uri: holds a user's name or password, which the run's record would keep: leave it "
        "out, and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
    )
    assert "secret" not in done.err


def test_where_it_is_logged(tmp_path: Path, btkit: Callable[..., Any]) -> None:
    assert address_of(MlflowTable(), tmp_path) == f"{tmp_path.as_uri()}/mlruns"
    assert address_of(MlflowTable(tracking_uri="https://host:5000"), tmp_path) == "https://host:5000"
    assert address_of(MlflowTable(tracking_uri="/a/b c"), tmp_path) == "file:///a/b%20c"
    recipe = tmp_path / "mine.toml"
    write_text(recipe, f'extends = "{RECIPES}/resnet_adam.toml"\n[mlflow]\ntracking_uri = "logged"\n')
    shown = json.loads(btkit("recipe", "show", recipe, "--json").out)
    assert shown["mlflow"]["tracking_uri"] == str(tmp_path / "logged")


def test_nothing_but_the_store_is_asked(tmp_path: Path) -> None:
    """MLflow's telemetry is off, the environment is left as it was, and no network is asked."""
    script = (
        "import os, sys, socket\n"
        "def refuse(*args, **kwargs): raise AssertionError('a network was asked')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from pathlib import Path\n"
        "from braintumor_kit.recipe.mlflow_table import MlflowTable\n"
        "from braintumor_kit.tracking.access import check_tracking, manners, client_of, address_of\n"
        "before = dict(os.environ)\n"
        "check_tracking(MlflowTable(), Path())\n"
        "assert dict(os.environ) == before\n"
        "with manners():\n"
        "    client = client_of(address_of(MlflowTable(), Path()))\n"
        "    client.create_run(client.create_experiment('e'))\n"
        "from mlflow.telemetry import get_telemetry_client\n"
        "print(get_telemetry_client(), 'tensorflow' in sys.modules)\n"
    )
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "error::FutureWarning", "-c", script], cwd=tmp_path, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "None False\n"), done.stderr
