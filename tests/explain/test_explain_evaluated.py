"""`btkit explain --evaluate`: the figures are those of the files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from explained import CLASSES, load, table, variant

from braintumor_kit.commands.main import run_command_line

pytestmark = pytest.mark.usefixtures("one_thread")


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
