"""DICOM: which frame comes when, how bright each pixel is, and what is refused."""

import io
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pydicom.data
import pytest
from btkit_plugins.sources.dicom import Dicom, DicomOptions
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import pixel_array
from pydicom.uid import HTJ2K, JPEGLosslessSV1
from volumes import AXIAL, dicom, save, save_series

from braintumor_kit.contracts.volumes.dicom import DicomFile, read_frame
from braintumor_kit.contracts.volumes.series import DicomSeries, find_series
from braintumor_kit.errors import ImageError, InputError

PACKAGED = Path(pydicom.data.__file__).parent / "test_files"


def series(folder: Path) -> list[DicomSeries]:
    files = [DicomFile(path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file()]
    found, bad = find_series(files, "all")
    assert not bad
    return found


def one(made: Dataset, folder: Path) -> DicomSeries:
    save(made, folder / "a.dcm")
    (found,) = series(folder)
    return found


def packaged(name: str) -> DicomSeries:
    (found,), _ = find_series([DicomFile(name, PACKAGED / name)], "")
    return found


STORED = np.array([[0, 100], [200, 300]], np.uint16)
RESCALED = {"RescaleSlope": "2", "RescaleIntercept": "-100"}  # -100, 100, 300, 500


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({}, [[0, 85], [170, 255]]),  # the range of the series
        ({"WindowCenter": "200", "WindowWidth": "401", **RESCALED}, [[0, 64], [192, 255]]),  # PS3.3, C.11.2.1.2
        ({"WindowCenter": ["200", "0"], "WindowWidth": ["401", "1"], **RESCALED}, [[0, 64], [192, 255]]),
        (
            {"WindowCenter": "200", "WindowWidth": "400", "VOILUTFunction": "LINEAR_EXACT", **RESCALED},
            [[0, 64], [191, 255]],
        ),
        (
            {"WindowCenter": "200", "WindowWidth": "400", "VOILUTFunction": "SIGMOID", **RESCALED},
            [[round(255 / (1 + np.exp(-4 * (x - 200) / 400))) for x in row] for row in ([-100, 100], [300, 500])],
        ),
        ({"WindowCenter": "200", "WindowWidth": "0"}, [[0, 85], [170, 255]]),  # no window at all
        ({"PhotometricInterpretation": "MONOCHROME1"}, [[255, 170], [85, 0]]),
        (
            {"WindowCenter": "200", "WindowWidth": "401", "PhotometricInterpretation": "MONOCHROME1", **RESCALED},
            [[255, 191], [63, 0]],
        ),
        ({"PixelPaddingValue": 0}, [[0, 0], [128, 255]]),  # 0 is outside the scan: 100 is its darkest
    ],
)
def test_brightness(words: dict[str, Any], expected: list[list[int]], tmp_path: Path) -> None:
    assert one(dicom(STORED, **words), tmp_path).picture(0).tolist() == expected


def test_bytes_are_shown_as_they_are(tmp_path: Path) -> None:
    values = np.array([[3, 90], [7, 9]], np.uint8)
    assert one(dicom(values), tmp_path).picture(0).tolist() == values.tolist()


