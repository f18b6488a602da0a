"""Input at fault: one clear message, the right exit status, no traceback, nothing lost."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

RECIPE = """
[source]
name = "image_folder"
root = "{root}"
[split]
method = "{method}"
[pixels]
image_size = 32
[backbone]
name = "resnet"
[training]
epochs = 1
batch_size = 8
"""


def pictures(root: Path, *parts: str, count: int = 12) -> Path:
    random = np.random.default_rng(0)
    for part in parts:
        folder = root / part
        folder.mkdir(parents=True)
        for number in range(count):
            Image.fromarray(random.integers(0, 255, (32, 32), dtype=np.uint8)).save(folder / f"{number:02}.jpg")
    return root


@pytest.fixture
def attempt(tmp_path: Path, btkit: Callable) -> Callable:
    """Runs a recipe on the pictures under `data` and gives status, output and error."""

    def run(*overrides: str, method: str = "stratified"):  # type: ignore[no-untyped-def]
        recipe = tmp_path / "recipe.toml"
        recipe.write_text(RECIPE.format(root=tmp_path / "data", method=method))
        sets = [item for override in overrides for item in ("--set", override)]
        ended = btkit("run", recipe, *sets, "--runs", tmp_path / "runs")
        assert "Traceback" not in ended.err
        return ended

    return run


def test_a_missing_root(attempt: Callable, tmp_path: Path) -> None:
    ended = attempt()
    assert ended.status == 2
    assert str(tmp_path / "data") in ended.err
    assert ended.err.count("btkit:") == 1
    assert not (tmp_path / "runs").exists()


def test_an_empty_class_folder(attempt: Callable, tmp_path: Path) -> None:
    pictures(tmp_path / "data", "glioma", "notumor")
    (tmp_path / "data" / "pituitary").mkdir()
    ended = attempt()
    assert ended.status == 2
    assert "pituitary" in ended.err


@pytest.fixture
def with_bad_files(tmp_path: Path) -> Path:
    root = pictures(tmp_path / "data", "glioma", "notumor")
    whole = (root / "glioma" / "00.jpg").read_bytes()
    (root / "glioma" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "glioma" / "empty.jpg").write_bytes(b"")
    (root / "notumor" / "text.jpg").write_text("no picture at all")
    return root


def test_bad_pictures_are_all_named_and_refused(attempt: Callable, with_bad_files: Path) -> None:
    ended = attempt()
    assert ended.status == 2
    assert "3 pictures cannot be read:" in ended.err
    for name in ("glioma/cut.jpg", "glioma/empty.jpg", "notumor/text.jpg"):
        assert name in ended.err
    assert 'on_bad_image = "skip"' in ended.err


def test_bad_pictures_are_skipped_where_the_recipe_says_so(attempt: Callable, with_bad_files: Path) -> None:
    ended = attempt("source.on_bad_image=skip")
    assert ended.status == 0
    record = json.loads(next((with_bad_files.parent / "runs").glob("*/record.json")).read_text())
    assert sorted(item["id"] for item in record["bad_images"]) == [
        "glioma/cut.jpg",
        "glioma/empty.jpg",
        "notumor/text.jpg",
    ]
    assert record["samples"] == 24
    assert "left out: glioma/empty.jpg" in ended.err


def test_a_class_that_training_lacks(attempt: Callable, tmp_path: Path) -> None:
    pictures(tmp_path / "data", "Training/glioma", "Training/notumor", "Testing/glioma", "Testing/pituitary")
    ended = attempt(method="source")
    assert ended.status == 2
    assert "pituitary" in ended.err
    assert "training" in ended.err.lower()


def test_five_mistakes_are_all_told(attempt: Callable) -> None:
    ended = attempt("seed=x", "training.epoch=1", "training.optimizer=adm", "pixels.fit=crop", "backbone.name=resnt")
    assert ended.status == 2
    assert "the recipe has 5 problems:" in ended.err


def test_an_unknown_plugin(attempt: Callable) -> None:
    ended = attempt("source.name=image_foldr")
    assert ended.status == 2
    assert "did you mean 'image_folder'?" in ended.err


def test_a_plugin_that_raises_on_import(tmp_path: Path, btkit: Callable) -> None:
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "mine.py").write_text("1 / 0")
    ended = btkit("--plugins", tmp_path, "data", "info", "--source", "mine")
    assert ended.status == 2
    assert "cannot be imported: ZeroDivisionError: division by zero" in ended.err
    assert btkit("--plugins", tmp_path, "recipe", "check", "resnet_adam").status == 0


def test_weights_that_need_a_network(attempt: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import kagglehub

    def offline(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(kagglehub, "model_download", offline)
    pictures(tmp_path / "data", "glioma", "notumor")
    ended = attempt("backbone.weights=imagenet")
    assert ended.status == 2
    assert "network" in ended.err
    assert "none" in ended.err
    assert not (tmp_path / "runs").exists()


def test_an_unknown_stage(attempt: Callable, tmp_path: Path) -> None:
    pictures(tmp_path / "data", "glioma", "notumor")
    ended = attempt("training.trainable=stag4")
    assert ended.status == 2
    assert "did you mean 'stage4'?" in ended.err
    assert not (tmp_path / "runs").exists()


def test_an_interruption_keeps_what_was_done(
    attempt: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from braintumor_kit.training import callbacks

    def interrupt(self: object, epoch: int, logs: object = None) -> None:
        if epoch == 1:
            raise KeyboardInterrupt

    pictures(tmp_path / "data", "glioma", "notumor")
    monkeypatch.setattr(callbacks.Clock, "on_epoch_end", interrupt)
    ended = attempt("training.epochs=3")
    (run,) = (tmp_path / "runs").iterdir()
    assert ended.status == 130
    assert f"go on where it stopped with: btkit run --resume {run}" in ended.err
    assert (run / "history.csv").read_text().count("\n") >= 2
    assert (run / "checkpoints" / "best-0001.weights.h5").is_file()
    assert json.loads((run / "record.json").read_text())["status"] == "interrupted"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "none.toml"], "there is no recipe file 'none.toml'; Shipped recipes: "),
        (["predict", "nowhere.png"], "'nowhere.png' does not exist; name images, folders of images, or a run before"),
        (["predict", "--runs", "nowhere", "."], "holds no picture"),
        (["data", "info", "--source", "phantm"], "did you mean 'phantom'?"),
        (["data", "info", "--source", "figshare"], "[source] root: is missing and has no default."),
        (["plugins", "show", "source", "figshar"], "did you mean 'figshare'?"),
        (["recipe", "check", "resnet_adam", "--set", "epochs"], "write it as key.path=value"),
        (["--plugins", "nowhere", "plugins", "list"], "plugin folder 'nowhere'"),
        (["evaluat"], "No such command 'evaluat'"),
        (["data", "info"], "name either a RECIPE or --source NAME."),
    ],
)
def test_commands_that_cannot_be(
    arguments: list[str], message: str, btkit: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = btkit(*arguments)
    assert ended.status == 2
    assert message in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"no zip"])
def test_a_model_file_that_is_none(content: bytes, btkit: Callable, tmp_path: Path) -> None:
    (tmp_path / "model.keras").write_bytes(content)
    picture = pictures(tmp_path, "some", count=1) / "some" / "00.jpg"
    ended = btkit("predict", tmp_path / "model.keras", picture)
    assert ended.status == 2
    assert "cannot be loaded as a Keras model" in ended.err


def test_a_fault_of_btkit_itself_is_written_down(btkit: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    from braintumor_kit.recipe import shipped

    def broken(name: str) -> Path:
        raise RuntimeError("a bug")

    monkeypatch.setattr(shipped, "find_recipe", broken)
    ended = btkit("recipe", "check", "resnet_adam")
    assert ended.status == 70
    assert "a fault of btkit itself: RuntimeError: a bug" in ended.err
    written = Path(ended.err.split("The traceback is in ")[1].split(";")[0])
    assert "RuntimeError: a bug" in written.read_text()
    written.unlink()
    assert "Traceback" in btkit("--debug", "recipe", "check", "resnet_adam").err


def test_an_argument_with_a_nul_is_told(btkit: Callable) -> None:
    ended = btkit("run", "--runs", "a\0b")
    assert (ended.status, ended.err) == (2, "btkit: an argument holds a NUL, which no name may have.\n")
