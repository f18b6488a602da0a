"""A cross-validation from end to end: its folder, its pooled figures, and going on where it was interrupted."""

import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from heads import add_heads, head, save
from sklearn import metrics as sk
from small_runs import copy_run

from braintumor_kit.commands.main import run_command_line
from braintumor_kit.contracts import WorkError
from braintumor_kit.data.split import make_folds
from braintumor_kit.files import read_csv
from braintumor_kit.recipe.load import load_source
from braintumor_kit.recipe.tables import SplitTable
from braintumor_kit.runs import Run
from braintumor_kit.workflows import fold_work, part

pytestmark = pytest.mark.usefixtures("two_layers")

SMALL = (
    "--set=source.patients=24", "--set=source.size=64", "--set=pixels.image_size=64", "--set=training.epochs=1",
    "--set=training.precision=float32", "--set=split.method=kfold", "--set=split.folds=3", "--set=explain=[]",
    "--set=report=false", "--set=backbone.name=two_layers",
)  # fmt: skip
FOLDS = ("fold-1", "fold-2", "fold-3")
CLASSES = ("glioma", "meningioma", "notumor", "pituitary")


@pytest.fixture(scope="module")
def finished(two_layers: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 patients of 4 slices in three folds; not to be changed."""
    runs = tmp_path_factory.mktemp("runs")
    assert run_command_line(["run", "resnet_adam", *SMALL, "--runs", str(runs), "--name", "folds"]) == 0
    return runs / "folds"


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**load(path), **values}))


def files_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of change of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_folder_holds_the_folds_and_the_pooled_figures(finished: Path) -> None:
    single = {
        "recipe.toml", "resolved.json", "record.json", "split.csv", "history.csv", "model.keras", "metrics.json",
        "predictions.csv", "log.txt", "log.jsonl", "figures/learning_curves.png",
        "figures/confusion_matrix.png", "figures/reliability.png", "figures/sample_sheet.png",
    }  # fmt: skip
    top = {
        "recipe.toml", "resolved.json", "record.json", "split.csv", "metrics.json", "predictions.csv",
        "figures/confusion_matrix.png", "figures/reliability.png",
    }  # fmt: skip
    files = set(files_of(finished))
    assert files >= top | {f"{fold}/{name}" for fold in FOLDS for name in single}
    assert not files & {"model.keras", "history.csv"}  # there is none of the whole
    record = load(finished / "record.json")
    assert (record["status"], record["folds"], record["format"], record["samples"]) == ("finished", 3, 1, 96)
    assert record["classes"] == list(CLASSES)
    assert record["leaks"] is None
    assert [load(finished / fold / "record.json")["status"] for fold in FOLDS] == ["finished"] * 3
    digests = [load(finished / fold / "record.json")["split_digest"] for fold in FOLDS]
    assert record["split_digests"] == digests
    assert len(set(digests)) == 3


def test_every_slice_is_tested_by_one_fold_and_no_patient_by_two(finished: Path) -> None:
    rows = read_csv(finished / "split.csv")
    assert list(rows[0]) == ["id", "label", "group", "split", "fold"]
    assert len(rows) == len({row["id"] for row in rows}) == 96
    assert len({(row["group"], row["fold"]) for row in rows}) == len({row["group"] for row in rows}) == 24
    fold_of = {row["id"]: row["fold"] for row in rows}
    for number, fold in enumerate(FOLDS, start=1):
        inner = read_csv(finished / fold / "split.csv")
        assert {row["id"] for row in inner if row["split"] == "test"} == {
            name for name, tested in fold_of.items() if tested == str(number)
        }
        assert len({(row["group"], row["split"]) for row in inner}) == 24


def test_pooled_predictions_are_those_of_the_fold_that_tested(finished: Path) -> None:
    pooled = read_csv(finished / "predictions.csv")
    assert len(pooled) == len({row["id"] for row in pooled}) == 96
    assert {row["split"] for row in pooled} == {"test"}
    fold_of = {row["id"]: row["fold"] for row in read_csv(finished / "split.csv")}
    of_fold = {
        (number, row["id"]): row
        for number, fold in enumerate(FOLDS, start=1)
        for row in read_csv(finished / fold / "predictions.csv")
    }
    for row in pooled:
        assert row["fold"] == fold_of[row["id"]]
        own = of_fold[int(row["fold"]), row["id"]]
        assert own["split"] == "test"
        assert {name: row[name] for name in own} == dict(own)


def test_the_pool_says_how_many_tumours_are_found(finished: Path) -> None:
    rows = [row for row in read_csv(finished / "predictions.csv") if row["label"] != "notumor"]
    found = load(finished / "metrics.json")["detection"]["tumours"]
    assert found["called_tumour"] == pytest.approx(np.mean([row["predicted"] != "notumor" for row in rows]))


def test_pooled_figures_follow_from_the_pooled_predictions(finished: Path) -> None:
    rows, pooled = read_csv(finished / "predictions.csv"), load(finished / "metrics.json")["test"]
    labels, predicted = [row["label"] for row in rows], [row["predicted"] for row in rows]
    probabilities = np.array([[float(row[f"p_{name}"]) for name in CLASSES] for row in rows])
    assert pooled["n"] == 96
    assert pooled["labels"] == list(CLASSES)
    assert pooled["accuracy"] == pytest.approx(sk.accuracy_score(labels, predicted))
    assert pooled["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels, predicted))
    assert pooled["macro_f1"] == pytest.approx(sk.f1_score(labels, predicted, average="macro", zero_division=0))
    assert pooled["confusion_matrix"] == sk.confusion_matrix(labels, predicted, labels=CLASSES).tolist()
    of_label = [float(row[f"p_{row['label']}"]) for row in rows]
    assert pooled["nll"] == pytest.approx(-np.mean(np.log(of_label)))
    by_patient = {row["group"]: row["label"] for row in rows}
    means = {
        group: probabilities[[place for place, row in enumerate(rows) if row["group"] == group]].mean(axis=0)
        for group in by_patient
    }
    right = [CLASSES[int(means[group].argmax())] == label for group, label in by_patient.items()]
    assert pooled["by_group"]["n"] == 24
    assert pooled["by_group"]["accuracy"] == pytest.approx(sum(right) / 24)
    assert pooled["interval_over"] == "patients"


def test_folds_stand_beside_the_pool_with_their_mean_and_spread(finished: Path) -> None:
    metrics = load(finished / "metrics.json")
    folds = [load(finished / fold / "metrics.json")["test"] for fold in FOLDS]
    assert metrics["folds"] == folds
    assert metrics["train"] is None
    assert metrics["validation"] is None
    assert metrics["reported_on"] == "test"
    assert "warning" not in metrics
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "nll", "ece"):
        values = [fold[name] for fold in folds]
        assert metrics["over_folds"][name]["mean"] == pytest.approx(statistics.mean(values))
        assert metrics["over_folds"][name]["sd"] == pytest.approx(statistics.stdev(values))
    by_patient = [fold["by_group"]["accuracy"] for fold in folds]
    assert metrics["over_folds"]["by_group_accuracy"]["mean"] == pytest.approx(statistics.mean(by_patient))


# Explaining


def test_each_slice_is_explained_by_the_model_that_has_not_seen_it(
    finished: Path, tmp_path: Path, btkit: Callable
) -> None:
    wish = ("--method", "gradcam,hirescam", "--style", "none", "--precision", "float32")
    ended = btkit("explain", finished, *wish, "--limit", 9, "--out", tmp_path / "all", "--evaluate", "--json")
    assert ended.status == 0, ended.err
    assert json.loads(ended.out)["n"] == 9
    assert json.loads(ended.out)["metrics"]["n"] == 9
    rows = {(row["id"], row["method"]): row for row in read_csv(tmp_path / "all" / "explanations.csv")}
    assert {method for _, method in rows} == {"gradcam", "hirescam"}
    assert len(rows) == 18
    pooled = {row["id"]: row for row in read_csv(finished / "predictions.csv")}
    own = {id for id, _ in rows if pooled[id]["fold"] == "1"}  # the randomisation test is of the first fold's model
    assert json.loads(ended.out)["metrics"]["methods"]["gradcam"]["randomisation"]["n"] == len(own) > 1
    models = {item["model"] for item in load(tmp_path / "all" / "explanations.json")["methods"]}
    assert len(models) == 3
    seen = set()
    for number, fold in enumerate(FOLDS, start=1):
        assert btkit("explain", finished / fold, *wish, "--out", tmp_path / fold).status == 0
        for one in read_csv(tmp_path / fold / "explanations.csv"):
            if (row := rows.get((one["id"], one["method"]))) is None:
                continue
            assert row["predicted"] == pooled[row["id"]]["predicted"]
            assert pooled[row["id"]]["fold"] == str(number)
            whole, alone = (np.load(folder / one["map"]) for folder in (tmp_path / "all", tmp_path / fold))
            np.testing.assert_allclose(whole, alone, rtol=1e-4, atol=1e-5 * np.abs(alone).max())
            seen.add((one["id"], one["method"]))
    assert seen == rows.keys()


def test_the_newest_run_may_be_a_cross_validation(finished: Path, tmp_path: Path, btkit: Callable) -> None:
    ended = btkit("explain", "--runs", finished.parent, "--limit", 3, "--style", "none", "--out", tmp_path / "out")
    assert ended.status == 0, ended.err
    assert btkit("explain", finished, "--split", "test").status == 2
    ended = btkit("predict", "--runs", finished.parent, tmp_path / "out" / "summary.png")
    assert ended.status == 2  # it has no single model
    assert "no finished run" in ended.err


# Going on


def test_resume_keeps_finished_folds_and_comes_to_the_same_figures(
    finished: Path, tmp_path: Path, btkit: Callable
) -> None:
    run = copy_run(finished, tmp_path / "run")
    for name in ("metrics.json", "predictions.csv"):
        (run / name).unlink()
    (run / "fold-2" / "model.keras").unlink()
    change(run / "fold-2" / "record.json", status="interrupted")
    change(run / "record.json", status="interrupted", reason="KeyboardInterrupt: ")
    kept = {fold: files_of(run / fold) for fold in ("fold-1", "fold-3")}
    ended = btkit("run", "--resume", run, "--json")
    assert ended.status == 0
    assert {fold: files_of(run / fold) for fold in kept} == kept
    assert "fold-1 is finished and kept" in ended.err
    assert "fold-2 is finished" not in ended.err
    assert load(run / "metrics.json") == load(finished / "metrics.json")
    assert json.loads(ended.out)["metrics"] == load(run / "metrics.json")
    assert (run / "predictions.csv").read_bytes() == (finished / "predictions.csv").read_bytes()
    for fold in FOLDS:
        record = load(run / fold / "record.json")
        assert (record["status"], record["recipe_name"]) == ("finished", "resnet_adam")
    assert load(run / "record.json")["status"] == "finished"


def test_a_finished_run_gives_no_reason_for_having_stopped(finished: Path, tmp_path: Path, btkit: Callable) -> None:
    """All folds were trained when it was interrupted: they are pooled alone."""
    run = copy_run(finished, tmp_path / "run")
    (run / "metrics.json").unlink()
    change(run / "record.json", status="interrupted", reason="KeyboardInterrupt: ")
    assert btkit("run", "--resume", run).status == 0
    assert load(run / "metrics.json") == load(finished / "metrics.json")
    record = load(run / "record.json")
    assert record["status"] == "finished"
    assert not record.get("reason")


def stand_in(finished: Path, stop_in: str, error: BaseException) -> Callable[..., None]:
    """Instead of training a fold: what it left before, or an error."""

    def train(run: Run, *rest: object) -> None:
        if run.folder.name == stop_in:
            raise error
        copy_run(finished / run.folder.name, run.folder)

    return train


@pytest.mark.parametrize(
    ("error", "status", "recorded"),
    [(KeyboardInterrupt(), 130, "interrupted"), (WorkError("the disk is full."), 3, "failed")],
)
def test_a_stop_in_the_second_fold_says_how_to_go_on(
    error: BaseException, status: int, recorded: str, finished: Path, tmp_path: Path, btkit: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(part, "train_into", stand_in(finished, "fold-2", error))
    ended = btkit("run", "resnet_adam", *SMALL, "--runs", tmp_path, "--name", "stopped")
    run = tmp_path / "stopped"
    assert ended.status == status
    assert "Traceback" not in ended.err
    assert f"btkit run --resume {run}" in " ".join(ended.err.split())
    assert load(run / "record.json")["status"] == recorded
    assert not (run / "metrics.json").exists()
    assert (run / "split.csv").read_bytes() == (finished / "split.csv").read_bytes()
    trained = []

    def train(run: Run, *rest: object) -> None:
        trained.append(run.folder.name)
        stand_in(finished, "none", error)(run, *rest)

    monkeypatch.setattr(part, "train_into", train)
    assert btkit("run", "--resume", run).status == 0
    assert trained == ["fold-2", "fold-3"]
    assert load(run / "metrics.json") == load(finished / "metrics.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume", "{run}", "resnet_adam"], "name either a RECIPE or --resume RUN."),
        ([], "name either a RECIPE or --resume RUN."),
        (["--resume", "{run}", "--set", "seed=8"], "--set and --name do not go with --resume"),
        (["--resume", "{run}", "--name", "again"], "--set and --name do not go with --resume"),
        (["--resume", "{run}/fold-1"], "fold-1' is finished: there is nothing to go on with."),
        (["--resume", "{run}/nowhere"], "nowhere' is no run: it holds no record.json."),
    ],
)
def test_what_cannot_be_resumed_is_refused_in_one_message(
    arguments: list[str], message: str, finished: Path, btkit: Callable
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    ended = btkit("run", *(argument.format(run=finished) for argument in arguments))
    assert ended.status == 2
    assert message in " ".join(ended.err.split())
    assert len(re.findall("^(?:btkit|Error): ", ended.err, re.M)) == 1
    assert "Traceback" not in ended.err
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_other_folds_than_those_that_were_begun_are_refused(finished: Path, tmp_path: Path, btkit: Callable) -> None:
    run = copy_run(finished, tmp_path / "run")
    change(run / "resolved.json", seed=8)
    ended = btkit("run", "--resume", run)
    assert ended.status == 2
    said = " ".join(ended.err.split())
    assert "cannot go on as it began: the recipe in force (resolved.json) is another one the folds are others" in said
    assert said.endswith("go on all the same, which is recorded, with --accept-changes.")


def test_folds_of_another_split_are_not_pooled(
    finished: Path, tmp_path: Path, btkit: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is pooled out of fold must come from models that have not seen it."""
    run, trained = copy_run(finished, tmp_path / "run"), []

    def train(whole: Path, fold: Run, *rest: Any) -> None:
        assert not fold.folder.exists()
        trained.append(fold.folder.name)
        raise WorkError("far enough")

    change(run / "resolved.json", seed=8)
    change(run / "record.json", status="interrupted")
    monkeypatch.setattr(fold_work, "train_part", train)
    ended = btkit("run", "--resume", run, "--accept-changes")
    assert ended.status == 3
    assert "fold-1 was trained on another split and is trained anew" in ended.err
    assert trained == ["fold-1"]
    assert load(run / "record.json")["recipe"]["seed"] == 8
    assert (run / "split.csv").read_text() != (finished / "split.csv").read_text()


def test_a_fold_that_lacks_a_slice_is_told(finished: Path, tmp_path: Path, btkit: Callable) -> None:
    run = copy_run(finished, tmp_path / "run")
    lines = (run / "fold-2" / "predictions.csv").read_text().splitlines(keepends=True)
    tested = next(line for line in lines if ",test," in line)
    (run / "fold-2" / "predictions.csv").write_text("".join(line for line in lines if line != tested))
    change(run / "record.json", status="interrupted")
    ended = btkit("run", "--resume", run)
    assert ended.status == 2
    assert f"slice '{tested.split(',')[0]}' is in no fold's predictions.csv: one is damaged." in ended.err


# Over pictures in folders


def pictures(root: Path, *more: str) -> tuple[str, ...]:
    """24 heads; options that begin a cross-validation of them, slice by slice."""
    for number, label in enumerate(("glioma", "notumor")):
        add_heads(root / label, range(100 * number, 100 * number + 12))
    values = ("source.name=image_folder", f"source.root={root}", "pixels.image_size=32", "split.method=kfold",
              "split.folds=3", "split.keep_together=nothing", "split.test=0.15", "explain=[]",
              "backbone.name=two_layers", *more)  # fmt: skip
    return "resnet_adam", *(item for value in values for item in ("--set", value))


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupts a cross-validation when everything before its first fold is done."""

    def interrupt(*rest: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(part, "train_into", interrupt)


@pytest.mark.usefixtures("no_training")
def test_resume_is_refused_where_the_data_changed(tmp_path: Path, btkit: Callable) -> None:
    root = tmp_path / "data"
    assert btkit("run", *pictures(root), "--runs", tmp_path, "--name", "run").status == 130
    assert btkit("run", "--resume", tmp_path / "run").status == 130  # nothing changed: it goes on
    save(head(5000), root / "glioma" / "000.png")
    ended = btkit("run", "--resume", tmp_path / "run")
    assert ended.status == 2
    assert "cannot go on as it began: the data set is another one" in " ".join(ended.err.split())
    assert "Traceback" not in ended.err


@pytest.mark.usefixtures("no_training")
def test_a_leak_that_the_first_fold_lacks_is_told_all_the_same(tmp_path: Path, btkit: Callable) -> None:
    """Both of a pair train in the first fold; another fold tests one of them."""
    root = tmp_path / "data"
    arguments = pictures(root)
    save(head(3), root / "glioma" / "twin.png")
    samples = list(load_source("image_folder", [f"source.root={root}"]).make().samples())
    settings = SplitTable.model_validate({"method": "kfold", "folds": 3, "keep_together": "nothing"})
    twins = [place for place, sample in enumerate(samples) if sample.id in ("glioma/003.png", "glioma/twin.png")]

    def divided(seed: int) -> list[bool]:
        return [len({split[place] for place in twins}) > 1 for split in make_folds(samples, settings, seed)]

    seed = next(seed for seed in range(1000) if divided(seed)[0] is False and any(divided(seed)))
    options = (*arguments, "--set", f"seed={seed}", "--runs", tmp_path)
    refused = btkit("run", *options, "--name", "refused")
    assert refused.status == 2
    assert "glioma/003.png = glioma/twin.png" in " ".join(refused.err.split())
    allowed = btkit("run", *options, "--set", "split.allow_leaks=true", "--name", "allowed")
    assert allowed.status == 130
    assert "WARNING: the split leaks" in allowed.err
    assert "glioma/003.png = glioma/twin.png" in load(tmp_path / "allowed" / "record.json")["leaks"]["warning"]


@pytest.mark.usefixtures("no_training")
def test_a_whole_cross_validation_is_no_subject_of_an_audit(finished: Path, tmp_path: Path, btkit: Callable) -> None:
    """Its slices are all tested: whether any is clean depends on the fold."""
    ended = btkit("audit", finished, "--out", tmp_path / "out")
    assert ended.status == 2
    assert "fold-1" in ended.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_a_cross_validation_has_a_model_a_fold(finished: Path, tmp_path: Path, btkit: Callable, command: str) -> None:
    ended = btkit(command, finished, *([tmp_path] if command == "predict" else []))
    assert ended.status == 2
    assert "fold-1" in ended.err or "no picture" in ended.err


def test_a_fold_is_audited_like_any_run(finished: Path, tmp_path: Path, btkit: Callable) -> None:
    assert btkit("audit", finished / "fold-1", "--out", tmp_path, "--fail-on", "leak").status == 0
    found = load(tmp_path / "audit.json")
    assert found["patients"]["groups"] == 24
    assert found["divided_groups"] == []
    tested = [row for row in read_csv(finished / "fold-1" / "predictions.csv") if row["split"] == "test"]
    right = sum(row["label"] == row["predicted"] for row in tested)
    assert (found["run"]["all"]["n"], found["run"]["leaked"]) == (len(tested), None)
    assert found["run"]["clean"]["accuracy"] == pytest.approx(right / len(tested))
