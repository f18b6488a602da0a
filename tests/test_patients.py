"""Patients recovered from an index: its file, what is matched and what is not, and figshare's as it is shipped."""

import csv
import io
import struct
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from scipy.ndimage import gaussian_filter

from braintumor_kit.errors import InputError
from braintumor_kit.matching.fingerprint import TURNS
from braintumor_kit.matching.patients import MATCHED, SHIPPED, PatientIndex, build_index, load_index, match, save_index
from braintumor_kit.progress import Reporter
from braintumor_kit.recipe.load import load_source_data
from braintumor_kit.workflows.open_data import open_dataset

Picture = NDArray[np.uint8]
ADVICE = "make one with `btkit data index`"
TITLE = "heads made for tests, CC0"
LABELS = ("glioma", "meningioma", "pituitary")


def head(seed: int, side: int = 128) -> Picture:
    """Smooth structure of several sizes in an ellipse with a bright rim."""
    random = np.random.default_rng(seed)
    noise = random.normal(size=(3, side, side))
    inside = sum(size * gaussian_filter(layer, size) for size, layer in zip((2, 5, 11), noise, strict=True))
    rows, columns = np.indices((side, side)) / (side - 1) * 2 - 1
    radius = np.hypot(rows / random.uniform(0.75, 0.9), columns / random.uniform(0.65, 0.85))
    grey = np.where(radius < 0.93, 95 + 40 * inside / inside.std(), 150) * (radius < 1)
    return np.clip(np.rint(gaussian_filter(grey, 1)), 0, 255).astype(np.uint8)


def thumbnail(picture: Picture) -> Picture:
    return np.asarray(Image.fromarray(picture).resize((64, 64), Image.Resampling.BOX))


def quiet(done: int, total: int) -> None:
    pass


HEADS = [head(seed) for seed in range(12)]


@pytest.fixture(scope="module")
def index() -> PatientIndex:
    """Twelve slices of six patients, two each."""
    thumbnails = np.stack([thumbnail(picture) for picture in HEADS])
    names = [str(number) for number in range(12)]
    return build_index(TITLE, thumbnails, names, [LABELS[n // 4] for n in range(12)], [f"p{n // 2}" for n in range(12)])


@pytest.fixture
def saved(index: PatientIndex, tmp_path: Path) -> Path:
    save_index(index, tmp_path / "index.npz")
    return tmp_path / "index.npz"


# The file


def test_an_index_comes_back_from_its_file(index: PatientIndex, saved: Path) -> None:
    again = load_index(saved)
    assert (again.title, again.ids, again.labels, again.patients) == (
        TITLE, tuple(map(str, range(12))),
        ("glioma",) * 4 + ("meningioma",) * 4 + ("pituitary",) * 4,
        ("p0", "p0", "p1", "p1", "p2", "p2", "p3", "p3", "p4", "p4", "p5", "p5"),
    )  # fmt: skip
    assert again.fingerprints.dtype == np.int8
    np.testing.assert_array_equal(again.fingerprints, index.fingerprints)
    assert np.abs(again.fingerprints.astype(int)).max(axis=1).tolist() == [127] * 12


def test_an_index_saved_later_has_the_same_bytes(index: PatientIndex, saved: Path, tmp_path: Path) -> None:
    time.sleep(2.1)  # a zip file tells times apart by two seconds
    save_index(index, tmp_path / "other name.npz")
    assert (tmp_path / "other name.npz").read_bytes() == saved.read_bytes()
    save_index(load_index(saved), tmp_path / "third.npz")
    assert (tmp_path / "third.npz").read_bytes() == saved.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.npz", "other name.npz", "third.npz"]


def fields(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path) as content:
        return {name: content[name] for name in content.files}


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_index(path)
    text = str(caught.value)
    assert str(path) in text
    assert text.count("\n") == 0
    assert text.endswith(".")
    assert not text.endswith("..")
    return text


def test_an_index_of_another_version_is_refused(saved: Path) -> None:
    np.savez(saved, **fields(saved) | {"version": np.array(7)})
    assert refusal(saved) == f"{saved} is an index of version 7, and this btkit reads version 1; {ADVICE}."


def test_a_missing_index_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gone.npz"
    assert refusal(path) == f"the index of patients {path} cannot be read: No such file or directory."
    assert refusal(tmp_path) == f"the index of patients {tmp_path} cannot be read: Is a directory."


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_index_is_refused(saved: Path, share: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])
    assert refusal(saved) == f"{saved} is no index of patients; {ADVICE}."


def test_a_text_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "index.npz"
    path.write_text("id,label,patient\n1,glioma,p1\n" * 50)
    assert refusal(path) == f"{path} is no index of patients; {ADVICE}."


@pytest.mark.parametrize("missing", ["version", "title", "fingerprints", "ids", "labels", "patients"])
def test_an_index_with_a_field_missing_is_refused(saved: Path, missing: str) -> None:
    np.savez(saved, **{name: value for name, value in fields(saved).items() if name != missing})
    said = "no" if missing == "version" else "a damaged"
    assert refusal(saved) == f"{saved} is {said} index of patients; {ADVICE}."


@pytest.mark.parametrize("version", [np.array([1]), np.array(1.0), np.array("1")])
def test_a_version_of_another_form_is_refused(saved: Path, version: NDArray[Any]) -> None:
    np.savez(saved, **fields(saved) | {"version": version})
    assert refusal(saved) == f"{saved} is no index of patients; {ADVICE}."


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ids", np.array(["1", "2"])),
        ("labels", np.arange(12)),
        ("patients", np.array([["p"] * 12])),
        ("fingerprints", np.zeros((12, 256))),
        ("fingerprints", np.zeros((12, 255), np.int8)),
        ("fingerprints", np.zeros((12, 16, 16), np.int8)),
        ("title", np.array(["one", "two"])),
    ],
)
def test_fields_of_another_form_are_refused(saved: Path, name: str, value: NDArray[Any]) -> None:
    np.savez(saved, **fields(saved) | {name: value})
    assert refusal(saved) == f"{saved} is a damaged index of patients; {ADVICE}."


