"""`btkit explain` from end to end: splits and files, the folder it leaves, interruption, evaluation, bad input."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from PIL import Image

from braintumor_kit.commands.main import run_command_line
from braintumor_kit.contracts.pictures import read_picture
from braintumor_kit.data.pixels import restore
from braintumor_kit.files import read_csv
from braintumor_kit.recipe.load import load_source
from braintumor_kit.recipe.tables import PixelsTable
from braintumor_kit.workflows import draw_explanations, explanation_folder
from braintumor_kit.workflows import explain as explaining

pytestmark = pytest.mark.usefixtures("one_thread")

CLASSES = ["glioma", "meningioma", "notumor", "pituitary"]
PHANTOM = ("source.patients=32", "source.size=64")
SMALL = [f"--set={value}" for value in
         (*PHANTOM, "pixels.image_size=64", "training.epochs=1", "training.precision=float32")]  # fmt: skip
IG = ("--set", "integrated_gradients.steps=4")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(runs: Path, one_thread: None) -> Path:
    assert run_command_line(["run", "resnet_adam", *SMALL, "--runs", str(runs), "--name", "first"]) == 0
    return runs / "first"


@pytest.fixture(scope="module")
def made(run: Path, runs: Path) -> Path:
    """Explanations of the newest run's test split by two methods."""
    arguments = ["explain", "--runs", str(runs), "--method", "gradcam,integrated_gradients", *IG]
    assert run_command_line(arguments) == 0
    return run / "explanations"


@pytest.fixture(scope="module")
def source() -> Any:
    return load_source("phantom", PHANTOM).make()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, source: Any) -> Path:
    """Three PNG files, one with 16 bits and none square but the first."""
    folder = tmp_path_factory.mktemp("pictures")
    first, second, third, *_ = (source.image(sample) for sample in source.samples())
    Image.fromarray(first).save(folder / "a.png")
    wide = np.pad(np.asarray(Image.fromarray(second).resize((90, 80))), ((10, 20), (30, 40)))
    Image.fromarray(wide).save(folder / "b.png")
    Image.fromarray(third[:50].astype(np.uint16) * 200).save(folder / "c.png")
    return folder


def load(path: Path) -> dict:
    return json.loads(path.read_text())


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def table(folder: Path) -> list[dict[str, str]]:
    return [dict(row) for row in read_csv(folder / "explanations.csv")]


def variant(run: Path, folder: Path, model: keras.Model | None = None, **resolved: dict[str, Any]) -> Path:
    """A copy of what a run needs to be explained, with another model or other tables of its recipe."""
    folder.mkdir()
    for name in ("record.json", "resolved.json", "split.csv", "predictions.csv", "model.keras"):
        shutil.copy(run / name, folder / name)
    if model is not None:
        model.save(folder / "model.keras")
        (folder / "predictions.csv").unlink()
        record = load(folder / "record.json")
        (folder / "record.json").write_text(json.dumps({**record, "explain_layer": None}))
    values = load(folder / "resolved.json")
    for name, changes in resolved.items():
        values[name] |= changes
    (folder / "resolved.json").write_text(json.dumps(values))
    return folder


def flat_model() -> keras.Model:
    """A classifier without a layer that has rows and columns."""
    return keras.Sequential(
        [keras.Input((64, 64, 3)), keras.layers.Flatten(), keras.layers.Dense(4, activation="softmax")]
    )


# A split of a run


def test_the_folder_holds_a_map_and_an_overlay_of_each_slice_and_method(made: Path, run: Path) -> None:
    tested = [row["id"] for row in read_csv(run / "split.csv") if row["split"] == "test"]
    names = [f"{id}.{method}" for id in tested for method in ("gradcam", "integrated_gradients")]
    assert len(tested) > 16
    assert set(files(made)) == {
        "explanations.csv", "explanations.json", "summary.png",
        *(f"maps/{name}.npy" for name in names), *(f"overlays/{name}.png" for name in names),
    }  # fmt: skip
    assert [f"{row['id']}.{row['method']}" for row in table(made)] == names
    assert not [path for path in run.iterdir() if path.name.startswith(".")]


def test_the_table_says_what_the_maps_and_the_run_say(made: Path, run: Path) -> None:
    splits = {row["id"]: row for row in read_csv(run / "split.csv")}
    predictions = {row["id"]: row for row in read_csv(run / "predictions.csv")}
    for row in table(made):
        values = np.load(made / row["map"])
        assert (values.dtype, values.shape) == (np.float32, (64, 64))
        assert np.isfinite(values).all()
        assert float(row["peak"]) == pytest.approx(np.abs(values).max(), rel=1e-5)
        assert ("empty" in row["flags"].split()) == (not values.any())
        with Image.open(made / row["overlay"]) as overlay:
            assert min(overlay.size) > 64
        assert {key: row[key] for key in ("group", "label", "split")} == {
            key: splits[row["id"]][key] for key in ("group", "label", "split")
        }
        predicted = predictions[row["id"]]
        assert row["target"] == row["predicted"] == predicted["predicted"]
        assert float(row["probability"]) == pytest.approx(float(predicted[f"p_{row['predicted']}"]), rel=1e-5)
        assert row["target_probability"] == row["probability"]
        if row["method"] == "gradcam":
            assert values.min() >= 0
            assert (row["layer"], row["completeness_difference"]) == (load(run / "record.json")["explain_layer"], "")
        else:
            assert values.min() < 0 < values.max()
            assert row["layer"] == ""
            assert ("incomplete" in row["flags"].split()) == (float(row["completeness_difference"]) > 0.01)


