"""Files of a run that are damaged, or that someone has edited: one sentence, and nothing is made worse."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import save, save_file
from small_runs import TINY, copy_run, put_file

from braintumor_kit.files import read_json, write_json
from braintumor_kit.training import callbacks
from braintumor_kit.training.fit import LATEST
from braintumor_kit.workflows.results import differences, lacking

pytestmark = pytest.mark.usefixtures("two_layers")

Edit = Callable[[Path], object]


@pytest.fixture(scope="module")
def stopped(two_layers: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was interrupted after its first epoch of two."""
    from braintumor_kit.commands.main import run_command_line

    def interrupt(self: object, epoch: int, logs: object = None) -> None:
        if epoch == 1:
            raise KeyboardInterrupt

    runs = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks.Clock, "on_epoch_begin", interrupt)
        more = ["--set", "training.epochs=2", "--set", "callbacks.reduce_lr_on_plateau.patience=1"]
        assert run_command_line(["run", "resnet_adam", *TINY, *more, "--runs", str(runs), "--name", "r"]) == 130
    return runs / "r"


def put(name: str, *place: object, value: Any) -> Edit:
    """Gives a value in a JSON file another one; `...` removes it."""

    def edit(run: Path) -> None:
        content = read_json(run / name)
        inner: Any = content
        for key in place[:-1]:
            inner = inner[key]
        if value is ...:
            del inner[place[-1]]
        else:
            inner[place[-1]] = value
        (run / name).write_text(json.dumps(content))

    return edit


def content(name: str, text: bytes) -> Edit:
    return lambda run: put_file(run / name, text)


