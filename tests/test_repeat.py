"""`btkit run RUN`: a run done again from its record alone, and what it says where it comes to something else."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from braintumor_kit.files import read_json, write_json
from braintumor_kit.workflows.results import differences

pytestmark = pytest.mark.usefixtures("two_layers")

SMALL = [
    item
    for value in (
        "source.patients=12", "source.size=64", "pixels.image_size=32", "training.epochs=2", "training.batch_size=8",
        "training.precision=float32", "backbone.name=two_layers", "explain=[]",
    )
    for item in ("--set", value)
]  # fmt: skip


@pytest.fixture(scope="module")
def finished(two_layers: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from braintumor_kit.commands.main import run_command_line

    runs = tmp_path_factory.mktemp("runs")
    assert run_command_line(["run", "resnet_adam", *SMALL, "--runs", str(runs), "--name", "first"]) == 0
    return runs / "first"


def alone(finished: Path, folder: Path, change: Callable[[dict[str, Any]], None] = lambda record: None) -> Path:
    """The record of a run and nothing else of it, with a change."""
    folder.mkdir()
    record = read_json(finished / "record.json")
    change(record)
    write_json(folder / "record.json", record)
    return folder


@pytest.mark.parametrize("named", ["folder", "record.json"])
def test_the_record_suffices(named: str, finished: Path, tmp_path: Path, btkit: Callable) -> None:
    before = alone(finished, tmp_path / "before")
    target = before if named == "folder" else before / "record.json"
    ended = btkit("run", target, "--runs", tmp_path, "--name", "again")
    assert ended.status == 0
    assert f"It repeats {before}: the same data, split, history, weights and predictions, bit for bit." in ended.out
    for name in ("resolved.json", "split.csv", "predictions.csv", "metrics.json"):
        assert (tmp_path / "again" / name).read_bytes() == (finished / name).read_bytes()
    repeats = read_json(tmp_path / "again" / "record.json")["repeats"]
    assert repeats["same"] is True
    assert repeats["first_difference"] is None
    assert [path.name for path in before.iterdir()] == ["record.json"]


def test_without_a_name_it_is_called_after_the_recipe(finished: Path, tmp_path: Path, btkit: Callable) -> None:
    assert btkit("run", finished, "--runs", tmp_path).status == 0
    (again,) = tmp_path.iterdir()
    assert again.name.startswith("resnet_adam-")
    text = (again / "recipe.toml").read_text()
    assert btkit("recipe", "check", again / "recipe.toml").status == 0
    assert "patients = 12" in text


def test_what_differs_first_is_named_and_what_may_be_why(finished: Path, tmp_path: Path, btkit: Callable) -> None:
    def other(record: dict[str, Any]) -> None:
        record["results"]["history"][1]["val_loss"] += 1e-7
        record["results"]["weights"] = "0" * 64
        record["packages"]["numpy"] = "1.0"

    before = alone(finished, tmp_path / "before", other)
    ended = btkit("run", before, "--runs", tmp_path, "--name", "again")
    assert ended.status == 1
    assert f"It does not repeat {before}: epoch 2: val_loss was " in ended.out
    assert "numpy was 1.0 and is" in ended.out
    repeats = read_json(tmp_path / "again" / "record.json")["repeats"]
    assert repeats["same"] is False
    assert repeats["first_difference"].startswith("epoch 2: val_loss was ")


def test_what_a_recipe_of_another_seed_comes_to_differs(finished: Path, tmp_path: Path, btkit: Callable) -> None:
    """Nothing is edited but the seed: the comparison sees what training really came to."""
    before = alone(finished, tmp_path / "before", lambda record: record["recipe"].update(seed=8))
    ended = btkit("run", before, "--runs", tmp_path, "--name", "again")
    assert ended.status == 1
    assert "the digest of the " in read_json(tmp_path / "again" / "record.json")["repeats"]["first_difference"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": "interrupted"}, "has not finished: there is nothing to compare with. Go on with --resume."),
        ({"results": None}, "is of a btkit that did not keep recipe and results there"),
        ({"recipe": {"seed": "x"}}, "seed: "),
    ],
)
def test_what_cannot_be_repeated(
    change: dict[str, Any], message: str, finished: Path, tmp_path: Path, btkit: Callable
) -> None:
    before = alone(finished, tmp_path / "before", lambda record: record.update(change))
    ended = btkit("run", before, "--runs", tmp_path / "runs")
    assert ended.status == 2
    assert message in " ".join(ended.err.split())
    assert not (tmp_path / "runs").exists()


def test_a_run_is_repeated_as_it_was(finished: Path, btkit: Callable) -> None:
    ended = btkit("run", finished, "--set", "seed=1")
    assert ended.status == 2
    assert "it is repeated as it was" in ended.err


def test_the_order_is_that_in_which_a_run_comes_to_it() -> None:
    history = [{"epoch": 1.0, "loss": 0.5}, {"epoch": 2.0, "loss": 0.25}]
    before: dict[str, Any] = {
        "data_digest": "a" * 64,
        "split_digest": "b" * 64,
        "results": {"history": history, "weights": "c", "predictions": "d", "metrics": {"test": {"accuracy": 0.5}}},
    }
    assert list(differences(before, before)) == []
    now = {
        "data_digest": "e" * 64,
        "split_digest": "b" * 64,
        "results": {"history": history[:1], "weights": "f", "predictions": "g", "metrics": {"test": {"accuracy": 1.0}}},
    }
    assert list(differences(before, now)) == [
        "the digest of the data was aaaaaaaaaaaa and is eeeeeeeeeeee",
        "there were 2 epochs and are 1",
        "the digest of the weights was c and is f",
        "accuracy on test was 0.5 and is 1.0",
        "the digest of predictions.csv was d and is g",
    ]
    folds = [{"results": {"folds": [before["results"], item["results"]]}} for item in (before, now)]
    assert next(differences(*folds)) == "fold 2: there were 2 epochs and are 1"


def test_a_fold_alone_is_no_run(finished: Path, tmp_path: Path, btkit: Callable) -> None:
    def fold(record: dict[str, Any]) -> None:
        record["recipe"]["split"] = {"method": "kfold", "folds": 3}

    ended = btkit("run", alone(finished, tmp_path / "fold-1", fold), "--runs", tmp_path / "runs")
    assert ended.status == 2
    assert "is a fold: repeat the whole cross-validation" in ended.err
    shutil.rmtree(tmp_path / "fold-1")
