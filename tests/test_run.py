"""`btkit run` from end to end on a small phantom: the run folder, repeatability, the saved model, predict."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from braintumor_kit.commands.main import run_command_line
from braintumor_kit.files import read_csv
from braintumor_kit.recipe.load import load_source

SMALL = (
    "--set=source.patients=32", "--set=source.size=64", "--set=pixels.image_size=64", "--set=training.epochs=2",
    "--set=training.precision=float32",
)  # fmt: skip

BRIEF = ("--set=explain=[]", "--set=report=false")
"""Without what takes the time and is looked at elsewhere."""

TWO_LAYERS = "--set=backbone.name=two_layers"
"""With the fixture of that name: where any network will do."""


def small_run(runs: Path, name: str, *more: str) -> Path:
    assert run_command_line(["run", "resnet_adam", *SMALL, *more, "--runs", str(runs), "--name", name]) == 0
    return runs / name


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(runs: Path) -> Path:
    return small_run(runs, "first")


def load(path: Path) -> dict:
    return json.loads(path.read_text())


def test_the_run_folder_holds_what_it_should(run: Path) -> None:
    files = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    (best,) = (name for name in files if name.startswith("checkpoints/best-"))
    for folder in ("explanations", "mistakes"):
        assert {f"{folder}/explanations.csv", f"{folder}/summary.png"} <= files
    assert {name for name in files if not name.startswith(("explanations/", "mistakes/"))} == {
        "recipe.toml", "resolved.json", "record.json", "split.csv", "history.csv", "model.keras", "metrics.json",
        "predictions.csv", "log.txt", "log.jsonl", best,
        "figures/learning_curves.png", "figures/confusion_matrix.png", "figures/reliability.png",
        "figures/sample_sheet.png", "figures/risk_coverage.png", "certainty.json", "certainty.npz",
        "report.html", "model_card.md",
    }  # fmt: skip


def test_no_patient_stands_in_two_splits(run: Path) -> None:
    rows = read_csv(run / "split.csv")
    assert len(rows) == 128
    assert len({(row["group"], row["split"]) for row in rows}) == len({row["group"] for row in rows}) == 32


def test_the_record_says_what_was_run(run: Path) -> None:
    record = load(run / "record.json")
    assert record["status"] == "finished"
    assert record["format"] == 1
    assert record["seed"] == 7
    assert record["precision"] == "float32"
    assert record["classes"] == ["glioma", "meningioma", "notumor", "pituitary"]
    assert record["plugins"]["source"]["target"] == "btkit_plugins.sources.phantom:Phantom"
    assert record["packages"]["torch"]
    assert record["started"] <= record["ended"]
    assert len(record["data_digest"]) == len(record["split_digest"]) == 64
    assert load(run / "resolved.json")["source"]["patients"] == 32


def test_metrics_follow_from_the_predictions(run: Path) -> None:
    metrics, rows = load(run / "metrics.json"), read_csv(run / "predictions.csv")
    for part in ("train", "validation", "test"):
        chosen = [row for row in rows if row["split"] == part]
        right = sum(row["label"] == row["predicted"] for row in chosen)
        assert metrics[part]["n"] == len(chosen)
        assert metrics[part]["accuracy"] == pytest.approx(right / len(chosen))
        low, high = metrics[part]["accuracy_ci"]
        assert 0 <= low <= metrics[part]["accuracy"] <= high <= 1
    for row in rows:
        probabilities = {name[2:]: float(value) for name, value in row.items() if name.startswith("p_")}
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert max(probabilities, key=probabilities.__getitem__) == row["predicted"]


def test_the_same_recipe_and_seed_give_the_same_figures(run: Path, runs: Path) -> None:
    again = small_run(runs, "again", *BRIEF)
    assert load(again / "metrics.json") == load(run / "metrics.json")
    assert (again / "predictions.csv").read_text() == (run / "predictions.csv").read_text()
    other = small_run(runs, "other", "--set", "seed=8", *BRIEF)
    assert load(other / "metrics.json") != load(run / "metrics.json")


def test_plain_keras_reproduces_the_predictions(run: Path, tmp_path: Path) -> None:
    """In a fresh process that cannot import btkit, from pixels to p_ columns."""
    rows = read_csv(run / "predictions.csv")[:24]
    plugin = load_source("phantom", ["source.patients=32", "source.size=64"])
    source = plugin.make()
    by_id = {sample.id: sample for sample in source.samples()}
    pictures = np.stack([source.image(by_id[row["id"]]) for row in rows])
    np.save(tmp_path / "pictures.npy", np.repeat(pictures[..., None], 3, axis=-1).astype(np.float32))
    script = (
        "import sys, json, numpy as np\n"
        "sys.modules['braintumor_kit'] = sys.modules['btkit_plugins'] = sys.modules['keras_hub'] = None\n"
        "import keras\n"
        f"model = keras.saving.load_model({str(run / 'model.keras')!r})\n"
        f"p = model.predict(np.load({str(tmp_path / 'pictures.npy')!r}), verbose=0)\n"
        "print(json.dumps([p.tolist(), sorted({type(l).__module__.split('.')[0] for l in model.layers}),"
        " str(model.dtype_policy.name)]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True,
        env={**os.environ, "KERAS_BACKEND": "torch", "BTKIT_ALLOW_TENSORFLOW": "1"},
    )  # fmt: skip
    p, modules, policy = json.loads(done.stdout.splitlines()[-1])
    ours = [[float(value) for name, value in row.items() if name.startswith("p_")] for row in rows]
    np.testing.assert_allclose(ours, p, rtol=0, atol=1e-5)
    assert (modules, policy) == (["keras"], "float32")


def folder_of_pictures(folder: Path) -> Path:
    """The small phantom's slices as PNG files in Kaggle's layout, divided by patient."""
    source = load_source("phantom", ["source.patients=32", "source.size=64"]).make()
    for sample in source.samples():
        part = "Testing" if int(str(sample.group)[1:]) % 4 == int(str(sample.group)[1:]) // 4 % 4 else "Training"
        path = folder / part / sample.label / f"{sample.id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(source.image(sample)).save(path)
    return folder


@pytest.fixture(scope="module")
def file_run(runs: Path) -> tuple[Path, Path]:
    folder = folder_of_pictures(runs.parent / "pictures")
    sets = ("source.name=image_folder", f"source.root={folder}", "split.method=source", "pixels.image_size=64",
            "training.epochs=1", "training.precision=float32")  # fmt: skip
    arguments = [item for value in sets for item in ("--set", value)]
    assert (
        run_command_line(["run", "resnet_adam", *arguments, "--runs", str(runs), "--name", "files"]) == 2
    )  # split.test
    recipe = runs.parent / "files.toml"
    recipe.write_text(
        f'[source]\nname = "image_folder"\nroot = "{folder}"\n[backbone]\nname = "resnet"\n'
        '[pixels]\nimage_size = 64\n[training]\nepochs = 1\nprecision = "float32"\n'
    )
    assert run_command_line(["run", str(recipe), "--runs", str(runs), "--name", "files"]) == 0
    return runs / "files", folder


def test_predict_gives_the_runs_own_probabilities(file_run: tuple[Path, Path], btkit: Callable) -> None:
    run, folder = file_run
    ended = btkit("predict", run, folder / "Testing", "--json")
    assert ended.status == 0
    assert "Research use only, not a medical device." in ended.err
    recorded = {row["id"]: row for row in read_csv(run / "predictions.csv") if row["split"] == "test"}
    predicted = json.loads(ended.out)
    assert len(predicted) == len(recorded)
    for item in predicted:
        row = recorded[Path(item["path"]).relative_to(folder).as_posix()]
        assert item["predicted"] == row["predicted"]
        for name, p in item["probabilities"].items():
            assert p == pytest.approx(float(row[f"p_{name}"]), abs=1e-5)


def test_predict_in_bfloat16_is_near(file_run: tuple[Path, Path], btkit: Callable) -> None:
    run, folder = file_run
    exact, fast = (json.loads(btkit("predict", run, folder / "Testing", "--json", *options).out)
                   for options in ((), ("--precision", "bfloat16")))  # fmt: skip
    pairs = [(a["probabilities"], b["probabilities"]) for a, b in zip(exact, fast, strict=True)]
    differences = [abs(a[name] - b[name]) for a, b in pairs for name in a]
    assert 0 < max(differences) < 0.05


def test_predict_takes_a_16_bit_picture_and_prints_csv(
    file_run: tuple[Path, Path], tmp_path: Path, btkit: Callable
) -> None:
    run, folder = file_run
    picture = next((folder / "Testing" / "glioma").iterdir())
    grey = np.asarray(Image.open(picture)).astype(np.uint16)
    stretched = np.round((grey - grey.min()) / (grey.max() - grey.min()) * 255).astype(np.uint8)
    Image.fromarray(grey * 200).save(tmp_path / "sixteen.png")
    Image.fromarray(stretched).save(tmp_path / "eight.png")
    ended = btkit("predict", run, tmp_path / "sixteen.png", tmp_path / "eight.png", "--csv")
    sixteen, eight = csv.DictReader(ended.out.splitlines())
    assert ended.status == 0
    for name in sixteen:
        if name.startswith("p_"):
            assert float(sixteen[name]) == pytest.approx(float(eight[name]), abs=0.02)


def test_predict_uses_the_newest_run_and_goes_on_past_bad_files(
    file_run: tuple[Path, Path], runs: Path, tmp_path: Path, btkit: Callable
) -> None:
    _, folder = file_run
    good = next((folder / "Testing" / "glioma").iterdir())
    (tmp_path / "bad.png").write_text("no picture")
    ended = btkit("predict", "--runs", runs, tmp_path / "bad.png", good)
    assert ended.status == 2
    assert good.name in ended.out
    assert "1 of 2 cannot be read:" in ended.err
    assert "bad.png" in ended.err


def test_predict_takes_a_model_file_alone(file_run: tuple[Path, Path], tmp_path: Path, btkit: Callable) -> None:
    run, folder = file_run
    lone = tmp_path / "lone.keras"
    lone.write_bytes((run / "model.keras").read_bytes())
    picture = next((folder / "Testing" / "glioma").iterdir())
    ended = btkit("predict", lone, picture, "--json")
    beside = btkit("predict", run / "model.keras", picture, "--json")
    (ours,), (named,) = json.loads(ended.out), json.loads(beside.out)
    assert list(ours["probabilities"]) == ["class_0", "class_1", "class_2", "class_3"]
    assert list(ours["probabilities"].values()) == pytest.approx(list(named["probabilities"].values()))
    assert "glioma" in named["probabilities"]


def test_the_protocol_without_a_test_split_says_so(file_run: tuple[Path, Path], runs: Path, btkit: Callable) -> None:
    _, folder = file_run
    ended = btkit(
        "run", "reference_protocol", "--set", f"source.root={folder}", "--set", "pixels.image_size=64", "--set",
        "training.epochs=1", "--runs", runs, "--name", "reference",
    )  # fmt: skip
    assert ended.status == 0
    assert "No test split: validation selected the model, so its figures flatter it." in ended.out
    assert load(runs / "reference" / "metrics.json")["test"] is None
    assert load(runs / "reference" / "record.json")["reported_on"] is None
    weights = load(runs / "reference" / "record.json")["backbone_weights"]
    assert "imagenet" in weights


def test_two_runs_of_one_name_are_refused(run: Path, runs: Path, btkit: Callable) -> None:
    ended = btkit("run", "resnet_adam", *SMALL, "--runs", runs, "--name", "first")
    assert ended.status == 2
    assert "exists already; choose another --name" in ended.err


@pytest.mark.usefixtures("two_layers")
def test_json_is_all_that_stands_on_standard_output(runs: Path, btkit: Callable) -> None:
    ended = btkit("run", "resnet_adam", *SMALL, *BRIEF, TWO_LAYERS, "--runs", runs, "--name", "json", "--json")
    result = json.loads(ended.out)
    assert result["metrics"] == load(Path(result["run"]) / "metrics.json")


def test_no_tensorflow_came_in(run: Path) -> None:
    assert "tensorflow" not in sys.modules


def test_a_damaged_record_is_named_and_hides_no_other_run(
    file_run: tuple[Path, Path], tmp_path: Path, btkit: Callable
) -> None:
    run, folder = file_run
    picture = next((folder / "Testing" / "glioma").iterdir())
    good, bad = tmp_path / "good", tmp_path / "bad"
    for copy, record in ((good, (run / "record.json").read_text()), (bad, "{}")):
        copy.mkdir()
        for name in ("model.keras", "resolved.json"):
            (copy / name).write_bytes((run / name).read_bytes())
        (copy / "record.json").write_text(record)
    assert btkit("predict", "--runs", tmp_path, picture).status == 0
    ended = btkit("predict", bad, picture)
    assert ended.status == 2
    assert "record.json does not name the model's 4 classes" in ended.err
    (good / "resolved.json").write_text('{"pixels": {"image_sise": 64}}')
    ended = btkit("predict", good, picture)
    assert ended.status == 2
    assert "resolved.json: pixels.image_sise" in ended.err


def test_a_model_file_that_is_not_there_is_not_replaced(file_run: tuple[Path, Path], btkit: Callable) -> None:
    run, folder = file_run
    ended = btkit("predict", run / "other.keras", folder)
    assert ended.status == 2
    assert "there is no model file" in ended.err


def test_a_run_among_the_images_is_refused(file_run: tuple[Path, Path], btkit: Callable) -> None:
    run, folder = file_run
    ended = btkit("predict", next((folder / "Testing" / "glioma").iterdir()), run)
    assert ended.status == 2
    assert "is a run; name it first, before the images" in ended.err


def test_a_recipe_that_explains_leaves_its_explanations(run: Path, runs: Path, btkit: Callable) -> None:
    recipe = runs / "explaining.toml"
    recipe.write_text(f'extends = "{run / "recipe.toml"}"\n[[explain]]\nmethod = "gradcam"\nlimit = 5\n')
    ended = btkit(
        "run",
        recipe,
        *SMALL,
        "--set",
        "training.epochs=1",
        "--set",
        "report=false",
        "--runs",
        runs,
        "--name",
        "explained",
    )
    assert ended.status == 0
    folder = runs / "explained" / "explanations"
    rows = read_csv(folder / "explanations.csv")
    tested = {row["id"] for row in read_csv(runs / "explained" / "split.csv") if row["split"] == "test"}
    assert len(rows) == len({row["id"] for row in rows} & tested) == 5
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {
        "explanations.csv", "explanations.json", "summary.png", *(row["map"] for row in rows),
        *(row["overlay"] for row in rows),
    }  # fmt: skip
    assert {np.load(folder / row["map"]).shape for row in rows} == {(64, 64)}
    assert load(runs / "explained" / "record.json")["status"] == "finished"
    assert load(runs / "explained" / "resolved.json")["explain"][0]["limit"] == 5
    assert not list(runs.glob("explained/.*"))
