"""figshare in its three forms; the .mat files are made here in the publisher's layout."""

import io
import zipfile
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
from btkit_plugins.sources.figshare import Figshare, FigshareOptions, group_of
from PIL import Image

from braintumor_kit.errors import ImageError, InputError

IMAGE = np.array([[0, 100, 200], [300, 400, 32767]], np.int16)
MASK = np.array([[0, 0, 1], [0, 0, 0]], np.uint8)


def mat(
    label: float = 1,
    pid: str = "MR048294B",
    image: np.ndarray = IMAGE,
    mask: np.ndarray = MASK,
    block: int = 512,
) -> bytes:
    """A file as MATLAB writes it: 512 bytes of its own, then HDF5 with every array transposed."""
    content = io.BytesIO()
    with h5py.File(content, "w", userblock_size=block) as file:
        group = file.create_group("cjdata")
        group["PID"] = np.array([[ord(letter)] for letter in pid], np.uint16)
        group["label"] = np.array([[label]], np.float64)
        group["image"] = image.T
        group["tumorMask"] = mask.T
        group["tumorBorder"] = np.zeros((1, 8))
    return content.getvalue()


def source(root: Path) -> Figshare:
    return Figshare(FigshareOptions(root=root))


def refusal(root: Path) -> str:
    with pytest.raises(InputError) as caught:
        list(source(root).samples())
    return str(caught.value)


def damage(root: Path) -> str:
    """Why slice 1 could not be listed; that stops no other slice."""
    (root / "2.mat").write_bytes(mat())
    found = source(root)
    assert [sample.id for sample in found.samples()] == ["2"]
    return found.unreadable()["1"]


def bad_image(root: Path) -> str:
    found = source(root)
    with pytest.raises(ImageError) as caught:
        found.image(next(found.samples()))
    return str(caught.value)


@pytest.mark.parametrize(
    ("pid", "group"),
    [("MR048294B", "MR048294"), ("MR048294", "MR048294"), ("100360", "100360"), (" 1A ", "1"), ("", None)],
)
def test_group_drops_a_trailing_letter(pid: str, group: str | None) -> None:
    assert group_of(pid) == group


# .mat files


def test_loose_mat_files(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "10.mat").write_bytes(mat(label=2))
    (tmp_path / "part/9.mat").write_bytes(mat(label=3, pid="100360"))
    (tmp_path / "cvind.mat").write_bytes(b"no sample")
    (tmp_path / ".DS_Store").touch()
    found = source(tmp_path)
    samples = list(found.samples())
    assert [(s.id, s.label, s.group, s.split, s.has_mask) for s in samples] == [
        ("9", "pituitary", "100360", None, True),
        ("10", "glioma", "MR048294", None, True),
    ]
    assert found.classes == ("glioma", "meningioma", "pituitary")
    assert found.notes() == {"files that are no slices ignored": 1, "system files ignored": 1}


@pytest.mark.parametrize("packed", [False, True])
def test_image_and_mask_stand_upright(tmp_path: Path, packed: bool) -> None:
    if packed:
        with zipfile.ZipFile(tmp_path / "brainTumorDataPublic_1-766.zip", "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("7.mat", mat())
            file.writestr("__MACOSX/._7.mat", b"junk")
    else:
        (tmp_path / "7.mat").write_bytes(mat())
    found = source(tmp_path)
    (sample,) = found.samples()
    assert (sample.id, sample.label) == ("7", "meningioma")
    image, mask = found.image(sample), found.mask(sample)
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image, IMAGE)
    assert mask is not None
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, MASK.astype(bool))


def test_zipped_and_loose_fingerprints_agree(tmp_path: Path) -> None:
    for form in ("loose", "packed"):
        (tmp_path / form).mkdir()
    (tmp_path / "loose/7.mat").write_bytes(mat())
    with zipfile.ZipFile(tmp_path / "packed/brainTumorDataPublic_1-766.zip", "w") as file:
        file.writestr("7.mat", mat())
    loose, packed = source(tmp_path / "loose"), source(tmp_path / "packed")
    (sample,) = loose.samples()
    assert list(packed.samples()) == [sample]
    before = loose.fingerprint(sample)
    assert packed.fingerprint(sample) == before
    (tmp_path / "loose/7.mat").write_bytes(mat(mask=1 - MASK))
    assert loose.fingerprint(sample) != before


def test_unpacked_slices_are_not_taken_from_their_zip(tmp_path: Path) -> None:
    (tmp_path / "7.mat").write_bytes(mat(label=2))
    with zipfile.ZipFile(tmp_path / "brainTumorDataPublic_1-766.zip", "w") as file:
        file.writestr("7.mat", mat(label=1))
        file.writestr("8.mat", mat(label=1))
    found = source(tmp_path)
    assert [(s.id, s.label) for s in found.samples()] == [("7", "glioma"), ("8", "meningioma")]
    assert found.notes() == {"zipped files that are there unpacked too ignored": 1}


