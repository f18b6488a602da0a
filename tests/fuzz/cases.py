"""Kinds of damaged files, each with the commands that are given them. A case returns "accepted" or "refused"."""

import importlib
import io
import json
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from judged import command, refused, sane_predictions
from mutants import ODD_VALUES, Random, bytes_mutated, json_mutated, onnx_mutated, png_mutated, zip_mutated
from PIL import Image

from braintumor_kit.backend import use_torch_backend
from braintumor_kit.errors import InputError

Case = Callable[[Random, Path], str]
SIDE = 32
BATCH = 20
"""Pictures that one command is given."""


def _slice(seed: int, size: tuple[int, int] = (40, 36)) -> np.ndarray:
    """Smooth, so that lossy formats have something to pack, and dark at its rim."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 255, (6, 6), dtype=np.uint8))
    return np.asarray(small.resize(size, Image.Resampling.BICUBIC))


def _chosen(items: Mapping[str, bytes], random: Random) -> tuple[str, bytes]:
    name = sorted(items)[int(random.integers(len(items)))]
    return name, items[name]


# Pictures


def _pictures() -> dict[str, bytes]:
    grey = _slice(1)
    rgb = np.stack([grey, _slice(2), _slice(3)], axis=-1)
    forms: list[tuple[str, Any, str, dict[str, Any]]] = [
        ("grey.png", grey, "PNG", {}),
        ("deep.png", grey.astype(np.uint16) * 257, "PNG", {}),
        ("rgb.png", rgb, "PNG", {}),
        ("palette.png", Image.fromarray(rgb).convert("P"), "PNG", {}),
        ("alpha.png", Image.fromarray(rgb).convert("RGBA"), "PNG", {}),
        ("two.png", Image.fromarray(grey).convert("1"), "PNG", {}),
        ("moving.png", grey, "PNG", {"save_all": True, "append_images": [Image.fromarray(_slice(4))]}),
        ("grey.jpg", grey, "JPEG", {}),
        ("rgb.jpg", rgb, "JPEG", {"progressive": True, "exif": _turned()}),
        ("ink.jpg", Image.fromarray(rgb).convert("CMYK"), "JPEG", {}),
        ("grey.tif", grey, "TIFF", {}),
        ("packed.tif", rgb, "TIFF", {"compression": "tiff_lzw"}),
        ("deflated.tif", grey, "TIFF", {"compression": "tiff_adobe_deflate"}),
        ("jpeg.tif", rgb, "TIFF", {"compression": "jpeg"}),
        ("real.tif", grey.astype(np.float32), "TIFF", {}),
        ("grey.bmp", grey, "BMP", {}),
        ("moving.gif", grey, "GIF", {"save_all": True, "append_images": [Image.fromarray(_slice(5))]}),
        ("rgb.webp", rgb, "WEBP", {}),
        ("whole.webp", grey, "WEBP", {"lossless": True}),
        ("grey.jp2", grey, "JPEG2000", {}),
        ("rgb.avif", rgb, "AVIF", {}),
        ("grey.pgm", grey, "PPM", {}),
        ("rgb.pcx", rgb, "PCX", {}),
        ("grey.sgi", grey, "SGI", {}),
    ]
    Image.init()
    made = {}
    for name, pixels, form, options in forms:
        if form in Image.SAVE:
            picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
            content = io.BytesIO()
            picture.save(content, form, **options)
            made[name] = content.getvalue()
    return made


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def images(folder: Path) -> Case:
    """A folder of damaged pictures, and a whole one, given to `btkit predict`."""
    seeds, model = _pictures(), _small_model(folder)

    def case(random: Random, place: Path) -> str:
        place.mkdir(parents=True)
        Image.fromarray(_slice(0)).save(place / "whole.png")
        names = {"whole.png"}
        for number in range(BATCH):
            name, content = _chosen(seeds, random)
            png = name.endswith(".png") and random.random() < 0.6
            changed = png_mutated(content, random) if png else bytes_mutated(content, random, list(seeds.values()))
            names.add(f"{number:02}-{name}")
            (place / f"{number:02}-{name}").write_bytes(changed)
        ended = command("predict", model, place, "--json")
        bad = refused(ended)
        assert ended.out, ended.err
        read = {Path(item["path"]).name for item in sane_predictions(ended.out)}
        assert "whole.png" in read, ended.err
        unread = {name for name in names if f"{place / name}" in ended.err}
        assert read | unread == names, f"neither read nor named: {names - read - unread}"
        assert not read & unread, f"read and named: {read & unread}"
        assert bad == bool(unread)
        return f"{len(read) - 1} accepted, {len(unread)} refused"

    return case


# Models


def _network(seed: int) -> Any:
    use_torch_backend()
    import keras
    from keras import layers

    keras.utils.set_random_seed(seed)
    pictures = keras.Input((SIDE, SIDE, 3))
    x = layers.Rescaling(1 / 255)(pictures)
    x = layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    x = y = layers.ReLU(max_value=6)(x)
    if seed % 2:
        y = layers.DepthwiseConv2D(3, padding="same", depthwise_regularizer="l2")(layers.ZeroPadding2D(0)(y))
        x = layers.Concatenate()([layers.Add()([x, y]), layers.MaxPooling2D(3, 1, padding="same")(x)])
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(pictures, layers.Dense(3, activation="softmax")(x))


def _small_model(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "whole.keras"
    _network(0).save(path)
    return path


KERAS_WORDS = (
    *ODD_VALUES, "keras.layers", "keras", "keras.src.layers", "os", "builtins", "keras_hub.models", "keras.ops",
    "keras.utils", "keras.src.utils.file_utils", "subprocess", "Popen", "get_file", "Conv2D", "Dense", "StringLookup",
    "TFSMLayer", "TorchModuleWrapper", "Embedding", "UpSampling2D", "LSTM", "Functional", "Sequential", "valid", "same",
    "channels_first", "float16", "bfloat16", "int8", "linear", "relu", "softmax", "Resizing", [1, 1], [3, 3], [32, 32],
    [None, 64, 64, 3], [None, None, None, 1], [None, 32, 32, 3],
)  # fmt: skip


def models(folder: Path) -> Case:
    """A damaged `.keras` file, given to `btkit predict` with a whole picture."""
    folder.mkdir(parents=True, exist_ok=True)
    seeds = []
    for seed in range(2):
        _network(seed).save(folder / "seed.keras")
        seeds.append((folder / "seed.keras").read_bytes())
    Image.fromarray(_slice(0)).save(folder / "whole.png")

    def case(random: Random, place: Path) -> str:
        def change(name: str, body: bytes) -> bytes:
            if name.endswith(".json") and random.random() < 0.9:
                return json.dumps(json_mutated(json.loads(body), random, KERAS_WORDS)).encode()
            return bytes_mutated(body, random)

        content = seeds[int(random.integers(len(seeds)))]
        raw = random.random() < 0.2
        changed = bytes_mutated(content, random, seeds) if raw else zip_mutated(content, random, change)
        place.mkdir(parents=True)
        (place / "m.keras").write_bytes(changed)
        ended = command("predict", place / "m.keras", folder / "whole.png", "--json")
        if refused(ended):
            return "refused"
        assert len(sane_predictions(ended.out)) == 1
        return "accepted"

    return case


def exported(folder: Path) -> Case:
    """A damaged `.onnx` file, given to `btkit predict` with a whole picture."""
    folder.mkdir(parents=True, exist_ok=True)
    seeds = []
    for seed in range(2):
        _network(seed).save(folder / "seed.keras")
        ended = command("export", folder / "seed.keras")
        assert ended.status == 0, ended.err
        seeds.append((folder / "seed.onnx").read_bytes())
    Image.fromarray(_slice(0)).save(folder / "whole.png")

    def case(random: Random, place: Path) -> str:
        content = seeds[int(random.integers(len(seeds)))]
        within = random.random() < 0.7
        place.mkdir(parents=True)
        (place / "m.onnx").write_bytes(
            onnx_mutated(content, random) if within else bytes_mutated(content, random, seeds)
        )
        ended = command("predict", place / "m.onnx", folder / "whole.png", "--json")
        if refused(ended):
            return "refused"
        assert len(sane_predictions(ended.out)) == 1
        return "accepted"

    return case


def checkpoints(folder: Path) -> Case:
    """A damaged `.pth` file, read as weights."""
    import torch

    from braintumor_kit.contracts.porting import read_state_dict

    folder.mkdir(parents=True, exist_ok=True)
    state = {
        "conv.weight": torch.ones(4, 3, 3, 3),
        "bn.num_batches_tracked": torch.tensor(3),
        "fc.bias": torch.zeros(3),
    }
    seeds = []
    for form in (True, False):
        torch.save({"state_dict": state}, folder / "seed.pth", _use_new_zipfile_serialization=form)
        seeds.append((folder / "seed.pth").read_bytes())

    def case(random: Random, place: Path) -> str:
        content = seeds[int(random.integers(2))]
        if zipfile.is_zipfile(io.BytesIO(content)) and random.random() < 0.7:
            content = zip_mutated(content, random, lambda name, body: bytes_mutated(body, random))
        else:
            content = bytes_mutated(content, random, seeds)
        place.mkdir(parents=True)
        (place / "w.pth").write_bytes(content)
        said = ""
        try:
            found = read_state_dict(place / "w.pth")
        except InputError as error:
            said = str(error)
        if said:
            assert str(place / "w.pth") in said
            return "refused"
        assert all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in found.items())
        return "accepted"

    return case


def runs(folder: Path) -> Case:
    """A finished run with one of its small files damaged, given to `btkit predict` and `btkit doctor --bundle`."""
    whole = Path((folder / "run.txt").read_text())
    names = [name for name in ("record.json", "resolved.json", "certainty.json", "certainty.npz", "metrics.json",
                               "history.csv") if (whole / name).is_file()]  # fmt: skip
    Image.fromarray(_slice(0)).save(folder / "whole.png")

    def case(random: Random, place: Path) -> str:
        run = place / "run"
        run.mkdir(parents=True)
        for path in whole.iterdir():
            if path.is_file():
                (run / path.name).hardlink_to(path)
        name = names[int(random.integers(len(names)))]
        content = (whole / name).read_bytes()
        if name.endswith(".json") and random.random() < 0.8:
            changed = json.dumps(json_mutated(json.loads(content), random)).encode()
        elif name.endswith(".npz") and random.random() < 0.8:
            changed = zip_mutated(content, random, lambda inner, body: bytes_mutated(body, random))
        else:
            changed = bytes_mutated(content, random)
        (run / name).unlink()
        (run / name).write_bytes(changed)
        ended = command("predict", run, folder / "whole.png", "--json")
        bad = refused(ended)
        if not bad:
            assert len(sane_predictions(ended.out)) == 1
        refused(command("doctor", run, "--bundle", "--out", place / "b.zip"))
        return "refused" if bad else "accepted"

    return case


# Figshare's files


def _mats(folder: Path) -> dict[str, bytes]:
    made = {}
    for name, packed, dtype in (("plain", None, "int16"), ("packed", "gzip", "uint16"), ("wide", "gzip", "int32")):
        path = folder / "seed.mat"
        with h5py.File(path, "w", userblock_size=512) as file:
            group = file.create_group("cjdata")
            group["label"] = np.array([[2.0]])
            group["PID"] = np.frombuffer("MR048294B".encode("utf-16-le"), np.uint16).reshape(-1, 1)
            for key, values in (("image", _slice(1).astype(dtype)), ("tumorMask", (_slice(1) > 128).astype(np.uint8))):
                group.create_dataset(key, data=values, compression=packed, chunks=(18, 20) if packed else None)
            group["tumorBorder"] = np.arange(8.0).reshape(1, 8)
        header = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
        made[name] = header.ljust(512, b"\0") + path.read_bytes()[512:]
    return made


def _structured(path: Path, random: Random, folder: Path) -> None:
    """Changes what a file says by HDF5's own means: kinds, shapes and links."""
    name = str(random.choice(["image", "label", "PID", "tumorMask"]))
    with h5py.File(path, "r+") as file:
        group = file["cjdata"]
        del group[name]
        match random.integers(10):
            case 0:
                group[name] = "text"
            case 1:
                group[name] = np.full((4, 4), np.nan)
            case 2:
                group[name] = np.zeros((2, 3, 4), np.int16)
            case 3:
                group.create_dataset(name, shape=(2**20, 2**20), chunks=(1024, 1024), dtype="u2", compression="gzip")
            case 4:
                group.create_dataset(name, shape=(2**12, 2**12), chunks=(2**12, 2**12), dtype="u2", compression="gzip")
            case 5:
                group[name] = h5py.SoftLink("/cjdata")
            case 6:
                group[name] = h5py.ExternalLink(str(folder / "other.h5"), "/x")
            case 7:
                group[name] = group
            case 8:
                group[name] = np.array([[-1e30, 1e30]])
            case _:
                group[name] = np.zeros((0, 0))


