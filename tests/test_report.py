"""Reports: what they say of a run, of folds, of runs without patients, and how they look in a browser."""

import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pages import VIEWS, chromium, file_url, opened, overflow, violations
from PIL import Image
from playwright.sync_api import Browser
from small_runs import TINY, copy_run

from braintumor_kit.files import read_csv, read_json
from braintumor_kit.report.caveats import caveats
from braintumor_kit.report.page import figure_text, interval_text, markdown_cell, signed_text
from braintumor_kit.report.run_page import class_counts, surest_first

pytestmark = pytest.mark.usefixtures("two_layers")

NAME = '<img src=x onerror="alert(1)"> & $\\frac'
"""A class of a data set."""


@pytest.fixture(scope="module")
def runs(two_layers: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs with reports: `one` with patients and masks, `folds` of three, `slices` of pictures whose patients nobody
    knows, with a class of HTML."""
    from braintumor_kit.commands.main import run_command_line

    root = tmp_path_factory.mktemp("reported")
    options = ["report=true" if word == "report=false" else word for word in TINY]
    options += ["--runs", str(root)]
    folds = ["--set", "split.method=kfold", "--set", "split.folds=3"]
    assert run_command_line(["run", "resnet_adam", *options, "--name", "one"]) == 0
    assert run_command_line(["run", "resnet_adam", *options, *folds, "--name", "folds"]) == 0
    assert run_command_line(["explain", str(root / "one"), "--evaluate", "--limit", "4"]) == 0
    assert run_command_line(["report", str(root / "one")]) == 0
    recipe = _pictures(tmp_path_factory.mktemp("pictures"))
    assert run_command_line(["run", str(recipe), "--runs", str(root), "--name", "slices"]) == 0
    return root


def _pictures(folder: Path) -> Path:
    """A recipe of a folder of bright and dark pictures, whose patients nobody knows."""
    random = np.random.default_rng(0)
    for label, level in ((NAME.replace("/", ""), 60), ("plain", 160)):
        (folder / label).mkdir()
        for number in range(16):
            picture = random.integers(level, level + 60, (48, 48), dtype=np.uint8)
            Image.fromarray(picture).save(folder / label / f"{number}.png")
    (folder / "recipe.toml").write_text(
        '[source]\nname = "image_folder"\nroot = "."\n[split]\nmethod = "stratified"\n[pixels]\nimage_size = 48\n'
        '[backbone]\nname = "two_layers"\n[training]\nepochs = 1\nbatch_size = 8\n'
        'precision = "float32"\n[[explain]]\nmethod = "gradcam"\nlimit = 2\n'
    )
    return folder / "recipe.toml"


class Words(HTMLParser):
    """The words of a page, without its style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []
        self._hidden = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self._hidden = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.found.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.found).split())


def page(run: Path) -> Words:
    return Words((run / "report.html").read_text())


def test_the_headline_has_its_interval_and_its_caveats(runs: Path) -> None:
    test = read_json(runs / "one" / "metrics.json")["test"]
    words = page(runs / "one").text
    low, high = test["accuracy_ci"]
    said = f"{test['accuracy']:.3f} 95 % interval {low:.3f} to {high:.3f}, over patients; n = {test['n']}"
    assert said in words
    assert "The slices are painted, not scanned" in words
    assert f"Only {test['by_group']['n']} patients were judged" in words
    assert "Research use only, not a medical device." in words
    assert "scanners and hospitals that it lacks were not tested" in words


def test_every_number_of_the_matrices_and_classes_is_there(runs: Path) -> None:
    metrics = read_json(runs / "one" / "metrics.json")
    words = page(runs / "one").text
    for part in ("validation", "test"):
        for row in metrics[part]["confusion_matrix"]:
            shares = (f"{count} {100 * count / max(sum(row), 1):.0f} %" for count in row)
            assert " ".join(shares) in words
    for name, row in metrics["test"]["per_class"].items():
        figures = f"{row['precision']:.3f} {row['recall']:.3f} {row['f1']:.3f} {row['support']}"
        assert f"{name} {figures}" in words