def test_negative_pixels_are_shifted(tmp_path: Path) -> None:
    (tmp_path / "1.mat").write_bytes(mat(image=np.array([[-5, 0], [10, 32767]], np.int16)))
    found = source(tmp_path)
    (sample,) = found.samples()
    np.testing.assert_array_equal(found.image(sample), [[0, 5], [15, 32772]])


def test_same_number_twice(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "1.mat").write_bytes(mat())
    (tmp_path / "a/01.mat").write_bytes(mat())
    assert refusal(tmp_path) == f"two files hold slice 1: {tmp_path / '1.mat'} and {tmp_path / 'a/01.mat'}"


def test_unknown_label(tmp_path: Path) -> None:
    (tmp_path / "1.mat").write_bytes(mat(label=4))
    assert refusal(tmp_path) == (
        f"{tmp_path / '1.mat'}: cjdata/label is [4.0], expected 1 (meningioma), 2 (glioma) or 3 (pituitary)"
    )


def test_no_hdf5(tmp_path: Path) -> None:
    (tmp_path / "1.mat").write_bytes(b"MATLAB 5.0 MAT-file" * 100)
    assert damage(tmp_path).startswith(f"{tmp_path / '1.mat'} is not a whole MATLAB v7.3 file: ")


def test_cut_off_mat(tmp_path: Path) -> None:
    (tmp_path / "1.mat").write_bytes(mat()[:2000])
    assert damage(tmp_path).startswith(f"{tmp_path / '1.mat'} is not a whole MATLAB v7.3 file: ")


def test_missing_field(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "1.mat", "w") as file:
        file["cjdata/label"] = np.array([[1.0]])
        file["cjdata/PID"] = np.array([[49]], np.uint16)
    assert bad_image(tmp_path) == f"{tmp_path / '1.mat'} has no cjdata/image of its own"


@pytest.mark.parametrize("link", [h5py.ExternalLink("/etc/passwd", "/x"), h5py.SoftLink("/cjdata/label")])
def test_links_are_not_followed(tmp_path: Path, link: object) -> None:
    (tmp_path / "1.mat").write_bytes(mat())
    with h5py.File(tmp_path / "1.mat", "r+") as file:
        del file["cjdata/image"]
        file["cjdata/image"] = link
    assert bad_image(tmp_path) == f"{tmp_path / '1.mat'} has no cjdata/image of its own"


def test_external_storage_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "1.mat").write_bytes(mat())
    (tmp_path / "secret").write_bytes(b"12345678")
    with h5py.File(tmp_path / "1.mat", "r+") as file:
        del file["cjdata/image"]
        storage = [(str(tmp_path / "secret"), 0, 8)]
        file.create_dataset("cjdata/image", (2, 2), "i2", external=storage)
    assert bad_image(tmp_path) == f"{tmp_path / '1.mat'}: cjdata/image points at another file"


@pytest.mark.parametrize("shape", [(2**20, 2**20), (2, 2)])
def test_sizes_are_bounded_before_reading(tmp_path: Path, shape: tuple[int, int]) -> None:
    chunks = (256, 256) if shape[0] > 2 else (2**15, 2**15)
    (tmp_path / "1.mat").write_bytes(mat())
    with h5py.File(tmp_path / "1.mat", "r+") as file:
        del file["cjdata/image"]
        file.create_dataset("cjdata/image", shape, "i2", chunks=chunks, maxshape=(None, None))
    assert bad_image(tmp_path) == (
        f"{tmp_path / '1.mat'}: cjdata/image has {shape[0] ** 2 if shape[0] > 2 else 2**30:,} values, "
        "more than 16,777,216"
    )


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.zeros((2, 2)), "cjdata/image is float64 (2, 2), expected whole numbers (H, W)"),
        (np.zeros((2, 2, 2), np.int16), "cjdata/image is int16 (2, 2, 2), expected whole numbers (H, W)"),
        (np.array([[-1, 65535]]), "cjdata/image runs from -1 to 65535, more than 16 bits hold"),
    ],
)
def test_other_images(tmp_path: Path, image: np.ndarray, reason: str) -> None:
    (tmp_path / "1.mat").write_bytes(mat(image=image))
    assert bad_image(tmp_path) == f"{tmp_path / '1.mat'}: {reason}"


