"""Devices, pipes, circles and tables without an end, in the place of files: nothing waits for them or is filled."""

import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_models import SIDE, network, saved
from test_figshare import mat
from test_hostile import described

from braintumor_kit.contracts import ImageError
from braintumor_kit.contracts.pictures import read_picture
from braintumor_kit.contracts.porting import read_state_dict
from braintumor_kit.errors import InputError
from braintumor_kit.files import read_arrays, read_csv, read_json, read_text


@pytest.mark.parametrize("target", ["/dev/zero", "/dev/stdin", "pipe.toml", "loop.toml"])
def test_recipes_that_extend_what_is_no_file(target: str, tmp_path: Path, btkit: Callable) -> None:
    (tmp_path / "loop.toml").symlink_to("loop.toml")
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "r.toml").write_text(f'extends = "{target}"')
    ended = btkit("recipe", "check", tmp_path / "r.toml")
    assert ended.status == 2
    assert f"{target}: the recipe cannot be read" in ended.err


@pytest.mark.parametrize("name", ["index.csv", "z.zip", "2.mat"])
@pytest.mark.parametrize("device", [True, False])
def test_data_sets_without_an_end(name: str, device: bool, tmp_path: Path, btkit: Callable) -> None:
    (tmp_path / "1.mat").write_bytes(mat())
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / name).symlink_to("/dev/zero" if device else tmp_path / "pipe")
    assert described(btkit, tmp_path)["slices"] == 1


def test_pictures_without_an_end(tmp_path: Path, btkit: Callable) -> None:
    for name in ("glioma", "notumor"):
        (tmp_path / name).mkdir()
        Image.new("L", (SIDE, SIDE)).save(tmp_path / name / "1.png")
    (tmp_path / "glioma" / "2.png").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "glioma" / "3.png")
    ended = btkit("data", "info", "--source", "image_folder", "--set", f"source.root={tmp_path}", "--json")
    assert ended.status == 0, ended.err
    assert json.loads(ended.out)["slices"] == 2


def test_json_tables_and_arrays_without_an_end(tmp_path: Path) -> None:
    (tmp_path / "zero").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "zero", tmp_path / "pipe"):
        for read in (read_json, read_text, lambda path: read_arrays(path, 10, "the file", "damaged")):
            with pytest.raises(InputError, match="no ordinary file"):
                read(path)
        with pytest.raises(OSError, match="no ordinary file"):
            read_csv(path)


def test_half_a_letter_in_json(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"classes": ["\\ud800", "b"]}')
    with pytest.raises(InputError, match="cannot be read"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"classes": ["\\ud83e\\udde0", "b"]}')
    assert read_json(tmp_path / "a.json") == {"classes": ["🧠", "b"]}


def test_a_jpeg_of_many_scans(tmp_path: Path, btkit: Callable) -> None:
    content = io.BytesIO()
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 255, (64, 64), dtype=np.uint8)).save(content, "JPEG", progressive=True)
    whole = content.getvalue()
    last = whole[whole.rindex(b"\xff\xda") : -2]
    (tmp_path / "many.jpg").write_bytes(whole[:-2] + 200 * last + whole[-2:])
    (tmp_path / "few.jpg").write_bytes(whole)
    model = saved(tmp_path, network())
    assert btkit("predict", model, tmp_path / "few.jpg").status == 0
    ended = btkit("predict", model, tmp_path / "many.jpg")
    assert ended.status == 2
    assert "scans, more than the 100" in ended.err


def test_a_tiff_of_one_pixel_in_a_huge_tile(tmp_path: Path) -> None:
    body = zlib.compress(bytes(1000))
    tags = [(256, 1), (257, 1), (258, 8), (259, 8), (262, 1), (277, 1), (322, 40_000), (323, 40_000), (324, 8),
            (325, len(body))]  # fmt: skip
    place = 8 + len(body) + len(body) % 2
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    head = b"II*\0" + struct.pack("<I", place) + body.ljust(place - 8, b"\0")
    (tmp_path / "a.tif").write_bytes(head + struct.pack("<H", len(tags)) + entries + bytes(4))
    with pytest.raises(ImageError, match="tiles of 40000 x 40000 pixels"):
        read_picture(tmp_path / "a.tif")


def test_tables_of_too_many_columns(tmp_path: Path, btkit: Callable) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "index.csv").write_text(f"id,label,{','.join(map(str, range(2000)))}\n1,glioma\n")
    assert "more than 1,000 columns" in described(btkit, tmp_path, status=2)
    with pytest.raises(ValueError, match="more than 1,000 columns"):
        read_csv(tmp_path / "index.csv")


def test_a_zip_whose_files_lie_over_each_other(tmp_path: Path, btkit: Callable) -> None:
    """The directory names one packed file many times, so that it unpacks to far more than it is."""
    with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("1.mat", bytes(2**24))
        first = packed.infolist()[0]
        for number in range(2, 40):
            again = zipfile.ZipInfo(f"{number}.mat")
            for name in ("header_offset", "CRC", "compress_size", "file_size", "compress_type"):
                setattr(again, name, getattr(first, name))
            packed.filelist.append(again)
            packed.NameToInfo[again.filename] = again
    assert "times its size" in described(btkit, tmp_path, status=2)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1, dtype=torch.float16).expand(64, 2000, 7, 7),
        torch.zeros(3, 3, dtype=torch.complex64),
        torch.zeros(3, 3).to_sparse(),
        torch.zeros(3, 3, device="meta"),
    ],
    ids=["repeated", "complex", "sparse", "meta"],
)
def test_weights_that_are_not_all_there(tensor: torch.Tensor, tmp_path: Path) -> None:
    torch.save({"conv1.weight": tensor}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=str(tmp_path / "w.pth")):
        read_state_dict(tmp_path / "w.pth")