def half(name: str) -> Edit:
    return lambda run: put_file(run / name, (run / name).read_bytes()[: (run / name).stat().st_size // 2])


def gone(name: str) -> Edit:
    return lambda run: (run / name).unlink()


def said(**changes: Any) -> Edit:
    """Changes what a checkpoint says of itself; its tensors stay."""

    def edit(run: Path) -> None:
        with safe_open(run / LATEST, framework="pt") as file:
            words = json.loads(file.metadata()["btkit"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        for key, value in changes.items():
            if isinstance(value, dict) and value:
                words[key] |= value
            elif value is ...:
                del words[key]
            else:
                words[key] = value
        (run / LATEST).unlink()
        save_file(tensors, run / LATEST, metadata={"btkit": json.dumps(words)})

    return edit


RECORDS: dict[str, tuple[Edit, str]] = {
    "empty": (content("record.json", b""), "record.json cannot be read: "),
    "half": (half("record.json"), "record.json cannot be read: "),
    "bytes": (content("record.json", b"\xff\xfe"), "record.json cannot be read: "),
    "a list": (content("record.json", b"[]"), "record.json holds no JSON object."),
    "deep": (content("record.json", b"[" * 100_000), "record.json cannot be read: "),
    "newer": (
        put("record.json", "format", value=99),
        "is of a newer btkit (format 99; this one knows 1): update it",
    ),
    "threads": (put("record.json", "device", "threads", value="x"), "record.json is damaged: device.threads: "),
    "device": (put("record.json", "device", value=[1]), "record.json is damaged: device: "),
    "packages": (put("record.json", "packages", value=[]), "record.json is damaged: packages: "),
    "code": (put("record.json", "code", value="x"), "record.json is damaged: code: "),
    "folds": (put("record.json", "folds", value=3), "record.json is damaged: folds: its recipe has 1."),
    "classes": (put("record.json", "classes", value={"a": 1}), "record.json is damaged: classes: "),
    "leaks": (put("record.json", "leaks", value={"x": 1}), "record.json is damaged: leaks.warning: "),
    "resumed": (put("record.json", "resumed", value=7), "record.json is damaged: resumed: "),
}
"""Edits of `record.json` that every command refuses which goes on with a run."""

NOWHERE = "the checkpoint is damaged, or of another training: it stands at "

RESUMED: dict[str, tuple[Edit, str]] = RECORDS | {
    "no recipe": (gone("resolved.json"), "resolved.json cannot be read: "),
    "empty recipe": (content("resolved.json", b"{}"), "resolved.json: backbone: is missing and has no default."),
    "split of the recipe": (put("resolved.json", "split", value=4), "resolved.json: split: "),
    "other recipe": (put("resolved.json", "training", "epochs", value=3), "the recipe in force (resolved.json) is ano"),
    "no text": (gone("recipe.toml"), "recipe.toml cannot be read: "),
    "half a checkpoint": (half(str(LATEST)), "latest.safetensors is no checkpoint of btkit: "),
    "empty checkpoint": (content(str(LATEST), b""), "latest.safetensors is no checkpoint of btkit: "),
    "no words": (content(str(LATEST), save({})), "latest.safetensors is no checkpoint of btkit: "),
    "other format": (said(format=1), "is a checkpoint of another version of btkit."),
    "no position": (said(position=...), "latest.safetensors is damaged: position: "),
    "odd step": (said(position={"step": "x"}), "latest.safetensors is damaged: position.step: "),
    "step below 0": (said(position={"step": -1}), "latest.safetensors is damaged: position.step: "),
    "step nowhere": (said(position={"step": 999}), NOWHERE),
    "epoch nowhere": (said(position={"epoch": 999}), NOWHERE),
    "phase nowhere": (said(position={"phase": 9}), NOWHERE),
    "no memories": (said(memories=...), "latest.safetensors is damaged: memories: "),
    "memories of none": (
        said(memories={}),
        "the checkpoint knows nothing of history: it is of ",
    ),
    "no plateau": (said(memories={"reduce_lr_on_plateau": {}}), "its memory of reduce_lr_on_plateau is none."),
    "odd history": (said(memories={"history": {"epochs": [1]}}), "its memory of history is none."),
    "odd best": (said(memories={"best": {"best": "x", "epoch": 1}}), "its memory of best is none."),
    "no best weights": (gone("checkpoints/best-0001.weights.h5"), "the best weights so far, cannot be read: "),
    "half of them": (half("checkpoints/best-0001.weights.h5"), "the best weights so far, cannot be read: "),
    "others": (content("checkpoints/best-0001.weights.h5", b"x" * 99), "the best weights so far, cannot be read: "),
}


@pytest.mark.parametrize("name", RESUMED)
def test_resume(name: str, stopped: Path, tmp_path: Path, btkit: Callable) -> None:
    edit, message = RESUMED[name]
    run = tmp_path / "r"
    copy_run(stopped, run)
    edit(run)
    before = {path: path.stat() for path in run.rglob("*") if path.is_file()}
    ended = btkit("run", "--resume", run)
    assert ended.status == 2, ended.err
    assert message in ended.err
    assert "Traceback" not in ended.err
    kept = {path for path in before if path.name not in ("log.txt", "log.jsonl", "record.json", "history.csv")}
    for path in kept:
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before[path].st_ino, before[path].st_mtime_ns)


def test_what_it_advises_helps(stopped: Path, tmp_path: Path, btkit: Callable) -> None:
    """A checkpoint that is damaged is removed, and the training begins anew in the same folder."""
    run = tmp_path / "r"
    copy_run(stopped, run)
    half(str(LATEST))(run)
    ended = btkit("run", "--resume", run)
    assert "Remove it, and the training begins anew in the same folder, with --accept-changes." in ended.err
    (run / LATEST).unlink()
    assert btkit("run", "--resume", run, "--accept-changes").status == 0
    assert read_json(run / "record.json")["status"] == "finished"


RESULTS = ("results",)
REPEATED: dict[str, tuple[Edit, str]] = {name: case for name, case in RECORDS.items() if name != "folds"} | {
    "not finished": (put("record.json", "status", value="running"), "has not finished: there is nothing to compare"),
    "no recipe": (put("record.json", "recipe", value=...), "is of a btkit that did not keep recipe and results"),
    "an odd recipe": (put("record.json", "recipe", value=[]), "record.json is damaged: recipe: "),
    "no results": (put("record.json", "results", value=None), "is of a btkit that did not keep recipe and results"),
    "a recipe of nothing": (
        put("record.json", "recipe", value={"seed": 1}),
        "backbone: is missing and has no default.",
    ),
    "endless training": (put("record.json", "recipe", "training", "epochs", value=10**30), "[training] epochs: "),
    "an odd name": (put("record.json", "recipe_name", value=3), "record.json is damaged: recipe_name: "),
    "history": (put("record.json", *RESULTS, "history", value="x"), "record.json is damaged: results.history: "),
    "epochs": (put("record.json", *RESULTS, "history", value=[1]), "record.json is damaged: results.history.0: "),
    "loss": (put("record.json", *RESULTS, "history", 0, "loss", value="x"), "results.history.0.loss: "),
    "metrics": (put("record.json", *RESULTS, "metrics", value=[]), "record.json is damaged: results.metrics: "),
    "no figures": (
        put("record.json", *RESULTS, "metrics", value={}),
        "results.metrics is missing: there is",
    ),
    "no weights": (put("record.json", *RESULTS, "weights", value=...), "results.weights is missing: there is"),
    "test": (put("record.json", *RESULTS, "metrics", "test", value=1), "results.metrics.test: "),
    "folds": (put("record.json", *RESULTS, "folds", value=1), "record.json is damaged: results.folds: "),
}


@pytest.mark.parametrize("name", REPEATED)
def test_repeat(name: str, finished: Path, tmp_path: Path, btkit: Callable) -> None:
    edit, message = REPEATED[name]
    (tmp_path / "r").mkdir()
    shutil.copy(finished / "record.json", tmp_path / "r")
    edit(tmp_path / "r")
    ended = btkit("run", tmp_path / "r", "--runs", tmp_path / "again")
    assert ended.status == 2, ended.err
    assert message in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "again").exists()


def test_what_a_record_lacks_is_a_difference() -> None:
    results: dict[str, Any] = {
        "history": [{"epoch": 1, "loss": 1.0, "val_loss": 2.0}], "weights": "w", "predictions": "p",
        "metrics": {"test": {"accuracy": 0.5, "nll": 1.0}},
    }  # fmt: skip
    folds = {"folds": [results, results], "predictions": "p", "metrics": results["metrics"]}
    assert not list(differences({"results": results}, {"results": results}))
    assert (lacking(results, None), lacking(folds, 2), lacking(folds, 3)) == (None, None, "folds.2")
    less = {**results, "history": [{"epoch": 1, "loss": 1.0}], "metrics": {"test": {"accuracy": 0.5}}}
    for one, other in ((results, less), (less, results)):
        (history, figure) = differences({"results": one}, {"results": other})
        assert history.startswith("epoch 1: val_loss was ")
        assert figure.startswith("nll on test was ")
    fewer = {**folds, "folds": [results]}
    assert list(differences({"results": fewer}, {"results": folds})) == ["there were 1 folds and are 2"]
    assert lacking({**folds, "folds": [results, {}]}, 2) == "folds.1.predictions"


@pytest.mark.parametrize("command", ["explain", "evaluate", "audit"])
@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("split.csv", b"id,label\nx,y\n", "split.csv is damaged: line 2 lacks some of the columns id, split."),
        (
            "split.csv",
            b"id,label,group,split\nx,y\n",
            "split.csv is damaged: line 2 lacks some of the columns id, split",
        ),
        ("split.csv", b"", "split.csv is damaged: line 1 lacks some of the columns id, split."),
        ("split.csv", b"\xff\xfe", "split.csv cannot be read: "),
        ("split.csv", None, "has no split.csv: it has not finished."),
        ("resolved.json", b"{}", "resolved.json: "),
        ("record.json", b'{"classes": 3}', "record.json is damaged: classes: "),
    ],
)
def test_a_finished_run(
    command: str, name: str, text: bytes | None, message: str, finished: Path, tmp_path: Path, btkit: Callable
) -> None:
    run = tmp_path / "r"
    copy_run(finished, run)
    (run / name).unlink()
    if text is not None:
        (run / name).write_bytes(text)
    more = ["--method", "gradcam", "--limit", "1"] if command == "explain" else []
    ended = btkit(command, run, *more, *(["--out", tmp_path / "o"] if command == "audit" else []))
    assert ended.status == 2, ended.err
    assert message in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("text", [b"id\nx\n", b"", b"\xff", b"id,split,group,label,predicted\na,test\n"])