def test_a_table_of_the_file_comes_before_its_window(tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor = [4, 0, 16]
    table.LUTData = (257 * np.array([200, 100, 50, 0], np.uint16)).tobytes()
    made = dicom(np.array([[0, 1], [2, 9]], np.uint16), WindowCenter="1", WindowWidth="2", VOILUTSequence=[table])
    assert one(made, tmp_path).picture(0).tolist() == [[200, 100], [50, 0]]


def test_colour_and_palette(tmp_path: Path) -> None:
    rgb = np.array([[[1, 2, 3], [40, 50, 60]]], np.uint8)
    assert one(dicom(rgb), tmp_path / "rgb").picture(0).tolist() == rgb.tolist()
    grey = np.repeat(np.array([[[5], [9]]], np.uint8), 3, axis=2)
    assert one(dicom(grey), tmp_path / "grey").picture(0).tolist() == [[5, 9]]
    words: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for number, name in enumerate(("Red", "Green", "Blue")):
        words[f"{name}PaletteColorLookupTableDescriptor"] = [2, 0, 16]
        words[f"{name}PaletteColorLookupTableData"] = np.array([256 * number, 0xFF00], "<u2").tobytes()
    made = dicom(np.array([[0, 1]], np.uint8), **words)
    assert one(made, tmp_path / "palette").picture(0).tolist() == [[[0, 1, 2], [255, 255, 255]]]


def test_slices_without_a_window_share_the_range_of_their_series(tmp_path: Path) -> None:
    save_series(np.array([[[0, 50]], [[100, 250]]], np.uint16), tmp_path)
    (found,) = series(tmp_path)
    assert [found.picture(place).tolist() for place in range(2)] == [[[0, 51]], [[102, 255]]]


# Order


@pytest.mark.parametrize(
    ("directions", "axis"),
    [
        (AXIAL, 2),  # upwards
        ([1.0, 0, 0, 0, 0, -1], 1),  # coronal: backwards
        ([0.0, 1, 0, 0, 0, -1], 0),  # sagittal: its normal goes to the right, where x falls
    ],
)
def test_slices_are_ordered_by_position(directions: list[float], axis: int, tmp_path: Path) -> None:
    positions = [5.0, -2.5, 30.0, 0.0]
    for number, position in enumerate(positions):
        corner = [0.0, 0.0, 0.0]
        corner[axis] = position
        made = dicom(
            STORED, ImageOrientationPatient=directions, ImagePositionPatient=corner, InstanceNumber=number
        )  # fmt: skip
        save(made, tmp_path / f"{number}.dcm")
    (found,) = series(tmp_path)
    order = np.argsort(positions)[:: -1 if axis == 0 else 1]
    assert list(found.names) == [f"{number}.dcm" for number in order]


def test_without_positions_by_instance_number(tmp_path: Path) -> None:
    for name, number in (("a", 10), ("b", 9), ("c", 2)):
        save(dicom(STORED, InstanceNumber=number), tmp_path / f"{name}.dcm")
    (found,) = series(tmp_path)
    assert found.names == ["c.dcm", "b.dcm", "a.dcm"]


def test_series_orientations_and_sizes_are_told_apart(tmp_path: Path) -> None:
    words = {"ImagePositionPatient": [0, 0, 0], "ImageOrientationPatient": AXIAL}
    save(dicom(STORED, **words), tmp_path / "s" / "1")
    save(dicom(STORED, **{**words, "ImagePositionPatient": [0, 0, 4]}), tmp_path / "s" / "2")
    tilted = [1, 0, 0, 0, 0.99999, 0.0045]  # a quarter of a degree: rounding, not another plane
    save(
        dicom(STORED, **{**words, "ImagePositionPatient": [0, 0, 8], "ImageOrientationPatient": tilted}),
        tmp_path / "s" / "3",
    )
    save(dicom(STORED, **{**words, "ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}), tmp_path / "s" / "localiser")
    save(dicom(STORED, SeriesInstanceUID="2.25.77", **words), tmp_path / "t" / "1")
    save(dicom(STORED[:1], **words), tmp_path / "s" / "small")
    assert {one.name: list(one.names) for one in series(tmp_path)} == {
        "s": ["s/1", "s/2", "s/3"],
        "s/localiser": ["s/localiser"],
        "s/small": ["s/small"],
        "t/1": ["t/1"],
    }


def test_an_enhanced_object_says_of_each_frame_where_it_is_and_how_it_is_shown(tmp_path: Path) -> None:
    made = dicom(np.stack([STORED, STORED, STORED]))
    shared, plane = Dataset(), Dataset()
    plane.ImageOrientationPatient = AXIAL
    shared.PlaneOrientationSequence = [plane]
    made.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for height, slope in ((8, 1), (0, 2), (4, 1)):
        group, position, transform, window = Dataset(), Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, height]
        transform.RescaleSlope, transform.RescaleIntercept, transform.RescaleType = slope, 0, "US"
        window.WindowCenter, window.WindowWidth, window.VOILUTFunction = 150, 300, "LINEAR_EXACT"
        group.PlanePositionSequence, group.PixelValueTransformationSequence = [position], [transform]
        group.FrameVOILUTSequence = [window]
        groups.append(group)
    made.PerFrameFunctionalGroupsSequence = groups
    found = one(made, tmp_path)
    assert found.names == ["a.dcm#2", "a.dcm#3", "a.dcm#1"]
    assert found.picture(0).tolist() == [[0, 170], [255, 255]]  # 0, 200, 400, 600 in 0..300
    assert found.picture(1).tolist() == [[0, 85], [170, 255]]


# Files that pydicom comes with


def test_packaged_files_by_hand() -> None:
    stored = pydicom.dcmread(PACKAGED / "MR_small.dcm").pixel_array.astype(float)  # window 600, 1600
    expected = np.rint(((stored - 599.5) / 1599 + 0.5).clip(0, 1) * 255)
    np.testing.assert_array_equal(packaged("MR_small.dcm").picture(0), expected)
    tomogram = pydicom.dcmread(PACKAGED / "CT_small.dcm").pixel_array.astype(float) - 1024
    shown = np.rint((tomogram - tomogram.min()) / (tomogram.max() - tomogram.min()) * 255)
    assert np.abs(packaged("CT_small.dcm").picture(0) - shown).max() <= 1  # halves
    assert packaged("examples_ybr_color.dcm").names[:2] == ["examples_ybr_color.dcm#1", "examples_ybr_color.dcm#2"]
    deflated = pydicom.dcmread(PACKAGED / "image_dfl.dcm")
    np.testing.assert_array_equal(packaged("image_dfl.dcm").picture(0), deflated.pixel_array)


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm", "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm", "MR_small_padded.dcm",
    ],
)  # fmt: skip
def test_one_picture_in_every_transfer_syntax(name: str) -> None:
    np.testing.assert_array_equal(packaged(name).picture(0), packaged("MR_small.dcm").picture(0))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("SC_rgb_jpeg_gdcm.dcm", (100, 100, 3)),  # JPEG lossless, the usual one in clinics
        ("JPEG2000.dcm", (1024, 256)),
        ("JPGExtended.dcm", (1024, 256)),  # twelve bits
        ("JPEGLSNearLossless_16.dcm", (50, 10)),
        ("SC_rgb_rle_2frame.dcm", (100, 100, 3)),
        ("examples_palette.dcm", (350, 800, 3)),
    ],
)
def test_compressed_files_are_decoded(name: str, shape: tuple[int, ...]) -> None:
    picture = packaged(name).picture(0)
    assert picture.shape == shape
    assert picture.min() < picture.max()


