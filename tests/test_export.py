"""Models for other runtimes: the same answers there, files that say what they are, and what is refused."""

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from btkit_plugins.backbones.efficientnet_lite0 import EfficientNetLite0
from btkit_plugins.backbones.resnet import ResNet
from btkit_plugins.backbones.torchvision_resnet import TorchvisionResNet
from PIL import Image
from small_models import SIDE, network, run_of, saved

from braintumor_kit.commands.main import run_command_line
from braintumor_kit.export import packages, parity
from braintumor_kit.model.build import build_classifier
from braintumor_kit.model.load import load_model
from braintumor_kit.workflows.exported import open_exported

# isort: split
# What stands above has put Keras on torch.
import keras

CLASSES = ["glioma", "meningioma", "notumor", "pituitary"]

BACKBONES = [
    pytest.param(ResNet, {"depth": 18}, id="resnet"),
    pytest.param(TorchvisionResNet, {"arch": "resnet18"}, id="torchvision_resnet"),
    pytest.param(EfficientNetLite0, {}, id="efficientnet_lite0"),
]


def slices(side: int, count: int, channels: int = 3) -> np.ndarray:
    """Unlike those that btkit itself tries a file on: half of each picture is noise."""
    random = np.random.default_rng(count)
    made = random.integers(0, 256, (count, side, side, channels)).astype(np.float32)
    made[:, : side // 2] = np.linspace(0, 255, count).reshape(count, 1, 1, 1)
    return made


def in_keras(model: keras.Model, pictures: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(pictures, training=False))


def answers(path: Path, pictures: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"pictures": pictures}), strict=True))