def test_predictions(text: bytes, finished: Path, tmp_path: Path, btkit: Callable) -> None:
    run = tmp_path / "r"
    copy_run(finished, run)
    (run / "predictions.csv").write_bytes(text)
    ended = btkit("evaluate", run, "--against", finished)
    assert ended.status == 2
    assert "predictions.csv" in ended.err
    assert "Traceback" not in ended.err


def test_predictions_that_end_in_the_middle_are_made_again(finished: Path, tmp_path: Path, btkit: Callable) -> None:
    run = tmp_path / "r"
    copy_run(finished, run)
    (run / "predictions.csv").write_bytes((run / "predictions.csv").read_bytes()[:300])
    ended = btkit("explain", run, "--method", "gradcam", "--limit", "1")
    assert ended.status == 0, ended.err


def test_the_checkpoint_of_a_finished_run_goes(finished: Path, tmp_path: Path, btkit: Callable) -> None:
    """A process was killed when all was done but that."""
    run = tmp_path / "r"
    copy_run(finished, run)
    (run / LATEST).write_bytes(b"of the last epoch")
    ended = btkit("run", "--resume", run)
    assert ended.status == 2
    assert "is finished: there is nothing to go on with." in ended.err
    assert not (run / LATEST).exists()


def test_a_recipe_that_is_accepted_is_what_the_run_tells_of(stopped: Path, tmp_path: Path, btkit: Callable) -> None:
    run = tmp_path / "r"
    copy_run(stopped, run)
    put("resolved.json", "training", "epochs", value=3)(run)
    (run / "split.csv").unlink()  # and what is missing comes back
    assert btkit("run", "--resume", run, "--accept-changes").status == 0
    record = read_json(run / "record.json")
    assert record["recipe"]["training"]["epochs"] == 3
    assert record["recipe_name"] == "resnet_adam"
    assert (run / "split.csv").read_bytes() == (stopped / "split.csv").read_bytes()
    assert (run / "history.csv").read_text().count("\n") == 4
    ended = btkit("run", run, "--runs", tmp_path, "--name", "again")
    assert "It repeats" in ended.out


