"""Several runs taken together: what they recorded, worked out by hand, and what their models say of other pictures."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from heads import add_heads
from PIL import Image
from sklearn import metrics as sk
from small_runs import copy_run, put_file

from braintumor_kit.commands.main import run_command_line
from braintumor_kit.contracts import InputError
from braintumor_kit.files import read_csv, write_csv
from braintumor_kit.runs import Run
from braintumor_kit.workflows.recorded import together

CLASSES = ("glioma", "notumor")

FIRST = {  # id: split, group, label, probability of glioma, calibrated, fold
    "a": ("test", "p", "glioma", 0.9, 0.8, 1),
    "b": ("test", "p", "glioma", 0.4, 0.4, 1),
    "c": ("test", "q", "notumor", 0.3, 0.2, 2),
    "d": ("test", "q", "notumor", 0.6, 0.5, 2),
    "e": ("train", "r", "glioma", 0.1, 0.1, 3),
}
SECOND = {
    "d": ("test", "q", "notumor", 0.3, 0.4, 2),
    "c": ("test", "q", "notumor", 0.9, 0.9, 2),
    "b": ("test", "p", "glioma", 0.7, 0.9, 1),
    "a": ("test", "p", "glioma", 0.9, 0.9, 1),
    "e": ("validation", "r", "notumor", 0.1, 0.1, 3),
}


def recorded(folder: Path, rows: dict[str, tuple], calibrated: bool = True, folds: bool = False) -> Run:
    """A run of no more than a record and predictions."""
    folder.mkdir()
    record = {"format": 1, "status": "finished", "started": "2026", "classes": list(CLASSES)}
    (folder / "record.json").write_text(json.dumps(record))
    header = ["id", "split", "group", "label", "predicted", *(f"p_{name}" for name in CLASSES)]
    header += [*(f"c_{name}" for name in CLASSES)] * calibrated + ["fold"] * folds
    table = [
        [
            id,
            split,
            group,
            label,
            CLASSES[p < 0.5],
            p,
            1 - p,
            *[c, c if isinstance(c, str) else 1 - c] * calibrated,
            *[fold] * folds,
        ]
        for id, (split, group, label, p, c, fold) in rows.items()
    ]
    write_csv(folder / "predictions.csv", header, table)
    return Run(folder)


def test_they_say_the_mean_of_what_each_says(tmp_path: Path) -> None:
    runs = [recorded(tmp_path / "one", FIRST), recorded(tmp_path / "two", SECOND)]
    judged, given, results = together(runs)
    assert (judged.ids, judged.groups, judged.classes) == (list("abcd"), list("ppqq"), CLASSES)
    assert judged.labels.tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(given.plain[:, 0], [0.9, 0.55, 0.6, 0.45])
    np.testing.assert_allclose(given.plain.sum(axis=1), 1)
    np.testing.assert_allclose(given.calibrated[:, 0], [0.85, 0.65, 0.55, 0.45])
    found = results["metrics"]
    assert (found["n"], found["accuracy"], found["by_group"]["accuracy"]) == (4, 0.75, 0.5)  # q: (0.6 + 0.45) / 2
    assert found["nll"] == pytest.approx(-np.log([0.9, 0.55, 0.4, 0.55]).mean())
    assert found["nll_calibrated"] == pytest.approx(-np.log([0.85, 0.65, 0.45, 0.55]).mean())
    assert [(one["run"], one["accuracy"]) for one in found["members"]] == [("one", 0.5), ("two", 0.75)]
    assert found["detection"]["tumours"]["called_tumour"] == 1
    assert found["detection"]["healthy"]["called_tumour"] == 0.5
    assert "folds" not in found
    assert "warning" not in found
    paired = results["comparison"]
    assert (paired["n"], paired["accuracy"]["difference"], paired["interval_over"]) == (4, 0.25, "patients")
    assert (paired["mcnemar"]["only_first_right"], paired["mcnemar"]["only_second_right"]) == (2, 1)  # b, d; c


def test_three_count_alike_and_one_without_calibration_leaves_none(tmp_path: Path) -> None:
    third = {id: (split, group, label, 0.0, 0.0, fold) for id, (split, group, label, _, _, fold) in FIRST.items()}
    runs = [
        recorded(tmp_path / "one", FIRST), recorded(tmp_path / "two", SECOND),
        recorded(tmp_path / "three", third, calibrated=False),
    ]  # fmt: skip
    _, given, results = together(runs)
    np.testing.assert_allclose(given.plain[:, 0], [0.6, 1.1 / 3, 0.4, 0.3])
    assert given.calibrated is None
    assert results["metrics"]["nll_calibrated"] is None


def test_folds_have_figures_of_their_own(tmp_path: Path) -> None:
    runs = [recorded(tmp_path / "one", FIRST, folds=True), recorded(tmp_path / "two", SECOND, folds=True)]
    found = together(runs)[2]["metrics"]
    assert [fold["accuracy"] for fold in found["folds"]] == [1.0, 0.5]
    assert found["over_folds"]["accuracy"] == {"mean": 0.75, "sd": pytest.approx(0.5 / np.sqrt(2))}


def changed(**rows: tuple | None) -> dict[str, tuple]:
    return {id: row for id, row in (SECOND | rows).items() if row is not None}


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (changed(c=None), "one' tests slice 'c', .*two' does not: .* one \\[split\\] seed"),
        (changed(e=("test", "r", "glioma", 0.5, 0.5, 3)), "two' tests slice 'e', .*one' does not"),
        (changed(b=("test", "p", "glioma", 0.7, 0.9, 2)), "test slice 'b' in different folds"),
        (changed(b=("test", "p", "notumor", 0.7, 0.9, 1)), "give slice 'b' different labels"),
        (changed(b=("test", "p", "glioma", float("nan"), 0.9, 1)), "two.predictions.csv is damaged: not every"),
        (changed(b=("test", "p", "glioma", 0.7, "much", 1)), "two.predictions.csv is damaged: could not convert"),
    ],
)
def test_other_slices_folds_labels_and_damage_are_told(second: dict[str, tuple], said: str, tmp_path: Path) -> None:
    runs = [recorded(tmp_path / "one", FIRST, folds=True), recorded(tmp_path / "two", second, folds=True)]
    with pytest.raises(InputError, match=said):
        together(runs)


def test_other_classes_no_test_and_one_run_twice_are_told(tmp_path: Path) -> None:
    one, two = recorded(tmp_path / "one", FIRST), recorded(tmp_path / "two", SECOND)
    with pytest.raises(InputError, match="named twice"):
        together([one, two, Run(tmp_path / "two" / ".." / "one")])
    record = tmp_path / "two" / "record.json"
    record.write_text(record.read_text().replace('"glioma", "notumor"', '"notumor", "glioma"'))
    with pytest.raises(InputError, match=r"two' tells notumor, glioma apart, .*one' glioma, notumor"):
        together([one, Run(tmp_path / "two")])
    none = {id: ("validation", *row[1:]) for id, row in FIRST.items()}
    with pytest.raises(InputError, match="has no test slices"):
        together([recorded(tmp_path / "three", none), recorded(tmp_path / "four", none)])
    sweep = recorded(tmp_path / "sweep", FIRST)
    (sweep.folder / "record.json").write_text(json.dumps({"format": 1, "sweep": True, "best_trial": "trial-0002"}))
    with pytest.raises(InputError, match="trial-0002"):
        together([one, Run(sweep.folder)])


# From end to end

SMALL = (
    "--set=source.patients=24", "--set=source.size=64", "--set=pixels.image_size=64", "--set=training.epochs=1",
    "--set=training.precision=float32", "--set=split.method=kfold", "--set=split.folds=2", "--set=explain=[]",
    "--set=report=false", "--set=backbone.name=two_layers", "--set=split.seed=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def runs(two_layers: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three cross-validations of the same folds, whose seeds and validation parts differ, and one of other folds."""
    folder = tmp_path_factory.mktemp("runs")
    for name, wish in (
        ("one", ()),
        ("two", ("--set=seed=8", "--set=split.validation_seed=8")),
        ("three", ("--set=seed=9", "--set=split.validation_seed=9")),
        ("other", ("--set=split.seed=2",)),
    ):
        assert run_command_line(["run", "resnet_adam", *SMALL, *wish, "--runs", str(folder), "--name", name]) == 0
    return folder


