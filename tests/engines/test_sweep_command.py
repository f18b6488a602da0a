"""`btkit run` with [sweep]: trials, their table and figure, going on, stopping early, and the same over a cluster."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from small_runs import OPTIONS

from braintumor_kit.files import read_json
from braintumor_kit.runs import Run

RATES = (
    *OPTIONS, "--set", "resources.cpus=1", "--set", "training.epochs=2",
    "--set", "sweep.space.training.learning_rate=[1e-4, 1e-3]", "--set", "sweep.space.training.batch_size=[8, 16]",
)  # fmt: skip


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from braintumor_kit.commands.main import run_command_line

    runs = tmp_path_factory.mktemp("sweep")
    assert run_command_line(["run", "resnet_adam", *RATES, "--runs", str(runs), "--name", "sweep"]) == 0
    return runs / "sweep"


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


def test_each_trial_is_a_run_and_stands_in_table_summary_and_figure(swept: Path) -> None:
    table, summary = rows(swept), read_json(swept / "sweep.json")
    assert [row["trial"] for row in table] == [f"trial-000{number}" for number in (1, 2, 3, 4)]
    for row, item in zip(table, summary["trials"], strict=True):
        trial = Run(swept / row["trial"])
        recipe = trial.record["recipe"]
        assert recipe["training"]["learning_rate"] == float(row["training.learning_rate"])
        assert recipe["training"]["batch_size"] == int(row["training.batch_size"])
        assert item["values"] == {key: recipe["training"][key.removeprefix("training.")] for key in item["values"]}
        with (trial.folder / "history.csv").open() as file:
            history = list(csv.DictReader(file))
        best = max(float(epoch["val_accuracy"]) for epoch in history)
        assert float(row["val_accuracy"]) == best == item["val_accuracy"]
        assert (row["status"], row["epochs"]) == ("finished", "2")
        assert trial.model_path.is_file()
    assert len({(row["training.learning_rate"], row["training.batch_size"]) for row in table}) == 4
    best = max(float(row["val_accuracy"]) for row in table)
    chosen = next(row["trial"] for row in table if float(row["val_accuracy"]) == best)
    assert summary["best"] == Run(swept).record["best_trial"] == chosen
    assert summary["selected_on"] == "validation"
    with Image.open(swept / "sweep.png") as figure:
        assert figure.width > 1000


def test_what_is_said_leaves_test_alone(swept: Path, btkit: Callable[..., Any]) -> None:
    ended = btkit("run", "--resume", swept)
    assert ended.status == 0
    assert ended.out.count("finished") == 4
    assert "chosen on validation, which flatters it" in ended.out
    assert "not a medical device" in ended.out
    ended = btkit("run", "--resume", swept, "--json")
    assert json.loads(ended.out)["sweep"] == read_json(swept / "sweep.json")


def test_trials_that_are_done_are_kept_and_the_others_made_again(
    swept: Path, tmp_path: Path, btkit: Callable[..., Any]
) -> None:
    mine = tmp_path / "sweep"
    shutil.copytree(swept, mine)
    shutil.rmtree(mine / "trial-0003")
    before = {number: (mine / f"trial-000{number}" / "model.keras").stat().st_mtime_ns for number in (1, 2, 4)}
    assert btkit("run", "--resume", mine).status == 0
    assert {number: (mine / f"trial-000{number}" / "model.keras").stat().st_mtime_ns for number in (1, 2, 4)} == before
    seconds = {"seconds"}
    assert [{k: v for k, v in row.items() if k not in seconds} for row in rows(mine)] == [
        {k: v for k, v in row.items() if k not in seconds} for row in rows(swept)
    ]
    weights = [Run(folder / "trial-0003").record["results"]["weights"] for folder in (swept, mine)]
    assert weights[0] == weights[1]


def test_it_is_refused_to_go_on_with_another_recipe(swept: Path, tmp_path: Path, btkit: Callable[..., Any]) -> None:
    mine = tmp_path / "sweep"
    shutil.copytree(swept, mine)
    resolved = read_json(mine / "resolved.json")
    resolved["training"]["label_smoothing"] = 0.05
    (mine / "resolved.json").write_text(json.dumps(resolved))
    ended = btkit("run", "--resume", mine)
    assert ended.status == 2
    assert "the recipe in force (resolved.json) is another one" in ended.err


def test_a_value_that_the_recipe_cannot_take_is_told_before_any_training(
    tmp_path: Path, btkit: Callable[..., Any]
) -> None:
    ended = btkit("run", "resnet_adam", *RATES, "--set", "sweep.space.backbone.depth=[18, 19]", "--runs", tmp_path)
    assert ended.status == 2
    assert "with backbone.depth = 19" in ended.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["explain", "evaluate", "report", "audit", "run"])
def test_models_and_figures_are_the_trials_own(
    command: str, swept: Path, tmp_path: Path, btkit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = btkit(command, swept)
    assert ended.status == 2
    best = swept / Run(swept).record["best_trial"]
    assert f"is a sweep and has a model a trial: name one, such as {best}" in ended.err
    assert not list(tmp_path.iterdir())


def test_trials_that_fall_behind_stop(tmp_path: Path, btkit: Callable[..., Any]) -> None:
    """A rate of 1e-30 learns nothing, so its validation loss stays; the first trial's falls below it."""
    asha = ("--set", "sweep.asha.grace_epochs=2", "--set", "sweep.select=val_loss", "--set", "training.epochs=4")
    space = ("--set", "sweep.space.training.learning_rate=[3e-5, 1e-30]", "--set", "training.optimizer=adam")
    ended = btkit("run", "resnet_adam", *OPTIONS, *asha, *space, "--runs", tmp_path, "--name", "sweep")
    assert ended.status == 0, ended.err
    first, second = rows(tmp_path / "sweep")
    assert (first["status"], second["status"]) == ("finished", "stopped"), (first, second)
    assert second["epochs"] == "2"
    assert second["reason"].startswith("stopped after epoch 2")
    record = Run(tmp_path / "sweep" / second["trial"]).record
    assert record["status"] == "stopped"
    assert not (tmp_path / "sweep" / second["trial"] / "checkpoints" / "latest.safetensors").exists()
    assert btkit("run", "--resume", tmp_path / "sweep").status == 0  # what stopped stays so
    assert rows(tmp_path / "sweep")[1]["status"] == "stopped"


