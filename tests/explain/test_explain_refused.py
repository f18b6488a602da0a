"""What `btkit explain` cannot do is said in one message."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from explained import flat_model, table, variant

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "gradcm"], "there is no explainer plugin named 'gradcm'; did you mean 'gradcam'?"),
        (["--method", ","], "--method: name at least one explainer; `btkit plugins list` shows them."),
        (["--layer", "stack3_block1_ou"], "the model has no layer 'stack3_block1_ou'; did you mean 'stack3_block1_out'?"
         " Candidates, last first: stack3_block1_out, "),
        (["--target", "gliom"], "the model has no class 'gliom' to explain; did you mean 'glioma'? Targets: glioma, "
         "meningioma, notumor, pituitary, predicted, label, all, or two classes as 'glioma-vs-meningioma'."),
        (["--target", "glioma-vs-glioma"], "target 'glioma-vs-glioma': a class cannot be explained against itself."),
        (["--set", "rise.masks=9"], "--set rise.masks=9: write it as METHOD.KEY=VALUE, METHOD one of gradcam."),
        (["--set", "gradcam.limit=9"], "gradcam.limit: unknown key; there are none to set."),
        (["--set", "gradcam.method=rise"], "gradcam.method: unknown key; there are none to set."),
        (["--method", "rise", "--set", "rise.mask=9"], "rise.mask: unknown key; did you mean 'masks'?"),
        (["--method", "rise", "--set", "rise.masks=many"], "rise.masks: should be a valid integer, not 'many'."),
        (["--evaluate", "--original-size"], "--evaluate measures maps at the network's size; leave --original-size"),
        (["PICTURE", "--target", "label"], "target 'label' needs slices whose true class is known; take 'predicted' or "
         "name a class."),
        (["PICTURE", "--limit", "3"], "--split and --limit are about a run's own slices; leave them or the images out"),
        (["nowhere.png"], "'nowhere.png' does not exist; name images, folders of images, or a run before them."),
        (["."], "folder '.' holds no picture"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_in_one_message(
    arguments: list[str], message: str, run: Path, pictures: Path, tmp_path: Path, btkit: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    named = [str(pictures / "a.png") if argument == "PICTURE" else argument for argument in arguments]
    ended = btkit("explain", run, *named, "--out", "out")
    assert ended.status == 2
    assert message in " ".join(ended.err.split())
    assert ended.err.count("btkit:") <= 1
    assert "Traceback" not in ended.err
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_picture_is_named(run: Path, tmp_path: Path, btkit: Callable) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    ended = btkit("explain", run, tmp_path / "notes.txt", "--out", tmp_path / "out")
    assert ended.status == 2
    assert "1 of 1 cannot be read:" in ended.err
    assert "notes.txt" in ended.err


def test_runs_that_cannot_be_explained(run: Path, tmp_path: Path, btkit: Callable) -> None:
    ended = btkit("explain", "--runs", tmp_path)
    assert ended.status == 2
    assert "no finished run under" in ended.err
    bare = variant(run, tmp_path / "bare")
    (bare / "model.keras").unlink()
    ended = btkit("explain", bare)
    assert ended.status == 2
    assert "has no model.keras: it has not finished." in ended.err
    ended = btkit("explain", bare / "model.keras")
    assert ended.status == 2
    assert "there is no model file" in ended.err
    lone = tmp_path / "lone" / "some.keras"
    lone.parent.mkdir()
    shutil.copy(run / "model.keras", lone)
    ended = btkit("explain", lone)
    assert ended.status == 2
    assert "some.keras' stands in no run, so it has no slices of its own: name images after it." in ended.err


def test_a_split_that_the_run_lacks(run: Path, tmp_path: Path, btkit: Callable) -> None:
    other = variant(run, tmp_path / "untested")
    text = (other / "split.csv").read_text().replace(",test\n", ",validation\n")
    (other / "split.csv").write_text(text)
    ended = btkit("explain", other, "--split", "test")
    assert ended.status == 2
    assert "there is no test split; there is train, validation." in ended.err
    assert btkit("explain", other, "--limit", 2, "--out", tmp_path / "out").status == 0
    assert {row["split"] for row in table(tmp_path / "out")} == {"validation"}


def test_a_model_without_rows_and_columns(run: Path, pictures: Path, tmp_path: Path, btkit: Callable) -> None:
    flat_model().save(tmp_path / "flat.keras")
    out = tmp_path / "out"
    ended = btkit("explain", tmp_path / "flat.keras", pictures / "a.png", "--out", out)
    assert ended.status == 2
    assert "the model has no layer with rows and columns on the way to its scores" in ended.err
    assert "integrated_gradients" in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["flat.keras"]
    ended = btkit("explain", tmp_path / "flat.keras", pictures / "a.png", "--method", "integrated_gradients",
                  "--out", out)  # fmt: skip
    assert ended.status == 0
    (row,) = table(out)
    assert (row["layer"], "incomplete" in row["flags"]) == ("", False)
