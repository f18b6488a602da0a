"""NIfTI volumes: which voxel is which pixel, how bright it is, and what is refused."""

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from btkit_plugins.sources.nifti import Nifti, NiftiOptions
from volumes import as_nifti

from braintumor_kit.contracts.volumes.nifti import MAX_OFFSET, NiftiVolume
from braintumor_kit.contracts.volumes.volume import MAX_VOXELS
from braintumor_kit.errors import ImageError, InputError

PACKAGED = Path(nibabel.__file__).parent / "tests" / "data"


def saved(image: Any, path: Path, plane: str = "axial") -> NiftiVolume:
    nibabel.save(image, path)
    return NiftiVolume(path.name, path, plane)


def marked(codes: str) -> nibabel.Nifti1Image:
    """A volume of 5 x 4 x 3 voxels with one bright voxel: second from the left, first at the front, topmost."""
    values = np.zeros((3, 4, 5), np.uint8)  # slices upwards, rows backwards, columns to the left
    values[2, 0, 3] = 200
    return as_nifti(values, codes)


@pytest.mark.parametrize("codes", ["LPS", "RAS", "SAL", "PIR", "IRP"])
@pytest.mark.parametrize(
    ("plane", "count", "shape", "place", "pixel"),
    [
        ("axial", 3, (4, 5), 2, (0, 3)),  # slices upwards; rows backwards, columns to the patient's left
        ("coronal", 4, (3, 5), 0, (0, 3)),  # slices backwards; rows downwards
        ("sagittal", 5, (3, 4), 1, (0, 0)),  # slices to the right; rows downwards, columns backwards
    ],
)
def test_a_voxel_is_seen_where_radiologists_see_it(
    codes: str, plane: str, count: int, shape: tuple[int, int], place: int, pixel: tuple[int, int], tmp_path: Path
) -> None:
    volume = saved(marked(codes), tmp_path / "a.nii.gz", plane)
    assert volume.names == [f"a.nii.gz#{number}" for number in range(1, count + 1)]
    pictures = np.stack([volume.picture(number) for number in range(count)])
    assert pictures.shape == (count, *shape)
    assert np.argwhere(pictures).tolist() == [[place, *pixel]]
    assert pictures.max() == 200  # bytes without a scale are shown as they are


def test_packaged_volumes_voxel_by_voxel() -> None:
    path = PACKAGED / "example4d.nii.gz"  # 128 x 96 x 24 of int16, twice; columns to the left
    image = nibabel.load(path)
    assert nibabel.aff2axcodes(image.affine) == ("L", "A", "S")
    first = np.asanyarray(image.dataobj)[..., 0].astype(float)
    low, high = first.min(), first.max()
    volume = NiftiVolume("x", path)
    assert len(volume) == 24
    for i, j, k in [(0, 0, 0), (64, 48, 12), (127, 95, 23), (3, 90, 7)]:
        expected = round((first[i, j, k] - low) / (high - low) * 255)
        assert volume.picture(k)[95 - j, i] == expected
    older = NiftiVolume("y", PACKAGED / "anatomical.nii", "coronal")  # big-endian, columns to the left
    values = np.asanyarray(nibabel.load(PACKAGED / "anatomical.nii").dataobj).astype(float)
    spread = values.max() - values.min()
    for i, j, k in [(0, 0, 0), (16, 20, 12), (30, 5, 24)]:
        assert older.picture(40 - j)[24 - k, i] == round((values[i, j, k] - values.min()) / spread * 255)
    second = NiftiVolume("z", PACKAGED / "example_nifti2.nii.gz", "sagittal")
    assert [len(second), *second.picture(0).shape] == [32, 12, 20]


@pytest.mark.parametrize(
    ("values", "header", "scale", "expected"),
    [
        ([0, 100, 250], {}, None, [0, 102, 255]),  # int16, from its lowest to its highest
        ([0, 100, 250], {"cal_min": 50, "cal_max": 175}, None, [0, 102, 255]),  # the window that it declares
        ([0, 100, 250], {"cal_min": 50, "cal_max": 50}, None, [0, 102, 255]),  # no window
        ([0, 100, 250], {"cal_min": -15, "cal_max": 10}, (-0.1, 10.0), [255, 153, 0]),  # 10, 0, -15
        ([0, 100, 250], {}, (-2.0, 7.0), [255, 153, 0]),  # 7, -193, -493
        ([5, 5, 5], {}, None, [0, 0, 0]),
    ],
)
def test_brightness(
    values: list[int], header: dict[str, float], scale: tuple[float, float] | None, expected: list[int], tmp_path: Path
) -> None:
    image = as_nifti(np.array(values, np.int16).reshape(1, 1, 3), **header)
    raw = bytearray(image.to_bytes())
    if scale:  # nibabel would change what is stored to fit it
        raw[112:120] = np.array(scale, "<f4").tobytes()
    (tmp_path / "a.nii").write_bytes(raw)
    volume = NiftiVolume("a.nii", tmp_path / "a.nii")
    assert volume.picture(0).tolist() == [expected]


