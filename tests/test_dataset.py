"""Data sets and their cache: checked samples, a digest of the content, slices decoded once."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from braintumor_kit.contracts import InputError
from braintumor_kit.data import cache, rows
from braintumor_kit.data.cache import decoded_slices
from braintumor_kit.data.dataset import Dataset, read_dataset
from braintumor_kit.data.pixels import prepare
from braintumor_kit.recipe.load import load_source
from braintumor_kit.recipe.tables import PixelsTable
from braintumor_kit.registry import Registry

PIXELS = PixelsTable(image_size=32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """200 small pictures: enough for several processes to decode them."""
    random = np.random.default_rng(0)
    for label in ("glioma", "notumor"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(100):
            picture = random.integers(0, 255, (40, 48), dtype=np.uint8)
            Image.fromarray(picture).save(tmp_path / "data" / label / f"{number:03}.png")
    return tmp_path / "data"


def read(folder: Path, on_bad_image: str = "error") -> Dataset:
    return read_dataset(load_source("image_folder", [f"source.root={folder}"]), on_bad_image)


def test_slices_are_the_prepared_pictures_in_order(folder: Path) -> None:
    dataset = read(folder)
    kept, slices = decoded_slices(dataset, PIXELS)
    source = dataset.plugin.make()
    assert kept is dataset
    assert len(slices) == 200
    for place in (0, 31, 32, 150, 199):
        expected = prepare(source.image(dataset.samples[place]), PIXELS)
        np.testing.assert_array_equal(slices[np.array([place])][0], expected)


def test_a_second_run_decodes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = decoded_slices(read(folder), PIXELS)[1]

    def decode(*arguments: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(rows, "_compute_chunk", decode)
    second = decoded_slices(read(folder), PIXELS)[1]
    everything = np.arange(200)
    np.testing.assert_array_equal(first[everything], second[everything])


def test_the_digest_follows_the_content(folder: Path) -> None:
    before = read(folder)
    picture = folder / "glioma" / "007.png"
    os.utime(picture, (0, 0))
    assert read(folder).digest == before.digest
    pixels = np.array(Image.open(picture))
    pixels[3, 4] ^= 1
    Image.fromarray(pixels).save(picture)
    changed = read(folder)
    assert changed.digest != before.digest
    assert cache.cache_key(changed, PIXELS) != cache.cache_key(before, PIXELS)
    (folder / "glioma" / "099.png").rename(folder / "notumor" / "100.png")
    assert read(folder).digest not in (before.digest, changed.digest)


def test_other_pixels_another_cache(folder: Path) -> None:
    dataset = read(folder)
    assert cache.cache_key(dataset, PIXELS) != cache.cache_key(dataset, PixelsTable(image_size=32, fit="pad"))


def test_rows_stay_with_their_samples_when_a_picture_is_left_out(folder: Path) -> None:
    (folder / "glioma" / "010.png").write_text("no picture")
    dataset, slices = decoded_slices(read(folder), PIXELS, "skip")
    source = dataset.plugin.make()
    assert [bad.id for bad in dataset.bad] == ["glioma/010.png"]
    assert len(dataset.samples) == len(slices) == 199
    for place in (9, 10, 198):
        expected = prepare(source.image(dataset.samples[place]), PIXELS)
        np.testing.assert_array_equal(slices[np.array([place])][0], expected)


def test_a_refused_picture_is_refused_from_the_cache_too(folder: Path) -> None:
    (folder / "glioma" / "010.png").write_text("no picture")
    for _ in range(2):
        with pytest.raises(InputError, match=r"1 picture cannot be read:\n  glioma/010\.png"):
            decoded_slices(read(folder), PIXELS)


def test_an_unfinished_cache_is_never_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTKIT_CACHE", str(folder.parent / "cache"))
    dataset = read(folder)
    place = cache.cache_folder() / "slices" / cache.cache_key(dataset, PIXELS)

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rows, "_write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            decoded_slices(dataset, PIXELS)
    assert not place.exists()
    assert len(decoded_slices(dataset, PIXELS)[1]) == 200


SOURCE = """
from braintumor_kit.contracts import NoOptions, Sample, Source

class Odd(Source[NoOptions]):
    "Odd samples."
    api_version = 1
    Options = NoOptions
    classes = {classes}

    def samples(self):
        yield from [{samples}]

    def image(self, sample):
        raise NotImplementedError
