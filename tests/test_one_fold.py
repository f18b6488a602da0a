"""One fold of a cross-validation, trained alone: what choosing inside of an outer fold is made with."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from braintumor_kit.data.split import make_folds
from braintumor_kit.files import read_csv
from braintumor_kit.recipe.load import load_recipe, load_source
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


def test_settings_are_chosen_inside_of_one_fold(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        '[source]\nname = "phantom"\n[backbone]\nname = "resnet"\n[split]\nmethod = "kfold"\nfold = 1\n'
        "[sweep.space]\ntraining.learning_rate = [1e-4, 1e-3]\n"
    )
    assert load_recipe(recipe).tables.sweep is not None