def test_what_is_not_finite_is_black_and_counts_for_no_range(tmp_path: Path) -> None:
    values = np.array([[[np.nan, 1.0, 6.0, np.inf, 3.0]]], np.float32)
    assert saved(as_nifti(values), tmp_path / "a.nii").picture(0).tolist() == [[0, 0, 255, 0, 102]]
    with pytest.raises(ImageError, match=r"^b\.nii has no voxels that are finite$"):
        saved(as_nifti(np.full((1, 1, 2), np.nan, np.float32)), tmp_path / "b.nii").picture(0)


def test_colour(tmp_path: Path) -> None:
    values = np.zeros((2, 3, 1), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    values["G"][1, 0, 0] = 90
    picture = saved(nibabel.Nifti1Image(values, np.diag([-1.0, -1.0, 1.0, 1.0])), tmp_path / "a.nii").picture(0)
    assert picture.shape == (3, 2, 3)
    assert picture[0, 1].tolist() == [0, 90, 0]


def test_from_bytes_as_from_a_file(tmp_path: Path) -> None:
    image = as_nifti(np.arange(24, dtype=np.int16).reshape(2, 3, 4), "RAS")
    nibabel.save(image, tmp_path / "a.nii.gz")
    for content in (image.to_bytes(), (tmp_path / "a.nii.gz").read_bytes()):
        np.testing.assert_array_equal(
            NiftiVolume("x", content).picture(1), NiftiVolume("x", tmp_path / "a.nii.gz").picture(1)
        )


def changed(place: int, value: Any, kind: str) -> bytes:
    content = bytearray(marked("LPS").to_bytes())
    piece = np.array(value, kind).tobytes()
    content[place : place + len(piece)] = piece
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "x.nii is not a NIfTI file"),
        (b"\x5c\x01\x00\x00" + bytes(400), "x.nii is not a NIfTI file"),
        (marked("LPS").to_bytes()[:400], "x.nii is cut off or damaged: "),
        (changed(40, [3, 2000, 2000, 2000], "<i2"), f"has 8,000,000,000 voxels, more than the {MAX_VOXELS:,}"),
        (changed(40, [3, 5, 0, 3], "<i2"), "x.nii has a grid of 5 x 0 x 3, not of voxels"),
        (changed(40, [7, 5, 1, 1, 1, 1, 1, 1], "<i2"), "not of voxels"),
        (changed(70, 1792, "<i2"), "x.nii has voxels of complex128, which are no intensities"),
        (changed(108, MAX_OFFSET * 4, "<f4"), "says that its voxels begin at byte"),
        (changed(280, np.zeros(12), "<f4"), "its affine is singular"),
        (gzip.compress(b"\x5c\x01\x00\x00" + bytes(400), mtime=0), "x.nii is not a NIfTI file"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_what_is_refused(content: bytes, reason: str, packed: bool, tmp_path: Path) -> None:
    name = "x.nii.gz" if packed else "x.nii"
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if packed else content)
    for given in (path, path.read_bytes()):
        with pytest.raises(ImageError) as refused:
            NiftiVolume(name, given).picture(0)
        assert reason.replace("x.nii", name) in str(refused.value)


# The source


def pair(folder: Path, name: str, tumour: bool = True) -> None:
    """A scan of three slices with its mask, tumour on the second."""
    folder.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(len(name)).integers(0, 200, (3, 6, 5), dtype=np.uint8)
    mask = np.zeros_like(values)
    mask[1, 2, 3] = tumour * 4  # which label it is does not matter
    nibabel.save(as_nifti(values, "RAS"), folder / f"{name}-t1c.nii.gz")
    nibabel.save(as_nifti(mask, "SAL"), folder / f"{name}-seg.nii.gz")


def source(root: Path, **options: Any) -> Nifti:
    return Nifti(NiftiOptions(root=root, ending="-t1c", mask_ending="-seg", **options))


def test_scans_with_masks(tmp_path: Path) -> None:
    pair(tmp_path / "Training" / "Glioma" / "case1", "a")
    pair(tmp_path / "Testing" / "healthy" / "case2", "b", tumour=False)
    (tmp_path / "Training" / "notes.txt").write_text("x")
    nibabel.save(marked("RAS"), tmp_path / "Training" / "Glioma" / "case1" / "a-t2.nii.gz")
    found = source(tmp_path, patient="folder")
    samples = list(found.samples())
    assert found.classes == ("glioma", "notumor")
    assert [(s.id, s.label, s.split, s.group, s.has_mask) for s in samples[2:4]] == [
        ("Testing/healthy/case2/b-t1c.nii.gz#3", "notumor", "test", "Testing/healthy/case2", True),
        ("Training/Glioma/case1/a-t1c.nii.gz#1", "glioma", "train", "Training/Glioma/case1", True),
    ]
    masks = [found.mask(sample) for sample in samples]
    assert [int(mask.sum()) for mask in masks if mask is not None] == [0, 0, 0, 0, 1, 0]
    assert masks[4] is not None
    assert np.argwhere(masks[4]).tolist() == [[2, 3]]  # turned like its scan, however it was stored
    assert found.image(samples[4]).shape == (6, 5)
    assert found.notes() == {"files of other kinds ignored": 1, "volumes that are no scans or masks ignored": 1}


