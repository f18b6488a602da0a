"""`btkit audit` on the command line: its files, its page, its exit statuses, and a run taken apart."""

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from heads import SIDE, TINY_NETWORK, add_heads, head, save

from braintumor_kit.commands.main import run_command_line
from braintumor_kit.files import read_csv

pytestmark = pytest.mark.usefixtures("two_layers")

RECIPE = (
    """
[source]
name = "image_folder"
root = "{root}"
[split]
{split}
"""
    + TINY_NETWORK
)


def divided(root: Path) -> Path:
    """32 heads without a fault."""
    for number, label in enumerate(("glioma", "notumor")):
        add_heads(root / "Training" / label, range(100 * number, 100 * number + 12))
        add_heads(root / "Testing" / label, range(100 * number + 12, 100 * number + 16))
    return root


def with_leaks(root: Path) -> Path:
    """The same and three of training's pictures in test, one of them mirrored: 3 of 11 test slices leak."""
    divided(root)
    for seed in (0, 1):
        save(head(seed), root / "Testing" / "glioma" / f"leaked{seed}.png")
    save(head(100)[:, ::-1], root / "Testing" / "notumor" / "leaked_mirrored.png")
    return root


LEAKED = {"Testing/glioma/leaked0.png", "Testing/glioma/leaked1.png", "Testing/notumor/leaked_mirrored.png"}


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return divided(tmp_path_factory.mktemp("clean"))


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_leaks(tmp_path_factory.mktemp("leaky"))


def of_folder(root: Path) -> tuple[str, ...]:
    return ("--source", "image_folder", "--set", f"source.root={root}")


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def test_the_three_files_and_the_promised_keys(leaky: Path, tmp_path: Path, btkit: Callable) -> None:
    ended = btkit("audit", *of_folder(leaky), "--out", tmp_path / "new" / "out")
    assert ended.status == 0
    assert sorted(path.name for path in (tmp_path / "new" / "out").iterdir()) == [
        "audit.html", "audit.json", "collections.csv"
    ]  # fmt: skip
    found = load(tmp_path / "new" / "out" / "audit.json")
    assert {
        "images", "unreadable", "foreign", "identical_groups", "label_conflicts", "cross_split", "shortcut_probes"
    } <= set(found)  # fmt: skip
    assert set(found["cross_split"][0]) == {
        "train", "test", "n_test", "identical", "near_duplicate", "same_group", "clean"
    }  # fmt: skip
    assert set(found["shortcut_probes"]) >= {
        "border", "background", "intensity_statistics", "file_format", "nearest_neighbour_thumbnail", "chance"
    }  # fmt: skip
    assert found["images"] == 35
    rows = read_csv(tmp_path / "new" / "out" / "collections.csv")
    assert list(rows[0]) == ["id", "label", "group", "split", "collection"]
    assert len(rows) == len({row["id"] for row in rows}) == 35
    assert {row["id"] for row in rows if row["split"] == "test"} >= LEAKED
    assert "Across splits" in ended.out
    assert "3 (27.3%)" in ended.out  # copies among 11 test slices


def test_json_on_standard_output_is_the_file(leaky: Path, tmp_path: Path, btkit: Callable) -> None:
    ended = btkit("audit", *of_folder(leaky), "--out", tmp_path, "--json")
    assert ended.status == 0
    assert json.loads(ended.out) == load(tmp_path / "audit.json")