def test_what_the_maps_follow_from_is_written_down(made: Path, run: Path) -> None:
    settings = load(made / "explanations.json")
    assert settings["classes"] == CLASSES
    assert settings["pixels"]["image_size"] == 64
    gradcam, integrated = settings["methods"]
    assert (gradcam["name"], gradcam["signed"], gradcam["target"]) == ("gradcam", False, "predicted")
    assert integrated["options"]["steps"] == 4
    assert integrated["score"] == "logit"


def test_no_column_of_the_table_is_always_empty(made: Path) -> None:
    rows = table(made)
    assert [name for name in rows[0] if not any(row[name] for row in rows)] == []


def explain_few(btkit: Callable, run: Path, out: Path, *more: object) -> list[dict[str, str]]:
    ended = btkit("explain", run, "--limit", 3, "--out", out, *more)
    assert ended.status == 0, ended.err
    return table(out)


def test_the_label_is_explained_though_another_class_is_predicted(run: Path, tmp_path: Path, btkit: Callable) -> None:
    rows = explain_few(btkit, run, tmp_path / "out", "--limit", 12, "--target", "label", "--style", "none")
    predictions = {row["id"]: row for row in read_csv(run / "predictions.csv")}
    assert any(row["label"] != row["predicted"] for row in rows)
    for row in rows:
        assert row["target"] == row["label"]
        assert ("target_differs" in row["flags"].split()) == (row["label"] != row["predicted"])
        expected = float(predictions[row["id"]][f"p_{row['label']}"])
        assert float(row["target_probability"]) == pytest.approx(expected, rel=1e-5)


def test_a_class_against_another_is_the_difference_of_their_maps(run: Path, tmp_path: Path, btkit: Callable) -> None:
    """Integrated Gradients are linear in the score."""
    maps = {}
    for target in ("glioma", "meningioma", "glioma-vs-meningioma"):
        rows = explain_few(btkit, run, tmp_path / target, "--target", target, "--method", "integrated_gradients", *IG,
                           "--precision", "float32", "--style", "none")  # fmt: skip
        assert {row["target"] for row in rows} == {target}
        assert {row["map"] for row in rows} == {f"maps/{row['id']}.integrated_gradients.npy" for row in rows}
        maps[target] = np.stack([np.load(tmp_path / target / row["map"]) for row in rows])
    assert {row["target_probability"] for row in rows} == {""}  # a contrast has none
    difference = maps["glioma"] - maps["meningioma"]
    assert np.abs(difference).max() > 0
    np.testing.assert_allclose(maps["glioma-vs-meningioma"], difference, atol=1e-4 * np.abs(difference).max())


def test_all_classes_have_maps_of_their_own(run: Path, tmp_path: Path, btkit: Callable) -> None:
    rows = explain_few(btkit, run, tmp_path / "out", "--target", "all")
    assert [row["target"] for row in rows] == CLASSES * 3
    assert {row["map"] for row in rows} == {f"maps/{row['id']}.gradcam.{row['target']}.npy" for row in rows}
    assert all((tmp_path / "out" / row["overlay"]).name == f"{row['id']}.gradcam.{row['target']}.png" for row in rows)
    single = explain_few(btkit, run, tmp_path / "single", "--target", "pituitary")
    for row in single:
        both = [np.load(tmp_path / place) for place in
                (f"single/{row['map']}", f"out/maps/{row['id']}.gradcam.pituitary.npy")]  # fmt: skip
        np.testing.assert_array_equal(*both)


def test_a_limit_takes_slices_evenly_over_the_split(run: Path, tmp_path: Path, btkit: Callable) -> None:
    ids = [row["id"] for row in read_csv(run / "split.csv") if row["split"] == "train"]
    out = tmp_path / "out"
    ended = btkit("explain", run, "--split", "train", "--limit", 5, "--out", out, "--json")
    places = [round(number * (len(ids) - 1) / 4) for number in range(5)]
    assert [row["id"] for row in table(out)] == [ids[place] for place in places]
    assert {row["split"] for row in table(out)} == {"train"}
    assert json.loads(ended.out) == {"explanations": str(out), "n": 5, "methods": ["gradcam"], "metrics": None}
    assert "Research use only, not a medical device." in ended.err