def test_empty_slices_may_be_dropped_or_of_another_class(tmp_path: Path) -> None:
    pair(tmp_path / "glioma", "a")
    pair(tmp_path / "pituitary", "bb")
    dropped = source(tmp_path, empty="drop")
    assert [s.id for s in dropped.samples()] == ["glioma/a-t1c.nii.gz#2", "pituitary/bb-t1c.nii.gz#2"]
    assert dropped.notes()["slices with an empty mask dropped"] == 4
    named = source(tmp_path, empty="no tumour")
    assert [s.label for s in named.samples()] == ["notumor", "glioma", "notumor", "notumor", "pituitary", "notumor"]
    assert named.classes == ("glioma", "notumor", "pituitary")
    some = source(tmp_path, empty="no tumour", classes=("pituitary", "glioma"))
    assert [s.label for s in some.samples()] == ["glioma", "pituitary"]


def test_a_table_of_classes(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        pair(tmp_path / "scans" / name, name)
    (tmp_path / "labels.csv").write_text("name,label,split\na,Glioma,train\nscans/b,meningioma,test\n")
    found = source(tmp_path, labels=tmp_path / "labels.csv", every=2)
    assert [(s.id, s.label, s.split) for s in found.samples()] == [
        ("scans/a/a-t1c.nii.gz#1", "glioma", "train"),
        ("scans/a/a-t1c.nii.gz#3", "glioma", "train"),
        ("scans/b/b-t1c.nii.gz#1", "meningioma", "test"),
        ("scans/b/b-t1c.nii.gz#3", "meningioma", "test"),
    ]
    assert found.notes() == {"volumes without a class ignored": 1, "files of other kinds ignored": 1}


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("patient,label\na,x\n", "labels.csv needs the columns name and label, and may have split"),
        ("name,label\na,\n", "labels.csv, line 2: name and label must both be given"),
        ("name,label\na,x\na,y\n", "labels.csv, line 3: a stands in the table twice"),
        ("name,label,split\na,x,sometimes\n", "labels.csv, line 2: the split 'sometimes' is none of train"),
        ("name,label\nq,x\n", "holds no scan whose class is known"),
    ],
)
def test_tables_that_are_refused(table: str, reason: str, tmp_path: Path) -> None:
    pair(tmp_path / "scans", "a")
    (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(InputError, match=reason):
        list(source(tmp_path, labels=tmp_path / "labels.csv").samples())


def test_a_mask_of_another_grid_is_told(tmp_path: Path) -> None:
    pair(tmp_path / "glioma", "a")
    pair(tmp_path / "notumor", "b")
    nibabel.save(as_nifti(np.zeros((3, 6, 6), np.uint8)), tmp_path / "glioma" / "a-seg.nii.gz")
    found = source(tmp_path)
    assert [s.label for s in found.samples()] == ["notumor"] * 3
    assert found.unreadable() == {
        "glioma/a-t1c.nii.gz": "glioma/a-seg.nii.gz has 6 x 6 x 3 voxels where its scan glioma/a-t1c.nii.gz has "
        "5 x 6 x 3"
    }


def test_a_mask_that_lies_elsewhere_is_told(tmp_path: Path) -> None:
    pair(tmp_path / "glioma", "a")
    pair(tmp_path / "notumor", "b")
    mask = as_nifti(np.zeros((3, 6, 5), np.uint8))
    mirrored = nibabel.Nifti1Image(np.asanyarray(mask.dataobj), mask.affine @ np.diag([-1.0, 1, 1, 1]))
    nibabel.save(mirrored, tmp_path / "glioma" / "a-seg.nii.gz")
    found = source(tmp_path)
    assert [s.label for s in found.samples()] == ["notumor"] * 3
    assert found.unreadable()["glioma/a-t1c.nii.gz"] == (
        "glioma/a-seg.nii.gz lies elsewhere in the body than its scan glioma/a-t1c.nii.gz: their affines differ by "
        "more than half a voxel"
    )


def test_a_name_in_a_table_is_the_whole_name(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    for name in ("1.nii", "1.2.nii.gz"):
        nibabel.save(as_nifti(np.zeros((1, 4, 4), np.uint8)), tmp_path / "scans" / name)
    (tmp_path / "labels.csv").write_text("name,label\n1,glioma\n")
    found = Nifti(NiftiOptions(root=tmp_path, labels=tmp_path / "labels.csv"))
    assert [s.id for s in found.samples()] == ["scans/1.nii#1"]


def test_ends_may_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "glioma").mkdir()
    nibabel.save(as_nifti(np.zeros((10, 4, 4), np.uint8)), tmp_path / "glioma" / "a.nii")
    found = Nifti(NiftiOptions(root=tmp_path, trim=0.2, every=3))
    assert [s.id.split("#")[1] for s in found.samples()] == ["3", "6"]