"""


@pytest.mark.parametrize(
    ("classes", "samples", "message"),
    [
        ("('a', 'b')", "", "source 'odd' yields no samples"),
        ("('a',)", "Sample('1', 'a')", "has one class only (a); a classifier needs two"),
        ("('a', 'b')", "Sample('1', 'a'), Sample('1', 'b')", "yields id '1' more than once"),
        ("('a', 'b')", "Sample('1', 'c')", "sample '1' has label 'c', which is none of a, b"),
        (
            "('a', 'b')",
            "Sample('1', 'a', 'Training')",
            "has split 'Training', which is none of train, validation, test",
        ),
    ],
)
def test_sources_that_break_their_word(tmp_path: Path, classes: str, samples: str, message: str) -> None:
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "odd.py").write_text(SOURCE.format(classes=classes, samples=samples))
    with pytest.raises(InputError) as caught:
        read_dataset(load_source("odd", registry=Registry((tmp_path,))))
    assert message in str(caught.value)


def test_a_plugin_from_a_folder_decodes_in_other_processes(tmp_path: Path) -> None:
    (tmp_path / "sources").mkdir()
    text = SOURCE.format(classes="('a', 'b')", samples="Sample(str(n), 'ab'[n % 2]) for n in range(150)")
    text = text.replace("raise NotImplementedError", "return __import__('numpy').full((8, 8), int(sample.id), 'uint8')")
    (tmp_path / "sources" / "odd.py").write_text(text)
    dataset = read_dataset(load_source("odd", registry=Registry((tmp_path,))))
    slices = decoded_slices(dataset, PIXELS)[1]
    assert slices[np.arange(150)][:, 0, 0, 0].tolist() == list(range(150))


def test_info_counts_the_data_set(folder: Path, btkit: Callable) -> None:
    (folder / "glioma" / ".DS_Store").write_text("junk")
    ended = btkit("data", "info", "--source", "image_folder", "--set", f"source.root={folder}", "--json")
    info = json.loads(ended.out)
    assert (info["slices"], info["classes"], info["groups"]) == (200, 2, 0)
    assert info["splits"] == {"undivided": {"glioma": 100, "notumor": 100}}
    assert info["sizes"] == {"48 x 40": 200}
    assert info["modes"] == {"8-bit grey": 200}
    assert sum(info["notes"].values()) == 1
    table = btkit("data", "info", "--source", "image_folder", "--set", f"source.root={folder}").out
    assert "48 x 40" in table


@pytest.mark.data
def test_info_of_the_real_data(real_data: Path, btkit: Callable) -> None:
    began = time.monotonic()
    root = real_data / "nickparvar"
    info = json.loads(btkit("data", "info", "reference_protocol", "--set", f"source.root={root}", "--json").out)
    assert info["splits"]["train"] == {"glioma": 1321, "meningioma": 1339, "notumor": 1591, "pituitary": 1457}
    assert info["splits"]["test"] == {"glioma": 300, "meningioma": 306, "notumor": 405, "pituitary": 300}
    assert time.monotonic() - began < 120


CHANNELS = """
import numpy as np
from pydantic import Field
from braintumor_kit.contracts import PluginOptions, Sample, Source

class Options(PluginOptions):
    channel: int = Field(0, description="Which channel to read.")

class Stack(Source[Options]):
    "Pictures of several channels, fingerprinted by their file as the contract advises."
    api_version = 1
    Options = Options
    classes = ("a", "b")

    def samples(self):
        yield from (Sample(str(n), "ab"[n % 2]) for n in range(4))

    def image(self, sample):
        return np.full((8, 8), 100 * self.options.channel + int(sample.id), np.uint8)

    def fingerprint(self, sample):
        return b"the same file"
"""


def test_a_plugins_options_are_part_of_digest_and_cache(tmp_path: Path) -> None:
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "stack.py").write_text(CHANNELS)
    registry = Registry((tmp_path,))
    first, second = (read_dataset(load_source("stack", [f"source.channel={n}"], registry)) for n in (0, 1))
    assert first.digest != second.digest
    for dataset, value in ((first, 0), (second, 100)):
        assert decoded_slices(dataset, PIXELS)[1][np.arange(4)][:, 0, 0, 0].tolist() == [value + n for n in range(4)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "yield from (Sample(str(n), 'ab'[n % 2]) for n in {}['x'])",
            "while listing its samples: KeyError: 'x'",
        ),
        ("raise OSError('no scanner')", "failed while listing its samples: OSError: no scanner"),
    ],
)
def test_a_plugins_own_fault_is_told_as_its_own(tmp_path: Path, line: str, message: str, btkit: Callable) -> None:
    (tmp_path / "sources").mkdir()
    text = SOURCE.format(classes="('a', 'b')", samples="").replace("yield from []", line)
    (tmp_path / "sources" / "odd.py").write_text(text)
    ended = btkit("data", "info", "--source", "odd", "--plugins", tmp_path)
    assert ended.status == 2
    assert message in ended.err
    assert "odd.py" in ended.err


def test_what_cannot_be_listed_counts_as_unreadable(tmp_path: Path) -> None:
    (tmp_path / "sources").mkdir()
    text = SOURCE.format(classes="('a', 'b')", samples="Sample('1', 'a'), Sample('2', 'b')")
    text = text.replace("raise NotImplementedError", "return __import__('numpy').zeros((4, 4), 'uint8')")
    text += "\n    def unreadable(self):\n        return {'3': 'has no label'}\n"
    (tmp_path / "sources" / "odd.py").write_text(text)
    plugin = load_source("odd", registry=Registry((tmp_path,)))
    with pytest.raises(InputError, match="1 picture cannot be read:\n  3: has no label"):
        read_dataset(plugin)
    dataset = read_dataset(plugin, "skip")
    assert [bad.id for bad in dataset.bad] == ["3"]
    assert len(dataset.samples) == 2


def test_fetch_shows_progress_and_names_the_folder(
    tmp_path: Path, btkit: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    from braintumor_kit.data import fetch

    def download(name: str, to: Path, progress: Callable[[str, int, int], None]) -> Path:
        for done in (1, 2):
            progress("a.zip", done, 2)
        return to

    monkeypatch.setattr(fetch, "fetch", download)
    ended = btkit("data", "fetch", "figshare", "--to", tmp_path)
    assert ended.status == 0
    assert ended.out.strip() == str(tmp_path)
    assert "CC BY 4.0" in ended.err


def test_a_plugin_that_fails_on_a_picture_is_blamed_by_info_too(tmp_path: Path, btkit: Callable) -> None:
    (tmp_path / "sources").mkdir()
    text = SOURCE.format(classes="('a', 'b')", samples="Sample('1', 'a'), Sample('2', 'b')")
    text = text.replace("raise NotImplementedError", "return {}['x']")
    text += "\n    def fingerprint(self, sample):\n        return b''\n"
    (tmp_path / "sources" / "odd.py").write_text(text)
    ended = btkit("data", "info", "--source", "odd", "--plugins", tmp_path)
    assert ended.status == 2
    assert "failed while reading '1': KeyError: 'x'" in ended.err