def test_another_layer_gives_other_maps(run: Path, made: Path, tmp_path: Path, btkit: Callable) -> None:
    rows = explain_few(btkit, run, tmp_path / "out", "--layer", "stack1_block0_out")
    assert {row["layer"] for row in rows} == {"stack1_block0_out"}
    for row in rows:
        assert not np.array_equal(np.load(tmp_path / "out" / row["map"]), np.load(made / row["map"]))
    assert load(tmp_path / "out" / "explanations.json")["methods"][0]["asked_layer"] == "stack1_block0_out"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What overlays were drawn with."""
    seen: list[dict[str, Any]] = []
    save = draw_explanations.save_overlay

    def spy(path: Path, *rest: Any, **options: Any) -> None:
        seen.append({"path": path, **options})
        save(path, *rest, **options)

    monkeypatch.setattr(draw_explanations, "save_overlay", spy)
    return seen


@pytest.mark.parametrize("scale", ["image", "patient", "all"])
def test_maps_share_a_colour_scale_as_asked(
    scale: str, run: Path, made: Path, drawn: list[dict[str, Any]], btkit: Callable, tmp_path: Path
) -> None:
    rows = explain_few(btkit, run, tmp_path / "out", "--limit", 6, "--scale", scale)
    assert len({row["group"] for row in rows}) > 1
    tops = {one["path"].name: one["top"] for one in drawn}
    for row in rows:
        alike = [r for r in rows if scale == "all" or r["group"] == row["group"]]
        largest = max(np.load(tmp_path / "out" / r["map"]).max() for r in alike)
        expected = None if scale == "image" else pytest.approx(float(largest), rel=1e-5)
        assert tops[f"{row['id']}.gradcam.png"] == expected


def test_overlays_are_lines_or_heat_or_none(run: Path, made: Path, tmp_path: Path, btkit: Callable) -> None:
    for style in ("contours", "none"):
        rows = explain_few(btkit, run, tmp_path / style, "--style", style)
    assert not (tmp_path / "none" / "overlays").exists()
    assert {row["overlay"] for row in rows} == {""}
    assert (tmp_path / "none" / "summary.png").is_file()
    lines, heat = (np.asarray(Image.open(folder / "overlays" / f"{rows[0]['id']}.gradcam.png"))
                   for folder in (tmp_path / "contours", made))  # fmt: skip
    assert lines.shape == heat.shape
    assert (lines != heat).any()


def test_explaining_again_replaces_the_folder(run: Path, tmp_path: Path, btkit: Callable) -> None:
    out = tmp_path / "deep" / "out"
    explain_few(btkit, run, out, "--method", "gradcam,eigencam")
    (out / "explanation_metrics.json").write_text("{}")
    explain_few(btkit, run, out, "--method", "gradcampp", "--style", "none")
    assert {row["method"] for row in table(out)} == {"gradcampp"}
    assert {name.split("/")[0] for name in files(out)} == {
        "explanations.csv", "explanations.json", "maps", "summary.png",
    }  # fmt: skip
    assert len(list((out / "maps").iterdir())) == 3
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_link_is_followed_and_stays(run: Path, tmp_path: Path, btkit: Callable) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for _ in range(2):
        explain_few(btkit, run, tmp_path / "link", "--style", "none")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]
    assert (tmp_path / "link").is_symlink()
    assert len(table(tmp_path / "real")) == 3


def test_a_folder_with_anything_else_is_left_alone(run: Path, tmp_path: Path, btkit: Callable) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    ended = btkit("explain", run, "--out", tmp_path / "mine")
    assert ended.status == 2
    assert "mine' exists and holds no explanations; name another folder with --out." in ended.err
    assert files(tmp_path) == {"mine/thesis.txt": b"years of work"}


def test_the_working_directory_is_not_replaced(
    run: Path, tmp_path: Path, btkit: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    ended = btkit("explain", run, "--out", ".")
    assert ended.status == 2
    assert "is where you are and cannot be replaced; name another folder with --out." in ended.err
    assert [path.name for path in tmp_path.rglob("*")] == ["here"]


# Picture files


def test_picture_files_are_explained_past_a_broken_one(
    run: Path, pictures: Path, tmp_path: Path, btkit: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.png").write_text("no picture")
    ended = btkit("explain", run, pictures / "a.png", "broken.png", pictures, "--method", "gradcam,rise",
                  "--set", "rise.masks=16")  # fmt: skip
    assert ended.status == 2
    assert "1 of 4 cannot be read:" in ended.err
    assert "broken.png" in ended.err
    assert "3 slices explained by gradcam, rise: explanations" in ended.out
    rows = table(tmp_path / "explanations")
    assert [row["id"] for row in rows[::2]] == [str(pictures / name) for name in ("a.png", "b.png", "c.png")]
    said = {item["path"]: item for item in json.loads(btkit("predict", run, pictures, "--json").out)}
    for row in rows:
        assert (row["split"], row["group"], row["label"]) == ("", "", "")
        assert np.load(tmp_path / "explanations" / row["map"]).shape == (64, 64)
        assert (tmp_path / "explanations" / row["overlay"]).is_file()
        assert row["predicted"] == said[row["id"]]["predicted"]
        expected = said[row["id"]]["probabilities"][row["predicted"]]
        assert float(row["probability"]) == pytest.approx(expected, abs=1e-5)


def test_nothing_to_explain_is_no_fault_of_btkit(run: Path, tmp_path: Path, btkit: Callable) -> None:
    (tmp_path / "broken.png").write_text("no picture")
    ended = btkit("explain", run, tmp_path / "broken.png", "--evaluate", "--out", tmp_path / "out")
    assert ended.status == 2
    assert "1 of 1 cannot be read:" in ended.err
    assert table(tmp_path / "out") == []


@pytest.mark.parametrize("tables", [{}, {"fit": "pad", "crop": "head"}])
def test_maps_at_the_pictures_own_size_lie_where_the_picture_does(
    tables: dict[str, str], run: Path, pictures: Path, tmp_path: Path, btkit: Callable
) -> None:
    other = variant(run, tmp_path / "run", pixels=tables)
    settings = PixelsTable(image_size=64, **tables)
    for name, options in (("small", ()), ("large", ("--original-size",))):
        ended = btkit("explain", other, pictures, "--out", tmp_path / name, "--method", "integrated_gradients", *IG,
                      *options)  # fmt: skip
        assert ended.status == 0, ended.err
    for row, shape in zip(table(tmp_path / "large"), ((64, 64), (110, 160), (50, 64)), strict=True):
        small, large = (np.load(tmp_path / name / row["map"]) for name in ("small", "large"))
        assert (large.shape, large.dtype) == (shape, np.float32)
        np.testing.assert_array_equal(large, restore(small, read_picture(Path(row["id"])), settings))
        assert float(row["peak"]) == pytest.approx(np.abs(large).max(), rel=1e-5)
        with Image.open(tmp_path / "large" / row["overlay"]) as overlay:
            assert overlay.size[0] > shape[1]
            assert overlay.size[1] > shape[0]
    if "crop" in tables:
        beside = np.load(tmp_path / "large" / table(tmp_path / "large")[1]["map"])
        assert not beside[:3].any()
        assert not beside[:, :20].any()
        assert beside.any()


def resnet(nested: bool, activation: str | None) -> keras.Model:
    keras.utils.set_random_seed(0)
    pixels = keras.Input((64, 64, 3))
    scaled = keras.layers.Rescaling(1 / 255)(pixels)
    tensor = None if nested else scaled
    trunk = keras.applications.ResNet50(
        weights=None, include_top=False, input_shape=(64, 64, 3), input_tensor=tensor, pooling="avg"
    )
    features = trunk(scaled) if nested else trunk.output
    return keras.Model(pixels, keras.layers.Dense(3, activation=activation)(features))


@pytest.mark.parametrize(("nested", "activation"), [(True, "softmax"), (False, None)])
def test_a_model_of_plain_keras_is_explained_without_any_option(
    nested: bool, activation: str | None, pictures: Path, tmp_path: Path, btkit: Callable
) -> None:
    model = resnet(nested, activation)
    model.save(tmp_path / "plain.keras")
    ended = btkit("explain", tmp_path / "plain.keras", pictures / "a.png", "--out", tmp_path / "out")
    assert ended.status == 0, ended.err
    (row,) = table(tmp_path / "out")
    pixels = np.repeat(np.asarray(Image.open(pictures / "a.png"))[None, ..., None], 3, axis=-1).astype(np.float32)
    with torch.no_grad():
        given = torch.as_tensor(model(pixels, training=False)).float()
    probabilities = (given if activation else given.softmax(dim=1))[0].tolist()
    assert row["predicted"] == row["target"] == f"class_{int(np.argmax(probabilities))}"
    assert float(row["probability"]) == pytest.approx(max(probabilities), abs=1e-5)
    assert row["layer"] == "conv5_block3_out"
    assert np.load(tmp_path / "out" / row["map"]).shape == (64, 64)
    assert load(tmp_path / "out" / "explanations.json")["classes"] == ["class_0", "class_1", "class_2"]
    assert load(tmp_path / "out" / "explanations.json")["methods"][0]["score"] == "logit"


def test_the_runs_own_model_file_stands_for_the_run(run: Path, made: Path, tmp_path: Path, btkit: Callable) -> None:
    rows = explain_few(btkit, run / "model.keras", tmp_path / "out")
    for row in rows:
        np.testing.assert_array_equal(np.load(tmp_path / "out" / row["map"]), np.load(made / row["map"]))


def test_pictures_that_have_changed_since_the_run_are_predicted_anew(
    run: Path, source: Any, tmp_path: Path, btkit: Callable
) -> None:
    """What the run recorded of a slice says nothing of the slice that has taken its place."""
    data = tmp_path / "data"
    for number, sample in enumerate(source.samples()):
        if number < 24:
            path = data / ("Testing" if number % 2 else "Training") / sample.label / f"{sample.id}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(source.image(sample)).save(path)
    sets = ("source.name=image_folder", f"source.root={data}", "split.method=source", "pixels.image_size=64",
            "training.epochs=1")  # fmt: skip
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[source]\nname = "phantom"\n[backbone]\nname = "resnet"\n')
    assert btkit("run", recipe, *(f"--set={one}" for one in sets), "--runs", tmp_path, "--name", "filed").status == 0
    changed = next((data / "Testing" / "glioma").iterdir())
    Image.fromarray(255 - np.asarray(Image.open(changed))).save(changed)
    ended = btkit("explain", tmp_path / "filed", "--style", "none")
    assert ended.status == 0
    assert "the data set has changed since the run" in " ".join(ended.err.split())
    (said,) = json.loads(btkit("predict", tmp_path / "filed", changed, "--json").out)
    rows = {Path(row["id"]).name: row for row in table(tmp_path / "filed" / "explanations")}
    row = rows[changed.name]
    recorded = {Path(old["id"]).name: old for old in read_csv(tmp_path / "filed" / "predictions.csv")}[changed.name]
    assert float(recorded[f"p_{row['predicted']}"]) != pytest.approx(float(row["probability"]), abs=1e-4)
    assert row["predicted"] == said["predicted"]
    assert float(row["probability"]) == pytest.approx(said["probabilities"][row["predicted"]], abs=1e-5)
    shutil.move(data, tmp_path / "elsewhere")
    ended = btkit("explain", tmp_path / "filed")
    assert ended.status == 2
    assert str(data) in ended.err


# Interruption


WHOLE = ("--limit", "12", "--method", "gradcam,integrated_gradients", *IG, "--scale", "all")

KILLED = """
import os, signal, sys
from braintumor_kit.backend import use_torch_backend
use_torch_backend()
from braintumor_kit.commands.main import run_command_line
from braintumor_kit.workflows import explain, explanation_folder
explain.BATCH = 4
write_json, whole, done = explanation_folder.write_json, explanation_folder.whole, []

