"""`btkit evaluate`: another source, another model, corruption; and the arithmetic behind it, worked out by hand."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from heads import TINY_NETWORK, add_heads
from PIL import Image

from braintumor_kit import progress
from braintumor_kit.commands.main import run_command_line
from braintumor_kit.contracts import InputError
from braintumor_kit.evaluation.class_sets import common_classes
from braintumor_kit.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupted
from braintumor_kit.evaluation.paired import compare
from braintumor_kit.files import read_csv
from braintumor_kit.recipe.load import load_source

pytestmark = pytest.mark.usefixtures("two_layers")

SMALL = (
    "--set=source.patients=32", "--set=source.size=64", "--set=pixels.image_size=64", "--set=training.epochs=1",
    "--set=training.precision=float32", "--set=explain=[]", "--set=report=false",
    "--set=backbone.name=two_layers",
)  # fmt: skip
FOUR = ("glioma", "meningioma", "notumor", "pituitary")


@pytest.fixture(scope="module")
def runs(two_layers: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs on the same split."""
    folder = tmp_path_factory.mktemp("runs")
    for name, seed in (("one", 7), ("two", 8)):
        arguments = ["run", "resnet_adam", *SMALL, f"--set=seed={seed}", "--set=split.seed=1", "--runs", str(folder)]
        assert run_command_line([*arguments, "--name", name]) == 0
    return folder