def test_cross_validations_as_an_ensemble_in_every_fold(runs: Path, btkit: Callable) -> None:
    ended = btkit("evaluate", runs / "one", "--with", runs / "two", "--with", runs / "three")
    assert ended.status == 0, ended.err
    assert "test, 3 runs together: 96 slices" in ended.out
    assert "not a medical device" in ended.out
    place = runs / "one" / "evaluations" / "with-two-three"
    assert {path.name for path in place.glob("*.*")} >= {"metrics.json", "predictions.csv", "comparison.json"}
    tables = [{row["id"]: row for row in read_csv(runs / name / "predictions.csv")} for name in ("one", "two", "three")]
    names = [name for name in next(iter(tables[0].values())) if name.startswith("p_")]
    mean = {id: np.mean([[float(table[id][name]) for name in names] for table in tables], axis=0) for id in tables[0]}
    said = [names[int(mean[id].argmax())].removeprefix("p_") for id in tables[0]]
    found = json.loads((place / "metrics.json").read_text())
    assert found["accuracy"] == pytest.approx(sk.accuracy_score([row["label"] for row in tables[0].values()], said))
    written = read_csv(place / "predictions.csv")
    assert [row["predicted"] for row in written] == said
    assert len(found["folds"]) == 2
    inner = [
        {row["id"]: row["split"] for row in read_csv(runs / name / "fold-1" / "split.csv")} for name in ("one", "two")
    ]
    assert inner[0] != inner[1]
    assert all((inner[0][id] == "test") == (inner[1][id] == "test") for id in inner[0])