def test_the_worst_mistakes_come_with_their_maps(runs: Path) -> None:
    rows = [row for row in read_csv(runs / "one" / "predictions.csv") if row["split"] == "test"]
    wrong = [row for row in rows if row["predicted"] != row["label"]]
    wrong.sort(key=lambda row: (-float(row[f"p_{row['predicted']}"]), row["id"]))
    explained = {row["id"] for row in read_csv(runs / "one" / "mistakes" / "explanations.csv")}
    assert explained == {row["id"] for row in wrong[:12]}
    text = (runs / "one" / "report.html").read_text()
    shown = re.findall(
        r'<img class="picture" src="data:image/webp;base64,[^"]+" alt="Slice (\S+) with its gradcam', text
    )
    assert shown == [row["id"] for row in wrong[:12]]
    assert f"{len(wrong)} of {len(rows)} test slices are wrong" in page(runs / "one").text


def test_where_it_looks_is_told_with_the_baselines(runs: Path) -> None:
    found = read_json(runs / "one" / "explanations" / "explanation_metrics.json")
    words = page(runs / "one").text
    assert f"{found['methods']['gradcam']['pointing_game']:.3f}" in words
    assert "centre blob" in words
    for sentence in found["findings"]:
        assert sentence in words


def test_a_report_of_folds_pools_them_and_leads_to_each(runs: Path) -> None:
    metrics = read_json(runs / "folds" / "metrics.json")
    words, text = page(runs / "folds").text, (runs / "folds" / "report.html").read_text()
    assert "a cross-validation of 3 folds" in words
    assert f"{metrics['over_folds']['accuracy']['mean']:.3f} {metrics['over_folds']['accuracy']['sd']:.3f}" in words
    for number, fold in enumerate(metrics["folds"], start=1):
        assert f'href="fold-{number}/report.html"' in text
        assert (runs / "folds" / f"fold-{number}" / "report.html").is_file()
        assert f"fold-{number} {fold['accuracy']:.3f}" in words
    assert "3 trainings, one a fold, with one seed" in words
    assert "weights at the start: those that the plugin makes" in words  # whose options have no `weights`


def test_without_patients_it_says_so_and_a_class_of_html_is_text(runs: Path) -> None:
    found = page(runs / "slices")
    assert "No patient is known of any slice" in found.text
    assert "by patient" not in found.text
    assert NAME in "".join(found.found)
    assert "alert(1)" not in re.sub(r"&#34;|&lt;.*?&gt;", "", (runs / "slices" / "report.html").read_text())
    card = (runs / "slices" / "model_card.md").read_text()
    assert "<img" not in card.split("---", 2)[2].replace("\\<img", "")


def test_a_leak_stands_first(tmp_path: Path) -> None:
    judged = {"n": 500, "accuracy_ci": [0.9, 0.95], "by_group": None, "per_class": {}, "ece": 0.1}
    found = caveats({"folds": None}, {"test": judged, "warning": "the split leaks: 3 patients"}, 500)
    assert found[0].startswith("The split leaks: 3 patients. What was trained on is tested")


def test_what_only_some_runs_have_to_be_told() -> None:
    judged = {
        "n": 500, "accuracy": 0.9, "accuracy_ci": [0.875, 0.925], "by_group": {"n": 200}, "ece": 0.1,
        "ece_calibrated": 0.2, "per_class": {"a": {"support": 29}, "b": {"support": 30}},
    }  # fmt: skip
    record = {
        "folds": None, "bad_images": [1], "recipe": {"split": {"source_test_as": "validation"}, "source": {"name": "x"}}
    }  # fmt: skip
    said = " ".join(caveats(record, {"test": None, "validation": judged}, 7))
    for sentence in (
        "1 picture could not be read", "There is no test split", 'source_test_as = "validation" uses',
        "7 of the 500 validation slices have no known patient", "fewer than 30 validation slices: a 29.",
        "Calibration was fitted on these validation slices",
    ):  # fmt: skip
        assert sentence in said
    assert "Only" not in said
    held_out = {"n": 40, "accuracy": 0.5}
    said = " ".join(caveats(record, {"test": judged, "held_out": held_out}, 0))
    assert "the calibration error was 0.100 and is 0.200" in said
    assert "On 40 slices of a collection that was held out the accuracy is 0.500, not 0.900" in said
    assert "no test split" not in said