def test_a_packaged_series_is_ordered_by_position() -> None:
    found = {one.name: one for one in series_of(PACKAGED / "dicomdirtests")}
    heights = [
        float(pydicom.dcmread(place.file.content).ImagePositionPatient[2]) for place in found["98892001/CT5N"].places
    ]
    assert len(heights) == 5
    assert heights == sorted(heights)


def series_of(folder: Path) -> list[DicomSeries]:
    files = [DicomFile(path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file()]
    found, bad = find_series(files, "all")
    assert "is DICOM and holds no picture" in bad["DICOMDIR"]
    return found


# What is refused


def rewritten(name: str, made: bytes) -> DicomFile:
    return DicomFile(name, made)


def bomb() -> bytes:
    """A deflated file of some kilobytes that unpacks to a gigabyte."""
    meta = b""
    for tag, kind, value in ((0x0002, "UI", b"1.2.840.10008.5.1.4.1.1.7\0"), (0x0003, "UI", b"2.25.9\0\0"),
                             (0x0010, "UI", b"1.2.840.10008.1.2.1.99")):  # fmt: skip
        meta += struct.pack("<HH2sH", 2, tag, kind.encode(), len(value)) + value
    meta = struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(meta)) + meta
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = b"".join(packer.compress(bytes(2**20)) for _ in range(1024)) + packer.flush()
    return bytes(128) + b"DICM" + meta + packed


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "a.dcm is not a DICOM file"),
        (bytes(128) + b"DICM", "a.dcm is DICOM and holds no picture of a scan"),
        (bytes(200), "a.dcm is not a DICOM file"),
        (bomb(), "a.dcm unpacks to more than the 134,217,728 bytes that are allowed"),
        ((PACKAGED / "MR_truncated.dcm").read_bytes(), "a.dcm is cut off or damaged: "),
        ((PACKAGED / "rtplan.dcm").read_bytes(), "a.dcm is DICOM and holds no picture of a scan (RTPLAN)"),
    ],
)
def test_what_is_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(content)
    for given in (tmp_path / "a.dcm", content):
        with pytest.raises(ImageError) as refused:
            read_frame(DicomFile("a.dcm", given), 0)
        assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"Rows": 60000, "Columns": 60000}, "a.dcm has 60000 x 60000 pixels of 1 values, more than the 33,554,432"),
        ({"NumberOfFrames": 20000}, "a.dcm has 20,000 frames, more than the 10,000 that are allowed"),
        ({"Rows": 3}, "a.dcm is cut off or damaged: "),
        ({"SamplesPerPixel": 2}, "a.dcm has 2 x 2 pixels of 2 values"),
        ({"BitsAllocated": 0}, "a.dcm is cut off or damaged: "),
    ],
)
def test_headers_that_lie(words: dict[str, Any], reason: str, tmp_path: Path) -> None:
    save(dicom(STORED, **words), tmp_path / "a.dcm")
    with pytest.raises(ImageError) as refused:
        read_frame(DicomFile("a.dcm", tmp_path / "a.dcm"), 0)
    assert reason in str(refused.value)