def test_damaged_zip(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK no zip")
    assert refusal(tmp_path) == f"{tmp_path / 'a.zip'} is not a whole zip file: File is not a zip file"


def test_damaged_member(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("1.mat", mat())
    content = bytearray(path.read_bytes())
    content[3000] ^= 255
    path.write_bytes(content)
    assert damage(tmp_path).startswith(f"{path / '1.mat'} cannot be unpacked: Bad CRC-32")


def test_nothing_there(tmp_path: Path) -> None:
    assert refusal(tmp_path) == (
        f"{tmp_path} holds no index.csv, no N.mat files and no zips of them: "
        "`btkit data fetch figshare --to DIR` obtains them"
    )
    assert refusal(tmp_path / "gone") == f"there is no folder {tmp_path / 'gone'}"


# Pictures and index.csv


def pictures(root: Path, index: str) -> Path:
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3)).save(root / "images/1.png")
    Image.fromarray(MASK.astype(bool)).save(root / "masks/1.png")
    Image.new("L", (3, 2)).save(root / "images/2.webp")
    (root / "index.csv").write_text(index, "utf-8")
    return root


def test_pictures(tmp_path: Path) -> None:
    found = source(pictures(tmp_path, "id,label,pid,group\n2,glioma_tumor,MR1B,\n1,meningioma,5,own\n"))
    one, two = found.samples()
    assert (one.id, one.label, one.group, one.has_mask) == ("1", "meningioma", "own", True)
    assert (two.id, two.label, two.group, two.has_mask) == ("2", "glioma", "MR1", False)
    np.testing.assert_array_equal(found.image(one), [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(found.mask(one), MASK.astype(bool))
    assert found.mask(two) is None


def test_index_needs_only_id_and_label(tmp_path: Path) -> None:
    found = source(pictures(tmp_path, "\ufeffid,label\n1,glioma\n"))
    (sample,) = found.samples()
    assert sample.group is None
    assert found.notes() == {"pictures that index.csv does not list ignored": 1}


def test_fingerprint_covers_picture_and_mask(tmp_path: Path) -> None:
    found = source(pictures(tmp_path, "id,label\n1,glioma\n"))
    (sample,) = found.samples()
    prints = {found.fingerprint(sample)}
    Image.fromarray(~MASK.astype(bool)).save(tmp_path / "masks/1.png")
    prints.add(found.fingerprint(sample))
    Image.new("L", (3, 2), 9).save(tmp_path / "images/1.png")
    prints.add(found.fingerprint(sample))
    assert len(prints) == 3


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        ("id,class\n1,glioma\n", " has no column label in its first line"),
        ("", " has no column id, label in its first line"),
        ("id,label\n", " lists no slices"),
        (
            "id,label\n1,glioma\n2,notumor\n",
            ", line 3: the label 'notumor' is none of glioma, meningioma, pituitary",
        ),
        ("id,label\n1\n", ", line 2: the label '' is none of glioma, meningioma, pituitary"),
        ("id,label\n1,glioma\n1,glioma\n", ", line 3: the id 1 stands there twice"),
        ("id,label\n../1,glioma\n", ", line 2: the id '../1' cannot be a file's name"),
    ],
)
def test_bad_index(tmp_path: Path, index: str, reason: str) -> None:
    assert refusal(pictures(tmp_path, index)) == f"{tmp_path / 'index.csv'}{reason}"


def test_index_that_is_no_text(tmp_path: Path) -> None:
    pictures(tmp_path, "")
    (tmp_path / "index.csv").write_bytes(b"id,label\n\xff\xfe,glioma\n")
    assert refusal(tmp_path).startswith(f"{tmp_path / 'index.csv'} cannot be read: 'utf-8' codec")


def test_missing_picture(tmp_path: Path) -> None:
    found = source(pictures(tmp_path, "id,label\n3,glioma\n"))
    (sample,) = found.samples()
    for read in (found.image, found.fingerprint):
        with pytest.raises(ImageError) as caught:
            read(sample)
        assert str(caught.value) == f"{tmp_path / 'images'} has no picture 3 (.webp, .png or .jpg)"


@pytest.mark.data
def test_real_set(real_data: Path) -> None:
    found = source(real_data / "figshare")
    samples = list(found.samples())
    assert [sample.id for sample in samples] == [str(number) for number in range(1, 3065)]
    assert Counter(s.label for s in samples) == {"meningioma": 708, "glioma": 1426, "pituitary": 930}
    assert len({sample.group for sample in samples}) == 209
    assert all(sample.has_mask and sample.split is None for sample in samples)
    mask = found.mask(samples[0])
    assert mask is not None
    assert mask.shape == found.image(samples[0]).shape[:2]
    assert 0 < mask.mean() < 0.2
