"""`btkit explain` of picture files and of other models."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from explained import IG, explain_few, load, table, variant
from PIL import Image

from braintumor_kit.contracts.pictures import read_picture
from braintumor_kit.data.pixels import restore
from braintumor_kit.files import read_csv
from braintumor_kit.recipe.tables import PixelsTable

pytestmark = pytest.mark.usefixtures("one_thread")


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
