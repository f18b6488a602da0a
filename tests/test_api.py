"""The names of `braintumor_kit`: few, imported when asked for, and shown by notebooks as what they are."""

import html
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image
from small_models import network, saved

import braintumor_kit
from braintumor_kit import BrainTumorClassifier, Explanation, Result, explain, load, run
from braintumor_kit.contracts import InputError
from braintumor_kit.files import read_csv
from braintumor_kit.notice import NOTICE
from braintumor_kit.report.notebook import predictions_html, result_html
from braintumor_kit.workflows import run as workflow

DOCS = Path(__file__).resolve().parents[1] / "docs" / "pages" / "python.md"


def test_the_package_imports_nothing_heavy_and_lists_its_names() -> None:
    script = (
        "import sys, braintumor_kit as b; print(sorted(n for n in dir(b) if n in b.__all__) == sorted(b.__all__), "
        "[m for m in ('torch', 'keras', 'numpy', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "True []\n"
    assert all(hasattr(braintumor_kit, name) for name in braintumor_kit.__all__)
    with pytest.raises(AttributeError, match="module 'braintumor_kit' has no attribute 'fly'"):
        braintumor_kit.fly  # noqa: B018 (it is asked for)


def test_one_page_tells_of_every_name() -> None:
    told = re.findall(r"^::: braintumor_kit\.[\w.]+\.(\w+)$", DOCS.read_text(), re.MULTILINE)
    assert sorted(told) == sorted(set(braintumor_kit.__all__) - {"__version__"})


# A run


def test_tables_are_laid_over_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What reaches the workflow; no network is trained."""
    seen: dict[str, Any] = {}

    def stand_in(recipe: Any, text: str, runs: Path, name: str, argv: list[str], reporter: Any) -> Any:
        seen.update(recipe=recipe.resolved(), text=text, runs=runs, name=name, argv=argv)
        raise InputError("far enough")

    monkeypatch.setattr("braintumor_kit.api.running.run_recipe", stand_in)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="far enough"):
        run(
            "resnet_adam", runs=tmp_path / "r", name="x", seed=3, training={"epochs": 2}, explain=[],
            source={"name": "image_folder", "root": Path("here")},
        )  # fmt: skip
    recipe = seen["recipe"]
    assert (recipe["seed"], recipe["training"]["epochs"], recipe["training"]["optimizer"]) == (3, 2, "adam")
    assert (recipe["source"]["root"], recipe["explain"]) == (str(tmp_path / "here"), [])
    assert (seen["runs"], seen["name"]) == (tmp_path / "r", "x")
    assert seen["argv"][:4] == ["braintumor_kit.run", "resnet_adam", "seed=3", "training={'epochs': 2}"]
    with pytest.raises(InputError, match=r"Python: \[training\] epoch: unknown key; did you mean 'epochs'"):
        run("resnet_adam", training={"epoch": 2})


def test_a_result_is_what_the_folder_holds(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow, "train_into", None)
    result = Result(finished)
    assert result.metrics == json.loads((finished / "metrics.json").read_text())
    assert result.record["recipe_name"] == "resnet_adam"
    assert result.caveats[0].startswith("The slices are painted, not scanned")
    assert repr(result) == f"Result({str(finished)!r})"
    assert result.model.classes == ("glioma", "meningioma", "notumor", "pituitary")
    with pytest.raises(InputError, match=r"is no run: it holds no record\.json"):
        Result(finished / "figures")


def texts(page: str) -> str:
    """What a reader sees of a piece of HTML."""
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page)))


def holds(page: str) -> None:
    """It stands by itself, runs nothing, and is in the notebook's own colours."""
    assert not re.search(r"<script|<style|<link|\bon\w+=|javascript:", page)
    assert not re.search(r"""(?:src|href)=["'](?!data:image/webp;base64,)""", page)
    assert not re.search(r"(?<![\w-])(?:color|background(?:-color)?):(?!inherit|none)", page)
    assert NOTICE in texts(page)


def test_a_notebook_shows_a_result_with_its_intervals_and_caveats(finished: Path) -> None:
    result = Result(finished)
    page = result._repr_html_()
    holds(page)
    said, test = texts(page), result.metrics["test"]
    low, high = test["accuracy_ci"]
    assert f"{test['accuracy']:.3f} [ {low:.3f} to {high:.3f}]".replace("[ ", "[") in said
    assert "test (reported)" in said
    assert "validation (selects)" in said
    for sentence in result.caveats:
        assert sentence in said


# A model


@pytest.fixture(scope="module")
def slices(finished: Path) -> list[str]:
    """Ids of the test slices of `finished`."""
    return [row["id"] for row in read_csv(finished / "predictions.csv") if row["split"] == "test"]


def test_a_loaded_model_says_what_the_commands_say(finished: Path, btkit: Callable[..., Any], tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    pictures = draw.integers(0, 255, (3, 80, 64)).astype(np.uint8)
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, picture in zip(paths, pictures, strict=True):
        Image.fromarray(picture).save(path)
    model = load(finished)
    found, of_files = model.predict(pictures), model.predict(paths)
    told = json.loads(btkit("predict", finished, *paths, "--json").out)
    assert of_files.rows == told
    assert [row["path"] for row in found.rows] == ["picture 0", "picture 1", "picture 2"]
    assert (found.probabilities == of_files.probabilities).all()
    assert found.probabilities[0].tolist() == list(told[0]["calibrated"].values())
    assert found.predicted == tuple(row["predicted"] for row in told)
    assert len(found) == 3
    assert (model.folder, repr(model)) == (finished, f"Model({str(finished)!r}, classes={model.classes})")
    page = found._repr_html_()
    holds(page)
    assert f"{found.probabilities[0, 0]:.4f}" in texts(page)
    assert "Calibrated probabilities." in texts(page)


def test_the_newest_run_is_loaded(finished: Path) -> None:
    assert load(runs=finished.parent).folder == finished


def test_a_file_of_any_kind_is_loaded(tmp_path: Path) -> None:
    model = load(saved(tmp_path, network()), classes=["no", "yes"])
    found = model.predict(np.zeros((2, 32, 32), np.uint8))
    assert set(found.predicted) <= {"no", "yes"}
    assert model.folder is None
    assert isinstance(model.network, keras.Model)
    assert found.rows[0]["calibrated"] is None
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, atol=1e-6)


def test_a_run_is_an_estimator_too(finished: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 255, (3, 64, 64)).astype(np.uint8)
    loaded = BrainTumorClassifier.load(finished)
    rows = load(finished).predict(pictures).rows
    assert loaded.classes_.tolist() == ["glioma", "meningioma", "notumor", "pituitary"]
    assert loaded.predict_proba(pictures).tolist() == [list(row["probabilities"].values()) for row in rows]
    assert loaded.get_params()["overrides"]["training"]["batch_size"] == 8


# Maps


def test_a_model_explains_pictures_of_any_size(finished: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 255, (2, 100, 80)).astype(np.uint8)
    model = load(finished)
    found = model.explain(pictures, "gradcam", target="glioma", precision="float32")
    assert isinstance(found, Explanation)
    assert found.maps.shape == (2, 64, 64)
    assert found.targets == ("glioma", "glioma")
    same = explain(finished, found.pictures, "gradcam", target="glioma", precision="float32")
    assert (same.maps == found.maps).all()


def test_a_notebook_shows_maps_with_class_probability_and_flags(tmp_path: Path) -> None:
    """Of a network that says the same of every picture, so that each map is flagged."""
    model = network()
    model.get_layer("d").set_weights([np.zeros((2, 2)), np.zeros(2)])
    found = explain(model, np.zeros((10, 32, 32, 3)), target="class_1", classes=["<b>a</b>", "class_1"])
    page = found._repr_html_()
    holds(page)
    said = texts(page)
    assert "<b>a" not in page
    assert said.count("explains class_1; predicted <b>a</b>, p = 0.50") == 8
    assert "⚠ the model predicts another class than the one that is explained" in said
    assert "⚠ no pixel has any relevance" in said
    assert page.count("data:image/webp;base64,") == 8
    assert "and 2 more maps" in said
    assert len(page) < 8 * 2**17
    assert "A map shows what the network looked at, not where a tumour is." in said


def test_what_comes_from_outside_is_shown_as_text() -> None:
    odd = "<img src=x onerror=alert(1)>"
    row = {"path": odd, "predicted": odd, "probabilities": {odd: 1.0}, "calibrated": None, "out_of_distribution": True,
           "ood_score": 2.0, "abstain": False}  # fmt: skip
    page = predictions_html([row], [odd], odd)
    figures = {"n": 1, "interval_over": odd, "by_group": None, "ece": 0.0, "ece_calibrated": None}
    figures |= dict.fromkeys(("accuracy", "balanced_accuracy", "macro_f1"), 1.0)
    figures |= {f"{name}_ci": [0.0, 1.0] for name in ("accuracy", "balanced_accuracy", "macro_f1")}
    shown = result_html(odd, {"test": figures}, [odd])
    for one in (page, shown):
        assert "<img" not in one
        assert odd in texts(one.replace("&lt;", "\0")).replace("\0", "<")
    assert "unlike the training slices: do not use" in texts(page)
