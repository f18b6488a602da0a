"""Weights, data sets, recipes and names made to run code, to stall, to fill memory or to lead elsewhere."""

import json
import os
import pickle  # noqa: TID251  (what is refused has to be made)
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from small_models import SIDE, network, saved
from test_figshare import mat

from braintumor_kit.contracts.porting import read_state_dict
from braintumor_kit.errors import InputError

# .pth


class Payload:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("new", [True, False])
def test_weights_that_would_run_code(new: bool, tmp_path: Path) -> None:
    mark, path = tmp_path / "ran", tmp_path / "w.pth"
    torch.save({"state_dict": Payload(mark)}, path, _use_new_zipfile_serialization=new)
    with pytest.raises(InputError, match="since it could run code"):
        read_state_dict(path)
    path.write_bytes(pickle.dumps(Payload(mark)))
    with pytest.raises(InputError, match="since it could run code"):
        read_state_dict(path)
    assert not mark.exists()
    pickle.loads(path.read_bytes())  # noqa: S301
    assert mark.exists()  # it would have


@pytest.mark.parametrize("name", ["certainty.npz", "index.npz"])
def test_an_array_file_that_would_run_code(name: str, tmp_path: Path) -> None:
    from braintumor_kit.files import read_arrays

    np.savez(tmp_path / name, a=np.array([Payload(tmp_path / "ran")], dtype=object))
    with pytest.raises(InputError):
        read_arrays(tmp_path / name, 10**6, "the file", "damaged")
    assert not (tmp_path / "ran").exists()


# Data sets


def described(btkit: Callable, root: Path, status: int = 0) -> Any:
    ended = btkit("data", "info", "--source", "figshare", "--set", f"source.root={root}", "--json")
    assert ended.status == status, ended.err
    return json.loads(ended.out) if status == 0 else ended.err


def test_a_zip_that_leads_out_of_its_folder(tmp_path: Path, btkit: Callable) -> None:
    root = tmp_path / "data"
    root.mkdir()
    with zipfile.ZipFile(root / "z.zip", "w") as packed:
        packed.writestr("../../1.mat", mat(1))
        packed.writestr("/etc/2.mat", mat(2))
        packed.writestr("a/../../3.mat", mat(3))
    assert described(btkit, root)["slices"] == 3
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "z.zip"]  # nothing is unpacked to anywhere