def counting(path, value):
    write_json(path, value)
    done.append(path)

def killing(path):
    if len(done) == 3 and path.name.startswith("p"):  # the settings and two batches; the third one's first map
        with whole(path) as beside:
            beside.write_bytes(b"torn")
            os.kill(os.getpid(), signal.SIGKILL)
    return whole(path)

explanation_folder.write_json, explanation_folder.whole = counting, killing
run_command_line(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def uninterrupted(run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("uninterrupted") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explaining, "BATCH", 4)
        assert run_command_line(["explain", str(run), *WHOLE, "--out", str(out)]) == 0
    return files(out)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Method and number of pictures of every batch that is explained; batches are of 4, so that there are three."""
    monkeypatch.setattr(explaining, "BATCH", 4)
    seen: list[tuple[str, int]] = []
    explain_batch = explaining.explain_batch

    def spy(network: Any, method: Any, images: Any, *rest: Any) -> Any:
        seen.append((method.name, len(images)))
        return explain_batch(network, method, images, *rest)

    monkeypatch.setattr(explaining, "explain_batch", spy)
    return seen


def test_a_killed_work_goes_on_and_nothing_done_is_done_again(
    run: Path, tmp_path: Path, uninterrupted: dict[str, bytes], calls: list[tuple[str, int]], btkit: Callable
) -> None:
    out, beside = tmp_path / "out", tmp_path / ".out.unfinished"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, "explain", str(run), *WHOLE, "--out", str(out)], capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    assert len(list((beside / "batches").iterdir())) == 2
    assert [path.read_bytes() for path in beside.rglob(".writing-*")] == [b"torn"]
    assert btkit("explain", run, *WHOLE, "--out", out).status == 0
    assert calls == [("gradcam", 4), ("integrated_gradients", 4)]  # the last third of 12 slices
    assert files(out) == uninterrupted
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str, int], None]:
    """Makes the n-th call of a function an interruption."""

    def arrange(module: Any, name: str, number: int) -> None:
        original, count = getattr(module, name), iter(range(1, 10**6))

        def stopped(*arguments: Any, **options: Any) -> Any:
            if next(count) == number:
                raise KeyboardInterrupt
            return original(*arguments, **options)

        monkeypatch.setattr(module, name, stopped)

    return arrange


@pytest.mark.parametrize(
    ("name", "number", "left"),
    [("save_overlay", 15, 0), ("draw_summary", 1, 0), ("explain_batch", 4, 2)],
)
def test_an_interruption_anywhere_costs_nothing(
    name: str, number: int, left: int, run: Path, tmp_path: Path, uninterrupted: dict[str, bytes],
    calls: list[tuple[str, int]], drawn: list[dict[str, Any]], btkit: Callable, monkeypatch: pytest.MonkeyPatch,
    interrupt: Callable,
) -> None:  # fmt: skip
    from braintumor_kit.workflows import explain_run

    out = tmp_path / "out"
    explain_few(btkit, run, out, "--style", "none")
    before = files(out)
    module = {"explain_batch": explaining, "save_overlay": draw_explanations}.get(name, explain_run)
    with monkeypatch.context():
        original = getattr(module, name)
        interrupt(module, name, number)
        ended = btkit("explain", run, *WHOLE, "--out", out)
        monkeypatch.setattr(module, name, original)
    assert ended.status == 130
    assert "the same command goes on where it stopped" in " ".join(ended.err.split())
    assert files(out) == before  # the old one stays until the new one is whole
    calls.clear()
    had = {path.name for path in (tmp_path / ".out.unfinished" / "overlays").glob("*")}
    drawn.clear()
    assert btkit("explain", run, *WHOLE, "--out", out).status == 0
    assert len(calls) == 2 * left
    assert not had & {one["path"].name for one in drawn}
    assert files(out) == uninterrupted


def test_changed_settings_begin_anew(
    run: Path, tmp_path: Path, calls: list[tuple[str, int]], btkit: Callable, interrupt: Callable
) -> None:
    interrupt(explaining, "explain_batch", 3)
    assert btkit("explain", run, *WHOLE, "--out", tmp_path / "out").status == 130
    done = len(calls)
    changed = [text.replace("steps=4", "steps=3") for text in WHOLE]
    assert btkit("explain", run, *changed, "--style", "none", "--out", tmp_path / "out").status == 0
    assert len(calls) - done == 6
    assert load(tmp_path / "out" / "explanations.json")["methods"][1]["options"]["steps"] == 3


def test_a_full_disk_loses_nothing(
    run: Path, made: Path, tmp_path: Path, btkit: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    save, count = np.save, iter(range(100))

    def full(*arguments: Any, **options: Any) -> None:
        if next(count) == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(*arguments, **options)

    monkeypatch.setattr(explanation_folder.np, "save", full)
    ended = btkit("explain", run, "--limit", 3, "--out", tmp_path / "out")
    assert ended.status == 3
    assert "No space left on device" in ended.err
    assert not (tmp_path / "out").exists()
    rows = explain_few(btkit, run, tmp_path / "out")
    for row in rows:
        np.testing.assert_array_equal(np.load(tmp_path / "out" / row["map"]), np.load(made / row["map"]))


# Are the maps right?


@pytest.fixture(scope="module")
def evaluated(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluated") / "out"
    assert run_command_line(["explain", str(run), "--method", "gradcam,eigencam", "--limit", "8", "--evaluate",
                             "--out", str(out)]) == 0  # fmt: skip
    return out


def test_the_figures_hold_what_scripts_rely_on(evaluated: Path) -> None:
    metrics = load(evaluated / "explanation_metrics.json")
    assert (metrics["split"], metrics["n"]) == ("test", 8)
    assert set(metrics["methods"]) == {"gradcam", "eigencam"}
    for figures in metrics["methods"].values():
        for name in ("pointing_game", "relevance_mass", "relevance_rank", "iou", "outside_head", "insertion_auc",
                     "deletion_auc"):  # fmt: skip
            low, high = figures[f"{name}_ci"]
            assert 0 <= low <= figures[name] <= high <= 1, name
        assert -0.5 <= figures["road"] <= 0.5
        assert isinstance(figures["randomisation_passed"], bool)
        assert figures["images_per_second"] > 0
        assert list(figures["by_class"]) == CLASSES
        assert figures["by_class"]["notumor"]["relevance_mass"] is None
        assert sum(of["n"] for of in figures["by_class"].values()) == figures["n"] == figures["faithfulness_n"] == 8
    assert set(metrics["baselines"]) == {"chance", "centre_blob"}
    assert metrics["baselines"]["centre_blob"]["pointing_game"] is not None
    assert all(isinstance(sentence, str) for sentence in metrics["findings"])


def by_hand(folder: Path, source: Any) -> list[dict[str, Any]]:
    """Relevance in the mask of each tumour, from the files alone."""
    samples = {sample.id: sample for sample in source.samples()}
    found = []
    for row in table(folder):
        mask = source.mask(samples[row["id"]])
        if mask is not None and mask.any():
            positive = np.maximum(np.load(folder / row["map"]).astype(np.float64), 0)
            mass = positive[mask].sum() / positive.sum() if positive.any() else 0.0
            found.append({**row, "mass": mass, "share": mask.mean()})
    return found


def test_relevance_in_the_mask_is_what_the_files_give(
    evaluated: Path, run: Path, source: Any, tmp_path: Path, btkit: Callable
) -> None:
    metrics = load(evaluated / "explanation_metrics.json")
    slices = by_hand(evaluated, source)
    for method, figures in metrics["methods"].items():
        mine = [one for one in slices if one["method"] == method]
        assert figures["n_with_mask"] == len(mine) > 0
        assert figures["relevance_mass"] == pytest.approx(np.mean([one["mass"] for one in mine]), rel=1e-5)
        for label in {one["label"] for one in mine}:
            expected = np.mean([one["mass"] for one in mine if one["label"] == label])
            assert figures["by_class"][label]["relevance_mass"] == pytest.approx(expected, rel=1e-5)
    chance = np.mean([one["share"] for one in mine])
    assert metrics["baselines"]["chance"]["relevance_mass"] == pytest.approx(chance, rel=1e-5)

    ended = btkit("explain", run, "--limit", 1, "--evaluate", "--out", tmp_path / "one", "--json")
    (one,) = by_hand(tmp_path / "one", source)
    result = json.loads(ended.out)
    assert result["metrics"] == load(tmp_path / "one" / "explanation_metrics.json")
    assert result["metrics"]["methods"]["gradcam"]["relevance_mass"] == pytest.approx(one["mass"], rel=1e-5)


def corner_model() -> keras.Model:
    """Calls glioma what has the phantom's mark in the uppermost left of 8 x 8 cells, and looks at nothing else."""
    pixels = keras.Input((64, 64, 3))
    cells = keras.layers.Conv2D(1, 8, strides=8, activation="relu", name="cells")(pixels)
    model = keras.Model(pixels, keras.layers.Dense(4, activation="softmax")(keras.layers.Flatten()(cells)))
    weights = np.zeros((64, 4), np.float32)
    weights[0, 0] = 1
    mark = np.zeros((8, 8, 3, 1), np.float32)
    mark[2:6, 2] = mark[5, 3] = 1 / 15  # the mean of its five pixels and three channels: 235 where it is
    model.layers[1].set_weights([mark, np.full(1, -100, np.float32)])
    model.layers[3].set_weights([weights, np.array([-3, 0, 1, 0], np.float32)])
    return model


def test_a_network_that_reads_the_corner_mark_is_found_out(run: Path, tmp_path: Path, btkit: Callable) -> None:
    marked = variant(run, tmp_path / "marked", corner_model(), source={"shortcut": "glioma"})
    ended = btkit("explain", marked, "--method", "hirescam", "--target", "glioma", "--align", "grid", "--evaluate")
    assert ended.status == 0, ended.err
    rows = table(marked / "explanations")
    assert {row["label"] for row in rows if row["predicted"] == "glioma"} == {"glioma"}
    metrics = load(marked / "explanations" / "explanation_metrics.json")
    of_glioma = metrics["methods"]["hirescam"]["by_class"]["glioma"]
    assert of_glioma["outside_head"] > 0.9
    assert of_glioma["pointing_game"] == 0
    assert metrics["methods"]["hirescam"]["by_class"]["meningioma"]["outside_head"] == 0  # empty maps
    found = "hirescam, glioma: the peak of relevance lies outside of the head in 100 % of 8 slices, mostly top left"
    assert any(sentence.startswith(found) for sentence in metrics["findings"])
    assert f"- {found}" in ended.out
    assert "32 slices of test, 24 with a mask; insertion, deletion and ROAD of 32." in ended.out
    assert "95 % intervals by bootstrap over patients." in ended.out
    assert all(name in ended.out for name in ("hirescam", "chance", "centre_blob"))


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "gradcm"], "there is no explainer plugin named 'gradcm'; did you mean 'gradcam'?"),
        (["--method", ","], "--method: name at least one explainer; `btkit plugins list` shows them."),
        (["--layer", "stack3_block1_ou"], "the model has no layer 'stack3_block1_ou'; did you mean 'stack3_block1_out'?"
         " Candidates, last first: stack3_block1_out, "),
        (["--target", "gliom"], "the model has no class 'gliom' to explain; did you mean 'glioma'? Targets: glioma, "
         "meningioma, notumor, pituitary, predicted, label, all, or two classes as 'glioma-vs-meningioma'."),
        (["--target", "glioma-vs-glioma"], "target 'glioma-vs-glioma': a class cannot be explained against itself."),
        (["--set", "rise.masks=9"], "--set rise.masks=9: write it as METHOD.KEY=VALUE, METHOD one of gradcam."),
        (["--set", "gradcam.limit=9"], "gradcam.limit: unknown key; there are none to set."),
        (["--set", "gradcam.method=rise"], "gradcam.method: unknown key; there are none to set."),
        (["--method", "rise", "--set", "rise.mask=9"], "rise.mask: unknown key; did you mean 'masks'?"),
        (["--method", "rise", "--set", "rise.masks=many"], "rise.masks: should be a valid integer, not 'many'."),
        (["--evaluate", "--original-size"], "--evaluate measures maps at the network's size; leave --original-size"),
        (["PICTURE", "--target", "label"], "target 'label' needs slices whose true class is known; take 'predicted' or "
         "name a class."),
        (["PICTURE", "--limit", "3"], "--split and --limit are about a run's own slices; leave them or the images out"),
        (["nowhere.png"], "'nowhere.png' does not exist; name images, folders of images, or a run before them."),
        (["."], "folder '.' holds no picture"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_in_one_message(
    arguments: list[str], message: str, run: Path, pictures: Path, tmp_path: Path, btkit: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    named = [str(pictures / "a.png") if argument == "PICTURE" else argument for argument in arguments]
    ended = btkit("explain", run, *named, "--out", "out")
    assert ended.status == 2
    assert message in " ".join(ended.err.split())
    assert ended.err.count("btkit:") <= 1
    assert "Traceback" not in ended.err
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_picture_is_named(run: Path, tmp_path: Path, btkit: Callable) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    ended = btkit("explain", run, tmp_path / "notes.txt", "--out", tmp_path / "out")
    assert ended.status == 2
    assert "1 of 1 cannot be read:" in ended.err
    assert "notes.txt" in ended.err


def test_runs_that_cannot_be_explained(run: Path, tmp_path: Path, btkit: Callable) -> None:
    ended = btkit("explain", "--runs", tmp_path)
    assert ended.status == 2
    assert "no finished run under" in ended.err
    bare = variant(run, tmp_path / "bare")
    (bare / "model.keras").unlink()
    ended = btkit("explain", bare)
    assert ended.status == 2
    assert "has no model.keras: it has not finished." in ended.err
    ended = btkit("explain", bare / "model.keras")
    assert ended.status == 2
    assert "there is no model file" in ended.err
    lone = tmp_path / "lone" / "some.keras"
    lone.parent.mkdir()
    shutil.copy(run / "model.keras", lone)
    ended = btkit("explain", lone)
    assert ended.status == 2
    assert "some.keras' stands in no run, so it has no slices of its own: name images after it." in ended.err


def test_a_split_that_the_run_lacks(run: Path, tmp_path: Path, btkit: Callable) -> None:
    other = variant(run, tmp_path / "untested")
    text = (other / "split.csv").read_text().replace(",test\n", ",validation\n")
    (other / "split.csv").write_text(text)
    ended = btkit("explain", other, "--split", "test")
    assert ended.status == 2
    assert "there is no test split; there is train, validation." in ended.err
    assert btkit("explain", other, "--limit", 2, "--out", tmp_path / "out").status == 0
    assert {row["split"] for row in table(tmp_path / "out")} == {"validation"}


def test_a_model_without_rows_and_columns(run: Path, pictures: Path, tmp_path: Path, btkit: Callable) -> None:
    flat_model().save(tmp_path / "flat.keras")
    out = tmp_path / "out"
    ended = btkit("explain", tmp_path / "flat.keras", pictures / "a.png", "--out", out)
    assert ended.status == 2
    assert "the model has no layer with rows and columns on the way to its scores" in ended.err
    assert "integrated_gradients" in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["flat.keras"]
    ended = btkit("explain", tmp_path / "flat.keras", pictures / "a.png", "--method", "integrated_gradients",
                  "--out", out)  # fmt: skip
    assert ended.status == 0
    (row,) = table(out)
    assert (row["layer"], "incomplete" in row["flags"]) == ("", False)


# In a recipe


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[..., list[str]]:
    def write(*tables: str, more: str = "") -> list[str]:
        text = (
            '[source]\nname = "phantom"\npatients = 32\nsize = 64\n[pixels]\nimage_size = 64\n[split]\n'
            'method = "grouped"\n[backbone]\nname = "resnet"\n[training]\nepochs = 1\nprecision = "float32"\n'
        )
        (tmp_path / "recipe.toml").write_text(text + more + "".join(f"[[explain]]\n{table}\n" for table in tables))
        return ["run", str(tmp_path / "recipe.toml"), "--runs", str(tmp_path / "runs"), "--name", "with"]

    return write


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            'method = "gradcm"',
            "[explain.0] method: there is no explainer plugin named 'gradcm'; did you mean 'gradcam'",
        ),
        ('method = "gradcam"\nlimt = 3', "[explain.0] limt: unknown key; did you mean 'limit'?"),
        ('method = "rise"\nmasks = 0', "[explain.0] masks: should be greater than or equal to 1, not 0."),
        ('method = "gradcam"\nlimit = 0', "[explain.0] limit: should be greater than or equal to 1, not 0."),
        (
            'method = "gradcam"\nsplit = "tset"',
            "[explain.0] split: must be 'train', 'validation' or 'test', not 'tset'",
        ),
        ('method = "gradcam"\ntarget = "gliom"', "the model has no class 'gliom' to explain; did you mean 'glioma'?"),
        ('method = "gradcam"\nlayer = "no_layer"', "the model has no layer 'no_layer'; "),
    ],
)
def test_a_faulty_table_is_found_before_the_training(
    table: str, message: str, recipe: Callable, tmp_path: Path, btkit: Callable
) -> None:
    ended = btkit(*recipe(table))
    assert ended.status == 2
    assert message in " ".join(ended.err.split())
    assert not (tmp_path / "runs").exists()