@pytest.fixture(scope="module")
def yes_and_no(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantom's slices in two folders, as data sets have them that only tell tumour from none."""
    folder = tmp_path_factory.mktemp("sets") / "br35h"
    source = load_source("phantom", ["source.patients=8", "source.size=64", "source.seed=5"]).make()
    for number, sample in enumerate(source.samples()):
        place = folder / ("no" if sample.label == "notumor" else "yes") / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(source.image(sample)).save(place)
    return folder


# Corruption


def heads(side: int = 96) -> np.ndarray:
    """Two structured discs on black, uint8 (2, S, S, 1)."""
    rows, columns = np.indices((side, side)) / side - 0.5
    disc = np.hypot(rows, columns) < 0.4
    waves = [np.where(disc, 120 + 90 * np.sin(k * rows) * np.cos(k * columns), 0) for k in (9, 14)]
    return np.stack(waves)[..., None].astype(np.uint8)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_grows_with_its_severity_and_repeats(name: str) -> None:
    pictures, seeds = heads(224), np.array([3, 4])
    changed = [corrupted(pictures, name, severity, seeds) for severity in range(1, SEVERITIES + 1)]
    gaps = [np.abs(each.astype(float) - pictures).mean() for each in changed]
    assert 0 < gaps[0] < gaps[-1]
    assert gaps[-1] == max(gaps)
    assert changed[0].shape == pictures.shape
    np.testing.assert_array_equal(changed[2], corrupted(pictures, name, 3, seeds))
    np.testing.assert_array_equal(changed[2][1:], corrupted(pictures[1:], name, 3, seeds[1:]))


def test_rician_noise_on_black_has_rayleigh_s_mean() -> None:
    black = np.zeros((1, 256, 256, 1), np.uint8)
    mean = corrupted(black, "rician_noise", 5, np.array([0])).mean()
    assert mean == pytest.approx(0.16 * 255 * np.sqrt(np.pi / 2), rel=0.01)  # mean of |n1 + i n2|


def test_blur_and_ghosts_move_light_and_make_none() -> None:
    pictures = heads()
    for name in ("blur", "motion_ghosting"):
        changed = corrupted(pictures, name, 3, np.array([1, 2])).mean()
        assert changed == pytest.approx(pictures.mean(), rel=0.08), name


def test_colour_is_changed_alike_in_every_channel() -> None:
    colour = np.repeat(heads(), 3, axis=3)
    changed = corrupted(colour, "rician_noise", 4, np.array([1, 2]))
    np.testing.assert_array_equal(changed[..., 0], changed[..., 2])


# Two models


def test_a_paired_comparison_by_hand() -> None:
    labels = np.zeros(20, np.int64)
    first, second = labels.copy(), labels.copy()
    first[0] = 1  # only the second is right once
    second[1:9] = 1  # only the first is right eight times
    found = compare(labels, first, second, [str(number) for number in range(20)], 2)
    assert found["accuracy"]["difference"] == pytest.approx(7 / 20)
    assert found["mcnemar"] == {"only_first_right": 8, "only_second_right": 1, "p": pytest.approx(0.0390625)}
    low, high = found["accuracy"]["difference_ci"]
    assert 0 < low < 7 / 20 < high


def test_equal_models_do_not_differ() -> None:
    labels = np.array([0, 1, 1, 0])
    found = compare(labels, labels, labels, ["a", "a", "b", "b"], 2)
    assert found["mcnemar"]["p"] == 1.0
    assert found["accuracy"]["difference_ci"] == [0.0, 0.0]


# Class sets


def test_a_subset_of_classes_is_judged_among_all() -> None:
    common = common_classes(FOUR, ("glioma", "pituitary"))
    assert common.classes == FOUR
    assert common.of_source == {"glioma": 0, "pituitary": 3}


def test_tumour_or_none_sums_the_tumours() -> None:
    common = common_classes(FOUR, ("notumor", "tumour"))
    assert common.classes == ("tumour", "notumor")
    np.testing.assert_allclose(common.probabilities(np.array([[0.1, 0.2, 0.3, 0.4]])), [[0.7, 0.3]])
    backwards = common_classes(("notumor", "tumour"), FOUR)
    assert [backwards.classes[backwards.of_source[name]] for name in FOUR] == ["tumour", "tumour", "notumor", "tumour"]


def test_spellings_of_a_class_are_one() -> None:
    common = common_classes(("glioma_tumor", "no_tumor"), ("glioma", "notumor"))
    assert common.classes == ("glioma_tumor", "no_tumor")
    assert common.of_source == {"glioma": 0, "notumor": 1}
    assert common_classes(FOUR, ("yes", "no")).of_source == {"yes": 0, "no": 1}


@pytest.mark.parametrize(("model", "source"), [(FOUR, ("stroke", "notumor")), (FOUR[:2], ("tumour", "notumor"))])
def test_classes_that_the_model_knows_nothing_of_are_named(model: tuple, source: tuple) -> None:
    with pytest.raises(InputError, match="does not know: "):
        common_classes(model, source)


# The command


def result(ended: object) -> dict:
    assert ended.status == 0, ended.err  # type: ignore[attr-defined]
    return json.loads(ended.out)  # type: ignore[attr-defined]


def refused(ended: object) -> str:
    assert ended.status == 2  # type: ignore[attr-defined]
    return ended.err  # type: ignore[attr-defined]


def test_a_run_s_own_split_gives_what_the_run_recorded(runs: Path, btkit: Callable) -> None:
    found = result(btkit("evaluate", runs / "one", "--json"))["metrics"]
    recorded = json.loads((runs / "one" / "metrics.json").read_text())["test"]
    for name in ("n", "accuracy", "balanced_accuracy", "confusion_matrix", "accuracy_ci"):
        assert found[name] == recorded[name], name
    for name in ("nll", "ece", "nll_calibrated", "ece_calibrated"):
        assert found[name] == pytest.approx(recorded[name], abs=1e-5), name
    folder = runs / "one" / "evaluations" / "test"
    assert {path.name for path in folder.iterdir()} == {
        "metrics.json", "predictions.csv", "reliability.png", "risk_coverage.png",
    }  # fmt: skip
    assert len(read_csv(folder / "predictions.csv")) == recorded["n"]


def test_another_source_with_other_classes(runs: Path, yes_and_no: Path, btkit: Callable) -> None:
    root = f"source.root={yes_and_no}"
    found = result(btkit("evaluate", runs / "one", "--source", "image_folder", "--set", root, "--json"))["metrics"]
    assert found["labels"] == ["tumour", "notumor"]
    (folder,) = (runs / "one" / "evaluations").glob("image_folder-*")  # named after what the source holds
    rows = read_csv(folder / "predictions.csv")
    assert found["accuracy"] == pytest.approx(np.mean([row["label"] == row["predicted"] for row in rows]))
    assert {row["label"] for row in rows} == {"tumour", "notumor"}
    tumours = [row["predicted"] == "tumour" for row in rows if row["label"] == "tumour"]
    assert found["detection"]["tumours"]["called_tumour"] == pytest.approx(np.mean(tumours))
    told = btkit("evaluate", runs / "one", "--source", "image_folder", "--set", root).out
    assert f"Of {len(tumours)} slices with a tumour {np.mean(tumours):.3f} are called one of the tumours; with" in told


def test_a_lone_model_on_a_source(runs: Path, yes_and_no: Path, btkit: Callable, tmp_path: Path) -> None:
    """A notebook's model: no record beside it, so its user names what its outputs are."""
    lone = tmp_path / "notebook.keras"
    lone.write_bytes((runs / "one" / "model.keras").read_bytes())
    wish = ("--source", "image_folder", "--set", f"source.root={yes_and_no}", "--json")
    names = ("--classes", "glioma_tumor, meningioma_tumor, no_tumor, pituitary_tumor")
    found = result(btkit("evaluate", lone, *wish, *names, "--out", tmp_path / "out"))["metrics"]
    of_run = result(btkit("evaluate", runs / "one", *wish))["metrics"]
    assert found["confusion_matrix"] == of_run["confusion_matrix"]
    assert found["out_of_distribution"] is None  # nobody fitted what is unlike its training
    assert "see --classes" in refused(btkit("evaluate", lone, *wish))
    assert "name as many classes" in refused(btkit("evaluate", lone, *wish, "--classes", "a,b"))
    assert "name some with --source" in refused(btkit("evaluate", lone))
    assert "a run knows its own" in refused(btkit("evaluate", runs / "one", *wish, *names))


def test_a_lone_model_beside_a_run_in_another_order(
    runs: Path, yes_and_no: Path, btkit: Callable, tmp_path: Path
) -> None:
    """The run's own model under other spellings: no difference to find."""
    lone = tmp_path / "notebook.keras"
    lone.write_bytes((runs / "one" / "model.keras").read_bytes())
    wish = ("--source", "image_folder", "--set", f"source.root={yes_and_no}", "--json", "--out", tmp_path / "out")
    names = ("--classes", "glioma_tumor,meningioma_tumor,no_tumor,pituitary_tumor")
    for pair in ((runs / "one", lone), (lone, runs / "one")):
        found = result(btkit("evaluate", pair[0], "--against", pair[1], *wish, *names))["comparison"]
        assert found["accuracy"]["difference"] == 0
        assert found["mcnemar"]["only_first_right"] == found["mcnemar"]["only_second_right"] == 0


def test_what_can_be_read_no_more_is_told(tmp_path: Path, btkit: Callable) -> None:
    """The run's test slices have other names now: validation does not stand in for it."""
    for part, start in (("Training", 0), ("Testing", 12)):
        for number, label in enumerate(("glioma", "notumor")):
            add_heads(tmp_path / "data" / part / label, range(100 * number + start, 100 * number + start + 12))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[source]\nname = "image_folder"\nroot = "data"\n' + TINY_NETWORK)
    assert btkit("run", recipe, "--runs", tmp_path, "--name", "run").status == 0
    for path in list((tmp_path / "data" / "Testing").rglob("*.png")):
        path.rename(path.with_stem(f"renamed-{path.stem}"))
    for command in ("evaluate", "explain"):
        assert "none of the test slices of" in refused(btkit(command, tmp_path / "run")), command


def test_a_model_file_inside_its_run_is_the_run(runs: Path, btkit: Callable) -> None:
    found = result(btkit("evaluate", runs / "one" / "model.keras", "--json"))["metrics"]
    assert found["accuracy"] == json.loads((runs / "one" / "metrics.json").read_text())["test"]["accuracy"]


def test_two_runs_are_compared_by_their_records_alone(runs: Path, btkit: Callable) -> None:
    found = result(btkit("evaluate", runs / "one", "--against", runs / "two", "--json"))["comparison"]
    rows = [
        {row["id"]: row["label"] == row["predicted"] for row in read_csv(runs / name / "predictions.csv")
         if row["split"] == "test"}
        for name in ("one", "two")
    ]  # fmt: skip
    assert found["n"] == len(rows[0])
    assert found["mcnemar"]["only_first_right"] == sum(rows[0][id] and not rows[1][id] for id in rows[0])
    assert found["accuracy"]["second"] == pytest.approx(np.mean(list(rows[1].values())))
    assert (runs / "one" / "evaluations" / "against-two" / "comparison.json").is_file()


def test_two_runs_on_another_source(runs: Path, yes_and_no: Path, btkit: Callable, tmp_path: Path) -> None:
    wish = ("--source", "image_folder", "--set", f"source.root={yes_and_no}", "--against", runs / "two")
    found = result(btkit("evaluate", runs / "one", *wish, "--out", tmp_path, "--json"))
    assert found["comparison"]["n"] == found["metrics"]["n"]
    assert found["comparison"]["accuracy"]["first"] == pytest.approx(found["metrics"]["accuracy"])


def test_corruptions_as_table_and_figure(runs: Path, btkit: Callable, tmp_path: Path) -> None:
    ended = btkit("evaluate", runs / "one", "--corruptions", "--out", tmp_path)
    assert ended.status == 0, ended.err
    found = json.loads((tmp_path / "robustness.json").read_text())
    assert set(found["corruptions"]) == set(CORRUPTIONS)
    accuracies = [row["accuracy"] for rows in found["corruptions"].values() for row in rows]
    assert len(accuracies) == 40
    assert found["mean_accuracy"] == pytest.approx(np.mean(accuracies))
    assert (tmp_path / "robustness.png").stat().st_size > 10_000
    assert "motion ghosting" in ended.out
    assert "not a medical device" in ended.out


def test_corruptions_tell_how_far_they_are(
    runs: Path, btkit: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bar for all: of a small split, each severity is over before a bar of its own would show."""
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    ended = btkit("evaluate", runs / "one", "--corruptions", "--out", tmp_path, "--json")
    n = json.loads(ended.out)["metrics"]["n"]
    told = [int(count) for count in re.findall(rf"under corruption: (\d+) of {40 * n}\n", ended.err)]
    assert told == sorted(told)
    assert set(told) >= {n * number for number in range(1, 40)}


def test_models_of_other_classes_are_not_compared(
    runs: Path, yes_and_no: Path, btkit: Callable, tmp_path: Path
) -> None:
    """One tells three tumours from none, the other was made of two of the classes."""
    root = tmp_path / "two"
    source = load_source("phantom", ["source.patients=16", "source.size=64"]).make()
    for number, sample in enumerate(source.samples()):
        if sample.label in ("glioma", "notumor"):
            place = root / sample.label / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(source.image(sample)).save(place)
    (tmp_path / "two.toml").write_text(
        '[source]\nname = "image_folder"\nroot = "two"\n[pixels]\nimage_size = 64\n[split]\nmethod = "stratified"\n'
        '[backbone]\nname = "two_layers"\n[training]\nepochs = 1\n'
    )
    assert btkit("run", tmp_path / "two.toml", "--runs", tmp_path, "--name", "other").status == 0
    wish = ("--source", "image_folder", "--set", f"source.root={root}", "--against", tmp_path / "other")
    ended = btkit("evaluate", runs / "one", *wish, "--out", tmp_path / "out")
    assert ended.status == 2
    assert "different classes" in ended.err
    assert btkit("evaluate", runs / "one", "--against", runs / "two", "--split", "train").status == 2


def test_wishes_that_do_not_fit_are_told(runs: Path, btkit: Callable, yes_and_no: Path, tmp_path: Path) -> None:
    assert btkit("evaluate", runs / "one", "--set", "source.root=x").status == 2
    assert btkit("evaluate", tmp_path).status == 2
    other = tmp_path / "other"
    for name in ("stroke", "healthy"):
        (other / name).mkdir(parents=True)
        Image.new("L", (64, 64), 99).save(other / name / "1.png")
    ended = btkit("evaluate", runs / "one", "--source", "image_folder", "--set", f"source.root={other}")
    assert ended.status == 2
    assert "stroke" in ended.err
    assert "Traceback" not in ended.err