def test_a_trial_that_fails_stops_no_other(tmp_path: Path, btkit: Callable[..., Any]) -> None:
    space = ("--set", "sweep.space.training.learning_rate=[1e-3, 1e30]", "--set", "training.epochs=3")
    ended = btkit("run", "resnet_adam", *OPTIONS, *space, "--runs", tmp_path, "--name", "sweep")
    assert ended.status == 0, ended.err
    first, second = rows(tmp_path / "sweep")
    assert (first["status"], second["status"]) == ("finished", "failed")
    assert "not finite" in second["reason"]


def test_a_cluster_that_loses_a_process_leaves_the_same(
    cluster: Any, swept: Path, tmp_path: Path, btkit: Callable[..., Any]
) -> None:
    from test_same_files import kill_when, workers

    mine = tmp_path / "sweep"

    def one_that_trains() -> int | None:
        return next(iter(workers(cluster)), None) if any(mine.glob("trial-*/checkpoints/*")) else None

    killing = kill_when(one_that_trains)
    ended = btkit("run", "resnet_adam", *RATES, "--runs", tmp_path, "--name", "sweep", "--engine", cluster.btkit)
    killing.join()
    assert ended.status == 0, ended.err
    assert "was lost at trial-" in (mine / "log.txt").read_text()
    for name in ("trial-0001", "trial-0002", "trial-0003", "trial-0004"):
        ours, theirs = (Run(folder / name).record["results"] for folder in (mine, swept))
        assert ours["weights"] == theirs["weights"]
        assert (mine / name / "predictions.csv").read_bytes() == (swept / name / "predictions.csv").read_bytes()
    same = [{name: value for name, value in row.items() if name != "seconds"} for row in rows(mine)]
    assert same == [{name: value for name, value in row.items() if name != "seconds"} for row in rows(swept)]