def test_another_batch_size_has_to_begin_anew(stopped: Path, tmp_path: Path, btkit: Callable) -> None:
    run = tmp_path / "r"
    copy_run(stopped, run)
    put("resolved.json", "training", "batch_size", value=4)(run)
    ended = btkit("run", "--resume", run, "--accept-changes")
    assert ended.status == 2
    assert "the checkpoint counts steps of 8 slices, and training.batch_size is 4. Remove it, and" in ended.err


def test_best_weights_are_those_of_the_epoch_that_the_checkpoint_knows(
    stopped: Path, tmp_path: Path, btkit: Callable
) -> None:
    """A process was killed when a better epoch's weights were written and its checkpoint was not; done again, as on a
    GPU with other last digits, that epoch is no better: the earlier one's weights are still there."""
    run = tmp_path / "r"
    copy_run(stopped, run)
    good = (run / "checkpoints" / "best-0001.weights.h5").read_bytes()
    (run / "checkpoints" / "best-0002.weights.h5").write_bytes(b"of the process that was killed")
    said(memories={"best": {"best": 2.0, "epoch": 1}})(run)  # an accuracy that no second epoch reaches
    assert btkit("run", "--resume", run).status == 0
    assert read_json(run / "record.json")["best_epoch"] == 1
    (kept,) = (run / "checkpoints").glob("best-*")
    assert kept.read_bytes() == good


def test_other_data_that_are_accepted_are_what_the_run_tells_of(stopped: Path, tmp_path: Path, btkit: Callable) -> None:
    run = tmp_path / "r"
    copy_run(stopped, run)
    values = read_json(run / "resolved.json")
    values["source"]["patients"] = 16
    write_json(run / "resolved.json", values)
    ended = btkit("run", "--resume", run)
    assert ended.status == 2
    assert "the data set is another one" in ended.err
    assert "the split is another one: slices that are test now may have been trained on" in ended.err
    assert btkit("run", "--resume", run, "--accept-changes").status == 0
    record = read_json(run / "record.json")
    assert record["samples"] == 64
    assert record["data_digest"] != read_json(stopped / "record.json")["data_digest"]
    assert len(record["resumed"][0]["changes"]) == 3
    assert (run / "split.csv").read_text().count("\n") == (run / "predictions.csv").read_text().count("\n") == 65
    assert btkit("explain", run, "--method", "gradcam", "--limit", "1").status == 0
