"""`btkit explain` of a split of a run: the folder, its table, targets, layers, overlays."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explained import CLASSES, IG, explain_few, files, load, table
from PIL import Image

from braintumor_kit.files import read_csv

pytestmark = pytest.mark.usefixtures("one_thread")


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
