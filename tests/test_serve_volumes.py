"""Volumes sent to the server: the same answers as the commands give, slice by slice and as a whole."""

import base64
import gc
import io
import json
import tarfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import nibabel
import numpy as np
import pytest
from test_serve import png, serving
from volumes import as_nifti, dicom, phantom, save_series

from braintumor_kit.errors import ImageError
from braintumor_kit.serve.scans import Scans

COUNT = 5


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    slices = phantom(COUNT)
    nibabel.save(as_nifti(slices, "RAS"), folder / "scan.nii.gz")
    save_series(slices, folder / "series")
    return folder


@pytest.fixture(scope="module")
def client(finished: Path) -> Iterator[httpx.Client]:
    with serving(finished) as (address, _), httpx.Client(base_url=address, timeout=60) as client:
        yield client


def tarred(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, piece in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(piece)
            tar.addfile(entry, io.BytesIO(piece))
    return content.getvalue()


def series(folder: Path) -> bytes:
    return tarred({path.name: path.read_bytes() for path in folder.iterdir()})


def test_slices_and_the_whole_are_those_of_the_command(
    client: httpx.Client, finished: Path, scans: Path, btkit: Any
) -> None:
    *slices, whole = json.loads(btkit("predict", finished, scans / "scan.nii.gz", "--json").out)
    nifti, tar = (scans / "scan.nii.gz").read_bytes(), series(scans / "series")
    for content in (nifti, tar):
        for number in (1, COUNT):
            found = client.post("/api/predict", params={"slice": number}, content=content).json()
            assert (found["slice_number"], found["slices"]) == (number, COUNT)
            assert found["probabilities"] == pytest.approx(slices[number - 1]["probabilities"], abs=1e-6)
        assert client.post("/api/predict", content=content).json()["slice_number"] == COUNT // 2 + 1
        found = client.post("/api/volume", content=content).json()
        assert found["predicted"] == whole["predicted"]
        assert found["calibrated"] == pytest.approx(whole["calibrated"], abs=1e-6)
        assert found["slices_used"] == whole["slices_used"]
        assert {name: peak["slice"] for name, peak in found["peaks"].items()} == {
            name: peak["slice"] for name, peak in whole["peaks"].items()
        }


def test_a_map_of_a_slice(client: httpx.Client, finished: Path, scans: Path, tmp_path: Path, btkit: Any) -> None:
    assert btkit("explain", finished, scans / "scan.nii.gz", "--style", "none", "--out", tmp_path / "maps").status == 0
    found = client.post("/api/explain", params={"slice": 2}, content=(scans / "scan.nii.gz").read_bytes()).json()
    (row,) = [
        line for line in (tmp_path / "maps" / "explanations.csv").read_text().splitlines() if ".nii.gz#2," in line
    ]
    (name,) = [piece for piece in row.split(",") if piece.startswith("maps/")]
    values = np.load(io.BytesIO(base64.b64decode(found["map"])), allow_pickle=False)
    expected = np.load(tmp_path / "maps" / name)
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-6 * float(np.abs(expected).max()))
    page = client.post("/api/summary", params={"slice": 2}, content=(scans / "scan.nii.gz").read_bytes()).text
    assert f"of slice 2 of {COUNT} of a volume" in page


def test_a_plane_and_a_single_picture(client: httpx.Client, scans: Path) -> None:
    nifti = (scans / "scan.nii.gz").read_bytes()
    assert client.post("/api/predict", params={"plane": "coronal"}, content=nifti).json()["slices"] == 64
    found = client.post("/api/predict", content=png()).json()
    assert (found["slice_number"], found["slices"]) == (None, None)
    one = io.BytesIO()
    dicom(phantom(1)[0]).save_as(one, enforce_file_format=True)
    assert client.post("/api/predict", content=one.getvalue()).json()["slices"] == 1


def test_several_series_are_said(client: httpx.Client, scans: Path) -> None:
    files = {path.name: path.read_bytes() for path in (scans / "series").iterdir()}
    other = io.BytesIO()
    dicom(phantom(1)[0], SeriesInstanceUID="2.25.99").save_as(other, enforce_file_format=True)
    files |= {"other": other.getvalue(), "notes.txt": b"x", "broken": bytes(128) + b"DICM"}
    found = client.post("/api/predict", content=tarred(files)).json()
    assert found["slices"] == COUNT
    assert found["note"] == (
        "It holds 2 series; this is the longest. 1 of its files cannot be read or hold no picture."
    )  # fmt: skip


def test_tars_that_claim_more_than_they_hold() -> None:
    sparse = tarfile.TarInfo("a")
    sparse.size = 1024
    head = bytearray(sparse.tobuf(tarfile.GNU_FORMAT))
    head[156:157] = tarfile.GNUTYPE_SPARSE
    head[386:398], head[398:410] = b"00000000000\0", b"00000001000\0"  # where its one piece lies, and its length
    head[483:495] = b"00010000000\0"  # its size, unpacked
    head[148:156] = b" " * 8
    head[148:156] = f"{sum(head):06o}\0 ".encode()
    content = bytes(head) + bytes(1024) + bytes(4096)
    with pytest.raises(ImageError, match="the tar is cut off or damaged: its files claim more than its bytes"):
        Scans().opened(content, "axial")
    many = tarred({str(number): b"" for number in range(4001)})
    with pytest.raises(ImageError, match="the tar holds more than 4,000 files"):
        Scans().opened(many, "axial")


def test_an_upload_is_let_go_when_the_next_comes(scans: Path) -> None:
    kept = Scans()
    first = kept.opened((scans / "scan.nii.gz").read_bytes(), "axial")
    first.picture(0)
    gone = weakref.ref(first.volume)
    assert kept.opened((scans / "scan.nii.gz").read_bytes(), "axial") is first
    del first
    kept.opened(png(), "axial")
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    ("path", "content", "said"),
    [
        ("/api/predict?slice=9", "nifti", "slice 9 is none of the 5 that there are."),
        ("/api/predict?slice=2", "png", "slice 2 is none of the 1 that there are."),
        ("/api/predict?slice=0", "nifti", "greater than or equal to 1"),
        ("/api/predict?plane=oblique", "nifti", "plane: input should be 'axial', 'coronal' or 'sagittal'."),
        ("/api/predict", "cut", "The volume is cut off or damaged: "),
        ("/api/volume", "empty", "The tar holds no DICOM file."),
        ("/api/predict", "tar", "The tar is cut off or damaged: "),
        ("/api/predict", "gzip", "The volume is "),
    ],
)
def test_what_is_wrong_is_one_sentence(path: str, content: str, said: str, client: httpx.Client, scans: Path) -> None:
    nifti = (scans / "scan.nii.gz").read_bytes()
    contents = {
        "nifti": nifti, "png": png(), "cut": nifti[:400], "empty": tarred({"a": b"x" * 600}),
        "tar": series(scans / "series")[:9000], "gzip": b"\x1f\x8b" + bytes(100),
    }  # fmt: skip
    answer = client.post(path, content=contents[content])
    assert answer.status_code == 422
    assert said in answer.json()["error"]