def picture_files(folder: Path, count: int = 3) -> Path:
    """Of sixteen squares each, as those that the small run's certainty was fitted to."""
    folder.mkdir()
    random = np.random.default_rng(3)
    for number in range(count):
        squares = random.integers(0, 256, (4, 4)).repeat(8, 0).repeat(8, 1)
        Image.fromarray(squares.astype(np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of(tmp_path_factory.mktemp("runs") / "some", CLASSES)


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX file of that run, beside nothing."""
    path = tmp_path_factory.mktemp("onnx") / "some.onnx"
    assert run_command_line(["export", str(run), "--out", str(path)]) == 0
    return path


@pytest.mark.parametrize(("plugin", "options"), BACKBONES)
def test_each_backbone_answers_as_in_keras(plugin: Any, options: dict, tmp_path: Path, btkit: Callable) -> None:
    keras.utils.set_random_seed(5)
    model = build_classifier(plugin(plugin.Options(weights="none", **options)), 3, 64, dropout=0.2).model
    normalizations = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in normalizations:
        layer.momentum = 0.0
    model(slices(64, 7), training=True)  # as after a training: their averages are those of pictures
    model.save(tmp_path / "m.keras")
    ended = btkit("export", tmp_path / "m.keras")
    assert ended.status == 0, ended.err
    for count in (1, 7):
        pictures = slices(64, count)
        expected = in_keras(model, pictures)
        given = answers(tmp_path / "m.onnx", pictures)
        assert list(given) == ["probabilities"]
        assert given["probabilities"].shape == (count, 3)
        assert np.abs(given["probabilities"] - expected).max() < 1e-4
    assert expected.std(axis=0).max() > 1e-2  # the pictures make a difference


ALONE = """
import json, sys
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
meta = session.get_modelmeta().custom_metadata_map
(given,) = session.get_inputs()
made = session.run(["probabilities", "calibrated", "ood_score"], {given.name: np.load(sys.argv[2])})
print(json.dumps({
    "values": [part.tolist() for part in made], "meta": meta, "input": [given.name, given.type, given.shape],
    "loaded": sorted({"braintumor_kit", "keras", "torch"} & set(sys.modules)),
}))
"""


@pytest.mark.parametrize("count", [1, 7])
def test_the_file_opens_in_onnxruntime_alone(count: int, exported: Path, run: Path, tmp_path: Path) -> None:
    pictures = slices(SIDE, count)
    np.save(tmp_path / "p.npy", pictures)
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(exported), str(tmp_path / "p.npy")],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    said = json.loads(done.stdout)
    assert said["loaded"] == []
    assert said["input"] == ["pictures", "tensor(float)", ["N", SIDE, SIDE, 3]]
    plain, calibrated, score = (np.array(values) for values in said["values"])
    assert np.abs(plain - in_keras(load_model(run / "model.keras"), pictures)).max() < 1e-4
    meta, certainty = said["meta"], json.loads((run / "certainty.json").read_text())
    powers = plain ** (1 / certainty["temperature"])  # softmax(log p / T), said otherwise
    np.testing.assert_allclose(calibrated, powers / powers.sum(axis=1, keepdims=True), atol=1e-6)
    assert score.shape == (count,)
    assert json.loads(meta["classes"]) == CLASSES
    assert json.loads(meta["pixels"])["image_size"] == SIDE
    assert json.loads(meta["certainty"]) == {
        name: certainty[name] for name in ("temperature", "abstain_below", "ood_threshold")
    }
    assert meta["btkit_format"] == "1"
    assert meta["notice"] == "Research use only, not a medical device."
    assert len(meta["model_digest"]) == 64


def test_predict_says_the_same_of_the_onnx_file(exported: Path, run: Path, tmp_path: Path, btkit: Callable) -> None:
    folder = picture_files(tmp_path / "p", 9)
    Image.new("L", (SIDE, SIDE), 255).save(folder / "white.png")
    (folder / "bad.png").write_bytes(b"no picture")
    ended = [btkit("predict", model, folder, "--json") for model in (run, exported)]
    assert [end.status for end in ended] == [2, 2]
    assert all("1 of 11 cannot be read" in end.err and "bad.png" in end.err for end in ended)
    first, second = (json.loads(end.out) for end in ended)
    assert len(first) == len(second) == 10
    for one, other in zip(first, second, strict=True):
        for key in ("path", "predicted", "out_of_distribution", "abstain"):
            assert one[key] == other[key]
        for key in ("probabilities", "calibrated"):
            assert list(one[key]) == list(other[key]) == CLASSES
            assert list(one[key].values()) == pytest.approx(list(other[key].values()), abs=1e-4)
        assert one["ood_score"] == pytest.approx(other["ood_score"], abs=1e-2)
    for key in ("out_of_distribution", "abstain"):
        assert {item[key] for item in first} == {True, False}


def test_predict_of_a_file_without_a_certainty(tmp_path: Path, btkit: Callable) -> None:
    path = saved(tmp_path, network())
    assert btkit("export", path).status == 0
    folder = picture_files(tmp_path / "p")
    first, second = (json.loads(btkit("predict", model, folder, "--json").out) for model in (path, tmp_path / "m.onnx"))
    for one, other in zip(first, second, strict=True):
        assert list(one["probabilities"].values()) == pytest.approx(list(other["probabilities"].values()), abs=1e-5)
        assert one["calibrated"] is other["calibrated"] is None
        assert list(other["probabilities"]) == ["class_0", "class_1"]


def test_evaluate_takes_the_onnx_file(run: Path, exported: Path, tmp_path: Path, btkit: Callable) -> None:
    source = ("--source", "phantom", "--set", "source.patients=4", "--set", "source.size=64", "--json")
    found = []
    for number, model in enumerate((run, exported)):
        ended = btkit("evaluate", model, *source, "--out", tmp_path / str(number))
        assert ended.status == 0, ended.err
        found.append(json.loads(ended.out)["metrics"])
    assert found[0]["n"] == found[1]["n"] > 0
    for key in ("accuracy", "out_of_distribution"):
        assert found[0][key] == found[1][key]
    assert found[0]["nll_calibrated"] == pytest.approx(found[1]["nll_calibrated"], abs=1e-4)
    alone = btkit("evaluate", exported)
    assert alone.status == 2
    assert "a file that stands beside no run of its own has no slices: name some with --source." in alone.err


TORCH_ALONE = """
import json, sys
import numpy as np, torch
extra = {"btkit.json": ""}
program = torch.export.load(sys.argv[1], extra_files=extra).module()
made = program(torch.from_numpy(np.load(sys.argv[2])))
print(json.dumps({"values": made[0].tolist(), "outputs": len(made), "about": json.loads(extra["btkit.json"]),
                  "loaded": sorted({"braintumor_kit", "keras"} & set(sys.modules))}))
"""


def test_a_program_of_torch(run: Path, tmp_path: Path, btkit: Callable) -> None:
    ended = btkit("export", run, "--format", "torch", "--out", tmp_path / "m.pt2", "--json")
    assert ended.status == 0, ended.err
    said = json.loads(ended.out)
    assert said["outputs"] == ["probabilities", "calibrated", "ood_score"]
    assert said["pictures"] == ["N", SIDE, SIDE, 3]
    assert 0 <= said["deviations"]["probabilities"] < 1e-4
    model = load_model(run / "model.keras")
    for count in (1, 7):
        np.save(tmp_path / "p.npy", slices(SIDE, count))
        done = subprocess.run(
            [sys.executable, "-c", TORCH_ALONE, str(tmp_path / "m.pt2"), str(tmp_path / "p.npy")],
            capture_output=True, text=True, check=True, cwd=tmp_path,
        )  # fmt: skip
        found = json.loads(done.stdout)
        assert found["loaded"] == []
        assert found["outputs"] == 3
        assert json.loads(found["about"]["classes"]) == CLASSES
        assert np.abs(np.array(found["values"]) - in_keras(model, slices(SIDE, count))).max() < 1e-4


def test_files_tell_nothing_of_the_machine(exported: Path, tmp_path: Path, btkit: Callable) -> None:
    btkit("export", saved(tmp_path, network()), "--format", "torch")
    with zipfile.ZipFile(tmp_path / "m.pt2") as archive:
        program = b"".join(archive.read(name) for name in archive.namelist())
        assert not any(".writing" in name for name in archive.namelist())
        assert b'"use_pickle": true' not in program
    for content in (exported.read_bytes(), program):
        assert str(Path(__file__).parents[1]).encode() not in content
        assert b"site-packages" not in content
        assert b".py" not in content


def test_a_copy_in_keras_form(run: Path, tmp_path: Path, btkit: Callable) -> None:
    ended = btkit("export", run, "--format", "keras")
    assert ended.status == 2
    assert "model.keras' is the model in Keras' form already; --out FILE makes a copy of it." in ended.err
    assert btkit("export", run, "--format", "keras", "--out", tmp_path / "new" / "c.keras").status == 0
    assert (tmp_path / "new" / "c.keras").read_bytes() == (run / "model.keras").read_bytes()


def test_a_file_that_answers_otherwise_is_not_kept(
    tmp_path: Path, btkit: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, network())
    for form, name in (("onnx", "m.onnx"), ("torch", "m.pt2")):
        (tmp_path / name).write_text("the one before")
        with monkeypatch.context() as patch:
            plain = parity._expected
            patch.setattr(
                parity,
                "_expected",
                lambda *given: {key: value + 0.25 for key, value in plain(*given).items()},  # noqa: B023
            )
            ended = btkit("export", path, "--format", form)
        assert ended.status == 3
        assert "is not kept: its probabilities differs from Keras' by 0.25, more than 0.0001." in ended.err
        assert (tmp_path / name).read_text() == "the one before"
        assert btkit("export", path, "--format", form).status == 0
        assert (tmp_path / name).stat().st_size > 1000
    assert {item.name for item in tmp_path.iterdir()} == {"m.keras", "m.onnx", "m.pt2"}


def test_the_place_of_the_file(tmp_path: Path, btkit: Callable) -> None:
    ended = btkit("export", saved(tmp_path, network()), "--out", tmp_path / "m.bin")
    assert ended.status == 2
    assert "m.bin': name a file for --format onnx with .onnx at its end." in ended.err


def test_missing_packages_are_told(tmp_path: Path, btkit: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, network())
    (tmp_path / "m.onnx").write_bytes(b"x")
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    ended = btkit("export", path)
    assert ended.status == 2
    needs = "exporting to ONNX needs onnx and onnxscript and onnxruntime: pip install 'braintumor-kit[onnx]'."
    assert needs in ended.err
    folder = picture_files(tmp_path / "p")
    ended = btkit("predict", tmp_path / "m.onnx", folder)
    assert ended.status == 2
    assert "m.onnx' needs onnx and onnxruntime: pip install 'braintumor-kit[onnx]'." in ended.err
    assert btkit("export", path, "--format", "torch").status == 0


def test_layers_of_an_onnx_file_are_not_to_be_seen(exported: Path, tmp_path: Path, btkit: Callable) -> None:
    folder = picture_files(tmp_path / "p")
    for words in (["explain", exported, folder], ["explain", exported], ["export", exported]):
        ended = btkit(*words)
        assert ended.status == 2
        assert (
            "some.onnx' is an ONNX file: `btkit predict` and `btkit evaluate` can ask it, but nobody can look into "
            "its layers. Name the run or the .keras file that it was made of." in ended.err
        )
    ended = btkit("predict", exported, folder, "--precision", "bfloat16")
    assert ended.status == 2
    assert "--precision bfloat16: an ONNX file computes in float32; leave the option out." in ended.err


def test_a_cross_validation_has_no_model_of_its_own(tmp_path: Path, run: Path, btkit: Callable) -> None:
    record = json.loads((run / "record.json").read_text())
    (tmp_path / "cv").mkdir()
    (tmp_path / "cv" / "record.json").write_text(json.dumps({**record, "folds": 3}))
    ended = btkit("export", tmp_path / "cv")
    assert ended.status == 2
    assert "cv' is a cross-validation and has a model a fold: name one, " in ended.err


def test_a_file_beside_its_run_has_the_runs_slices(run: Path, exported: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(run, tmp_path / "run"))
    shutil.copy(exported, run / "model.onnx")
    found = open_exported(run / "model.onnx")
    assert found.run is not None
    assert found.run.folder == run
    assert (found.classes, found.named, found.warning) == (tuple(CLASSES), True, None)
    (run / "model.keras").write_bytes(b"another")
    assert open_exported(run / "model.onnx").run is None


def test_the_graph_is_plain(exported: Path) -> None:
    model = onnx.load(exported)
    kinds = [node.op_type for node in model.graph.node]
    assert "BatchNormalization" not in kinds  # folded into the convolutions
    assert kinds.count("Conv") == 2
    assert (model.ir_version, [item.version for item in model.opset_import]) == (8, [18])
    assert model.producer_name == "btkit"
    assert "Research use only" in model.doc_string
    onnx.checker.check_model(model, full_check=True)


def test_a_grey_network_takes_one_channel(tmp_path: Path, btkit: Callable) -> None:
    pictures = keras.Input((SIDE, SIDE, 1))
    x = keras.layers.Conv2D(4, 3, padding="same", strides=2, activation="relu")(pictures)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(pictures, keras.layers.Dense(2, activation="softmax")(x))
    model.save(tmp_path / "g.keras")
    assert btkit("export", tmp_path / "g.keras").status == 0
    given = answers(tmp_path / "g.onnx", slices(SIDE, 3, 1))["probabilities"]
    assert np.abs(given - in_keras(model, slices(SIDE, 3, 1))).max() < 1e-4
    assert btkit("predict", tmp_path / "g.onnx", picture_files(tmp_path / "p")).status == 0