def test_an_index_of_nothing_is_refused(saved: Path) -> None:
    empty = np.array([], dtype="U1")
    columns = {"ids": empty, "labels": empty, "patients": empty, "fingerprints": np.zeros((0, 256), np.int8)}
    np.savez(saved, **fields(saved) | columns)
    assert refusal(saved) == f"{saved} is a damaged index of patients; {ADVICE}."


class Payload:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["version", "title", "ids", "patients"])
def test_pickled_objects_are_refused_and_not_run(saved: Path, tmp_path: Path, name: str) -> None:
    trace = tmp_path / "trace"
    np.savez(saved, **fields(saved) | {name: np.array([Payload(trace)] * 12, dtype=object)})
    assert refusal(saved) == f"{saved} is no index of patients; {ADVICE}."
    assert not trace.exists()


def member(value: NDArray[Any]) -> bytes:
    content = io.BytesIO()
    np.save(content, value)
    return content.getvalue()


def huge() -> bytes:
    """An array that claims more than any memory holds."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|i1", "fortran_order": False, "shape": (10**14, 256)})
    return header.getvalue()


@pytest.mark.parametrize("name", ["version", "title", "fingerprints", "ids"])
@pytest.mark.parametrize("content", [b"plain text", huge()], ids=["text", "huge"])
def test_a_member_that_is_no_array_is_refused(saved: Path, name: str, content: bytes) -> None:
    members = {key: member(value) for key, value in fields(saved).items()} | {name: content}
    with zipfile.ZipFile(saved, "w") as archive:
        for key, data in members.items():
            archive.writestr(f"{key}.npy", data)
    refusal(saved)


def test_damaged_bytes_are_refused(saved: Path) -> None:
    whole = saved.read_bytes()
    with zipfile.ZipFile(saved) as archive:
        start = archive.getinfo("fingerprints.npy").header_offset
    for place in range(start + 66, start + 166):  # the compressed data begin behind a header of 66 bytes
        content = bytearray(whole)
        content[place] ^= 255
        saved.write_bytes(content)
        refusal(saved)


@pytest.mark.parametrize(("offset", "value"), [(8, 1), (10, 99)])  # encrypted; compressed in no known way
def test_a_zip_that_cannot_be_unpacked_is_refused(saved: Path, offset: int, value: int) -> None:
    content, place = bytearray(saved.read_bytes()), -1
    while (place := content.find(b"PK\x01\x02", place + 1)) >= 0:
        struct.pack_into("<H", content, place + offset, value)
    saved.write_bytes(content)
    refusal(saved)


# Matching


@pytest.mark.parametrize("turn", range(8))
def test_a_turned_slice_is_matched_with_its_patient(index: PatientIndex, turn: int) -> None:
    exchange, rows, columns = TURNS[turn]
    queries = []
    for picture in HEADS:
        # What has to be turned so to be upright: the turn undone, in the opposite order.
        changed = picture[:, ::-1] if columns else picture
        changed = changed[::-1] if rows else changed
        queries.append(thumbnail(changed.T if exchange else changed))
    found = match(index, np.stack(queries), quiet)
    assert found.place.tolist() == list(range(12))
    assert found.turn.tolist() == [turn] * 12
    assert found.likeness.min() > 0.999


def test_a_changed_slice_is_matched_with_its_patient(index: PatientIndex) -> None:
    changed = [
        np.clip(1.3 * HEADS[3].astype(float), 0, 255).astype(np.uint8),
        np.asarray(Image.fromarray(HEADS[4]).resize((90, 90), Image.Resampling.BICUBIC)),
        np.rot90(np.pad(HEADS[5], 4)),
    ]
    found = match(index, np.stack([thumbnail(picture) for picture in changed]), quiet)
    assert found.place.tolist() == [3, 4, 5]


def test_unrelated_slices_are_not_matched(index: PatientIndex) -> None:
    others = [thumbnail(head(seed)) for seed in range(100, 130)]
    black, noise = np.zeros((64, 64), np.uint8), np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    found = match(index, np.stack([*others, black, noise]), quiet)
    assert found.place.tolist() == [-1] * 32
    assert (found.likeness < MATCHED).all()
    assert found.likeness[30] == 0


def test_blocks_change_nothing(index: PatientIndex) -> None:
    told: list[tuple[int, int]] = []
    queries = np.stack([thumbnail(np.flip(head(seed), axis=1)) for seed in range(6, 21)])
    whole = match(index, queries, quiet)
    parts = match(index, queries, lambda done, total: told.append((done, total)), block=7)
    assert whole.place.tolist() == parts.place.tolist() == [6, 7, 8, 9, 10, 11] + [-1] * 9
    assert whole.turn.tolist() == parts.turn.tolist()
    assert told == [(7, 15), (14, 15), (15, 15)]


# Through a recipe


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Without patients: three slices of the index, one mirrored and one rotated, and three others."""
    folder = tmp_path / "collection"
    slices = {
        "glioma/a": HEADS[1][:, ::-1], "glioma/b": np.rot90(HEADS[2]), "pituitary/c": HEADS[11],
        "glioma/d": head(50), "notumor/e": head(51), "notumor/f": head(52),
    }  # fmt: skip
    for name, picture in slices.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{name}.png")
    return folder


