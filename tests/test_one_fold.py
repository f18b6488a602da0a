"""One fold of a cross-validation, trained alone: what choosing inside of an outer fold is made with."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from braintumor_kit.data.split import make_folds
from braintumor_kit.files import read_csv
from braintumor_kit.recipe.load import load_source
from braintumor_kit.recipe.tables import SplitTable

pytestmark = pytest.mark.usefixtures("two_layers")

SMALL = (
    "--set=source.patients=24", "--set=source.size=64", "--set=pixels.image_size=64", "--set=training.epochs=1",
    "--set=training.precision=float32", "--set=split.method=kfold", "--set=split.folds=3", "--set=split.fold=2",
    "--set=explain=[]", "--set=report=false", "--set=backbone.name=two_layers",
)  # fmt: skip


def test_the_run_is_that_fold_and_no_other(tmp_path: Path, btkit: Callable) -> None:
    assert btkit("run", "resnet_adam", *SMALL, "--runs", str(tmp_path), "--name", "fold").status == 0
    run = tmp_path / "fold"
    assert not list(run.glob("fold-*"))
    rows = read_csv(run / "split.csv")
    samples = list(load_source("phantom", ["source.patients=24", "source.size=64"]).make().samples())
    settings = SplitTable.model_validate({"method": "kfold", "folds": 3})
    wanted = make_folds(samples, settings, json.loads((run / "record.json").read_text())["seed"])
    assert {row["id"]: row["split"] for row in rows} == dict(
        zip((sample.id for sample in samples), wanted[1], strict=True)
    )
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["test"]["n"] == wanted[1].count("test")
    assert "folds" not in metrics


def test_it_is_repeated_and_reported_as_one_fold(tmp_path: Path, btkit: Callable) -> None:
    shown = (*SMALL, "--set=report=true")
    assert btkit("run", "resnet_adam", *shown, "--runs", tmp_path, "--name", "fold").status == 0
    assert "(fold 2 of 3 alone)" in (tmp_path / "fold" / "model_card.md").read_text()
    ended = btkit("run", tmp_path / "fold", "--runs", tmp_path, "--name", "again")
    assert ended.status == 0, ended.err


def test_settings_are_chosen_inside_of_one_fold(tmp_path: Path, btkit: Callable) -> None:
    space = '--set=sweep.space={"training.learning_rate" = [1e-4, 1e-3]}'
    ended = btkit("run", "resnet_adam", *SMALL, space, "--runs", tmp_path, "--name", "sweep")
    assert ended.status == 0, ended.err
    trials = [tmp_path / "sweep" / f"trial-000{number}" for number in (1, 2)]
    splits = [read_csv(trial / "split.csv") for trial in trials]
    assert splits[0] == splits[1]
    assert len(read_csv(tmp_path / "sweep" / "sweep.csv")) == 2