def test_a_zip_that_unpacks_a_thousandfold(tmp_path: Path, btkit: Callable) -> None:
    from btkit_plugins.sources.figshare import MAX_FILE_BYTES

    with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("1.mat", mat())
        with packed.open("2.mat", "w") as bomb:
            for _ in range(MAX_FILE_BYTES // 2**20 + 1):
                bomb.write(bytes(2**20))
    assert (tmp_path / "z.zip").stat().st_size * 900 < MAX_FILE_BYTES
    found = described(btkit, tmp_path)
    assert found["slices"] == 1
    assert "unpacks to more than" in found["unreadable_images"][0]["reason"]


@pytest.mark.parametrize("link", [h5py.ExternalLink("other.mat", "/image"), h5py.SoftLink("/cjdata/tumorMask")])
def test_a_mat_file_with_a_link(link: Any, tmp_path: Path, btkit: Callable) -> None:
    (tmp_path / "1.mat").write_bytes(mat())
    with h5py.File(tmp_path / "1.mat", "r+") as file:
        del file["cjdata/image"]
        file["cjdata/image"] = link
    found = described(btkit, tmp_path)
    assert "has no cjdata/image of its own" in found["unreadable_images"][0]["reason"]


def test_tables_and_files_that_are_too_large(tmp_path: Path, btkit: Callable) -> None:
    (tmp_path / "images").mkdir()
    with (tmp_path / "index.csv").open("wb") as file:
        file.truncate(2**30)  # a hole that takes no room
    assert "has more than 67,108,864 bytes" in described(btkit, tmp_path, status=2)
    (tmp_path / "index.csv").write_text("id,label\n1,glioma\n2,glioma\n")
    Image.new("L", (9, 9)).save(tmp_path / "images" / "2.png")
    with (tmp_path / "images" / "1.png").open("wb") as file:
        file.truncate(2**30)
    assert [bad["id"] for bad in described(btkit, tmp_path)["unreadable_images"]] == ["1"]


# Pictures


def huge_png(path: Path, side: int = 50_000) -> None:
    """A picture of so many pixels in a few kilobytes: every row compresses to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + side // 8)) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


def test_a_picture_of_50000_by_50000_pixels(tmp_path: Path, btkit: Callable) -> None:
    huge_png(tmp_path / "huge.png")
    assert (tmp_path / "huge.png").stat().st_size < 400_000
    begun = time.monotonic()
    ended = btkit("predict", saved(tmp_path, network()), tmp_path / "huge.png")
    assert ended.status == 2
    assert "more than the 33,554,432" in ended.err
    assert time.monotonic() - begun < 10


def test_odd_names_of_pictures(tmp_path: Path, btkit: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    model = saved(tmp_path, network())
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("-rf.png", "two\nlines.png", "\x1b[31mred.png", "<b>.png", "$x.png", "a,b.png", "--help.png"):
        Image.new("L", (SIDE, SIDE)).save(folder / name)
    ended = btkit("predict", model, folder, "--json")
    assert ended.status == 0
    assert {Path(item["path"]).name for item in json.loads(ended.out)} == {path.name for path in folder.iterdir()}
    shown = btkit("predict", model, folder)
    assert "\x1b" not in shown.out
    assert "two\nlines" not in shown.out.replace("\\n", "")
    monkeypatch.chdir(folder)
    assert btkit("predict", model, "--", "-rf.png").status == 0
    assert btkit("predict", model, "-rf.png").status == 2  # options it does not have


def test_a_name_that_is_not_utf8(tmp_path: Path, btkit: Callable) -> None:
    model = saved(tmp_path, network())
    odd = os.fsencode(tmp_path) + b"/\xff.png"
    Image.new("L", (SIDE, SIDE)).save(tmp_path / "a.png")
    os.rename(tmp_path / "a.png", odd)
    ended = btkit("predict", model, os.fsdecode(odd), "--csv")
    assert ended.status == 2
    assert "is not UTF-8" in ended.err


# Recipes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title = '" + "x" * (10 << 20) + "'", "is larger than 1 MiB"),
        ("source.root = '" + "x" * 5000 + "'", "has 5,000 letters"),
        (".".join("a" * 100_000) + " = 1", "a key has more than 32 parts"),
        ("a = " + "[" * 100_000, "is not valid TOML"),
        ("a = " + "{b = " * 50_000, "is not valid TOML"),
        ("".join("[" + ".".join("a" * n) + "]\n" for n in range(1, 30)) + "[" + ".".join("a" * 40) + "]", "parts"),
        ("a = " + "[" * 40 + "]" * 40, "nested more than 32 deep"),
        ("".join(f"k{n} = 1\n" for n in range(60_000)), "has more than 5,000 values"),
        ("seed = " + "9" * 5000, "is not valid TOML"),
        ("seed = 0x" + "f" * 5000, "more than 64 bits"),
        ('extends = "a\\u0000b"', "a text with a NUL"),
    ],
    ids=[
        "10 MB",
        "long text",
        "long key",
        "arrays",
        "tables",
        "headers",
        "deep",
        "many",
        "digits",
        "hexadecimal",
        "nul",
    ],
)
def test_recipes_made_to_stall(text: str, message: str, tmp_path: Path, btkit: Callable) -> None:
    (tmp_path / "r.toml").write_text(text)
    begun = time.monotonic()
    ended = btkit("recipe", "check", tmp_path / "r.toml")
    assert ended.status == 2
    assert message in ended.err
    assert len(ended.err) < 5000
    assert time.monotonic() - begun < 10


def test_a_long_chain_of_recipes(tmp_path: Path, btkit: Callable) -> None:
    for number in range(2000):
        (tmp_path / f"{number}.toml").write_text(f'extends = "{number + 1}.toml"\n')
    ended = btkit("recipe", "check", tmp_path / "0.toml")
    assert ended.status == 2
    assert "16 recipes that extend each other" in ended.err


def test_many_problems_are_counted(tmp_path: Path, btkit: Callable) -> None:
    (tmp_path / "r.toml").write_text("".join(f"k{number} = 1\n" for number in range(200)))
    ended = btkit("recipe", "check", tmp_path / "r.toml")
    assert "the recipe has 202 problems:" in ended.err
    assert "and 152 more" in ended.err


def test_an_override_of_several_lines_is_text(tmp_path: Path) -> None:
    from braintumor_kit.recipe.layers import parse_override

    assert parse_override("a.b=1\nc = 2") == (["a", "b"], "1\nc = 2")
    with pytest.raises(InputError, match="more than 32 parts"):
        parse_override(".".join("a" * 40) + "=1")


# Names of classes


@pytest.mark.usefixtures("two_layers")
def test_classes_named_in_html_and_mathematics(tmp_path: Path, btkit: Callable) -> None:
    names = ["<script>alert(1)</script>"[:8], "$\\frac{a$", "$_{$^", "[bold]", "{{7*7}}"]
    random = np.random.default_rng(0)
    for name in names:
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        for number in range(8):
            Image.fromarray(random.integers(0, 255, (32, 32), dtype=np.uint8)).save(folder / f"{number}.png")
    (tmp_path / "r.toml").write_text(
        f'[source]\nname = "image_folder"\nroot = "{tmp_path / "data"}"\n[split]\nmethod = "stratified"\n'
        '[pixels]\nimage_size = 64\n[backbone]\nname = "two_layers"\n[training]\nepochs = 1\nbatch_size = 8\n'
        '[[explain]]\nmethod = "gradcam"\nlimit = 2\n'
    )
    ended = btkit("run", tmp_path / "r.toml", "--runs", tmp_path / "runs", "--name", "r")
    assert ended.status == 0, ended.err
    ended = btkit("audit", tmp_path / "r.toml", "--out", tmp_path / "audit")
    assert ended.status == 0, ended.err
    page = (tmp_path / "audit" / "audit.html").read_text()
    assert "&lt;script" in page
    assert "<script" not in page