def test_the_first_is_held_against_all(runs: Path, btkit: Callable) -> None:
    ended = btkit("evaluate", runs / "two", "--with", runs / "three", "--json", "--out", runs / "out")
    found = json.loads(ended.out)
    alone = json.loads((runs / "two" / "metrics.json").read_text())["test"]
    assert found["comparison"]["accuracy"]["second"] == pytest.approx(alone["accuracy"])
    assert found["comparison"]["accuracy"]["first"] == pytest.approx(found["metrics"]["accuracy"])
    assert found["metrics"]["members"][0]["macro_f1"] == pytest.approx(alone["macro_f1"])


def test_other_folds_and_other_wishes_end_with_one_sentence(runs: Path, btkit: Callable) -> None:
    ended = btkit("evaluate", runs / "one", "--with", runs / "other")
    assert ended.status == 2
    assert "in different folds: their networks were not kept from the same patients" in ended.err
    for wish in (("--corruptions",), ("--split", "test"), ("--against", runs / "two")):
        ended = btkit("evaluate", runs / "one", "--with", runs / "two", *wish)
        assert ended.status == 2
        assert "goes alone" in ended.err


# Asked as one


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve heads in two folders by class; the last is noise."""
    folder = tmp_path_factory.mktemp("pictures")
    for place, label in enumerate(("glioma", "notumor")):
        add_heads(folder / label, range(6 * place, 6 * place + 6))
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "notumor" / "zz.png")
    return folder


def said(btkit: Callable, *arguments: object) -> list[dict]:
    ended = btkit("predict", *arguments, "--json")
    assert ended.status == 0, ended.err
    return json.loads(ended.out)


def test_models_asked_as_one_say_the_mean(runs: Path, pictures: Path, btkit: Callable) -> None:
    folds = [runs / name / "fold-1" for name in ("one", "two", "three")]
    each = [said(btkit, fold, pictures) for fold in folds]
    limits = [json.loads((fold / "certainty.json").read_text()) for fold in folds]
    below = np.mean([limit["abstain_below"] for limit in limits])
    together = said(btkit, folds[0], "--with", folds[1], "--with", folds[2], pictures)
    assert len(together) == 13
    for found, *members in zip(together, *each, strict=True):
        for kind in ("probabilities", "calibrated"):
            for name, value in found[kind].items():
                assert value == pytest.approx(np.mean([member[kind][name] for member in members]), abs=1e-6)
        assert found["predicted"] == max(found["probabilities"], key=found["probabilities"].__getitem__)
        score = np.mean([one["ood_score"] / limit["ood_threshold"] for one, limit in zip(members, limits, strict=True)])
        assert found["ood_score"] == pytest.approx(score)
        assert found["out_of_distribution"] == (score > 1)
        assert found["abstain"] == (score > 1 or max(found["calibrated"].values()) < below)
    assert together[-1]["out_of_distribution"]


def test_models_are_judged_as_one_on_another_source(
    runs: Path, pictures: Path, btkit: Callable, tmp_path: Path
) -> None:
    wish = ("--source", "image_folder", "--set", f"source.root={pictures}", "--json")
    one, two = runs / "one" / "fold-2", runs / "two" / "fold-2"
    alone = json.loads(btkit("evaluate", one, *wish).out)["metrics"]
    ended = btkit("evaluate", one, "--with", two, *wish)
    assert ended.status == 0, ended.err
    found = json.loads(ended.out)["metrics"]
    answers = said(btkit, one, "--with", two, pictures)
    expected = [Path(item["path"]).parent.name == item["predicted"] for item in answers]
    assert found["accuracy"] == pytest.approx(np.mean(expected))
    assert found["out_of_distribution"] == pytest.approx(np.mean([item["out_of_distribution"] for item in answers]))
    folders = sorted(path.name for path in (one / "evaluations").iterdir())
    assert len(folders) == 2
    assert folders[1].startswith(f"{folders[0]}-with-")  # beside what the first says alone
    assert json.loads((one / "evaluations" / folders[0] / "metrics.json").read_text())["nll"] == alone["nll"]


def test_lone_models_have_no_cautions_and_are_told_apart(
    runs: Path, pictures: Path, btkit: Callable, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.keras").write_bytes((runs / name / "fold-1" / "model.keras").read_bytes())
    one, two = tmp_path / "one.keras", tmp_path / "two.keras"
    found = said(btkit, one, "--with", two, pictures)
    inside = said(btkit, runs / "one" / "fold-1", "--with", runs / "two" / "fold-1", pictures)
    assert [list(item["probabilities"].values()) for item in found] == [
        pytest.approx(list(item["probabilities"].values()), abs=1e-6) for item in inside
    ]
    assert all(item["calibrated"] is None and item["abstain"] is None for item in found)
    for others, words in (
        ((one,), "are the same model: it would count for two"),
        ((two, two), "are the same model"),
        ((runs / "two" / "fold-1",), "they cannot be asked as one"),  # the lone file's classes have no names
        ((runs / "two",), "has a model a fold"),
        ((tmp_path / "none.keras",), "none.keras"),
    ):
        ended = btkit("predict", one, *(word for other in others for word in ("--with", other)), pictures)
        assert ended.status == 2
        assert words in ended.err
    ended = btkit("predict", one, "--with", two, pictures, "--out", tmp_path / "out")
    assert ended.status == 2
    assert "--with do not go with --out" in ended.err


def test_models_of_other_pixels_are_not_asked_as_one(
    runs: Path, pictures: Path, btkit: Callable, tmp_path: Path
) -> None:
    other = copy_run(runs / "two" / "fold-1", tmp_path / "other")
    resolved = json.loads((other / "resolved.json").read_text())
    resolved["pixels"]["crop"] = "head"
    put_file(other / "resolved.json", json.dumps(resolved).encode())
    ended = btkit("predict", runs / "one" / "fold-1", "--with", other, pictures)
    assert ended.status == 2
    assert "were trained on pictures prepared differently" in ended.err