def mats(folder: Path) -> Case:
    """A damaged figshare .mat, loose or zipped, beside a whole one, given to `btkit data info`."""
    folder.mkdir(parents=True, exist_ok=True)
    seeds = _mats(folder)

    def case(random: Random, place: Path) -> str:
        place.mkdir(parents=True)
        (place / "1.mat").write_bytes(seeds["plain"])
        _, content = _chosen(seeds, random)
        damaged = place / "2.mat"
        if random.random() < 0.25:
            damaged.write_bytes(content)
            _structured(damaged, random, folder)
        else:
            damaged.write_bytes(bytes_mutated(content, random, list(seeds.values())))
        if random.random() < 0.3:
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.write(damaged, str(random.choice(["2.mat", "../2.mat", "a/b/2.mat", "C:\\2.mat"])))
            damaged.unlink()
            content = packed.getvalue()
            (place / "z.zip").write_bytes(bytes_mutated(content, random) if random.random() < 0.7 else content)
        return _described(place)

    return case


def indices(folder: Path) -> Case:
    """A damaged index.csv beside three whole pictures, given to `btkit data info`."""
    rows = "id,label,pid,group\n1,glioma,MR1A,\n2,meningioma,MR1B,g 2\n3,pituitary,,MR7\n"
    words = ["../1", "-rf", "a\nb", '"', '""', ",", "\r", "\x00", "=1+1", "id", "label", "1" * 5000, "é", "\ufeff", "/"]

    def case(random: Random, place: Path) -> str:
        for name in ("images", "masks"):
            (place / name).mkdir(parents=True)
        for number in (1, 2, 3):
            Image.fromarray(_slice(number)).save(place / "images" / f"{number}.png")
        Image.fromarray(_slice(1) > 128).save(place / "masks" / "1.png")
        text = rows
        for _ in range(random.integers(0, 3)):
            at = int(random.integers(len(text) + 1))
            text = text[:at] + words[int(random.integers(len(words)))] + text[at + int(random.integers(3)) :]
        content = text.encode()
        (place / "index.csv").write_bytes(bytes_mutated(content, random) if random.random() < 0.7 else content)
        return _described(place)

    return case