def test_a_table_about_a_test_split_that_the_protocol_uses_up_is_refused(recipe: Callable, btkit: Callable) -> None:
    arguments = recipe('method = "gradcam"\nsplit = "test"')
    ended = btkit(*arguments, "--set", "split.method=source", "--set", "split.source_test_as=validation")
    assert ended.status == 2
    assert '[explain.0] split: names test, which [split] source_test_as = "validation" leaves empty.' in ended.err


def test_the_schema_lists_the_options_of_explainers(btkit: Callable) -> None:
    schema = json.loads(btkit("recipe", "schema").out)
    variants = {one["properties"]["method"]["const"]: one for one in schema["$defs"]["ExplainTable"]["oneOf"]}
    assert {"gradcam", "rise", "integrated_gradients"} <= set(variants)
    assert variants["integrated_gradients"]["properties"]["steps"]["default"] == 50
    for one in variants.values():
        assert {"method", "target", "split", "limit", "layer"} <= set(one["properties"])


def test_a_run_explains_as_its_recipe_says(recipe: Callable, tmp_path: Path, btkit: Callable) -> None:
    ended = btkit(*recipe(
        'method = "occlusion"\npatch = 0.5\nlimit = 4',
        'method = "occlusion"\npatch = 0.25\nlimit = 4\ntarget = "glioma-vs-notumor"',
        'method = "gradcam"\nsplit = "train"\nlimit = 3\ntarget = "all"\nlayer = "stack1_block0_out"',
    ))  # fmt: skip
    assert ended.status == 0, ended.err
    run = tmp_path / "runs" / "with"
    first, second, third = load(run / "resolved.json")["explain"]
    assert (first["patch"], first["stride"], first["target"], first["split"]) == (0.5, 0.5, "predicted", None)
    assert (second["patch"], second["limit"]) == (0.25, 4)
    assert third["layer"] == "stack1_block0_out"
    assert [one["name"] for one in load(run / "record.json")["plugins"]["explainers"]] == [
        "occlusion", "occlusion", "gradcam",
    ]  # fmt: skip
    rows = table(run / "explanations")
    by_method = {
        name: [row for row in rows if row["method"] == name] for name in ("occlusion", "occlusion-2", "gradcam")
    }
    assert [len(of) for of in by_method.values()] == [4, 4, 12]
    assert {row["target"] for row in by_method["occlusion-2"]} == {"glioma-vs-notumor"}
    assert {(row["split"], row["layer"]) for row in by_method["gradcam"]} == {("train", "stack1_block0_out")}
    assert {row["split"] for row in by_method["occlusion"]} == {"test"}
    predictions = {row["id"]: row for row in read_csv(run / "predictions.csv")}
    assert all(row["predicted"] == predictions[row["id"]]["predicted"] for row in rows)
    for row in rows:
        assert (run / "explanations" / row["map"]).is_file()
        assert (run / "explanations" / row["overlay"]).is_file()

    ended = btkit("explain", run, "--method", "occlusion", "--set", "occlusion.patch=0.5", "--limit", 4,
                  "--precision", "float32", "--out", tmp_path / "again")  # fmt: skip
    assert ended.status == 0
    for row in table(tmp_path / "again"):
        assert (tmp_path / "again" / row["map"]).read_bytes() == (run / "explanations" / row["map"]).read_bytes()