def test_the_model_card_has_the_hubs_metadata_and_the_figures(runs: Path) -> None:
    _, front, body = (runs / "one" / "model_card.md").read_text().split("---\n", 2)
    metadata, test = yaml.safe_load(front), read_json(runs / "one" / "metrics.json")["test"]
    assert metadata["library_name"] == "keras"
    (result,) = metadata["model-index"][0]["results"]
    assert {"type": "accuracy", "value": test["accuracy"]} in result["metrics"]
    low, high = test["macro_f1_ci"]
    assert f"| macro f1 | {test['macro_f1']:.3f} | {low:.3f} to {high:.3f} |" in body
    assert "Research use only, not a medical device." in body
    tables = re.findall(r"(?:^\|.*\|\n)+", body, re.MULTILINE)
    assert len(tables) == 3
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_runs_beside_each_other(runs: Path, btkit: Callable) -> None:
    ended = btkit("report", runs / "one", runs / "folds", runs / "slices", "--json")
    assert ended.status == 0
    assert json.loads(ended.out) == {"report": str(runs / "comparison.html")}
    words = Words((runs / "comparison.html").read_text()).text
    for run in ("one", "folds", "slices"):
        accuracy = read_json(runs / run / "metrics.json")["test"]["accuracy"]
        assert f"{run} test {read_json(runs / run / 'metrics.json')['test']['n']} {accuracy:.3f}" in words
    assert "have no test slice in common" in words
    assert "split.method grouped kfold stratified" in words
    assert "seed 7 7 0" in words


@pytest.mark.parametrize("name", ["one", "folds", "slices", "comparison"])
def test_it_is_one_file_that_asks_for_nothing_and_everyone_can_read(
    name: str, runs: Path, browser: Browser, btkit: Callable
) -> None:
    path = runs / name / "report.html"
    if name == "comparison":
        path = runs / "shown.html"
        assert btkit("report", runs / "one", runs / "folds", "--out", path).status == 0
    for width, scheme in VIEWS:
        with opened(browser, file_url(path), width, scheme) as (shown, heard):
            assert heard.errors == []
            assert heard.outside(file_url(path)) == []
            assert violations(shown) == []
            assert overflow(shown) == 0
            assert shown.evaluate("[...document.images].every(image => image.naturalWidth > 0)")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def test_a_run_that_has_not_finished_or_is_damaged_is_told(runs: Path, tmp_path: Path, btkit: Callable) -> None:
    run = copy_run(runs / "one", tmp_path / "run")
    for name, content, said in (
        ("metrics.json", '{"test": {"n": 3}}', "one of its files is damaged"),
        ("metrics.json", "{}", "it has no figures of validation or test"),
        ("history.csv", "epoch,loss\n1,x\n", "cannot be read"),
        ("predictions.csv", "id\n", "damaged"),
        ("predictions.csv", "id,split,label,predicted\na,test,glioma,pituitary\n", "one of its files is damaged"),
        ("mistakes/explanations.csv", "overlay\nx.png\n", "one of its files is damaged"),
        ("explanations/summary.png", "no picture", "one of its files is damaged"),
        ("metrics.json", (runs / "one" / "metrics.json").read_text().replace('"ece":', '"ecE":'), "damaged"),
    ):
        before = (run / name).read_bytes()
        (run / name).write_text(content)
        ended = btkit("report", run)
        assert (ended.status, ended.out) == (2, "")
        assert said in ended.err
        assert ended.err.count("\n") == 1
        (run / name).write_bytes(before)
    (run / "metrics.json").unlink()
    assert "it has not finished" in btkit("report", run).err


def test_figures_as_they_are_written() -> None:
    assert [figure_text(None), figure_text(0.12345), figure_text(0.5, 1)] == ["", "0.123", "0.5"]
    assert [interval_text(None), interval_text((0.1, 0.25), 2)] == ["", "0.10 to 0.25"]
    assert [signed_text(0.0), signed_text(-0.0001), signed_text(0.25), signed_text(-0.25)] == [
        "0.000", "0.000", "+0.250", "-0.250",
    ]  # fmt: skip
    assert markdown_cell("a|b\n<i> *c*") == "a\\|b \\<i\\> \\*c\\*"
    assert surest_first([0.5, 0.9, 0.5], ["b", "c", "a"]) == [1, 2, 0]
    rows = [{"split": "test", "label": "a", "group": "p"}, {"split": "test", "label": "a", "group": "p"},
            {"split": "train", "label": "b", "group": ""}]  # fmt: skip
    assert class_counts(rows, ["a", "b"]) == {
        "train": {"a": (0, 0), "b": (1, 0), "all": (1, 0)},
        "test": {"a": (2, 1), "b": (0, 0), "all": (2, 1)},
        "all": {"a": (2, 1), "b": (1, 0), "all": (3, 1)},
    }
