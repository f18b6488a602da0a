"""A collection held out: in no split, judged apart, and named wrongly it is told."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from braintumor_kit.contracts import InputError, Sample
from braintumor_kit.data.held_out import held_out
from braintumor_kit.files import read_csv
from braintumor_kit.recipe.tables import SplitTable

pytestmark = pytest.mark.usefixtures("two_layers")

SMALL = (
    "--set=source.patients=40", "--set=source.size=64", "--set=pixels.image_size=64", "--set=training.epochs=1",
    "--set=training.precision=float32", "--set=explain=[]", "--set=report=false",
    "--set=backbone.name=two_layers",
)  # fmt: skip


def settings(**values: object) -> SplitTable:
    return SplitTable.model_validate({"method": "grouped", **values})


def half_known() -> list[Sample]:
    """Tumours of known patients and a few of none; healthy heads whose patients nobody knows."""
    known = [Sample(f"g{n}", "glioma", group=f"p{n % 4}") for n in range(12)]
    return [*known, *(Sample(f"u{n}", "glioma") for n in range(3)), *(Sample(f"h{n}", "notumor") for n in range(9))]


def test_unmatched_are_tumours_without_a_patient_and_no_healthy_heads() -> None:
    held = held_out(half_known(), settings(hold_out="unmatched"))
    assert [sample.id for sample, out in zip(half_known(), held, strict=True) if out] == ["u0", "u1", "u2"]


def test_where_all_are_matched_or_none_is_it_is_said() -> None:
    for samples in (half_known()[:12], half_known()[-9:]):
        with pytest.raises(InputError, match="recover_patients"):
            held_out(samples, settings(hold_out="unmatched"))


def test_a_collection_by_name(tmp_path: Path) -> None:
    path = tmp_path / "collections.csv"
    path.write_text("id,collection\ng0,north\ng1,south\n")
    held = held_out(half_known(), settings(hold_out="north", collections=path))
    assert held == [True] + [False] * 23
    with pytest.raises(InputError, match="its collections: north, south"):
        held_out(half_known(), settings(hold_out="west", collections=path))
    with pytest.raises(InputError, match=r"gone\.csv cannot be read"):
        held_out(half_known(), settings(hold_out="north", collections=tmp_path / "gone.csv"))
    path.write_text("name,collection\ng0,north\n")
    with pytest.raises(InputError, match="columns id and collection"):
        held_out(half_known(), settings(hold_out="north", collections=path))


def test_nothing_left_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "collections.csv"
    path.write_text("id,collection\n" + "".join(f"{sample.id},all\n" for sample in half_known()))
    with pytest.raises(InputError, match="none is left to train on"):
        held_out(half_known(), settings(hold_out="all", collections=path))


def test_a_run_judges_the_held_out_apart(tmp_path: Path, btkit: Callable) -> None:
    """Two patients of each class are another hospital's."""
    assert btkit("run", "resnet_adam", *SMALL, "--runs", tmp_path, "--name", "all").status == 0
    rows = read_csv(tmp_path / "all" / "split.csv")
    chosen = {group for label in {row["label"] for row in rows}
              for group in sorted({row["group"] for row in rows if row["label"] == label})[:2]}  # fmt: skip
    with (tmp_path / "collections.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("id", "collection"), *((row["id"], "away" if row["group"] in chosen else "home") for row in rows)]
        )
    wish = ("--set=split.hold_out=away", f"--set=split.collections={tmp_path / 'collections.csv'}")
    ended = btkit("run", "resnet_adam", *SMALL, *wish, "--runs", tmp_path, "--name", "apart")
    assert ended.status == 0, ended.err
    assert "held out" in ended.out
    split = read_csv(tmp_path / "apart" / "split.csv")
    assert {row["group"] for row in split if row["split"] == "held_out"} == chosen
    figures = json.loads((tmp_path / "apart" / "metrics.json").read_text())["held_out"]
    said = [row for row in read_csv(tmp_path / "apart" / "predictions.csv") if row["split"] == "held_out"]
    assert figures["n"] == len(said) == sum(row["group"] in chosen for row in rows)
    assert figures["accuracy"] == pytest.approx(sum(row["label"] == row["predicted"] for row in said) / len(said))
    again = btkit("evaluate", tmp_path / "apart", "--split", "held_out", "--json")
    asked = json.loads(again.out)["metrics"]
    assert asked["confusion_matrix"] == figures["confusion_matrix"]
    recorded = json.loads((tmp_path / "apart" / "metrics.json").read_text())["certainty"]["held_out"]["detection"]
    tumours = [row for row in said if row["label"] != "notumor"]
    assert recorded["tumours"]["n"] == len(tumours)
    called = sum(row["predicted"] != "notumor" for row in tumours)
    assert recorded["tumours"]["called_tumour"] == pytest.approx(called / len(tumours))
    assert asked["detection"] == recorded
    assert btkit("evaluate", tmp_path / "all", "--split", "held_out").status == 2


def test_a_class_that_only_the_held_out_have_is_refused(tmp_path: Path, btkit: Callable) -> None:
    assert btkit("run", "resnet_adam", *SMALL, "--runs", tmp_path, "--name", "all").status == 0
    rows = read_csv(tmp_path / "all" / "split.csv")
    lines = [f"{row['id']},{row['label']}" for row in rows]
    (tmp_path / "collections.csv").write_text("id,collection\n" + "\n".join(lines) + "\n")
    wish = ("--set=split.hold_out=glioma", f"--set=split.collections={tmp_path / 'collections.csv'}")
    ended = btkit("run", "resnet_adam", *SMALL, *wish, "--runs", tmp_path, "--name", "none")
    assert ended.status == 2
    assert "class 'glioma' stands in the held_out split and is missing from training" in ended.err


def test_combinations_that_make_no_sense(btkit: Callable) -> None:
    ended = btkit("recipe", "check", "resnet_adam", "--set", "split.hold_out=north")
    assert ended.status == 2
    assert "[split] hold_out" in ended.err + ended.out