def test_a_recipe_recovers_patients_and_says_how_many(collection: Path, saved: Path) -> None:
    options = [f"source.root={collection}", f"source.patient_index={saved}", "source.recover_patients=true"]
    told = io.StringIO()
    dataset = open_dataset(load_source_data("image_folder", options), Reporter(Console(file=told, width=200)))
    assert {sample.id: sample.group for sample in dataset.samples} == {
        "glioma/a.png": "p0", "glioma/b.png": "p1", "pituitary/c.png": "p5",
        "glioma/d.png": None, "notumor/e.png": None, "notumor/f.png": None,
    }  # fmt: skip
    line = f"found in the index of patients ({TITLE}): glioma 2 of 3, notumor 0 of 2, pituitary 1 of 1"
    assert line in told.getvalue().splitlines()
    unasked = open_dataset(load_source_data("image_folder", options[:1]), Reporter())
    assert {sample.group for sample in unasked.samples} == {None}


RECIPE = (
    '[source]\nname = "image_folder"\nroot = "collection"\n[split]\nmethod = "stratified"\n[backbone]\nname = "resnet"'
)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "the index of patients {path} cannot be read: No such file or directory."),
        (b"patients: p1, p2, p3\n", "{path} is no index of patients; " + ADVICE + "."),
    ],
)
def test_a_run_with_a_bad_index_ends_with_one_message(
    collection: Path, tmp_path: Path, btkit: Callable[..., Any], content: bytes | None, reason: str
) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    path = tmp_path / "patients.npz"
    if content is not None:
        path.write_bytes(content)
    sets = ("--set", "source.recover_patients=true", "--set", f"source.patient_index={path}")
    ended = btkit("run", tmp_path / "recipe.toml", *sets, "--runs", tmp_path / "runs")
    assert ended.status == 2
    assert f"btkit: {reason.format(path=path)}" in ended.err.splitlines()
    assert "Traceback" not in ended.err
    assert not (tmp_path / "runs").exists()