def _described(place: Path) -> str:
    ended = command("data", "info", "--source", "figshare", "--set", f"source.root={place}", "--json")
    if refused(ended):
        return "refused"
    found = json.loads(ended.out)
    assert sum(found["sizes"].values()) + len(found["unreadable_images"]) >= 1, found
    assert set(found["class_names"]) == {"glioma", "meningioma", "pituitary"}
    return "a file refused" if found["unreadable_images"] else "accepted"


# Plugins


def metadata(folder: Path) -> Case:
    """A distribution whose entry points or metadata are damaged, seen by `btkit plugins list`."""
    names = (
        "[btkit.sources]\nmine = mine.a:B\n[btkit.explainers]\nother = mine.c:D.e [extra]\n[console_scripts]\nx = y:z\n"
    )
    about = "Metadata-Version: 2.1\nName: btkit-mine\nVersion: 1.0\nSummary: x\n"
    words = [
        "[",
        "]",
        "=",
        ":",
        "\n",
        "..",
        " ",
        "é",
        "\x00",
        "btkit.backbones",
        "phantom",
        "gradcam",
        "a" * 3000,
        "\x1b[2J",
    ]

    def case(random: Random, place: Path) -> str:
        about_folder = place / "btkit_mine-1.0.dist-info"
        about_folder.mkdir(parents=True)
        for name, text in (("entry_points.txt", names), ("METADATA", about)):
            for _ in range(random.integers(0, 4)):
                at = int(random.integers(len(text) + 1))
                text = text[:at] + words[int(random.integers(len(words)))] + text[at + int(random.integers(4)) :]
            content = text.encode()
            (about_folder / name).write_bytes(bytes_mutated(content, random) if random.random() < 0.4 else content)
        with _on_path(place):
            ended = command("plugins", "list", "--json")
            again = command("recipe", "check", "resnet_adam")
        bad = refused(ended)
        refused(again)
        if not bad:
            assert {item["name"] for item in json.loads(ended.out)} >= {"gradcam", "resnet", "figshare"}
        return "refused" if bad else "accepted"

    return case


@contextmanager
def _on_path(place: Path) -> Iterator[None]:
    sys.path.insert(0, str(place))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(place))
        importlib.invalidate_caches()


KINDS: dict[str, Callable[[Path], Case]] = {
    "images": images, "models": models, "exported": exported, "checkpoints": checkpoints, "runs": runs, "mats": mats,
    "indices": indices, "metadata": metadata,
}  # fmt: skip
