"""`[[explain]]` tables of a recipe."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from explained import SMALL, load, table

from braintumor_kit.files import read_csv

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_a_network_without_maps_is_found_before_the_training(tmp_path: Path, btkit: Callable) -> None:
    """At 32 pixels the last layer of a ResNet has one cell."""
    ended = btkit("run", "resnet_adam", *SMALL, "--set", "pixels.image_size=32", "--runs", tmp_path / "runs")
    assert ended.status == 2
    assert "gives no maps" in ended.err
    assert not (tmp_path / "runs").exists()