# The index that is shipped


def test_the_shipped_index_is_small_and_names_its_source() -> None:
    assert SHIPPED.stat().st_size <= 1_000_000
    shipped = load_index()
    assert "J. Cheng" in shipped.title
    assert "figshare" in shipped.title
    assert "CC BY 4.0" in shipped.title
    assert len(shipped.ids) == len(set(shipped.ids)) == 3064
    assert len(set(shipped.patients)) == 209
    assert Counter(shipped.labels) == {"meningioma": 708, "glioma": 1426, "pituitary": 930}


@pytest.mark.data
def test_the_shipped_index_has_the_patients_that_figshare_gives(real_data: Path) -> None:
    with (real_data / "figshare" / "index.csv").open(newline="") as file:
        rows = {(row["id"], row["label"], row["group"]) for row in csv.DictReader(file)}
    shipped = load_index()
    assert set(zip(shipped.ids, shipped.labels, shipped.patients, strict=True)) == rows


@pytest.mark.data
def test_indexing_figshare_again_gives_the_shipped_bytes(
    real_data: Path, tmp_path: Path, btkit: Callable[..., Any]
) -> None:
    path, root = tmp_path / "figshare.npz", f"source.root={real_data / 'figshare'}"
    title = load_index().title
    ended = btkit("data", "index", "--source", "figshare", "--set", root, "--to", path, "--title", title)
    assert (ended.status, ended.out) == (0, f"{path}\n")
    assert "3064 slices of 209 patients" in ended.err
    assert path.read_bytes() == SHIPPED.read_bytes()


@pytest.mark.data
@pytest.mark.parametrize("by", [-4, 4], ids=["with a border", "cropped"])
def test_a_slice_of_figshare_with_other_margins_is_matched_with_its_patient(real_data: Path, by: int) -> None:
    shipped = load_index()
    chosen = range(1, 3065, 30)
    queries = []
    for number in chosen:
        picture = Image.open(real_data / "figshare" / "images" / f"{number}.webp").convert("L")
        around = (by, by, picture.width - by, picture.height - by)  # 2 % of each side
        queries.append(thumbnail(np.flip(picture.crop(around), axis=1)))
    found = match(shipped, np.stack(queries), quiet)
    right = [
        place >= 0 and shipped.patients[place] == shipped.patients[number - 1]
        for number, place in zip(chosen, found.place, strict=True)
    ]
    print(f"{sum(right)} of {len(right)} matched")
    assert sum(right) >= 0.9 * len(right)


@pytest.mark.data
def test_tumours_of_nickparvar_are_found_and_healthy_heads_are_not(real_data: Path, tmp_path: Path) -> None:
    for path in sorted((real_data / "nickparvar").rglob("*.webp"))[::8]:
        copy = tmp_path / path.relative_to(real_data / "nickparvar")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    options = [f"source.root={tmp_path}", "source.recover_patients=true"]
    samples = open_dataset(load_source_data("image_folder", options), Reporter()).samples
    total, found = Counter(s.label for s in samples), Counter(s.label for s in samples if s.group is not None)
    print(f"found {dict(found)} of {dict(total)}")
    assert len(samples) == 878
    assert found["glioma"] + found["pituitary"] >= 0.98 * (total["glioma"] + total["pituitary"])
    assert found["notumor"] == 0