def test_lossless_jpeg_of_sixteen_bits_comes_out_as_it_went_in(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(-900, 3000, (24, 36)).astype(np.int16)
    made = dicom(values, RescaleSlope="1", RescaleIntercept="0")
    packed = imagecodecs.jpeg8_encode(values.view(np.uint16), lossless=True)
    made.PixelData = encapsulate([packed])
    made.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    save(made, tmp_path / "a.dcm")
    np.testing.assert_array_equal(read_frame(DicomFile("a.dcm", tmp_path / "a.dcm"), 0).values, values)


def test_a_syntax_that_nothing_unpacks_is_named(tmp_path: Path) -> None:
    made = pydicom.dcmread(PACKAGED / "MR_small_jp2klossless.dcm")
    made.file_meta.TransferSyntaxUID = HTJ2K
    save(made, tmp_path / "a.dcm")
    with pytest.raises(ImageError) as refused:
        read_frame(DicomFile("a.dcm", tmp_path / "a.dcm"), 0)
    assert str(refused.value) == (
        "a.dcm is compressed (High-Throughput JPEG 2000 Image Compression), and nothing here unpacks that: "
        "pip install 'braintumor-kit[dicom]'"
    )


def test_without_the_extra_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("braintumor_kit.contracts.volumes.dicom.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"^DICOM needs the package pydicom: pip install 'braintumor-kit\[dicom\]'\.$"):
        packaged("MR_small.dcm")


def deflated(count: int, odd: bool) -> bytes:
    """A deflated file of so many frames, its stream of an even or odd number of bytes, as it comes."""
    made = dicom(np.zeros((count, 256, 256), np.uint16))
    made.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    for length in range(200):
        made.PatientComments = "x" * 2 * length
        content = io.BytesIO()
        made.save_as(content, enforce_file_format=True)
        if content.getvalue().endswith(b"\0") == odd:  # DICOM makes lengths even
            return content.getvalue()
    raise AssertionError("no such file came about")


@pytest.mark.parametrize("odd", [False, True])
def test_deflated_files_end(odd: bool) -> None:
    found = read_frame(DicomFile("a.dcm", deflated(12, odd)), 11)
    assert found.values.shape == (256, 256)


def test_a_header_of_endless_lists_is_refused() -> None:
    head = io.BytesIO()
    dicom(STORED).save_as(head, enforce_file_format=True)
    items = b"\xfe\xff\x00\xe0" + bytes(4)
    start = head.getvalue().index(struct.pack("<HH", 0x0008, 0x0060))
    sequence = struct.pack("<HH2sHI", 0x0008, 0x0051, b"SQ", 0, 0xFFFFFFFF) + items * 200_000
    with pytest.raises(ImageError, match="more than the 8,388,608 bytes or 100,000 list items that are allowed"):
        read_frame(DicomFile("a.dcm", head.getvalue()[:start] + sequence), 0)


def test_frames_of_one_file_are_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO()
    dicom(np.arange(80, dtype=np.uint16).reshape(20, 2, 2)).save_as(content, enforce_file_format=True)
    parsed: list[Any] = []
    whole = pydicom.dcmread
    monkeypatch.setattr(pydicom, "dcmread", lambda *args, **options: parsed.append(1) or whole(*args, **options))
    file = DicomFile("many.dcm", content.getvalue())
    assert [read_frame(file, number).values[0, 0] for number in range(20)] == [4 * number for number in range(20)]
    assert len(parsed) <= 2


# The source


def test_the_source_orders_labels_and_hides_patients(tmp_path: Path) -> None:
    slices = np.arange(12, dtype=np.uint16).reshape(3, 2, 2)
    names = save_series(slices, tmp_path / "train" / "Glioma" / "p1", SeriesInstanceUID="2.25.10", PatientID="MRN 17")
    others = save_series(slices + 5, tmp_path / "test" / "healthy" / "p2", SeriesInstanceUID="2.25.20", PatientID="")
    (tmp_path / "train" / "Glioma" / "p1" / "notes.txt").write_text("x")
    save(pydicom.dcmread(PACKAGED / "rtplan.dcm"), tmp_path / "plan.dcm")
    source = Dicom(DicomOptions(root=tmp_path, salt="of this test"))
    samples = list(source.samples())
    assert [sample.id for sample in samples] == [
        *(f"test/healthy/p2/{name}" for name in others),
        *(f"train/Glioma/p1/{name}" for name in names),
    ]
    assert {(s.label, s.split) for s in samples} == {("notumor", "test"), ("glioma", "train")}
    groups = [sample.group for sample in samples]
    assert len(set(groups[:3])) == len(set(groups[3:])) == 1  # of one study, where the patient is not named
    assert len(set(groups)) == 2
    assert all(group is not None and re.fullmatch("[0-9a-f]{16}", group) for group in groups)
    other = Dicom(DicomOptions(root=tmp_path, salt="another"))
    assert [s.group for s in other.samples()][3] not in (None, groups[3])
    plain = Dicom(DicomOptions(root=tmp_path, patients="plain"))
    assert [s.group for s in plain.samples()][3] == "MRN 17"
    assert {s.group for s in Dicom(DicomOptions(root=tmp_path, patients="unknown")).samples()} == {None}
    assert source.image(samples[3]).tolist() == [[0, 23], [46, 70]]  # 0..3 of 0..11
    assert source.notes() == {"files of other kinds ignored": 1, "DICOM files without a picture of a scan ignored": 1}


def test_scans_of_several_patients_and_classes_are_never_one(tmp_path: Path) -> None:
    """As anonymisers leave them: one series UID for all, and slices of a series sorted into class folders."""
    slices = np.arange(8, dtype=np.uint16).reshape(2, 2, 2)
    for number, label in enumerate(("glioma", "notumor")):
        save_series(slices, tmp_path / label / f"p{number}", PatientID=f"P{number}")
    for number, label in enumerate(("glioma", "notumor")):
        words = {"ImageOrientationPatient": AXIAL, "PatientID": "P7", "SeriesInstanceUID": "2.25.7"}
        save(dicom(slices[0], ImagePositionPatient=[0, 0, number], **words), tmp_path / label / f"{number}.dcm")
    samples = list(Dicom(DicomOptions(root=tmp_path, patients="plain")).samples())
    assert {(s.id.split("/")[0], s.label) for s in samples} == {("glioma", "glioma"), ("notumor", "notumor")}
    assert sorted((s.label, s.group) for s in samples) == [
        ("glioma", "P0"), ("glioma", "P0"), ("glioma", "P7"), ("notumor", "P1"), ("notumor", "P1"), ("notumor", "P7"),
    ]  # fmt: skip


def test_copies_segmentations_and_own_captures_are_no_scans(tmp_path: Path) -> None:
    slices = np.arange(4, dtype=np.uint16).reshape(1, 2, 2)
    save_series(slices, tmp_path / "a" / "1")
    save_series(slices, tmp_path / "b" / "copied")
    save(dicom(slices[0], Modality="SEG", SeriesInstanceUID="2.25.8"), tmp_path / "b" / "seg.dcm")
    save(dicom(slices[0], Manufacturer="btkit", SeriesInstanceUID="2.25.9"), tmp_path / "b" / "map.dcm")
    source = Dicom(DicomOptions(root=tmp_path, classes=("a",)))
    assert [s.id for s in source.samples()] == ["a/1/IM0000.dcm"]
    assert source.notes() == {
        "copies of DICOM files ignored": 1, "DICOM files without a picture of a scan ignored": 2,
    }  # fmt: skip


def test_a_table_may_name_patients_or_series(tmp_path: Path) -> None:
    slices = np.arange(4, dtype=np.uint16).reshape(1, 2, 2)
    for number in range(3):
        save_series(slices, tmp_path / f"{number}", SeriesInstanceUID=f"2.25.{number + 10}", PatientID=f"P{number}")
    (tmp_path / "labels.csv").write_text("name,label\nP0,glioma\n2.25.11,pituitary\n")
    source = Dicom(DicomOptions(root=tmp_path, labels=tmp_path / "labels.csv"))
    assert [(s.id.split("/")[0], s.label) for s in source.samples()] == [("0", "glioma"), ("1", "pituitary")]
    assert source.notes() == {"slices without a class ignored": 1, "files of other kinds ignored": 1}


def test_pixels_are_those_of_pydicom_before_they_are_shown() -> None:
    frame = read_frame(DicomFile("x", PACKAGED / "CT_small.dcm"), 0)
    np.testing.assert_array_equal(frame.values, pixel_array(PACKAGED / "CT_small.dcm").astype(float) - 1024)