def test_without_out_the_files_are_in_the_folder_audit(
    clean: Path, tmp_path: Path, btkit: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert btkit("audit", *of_folder(clean)).status == 0
    assert (tmp_path / "audit" / "audit.html").is_file()


def test_two_audits_of_the_same_data_are_the_same(
    leaky: Path, tmp_path: Path, btkit: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the cache, anew without it, and of the same pictures in another folder."""
    elsewhere = shutil.copytree(leaky, tmp_path / "elsewhere")
    texts = set()
    for number, root in enumerate((leaky, leaky, elsewhere)):
        if number:
            monkeypatch.setenv("BTKIT_CACHE", str(tmp_path / f"cache{number}"))
        assert btkit("audit", *of_folder(root), "--out", tmp_path / f"{number}").status == 0
        texts.add(
            ((tmp_path / f"{number}" / "audit.json").read_text(), (tmp_path / f"{number}/audit.html").read_text())
        )
    assert len(texts) == 1


def test_fail_on_ends_with_1_where_the_fault_is_found_alone(
    clean: Path, leaky: Path, tmp_path: Path, btkit: Callable
) -> None:
    ended = btkit("audit", *of_folder(leaky), "--out", tmp_path / "leaky", "--fail-on", "leak")
    assert ended.status == 1
    assert "found: leak" in ended.err
    assert (tmp_path / "leaky" / "audit.json").is_file()
    assert btkit("audit", *of_folder(clean), "--out", tmp_path / "clean", "--fail-on", "leak").status == 0
    several = btkit("audit", *of_folder(leaky), "--out", tmp_path, "--fail-on", "conflict, duplicate,leak")
    assert several.status == 1
    assert "found: duplicate, leak" in several.err
    assert btkit("audit", *of_folder(leaky), "--out", tmp_path, "--fail-on", "conflict,unreadable").status == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--source", "phantom", "--fail-on", "leaks"], "'leaks' is none of unreadable, foreign, duplicate, conflict,"),
        ([], "name either a RECIPE (or RUN) or --source NAME."),
        (["resnet_adam", "--source", "phantom"], "name either a RECIPE (or RUN) or --source NAME."),
        (["nowhere.toml"], "there is no recipe file 'nowhere.toml'"),
        (
            ["--source", "phantom", "--set", "training.epochs=2"],
            "--set: training: has no meaning here; seed, source, pixels, split have",
        ),
        (["--source", "phantm"], "did you mean 'phantom'?"),
        (["--source", "image_folder"], "[source] root: is missing and has no default."),
        (["--source", "image_folder", "--set", "source.root=nowhere"], "nowhere"),
    ],
)
def test_an_audit_that_cannot_be_says_why_in_one_message(
    arguments: list[str], message: str, btkit: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = btkit("audit", *arguments)
    assert ended.status == 2
    assert message in ended.err
    assert len(re.findall("^(?:btkit|Error): ", ended.err, re.M)) == 1
    assert "Traceback" not in ended.err
    assert not list(tmp_path.iterdir())


def test_a_recipe_is_audited_with_its_own_split(leaky: Path, tmp_path: Path, btkit: Callable) -> None:
    """Keeping copies together leaves nothing across; relative paths are relative to the recipe."""
    recipe = tmp_path / "recipe.toml"
    shutil.copytree(leaky, tmp_path / "data")
    recipe.write_text(RECIPE.format(root="data", split='method = "deduplicated"'))
    assert btkit("audit", recipe, "--out", tmp_path / "out", "--fail-on", "leak").status == 0
    found = load(tmp_path / "out" / "audit.json")
    assert [(row["train"], row["test"]) for row in found["cross_split"]] == [
        ("train", "validation"), ("train", "test"), ("validation", "test")
    ]  # fmt: skip
    assert all(row["clean"] == row["n_test"] for row in found["cross_split"])
    assert found["near_duplicate_pairs"] == 1
    by_slice = btkit("audit", recipe, "--set", "split.method=source", "--out", tmp_path / "own", "--fail-on", "leak")
    assert by_slice.status == 1
    parts = [row["split"] for row in read_csv(tmp_path / "own" / "collections.csv")]
    assert parts.count("test") == 11
    assert parts.count("validation") > 0  # as a run of the recipe would divide


# A run


@pytest.fixture(scope="module")
def run(leaky: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run on the leaky pictures."""
    runs = tmp_path_factory.mktemp("runs")
    (runs / "leaky.toml").write_text(RECIPE.format(root=leaky, split="allow_leaks = true"))
    assert run_command_line(["run", str(runs / "leaky.toml"), "--runs", str(runs), "--name", "leaky"]) == 0
    return runs / "leaky"


def test_a_runs_accuracy_is_taken_apart(run: Path, tmp_path: Path, btkit: Callable) -> None:
    ended = btkit("audit", run, "--out", tmp_path)
    assert ended.status == 0
    found = load(tmp_path / "audit.json")["run"]
    tested = [row for row in read_csv(run / "predictions.csv") if row["split"] == "test"]
    parts = {
        "all": tested,
        "leaked": [row for row in tested if row["id"] in LEAKED],
        "clean": [row for row in tested if row["id"] not in LEAKED],
    }
    assert {name: len(rows) for name, rows in parts.items()} == {"all": 11, "leaked": 3, "clean": 8}
    for name, rows in parts.items():
        right = sum(row["label"] == row["predicted"] for row in rows)
        assert (found[name]["n"], found[name]["accuracy"]) == (len(rows), pytest.approx(right / len(rows)))
        assert found[name]["by_class"] == Counter(row["label"] for row in rows)
    recall = {
        (name, label): np.mean([row["predicted"] == label for row in parts[name] if row["label"] == label])
        for name in ("all", "clean")
        for label in ("glioma", "notumor")
    }
    gap = sum(recall["all", label] - recall["clean", label] for label in ("glioma", "notumor")) / 2
    assert found["balanced_accuracy_on_leaks"] == pytest.approx(gap)
    assert (found["folder"], found["split"]) == ("leaky", "test")
    assert found["all"]["accuracy"] == pytest.approx(load(run / "metrics.json")["test"]["accuracy"])
    assert "Accuracy of the run on test" in ended.out
    counts = Counter(row["label"] for row in parts["clean"])
    listed = f"glioma {counts['glioma']}, notumor {counts['notumor']}"
    assert f"Those without, by class: {listed}: too few for their accuracy to say much." in " ".join(ended.out.split())


def test_a_run_is_audited_on_the_split_that_it_had(run: Path, tmp_path: Path, btkit: Callable) -> None:
    assert btkit("audit", run, "--out", tmp_path, "--fail-on", "leak").status == 1
    ours = {row["id"]: row["split"] for row in read_csv(tmp_path / "collections.csv")}
    assert ours == {row["id"]: row["split"] for row in read_csv(run / "split.csv")}
    refused = btkit("audit", run, "--set", "split.method=stratified", "--out", tmp_path)
    assert refused.status == 2
    assert "a run is audited as it was made" in refused.err


def test_a_run_that_has_not_finished_is_refused(run: Path, tmp_path: Path, btkit: Callable) -> None:
    broken = shutil.copytree(run, tmp_path / "broken")
    (broken / "predictions.csv").unlink()
    ended = btkit("audit", broken, "--out", tmp_path / "out")
    assert ended.status == 2
    assert "has no predictions.csv: it has not finished." in ended.err


# The page


class Page(HTMLParser):
    """What a browser would see: tags with their attributes, and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


HOSTILE = '"><b>&amp;<img src=x onerror=alert(1)>'


def test_names_with_html_in_them_stay_text(tmp_path: Path, btkit: Callable) -> None:
    """Class and file names stand in tables, captions and attributes, of copies, conflicts, strangers and bad files."""
    root = tmp_path / "data"
    other = "<img src=y onerror=1>"
    for number, label in enumerate((HOSTILE, other)):
        add_heads(root / "Training" / label, range(100 * number, 100 * number + 27))
        add_heads(root / "Testing" / label, range(100 * number + 27, 100 * number + 31))
    save(head(0), root / "Testing" / HOSTILE / f"{HOSTILE}identical.png")
    save(head(1)[:, ::-1], root / "Testing" / other / f"{HOSTILE}mirrored.png")
    save(np.zeros((SIDE, SIDE), np.uint8), root / "Training" / other / f"{HOSTILE}empty.png")
    (root / "Training" / other / f"{HOSTILE}text.png").write_text("no picture")
    assert btkit("audit", *of_folder(root), "--out", tmp_path / "out").status == 0
    page = Page((tmp_path / "out" / "audit.html").read_text())
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert images
    assert all(str(image["src"]).startswith("data:image/png;base64,") for image in images)
    assert not [tag for tag, _ in page.tags if tag in ("b", "script", "iframe", "a", "link")]
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    for name in ("identical", "mirrored", "empty", "text"):
        assert f"{HOSTILE}{name}.png" in page.text
    assert any(f"{HOSTILE}identical.png" in str(image["alt"]) for image in images)
    assert other in page.text


def test_the_page_fetches_nothing_and_says_what_it_is_not(leaky: Path, tmp_path: Path, btkit: Callable) -> None:
    assert btkit("audit", *of_folder(leaky), "--out", tmp_path).status == 0
    text = (tmp_path / "audit.html").read_text()
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"data:image/png;base64,[\w+/=]+", "", text))
    assert "default-src 'none'" in text
    page = Page(text)
    assert "Research use only, not a medical device." in page.text
    for name in LEAKED:
        assert name in page.text
