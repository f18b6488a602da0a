"""Volumes through the commands: the same answers as their slices, and maps that lie where the scan does."""

import json
from pathlib import Path
from typing import Any

import keras
import nibabel
import numpy as np
import pydicom
import pytest
from keras import layers
from numpy.typing import NDArray
from PIL import Image
from volumes import CORNER, SPACING, as_nifti, phantom, save_series

import braintumor_kit

COUNT = 6


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One phantom volume as pictures, as a DICOM series of shuffled names, and as NIfTI along three sets of axes."""
    folder = tmp_path_factory.mktemp("scans")
    slices = phantom(COUNT)
    (folder / "png").mkdir()
    for number, values in enumerate(slices):
        Image.fromarray(values).save(folder / "png" / f"{number}.png")
    save_series(slices, folder / "dicom")
    for codes in ("RAS", "PIR", "SAL"):
        nibabel.save(as_nifti(slices, codes), folder / f"{codes}.nii.gz")
    return folder


def predicted(btkit: Any, *arguments: object) -> list[dict[str, Any]]:
    ended = btkit("predict", *arguments, "--json")
    assert ended.status == 0, ended.err
    found: list[dict[str, Any]] = json.loads(ended.out)
    return found


def said(item: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in item.items() if key != "path"}


FORMS = ("dicom", "RAS.nii.gz", "PIR.nii.gz", "SAL.nii.gz")


def test_a_volume_is_answered_as_its_slices_are(btkit: Any, finished: Path, scans: Path) -> None:
    found = predicted(btkit, finished, scans / "png", *(scans / form for form in FORMS))
    slices, rest = found[:COUNT], found[COUNT:]
    for number, form in enumerate(FORMS):
        *mine, whole = rest[number * (COUNT + 1) : (number + 1) * (COUNT + 1)]
        assert [said(item) for item in mine] == [said(item) for item in slices]
        assert whole["path"] == str(scans / form)
        if form != "dicom":
            assert [item["path"] for item in mine] == [f"{scans / form}#{place}" for place in range(1, COUNT + 1)]


def test_what_the_slices_come_to(btkit: Any, finished: Path, scans: Path) -> None:
    *slices, whole = predicted(btkit, finished, scans / "RAS.nii.gz")
    known = [item for item in slices if not item["out_of_distribution"]]
    flagged = float(np.median([item["ood_score"] for item in slices]))
    assert whole["ood_score"] == flagged
    assert whole["out_of_distribution"] == (len(known) <= COUNT // 2)
    used = slices if whole["out_of_distribution"] else known
    assert (whole["slices"], whole["slices_used"]) == (COUNT, len(used))
    for kind in ("probabilities", "calibrated"):
        for name, value in whole[kind].items():
            assert value == pytest.approx(np.mean([item[kind][name] for item in used]), abs=1e-9)
    for name, peak in whole["peaks"].items():
        assert peak["probability"] == max(item["probabilities"][name] for item in used)
        assert slices[peak["slice"] - 1]["probabilities"][name] == peak["probability"]
    table = btkit("predict", finished, scans / "RAS.nii.gz", "--csv").out.splitlines()
    assert len(table) == 1 + COUNT + 1
    assert table[-1].startswith(f"{scans}/RAS.nii.gz,{whole['predicted']},")


def test_a_plane_may_be_chosen(btkit: Any, finished: Path, scans: Path) -> None:
    found = predicted(btkit, finished, scans / "RAS.nii.gz", "--plane", "coronal")
    assert len(found) == 64 + 1  # rows of the slices
    assert btkit("predict", finished, scans / "RAS.nii.gz", "--plane", "oblique").status == 2


def test_the_same_in_python(btkit: Any, finished: Path, scans: Path) -> None:
    expected = predicted(btkit, finished, scans / "SAL.nii.gz", scans / "dicom")
    slices = [item for item in expected if "slices" not in item]
    model = braintumor_kit.load(finished)
    found = model.predict([scans / "SAL.nii.gz", phantom(1)[0], scans / "dicom"])
    paths = [item["path"] for item in found.rows]
    assert paths == [
        *(item["path"] for item in slices[:COUNT]), "picture 1", *(item["path"] for item in slices[COUNT:]),
        str(scans / "SAL.nii.gz"), str(scans / "dicom"),
    ]  # fmt: skip
    for mine, theirs in zip(found.rows[-2:], [item for item in expected if "slices" in item], strict=True):
        assert (mine["slices_used"], mine["peaks"].keys()) == (theirs["slices_used"], theirs["peaks"].keys())
        assert mine["probabilities"] == pytest.approx(theirs["probabilities"], abs=1e-6)
    assert found.rows[COUNT]["probabilities"] == pytest.approx(slices[0]["probabilities"], abs=1e-6)
    maps = model.explain([scans / "SAL.nii.gz"], plane="sagittal")
    assert maps.maps.shape == (64, 64, 64)


def test_files_beside_each_other_are_told_apart(btkit: Any, finished: Path, scans: Path, tmp_path: Path) -> None:
    for name in ("report.dcm", "DICOMDIR"):  # DICOM without a picture
        content = (Path(pydicom.data.__file__).parent / "test_files" / "rtplan.dcm").read_bytes()
        (tmp_path / name).write_bytes(content)
    for path in (scans / "dicom").iterdir():  # without an ending, as many scanners write them
        (tmp_path / path.stem).write_bytes(path.read_bytes())
    (tmp_path / "notes.txt").write_text("x")
    Image.fromarray(phantom(1)[0]).save(tmp_path / "a.png")
    nibabel.save(as_nifti(phantom(2)), tmp_path / "b.nii")
    found = [Path(item["path"]).name for item in predicted(btkit, finished, tmp_path)]
    assert len(found) == COUNT + 1 + 1 + 2 + 1
    assert {"a.png", "b.nii#1", "b.nii#2", "b.nii", tmp_path.name} <= set(found)
    assert not {"report.dcm", "DICOMDIR", "notes.txt"} & set(found)
    named = btkit("predict", finished, tmp_path / "a.png", tmp_path / "report.dcm", "--json")
    assert named.status == 2
    assert f"{tmp_path}/report.dcm is DICOM and holds no picture of a scan (RTPLAN)" in named.err
    assert len(json.loads(named.out)) == 1


def test_a_damaged_volume_is_one_message(btkit: Any, finished: Path, scans: Path, tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes((scans / "RAS.nii.gz").read_bytes()[:200])
    (tmp_path / "b.nii").write_bytes(b"nothing")
    ended = btkit("predict", finished, tmp_path)
    assert ended.status == 2
    assert f"  {tmp_path}/b.nii is not a NIfTI file" in ended.err
    assert f"{tmp_path}/a.nii.gz is cut off or damaged: " in ended.err
    assert "Traceback" not in ended.err


def test_what_is_named_twice_counts_once(
    btkit: Any, finished: Path, scans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(scans)
    files = sorted((scans / "dicom").iterdir())
    relative = [Path("dicom") / path.name for path in files[1:]]
    found = predicted(btkit, finished, "RAS.nii.gz", "RAS.nii.gz", files[0], *relative)
    assert [item["slices"] for item in found if "slices" in item] == [COUNT, COUNT]
    assert len(found) == 2 * (COUNT + 1)


# Maps that go back


def brightness(folder: Path) -> Path:
    """A network that sees nothing but the mean brightness: relevance by integrated gradients is where it is bright."""
    pictures = keras.Input((64, 64, 1))
    x = layers.Dense(2, activation="softmax", name="d")(layers.GlobalAveragePooling2D()(pictures))
    model = keras.Model(pictures, x)
    model.get_layer("d").set_weights([np.array([[0.1, -0.1]]), np.zeros(2)])
    model.save(folder / "brightness.keras")
    return folder / "brightness.keras"


def planted(shape: tuple[int, int, int]) -> NDArray[np.int16]:
    """Slices upwards, rows backwards, columns to the left: dark but for a blob of 1 x 4 x 5 voxels."""
    values = np.zeros(shape, np.int16)
    values[3, 10:14, 40:45] = 900
    return values


@pytest.mark.parametrize(
    ("codes", "plane"), [("RAS", "axial"), ("LPI", "axial"), ("PIR", "coronal"), ("SAL", "sagittal")]
)
def test_a_nifti_map_lies_on_the_voxels_that_were_planted(codes: str, plane: str, tmp_path: Path, btkit: Any) -> None:
    scan = as_nifti(planted((6, 64, 64)), codes)
    scan.header["descrip"] = b"somebody's name"
    scan.header.set_xyzt_units("mm", "sec")
    nibabel.save(scan, tmp_path / "scan.nii.gz")
    ended = btkit(
        "explain", brightness(tmp_path), tmp_path / "scan.nii.gz", "--method", "integrated_gradients", "--plane", plane,
        "--target", "class_0", "--style", "none", "--precision", "float32", "--out", tmp_path / "out",
    )  # fmt: skip
    assert ended.status == 0, ended.err
    (path,) = (tmp_path / "out" / "volumes").glob("*.integrated_gradients.nii.gz")
    made = nibabel.load(path)
    values = np.asanyarray(made.dataobj)
    assert made.get_data_dtype() == np.float32
    np.testing.assert_allclose(made.affine, scan.affine)
    assert made.shape == scan.shape
    assert b"somebody" not in made.header["descrip"].tobytes()
    assert made.header.get_xyzt_units() == ("mm", "sec")
    bright = np.asanyarray(scan.dataobj) > 0
    if plane == "axial":  # of the network's own size: nothing is resized
        assert (values[bright] > 0).all()
        assert not values[~bright].any()
    else:
        assert values[bright].sum() > 0.5 * values.sum()
        assert bright[np.unravel_index(values.argmax(), values.shape)]


def test_a_scan_whose_second_affine_means_nothing(tmp_path: Path, btkit: Any) -> None:
    nibabel.save(as_nifti(planted((6, 64, 64)), "RAS"), tmp_path / "whole.nii")
    content = bytearray((tmp_path / "whole.nii").read_bytes())
    content[252:254] = bytes(2)  # qform_code
    content[256:268] = np.array([2.0, 2.0, np.nan], "<f4").tobytes()  # its quaternion
    content[123] = 7  # units that there are none of
    (tmp_path / "scan.nii").write_bytes(content)
    ended = btkit(
        "explain", brightness(tmp_path), tmp_path / "scan.nii", "--method", "integrated_gradients", "--style", "none",
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert ended.status == 0, ended.err
    (path,) = (tmp_path / "out" / "volumes").iterdir()
    np.testing.assert_allclose(nibabel.load(path).affine, nibabel.load(tmp_path / "whole.nii").affine)


def test_captures_belong_to_their_slices(tmp_path: Path, btkit: Any) -> None:
    slices = planted((6, 64, 64)).astype(np.uint16)
    names = save_series(slices, tmp_path / "scan", PatientBirthDate="19700101", FrameOfReferenceUID="2.25.5")
    model = brightness(tmp_path)
    ended = btkit(
        "explain", model, tmp_path / "scan", "--method", "integrated_gradients", "--style", "none",
        "--precision", "float32", "--out", tmp_path / "out",
    )  # fmt: skip
    assert ended.status == 0, ended.err
    files = sorted((tmp_path / "out" / "dicom").rglob("*.dcm"))
    assert [path.name for path in files] == [f"{number:04d}.dcm" for number in range(1, 7)]
    made = [pydicom.dcmread(path) for path in files]
    sources = [pydicom.dcmread(tmp_path / "scan" / name) for name in names]
    assert len({one.SeriesInstanceUID for one in made} - {sources[0].SeriesInstanceUID}) == 1
    assert len({one.SOPInstanceUID for one in made}) == 6
    for place, (one, source) in enumerate(zip(made, sources, strict=True)):
        assert one.SOPClassUID == pydicom.uid.SecondaryCaptureImageStorage
        assert one.file_meta.MediaStorageSOPInstanceUID == one.SOPInstanceUID
        (reference,) = one.SourceImageSequence
        assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert one.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID
        for name in ("PatientID", "PatientName", "PatientBirthDate", "StudyInstanceUID", "FrameOfReferenceUID"):
            assert one[name].value == source[name].value
        assert list(one.ImagePositionPatient) == [CORNER[0], CORNER[1], CORNER[2] + SPACING[2] * place]
        assert list(one.PixelSpacing) == [SPACING[1], SPACING[0]]
        assert one.Modality == "OT"
        assert "not a medical device" in one.ImageComments
        colour = one.pixel_array.astype(int)
        tinted = np.abs(colour - colour[..., :1]).max(axis=2) > 0
        np.testing.assert_array_equal(tinted, slices[place] > 0)  # the slice shines through where nothing is said


def test_a_map_of_another_size_is_brought_to_the_scans(tmp_path: Path, btkit: Any) -> None:
    """128 x 96 voxels a slice for a network of 64 x 64."""
    values = np.zeros((3, 96, 128), np.uint8)
    values[1, 30:42, 80:96] = 200
    nibabel.save(as_nifti(values, "RAS"), tmp_path / "scan.nii")
    options = ("--method", "integrated_gradients,occlusion", "--target", "all", "--style", "none", "--out")
    assert btkit("explain", brightness(tmp_path), tmp_path / "scan.nii", *options, tmp_path / "out").status == 0
    names = sorted(
        path.name.removesuffix(".nii.gz").split(".", 2)[2] for path in (tmp_path / "out" / "volumes").iterdir()
    )
    assert names == sorted(f"{m}.{c}" for m in ("integrated_gradients", "occlusion") for c in ("class_0", "class_1"))
    (path,) = (tmp_path / "out" / "volumes").glob("*integrated_gradients.class_0.nii.gz")
    made = np.asanyarray(nibabel.load(path).dataobj)
    bright = np.asanyarray(nibabel.load(tmp_path / "scan.nii").dataobj) > 0
    assert made.shape == bright.shape
    assert made[bright].sum() > 0.8 * made.sum() > 0


def test_a_run_learns_from_volumes(tmp_path: Path, btkit: Any) -> None:
    """The whole way: NIfTI in class folders with masks, split by patient, explained and measured."""
    random = np.random.default_rng(0)
    for number in range(8):
        label = ("glioma", "notumor")[number % 2]
        values = random.integers(20, 60, (4, 40, 40), dtype=np.uint8)
        mask = np.zeros_like(values)
        if label == "glioma":
            values[:, 10:22, 12:24] = 220
            mask[:, 10:22, 12:24] = 1
        folder = tmp_path / "data" / label / f"p{number}"
        folder.mkdir(parents=True)
        nibabel.save(as_nifti(values, "RAS"), folder / "t1.nii.gz")
        nibabel.save(as_nifti(mask, "RAS"), folder / "t1_seg.nii.gz")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f"""seed = 1
[source]
name = "nifti"
root = "{tmp_path / "data"}"
mask_ending = "_seg"
[pixels]
image_size = 64
[split]
method = "grouped"
[backbone]
name = "resnet"
depth = 18
[training]
epochs = 1
batch_size = 8
precision = "float32"
[[explain]]
method = "gradcam"
"""
    )
    ended = btkit("run", recipe, "--runs", tmp_path / "runs", "--name", "x", "--set", "report=false")
    assert ended.status == 0, ended.err
    rows = (tmp_path / "runs" / "x" / "split.csv").read_text().splitlines()[1:]
    assert len(rows) == 32
    split_of: dict[str, set[str]] = {}
    for row in rows:
        _, _, group, part = row.split(",")
        split_of.setdefault(group, set()).add(part)
    assert len(split_of) == 8
    assert all(len(parts) == 1 for parts in split_of.values())  # slices of a volume stay together
    shown = btkit("predict", tmp_path / "runs" / "x", tmp_path / "data" / "glioma" / "p0" / "t1.nii.gz", "--json")
    assert len(json.loads(shown.out)) == 5
