"""The figshare brain tumour set (Cheng 2017, doi 10.6084/m9.figshare.1512427), published or as pictures."""

import csv
import hashlib
import io
import re
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from braintumor_kit.contracts import ImageError, InputError
from braintumor_kit.contracts.classes import canonical_class
from braintumor_kit.contracts.folders import Folder, list_folder
from braintumor_kit.contracts.matlab import MatFile, open_mat
from braintumor_kit.contracts.options import PluginOptions
from braintumor_kit.contracts.pictures import opened, printable, read_picture
from braintumor_kit.contracts.sources import Sample, Source

CLASSES = ("glioma", "meningioma", "pituitary")
LABELS = {1: "meningioma", 2: "glioma", 3: "pituitary"}
"""What `cjdata.label` means."""

MAX_VALUES = 2**24
"""Pixels of one slice; the set's have 512 x 512."""

MAX_FILE_BYTES = 2**27
"""Of one picture or .mat file; the set's have less than 1 MB."""

MAX_INDEX_BYTES = 2**26
"""Of index.csv; a million slices have half of that."""

MAX_COLUMNS = 1000
"""Of index.csv; four are read."""

MAX_MEMBERS = 4_000
"""Of one zip: the set has 3,064 slices in all. A zip's list is read anew for each of its members."""

MAX_EXPANSION = 200
"""Bytes that a zip unpacks to, for each of its own; the set's zips hardly shrink."""

# What zipfile raises on members that are damaged, encrypted or packed by an unknown method.
_UNPACKING_ERRORS = (OSError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


class FigshareOptions(PluginOptions):
    root: Path = Field(description="Folder with the .mat files, their zips, or index.csv, images/ and masks/.")


class Figshare(Source[FigshareOptions]):
    """The figshare brain tumour set (Cheng): N.mat files, loose or zipped, or pictures with an index.csv.

    Class, tumour mask and patient are known; there is no split. A sample's id is its number. Its group is the
    patient's id with a trailing letter dropped, as such ids may be repeat scans of one patient.
    """

    api_version = 1
    Options = FigshareOptions
    classes = CLASSES

    @classmethod
    def example(cls, folder: Path, variant: int = 0) -> FigshareOptions:
        """Three pictures with an index.csv, of two patients; two with masks."""
        for name in ("images", "masks"):
            (folder / name).mkdir()
        rows = ["id,label,pid"]
        for number, label in enumerate(CLASSES, start=1):
            rows.append(f"{number},{label},{'MR1' if number < 3 else 'MR2'}")
            Image.new("L", (32, 24), 50 * number + variant).save(folder / "images" / f"{number}.png")
            if number < 3:
                Image.new("1", (32, 24), 1).save(folder / "masks" / f"{number}.png")
        (folder / "index.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        return FigshareOptions(root=folder)

    @cached_property
    def _slices(self) -> "_Slices":
        root = self.options.root
        folder = list_folder(root, {".csv"})
        return _Pictures(root) if "index.csv" in folder.files else _MatFiles(root)

    def samples(self) -> Iterator[Sample]:
        yield from self._slices.listing

    def image(self, sample: Sample) -> NDArray[Any]:
        return self._slices.image(sample.id)

    def mask(self, sample: Sample) -> NDArray[np.bool_] | None:
        return self._slices.mask(sample.id) if sample.has_mask else None

    def fingerprint(self, sample: Sample) -> bytes:
        """SHA-256 of the bytes of the sample's files."""
        digest = hashlib.sha256()
        for content in self._slices.contents(sample.id):
            digest.update(f"{len(content)}:".encode())
            digest.update(content)
        return digest.digest()

    def unreadable(self) -> Mapping[str, str]:
        _ = self._slices.listing  # finds them as it lists
        return self._slices.damaged

    def notes(self) -> Mapping[str, int]:
        _ = self._slices.listing  # counts as it lists
        return self._slices.ignored


def group_of(pid: str) -> str | None:
    """The patient's id without a trailing letter: `MR048294B` and `MR048294` may be one patient."""
    return re.sub(r"(?<=\d)[A-Za-z]$", "", pid.strip()) or None


class _Slices(ABC):
    """One form that the set comes in."""

    ignored: Counter[str]
    damaged: Mapping[str, str] = MappingProxyType({})

    @cached_property
    @abstractmethod
    def listing(self) -> tuple[Sample, ...]: ...

    @abstractmethod
    def image(self, number: str) -> NDArray[Any]: ...

    @abstractmethod
    def mask(self, number: str) -> NDArray[np.bool_] | None: ...

    @abstractmethod
    def contents(self, number: str) -> Iterator[bytes]:
        """The bytes of all files that make up the slice."""


def _in_order(samples: list[Sample]) -> tuple[Sample, ...]:
    """By number; ids that are no numbers come after."""
    return tuple(sorted(samples, key=lambda s: (not s.id.isdecimal(), s.id.zfill(12))))


# Pictures and index.csv


class _Pictures(_Slices):
    """index.csv (id, label, and optionally pid and group), images/<id>.webp and the like, masks/<id>.png."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._index = root / "index.csv"
        images = list_folder(root / "images")
        masks = list_folder(root / "masks") if (root / "masks").is_dir() else Folder(root / "masks", (), ())
        self._images = _by_stem(images)
        self._masks = _by_stem(masks)
        self.ignored = images.ignored + masks.ignored

    @cached_property
    def listing(self) -> tuple[Sample, ...]:
        samples: dict[str, Sample] = {}
        for line, row in _rows(self._index, needed=("id", "label")):
            sample = self._sample(row, f"{printable(self._index)}, line {line}")
            if sample.id in samples:
                raise InputError(f"{printable(self._index)}, line {line}: the id {sample.id} stands there twice")
            samples[sample.id] = sample
        if not samples:
            raise InputError(f"{printable(self._index)} lists no slices")
        if unlisted := len(self._images.keys() - samples.keys()):
            self.ignored["pictures that index.csv does not list ignored"] = unlisted
        return _in_order(list(samples.values()))

    def _sample(self, row: dict[str, str], place: str) -> Sample:
        number, label = row["id"].strip(), canonical_class(row["label"])
        if len(number) > 200 or not re.fullmatch(r"[\w-][\w. -]*", number):
            raise InputError(f"{place}: the id {number[:80]!r} cannot be a file's name")
        if label not in CLASSES:
            raise InputError(f"{place}: the label {row['label'][:80]!r} is none of {', '.join(CLASSES)}")
        group = row.get("group", "").strip() or group_of(row.get("pid", ""))
        return Sample(number, label, group=group, has_mask=number in self._masks)

    def image(self, number: str) -> NDArray[Any]:
        return read_picture(self._image_path(number))

    def mask(self, number: str) -> NDArray[np.bool_] | None:
        if number not in self._masks:
            return None
        pixels = read_picture(self._masks[number])
        return np.asarray(pixels if pixels.ndim == 2 else pixels.max(axis=2)) > 0

    def contents(self, number: str) -> Iterator[bytes]:
        yield _bytes(self._image_path(number))
        if number in self._masks:
            yield _bytes(self._masks[number])

    def _image_path(self, number: str) -> Path:
        if number not in self._images:
            raise ImageError(f"{printable(self._root / 'images')} has no picture {number} (.webp, .png or .jpg)")
        return self._images[number]


def _by_stem(folder: Folder) -> dict[str, Path]:
    return {Path(name).stem: folder.path / name for name in folder.files}


def _rows(path: Path, needed: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV file, each with the number of the line that it ends on."""
    try:
        with opened(path) as whole, io.TextIOWrapper(whole, encoding="utf-8-sig", newline="") as file:
            if path.stat().st_size > MAX_INDEX_BYTES:
                raise InputError(f"{printable(path)} has more than {MAX_INDEX_BYTES:,} bytes: divide the data set")
            reader = csv.DictReader(file, restval="")
            if len(reader.fieldnames or ()) > MAX_COLUMNS:
                raise InputError(f"{printable(path)} has more than {MAX_COLUMNS:,} columns: keep those that are needed")
            missing = [name for name in needed if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(f"{printable(path)} has no column {', '.join(missing)} in its first line")
            for row in reader:
                yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{printable(path)} cannot be read: {error}") from error


def _bytes(path: Path) -> bytes:
    """The content of a picture or .mat file; the fingerprint wants all of it."""
    with opened(path) as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ImageError(f"{printable(path)} has more than {MAX_FILE_BYTES:,} bytes")
    return content


# The publisher's .mat files


@dataclass(frozen=True)
class _MatPlace:
    """Where a .mat file is: a path, or a member of a zip."""

    path: Path
    member: str | None = None

    @property
    def name(self) -> str:
        return printable(self.path if self.member is None else self.path / self.member)

    def read(self) -> bytes:
        return _bytes(self.path) if self.member is None else _member(self.path, self.member)


class _MatFiles(_Slices):
    """N.mat files (MATLAB v7.3) under the root, or in zips there; nothing is unpacked to disk."""

    def __init__(self, root: Path) -> None:
        self.ignored = Counter()
        self.damaged: dict[str, str] = {}
        self._places = _find_mats(root, self.ignored)
        if not self._places:
            raise InputError(
                f"{printable(root)} holds no index.csv, no N.mat files and no zips of them: "
                "`btkit data fetch figshare --to DIR` obtains them"
            )

    @cached_property
    def listing(self) -> tuple[Sample, ...]:
        return _in_order([sample for number in self._places if (sample := self._sample_or_note(number))])

    def _sample_or_note(self, number: str) -> Sample | None:
        """A damaged file has no label to list it by; it is noted and the others are still listed."""
        try:
            return self._sample(number)
        except ImageError as error:
            self.damaged[number] = str(error)
            return None

    def _sample(self, number: str) -> Sample:
        with self._open(number) as mat:
            code = mat.array("cjdata/label", max_values=1).ravel().tolist()
            if len(code) != 1 or code[0] not in LABELS:
                raise InputError(
                    f"{self._places[number].name}: cjdata/label is {code}, "
                    "expected 1 (meningioma), 2 (glioma) or 3 (pituitary)"
                )
            return Sample(number, LABELS[code[0]], group=group_of(mat.text("cjdata/PID")), has_mask=True)

    def image(self, number: str) -> NDArray[Any]:
        with self._open(number) as mat:
            return _unsigned(mat.array("cjdata/image", MAX_VALUES), self._places[number].name)

    def mask(self, number: str) -> NDArray[np.bool_] | None:
        with self._open(number) as mat:
            return mat.array("cjdata/tumorMask", MAX_VALUES) > 0

    def contents(self, number: str) -> Iterator[bytes]:
        yield self._places[number].read()

    def _open(self, number: str) -> AbstractContextManager[MatFile]:
        place = self._places[number]
        return open_mat(place.path if place.member is None else io.BytesIO(place.read()), place.name)


def _unsigned(pixels: NDArray[Any], name: str) -> NDArray[np.uint16]:
    """Whole numbers as uint16, shifted up where some are negative."""
    if pixels.ndim != 2 or pixels.size == 0 or pixels.dtype.kind not in "ui":
        raise ImageError(f"{name}: cjdata/image is {pixels.dtype} {pixels.shape}, expected whole numbers (H, W)")
    low, high = int(pixels.min()), int(pixels.max())
    shift = min(low, 0)
    if high - shift > 65535:
        raise ImageError(f"{name}: cjdata/image runs from {low} to {high}, more than 16 bits hold")
    return (pixels.astype(np.int64) - shift).astype(np.uint16)


def _find_mats(root: Path, ignored: Counter[str]) -> dict[str, _MatPlace]:
    """Number to place, for all N.mat below the root; a slice that is unpacked is not taken from its zip."""
    loose: dict[str, _MatPlace] = {}
    zips: list[Path] = []
    for folder in _walk(list_folder(root, {".mat", ".zip"}), depth=2):
        ignored.update(folder.ignored)
        for name in folder.files:
            if name.lower().endswith(".zip"):
                zips.append(folder.path / name)
            else:
                _add(loose, _MatPlace(folder.path / name), ignored)
    packed: dict[str, _MatPlace] = {}
    for path in zips:
        for member in _members(path):
            _add(packed, _MatPlace(path, member), ignored)
    if both := len(loose.keys() & packed.keys()):
        ignored["zipped files that are there unpacked too ignored"] += both
    return packed | loose


def _walk(folder: Folder, depth: int) -> Iterator[Folder]:
    yield folder
    for name in folder.folders if depth else ():
        yield from _walk(folder.subfolder(name, {".mat", ".zip"}), depth - 1)


def _add(places: dict[str, _MatPlace], place: _MatPlace, ignored: Counter[str]) -> None:
    stem = Path(place.member or place.path.name).stem
    if not (stem.isdecimal() and len(stem) < 20):
        ignored["files that are no slices ignored"] += 1  # cvind.mat, the authors' folds
        return
    number = str(int(stem))
    if number in places:
        raise InputError(f"two files hold slice {number}: {places[number].name} and {place.name}")
    places[number] = place


def _members(path: Path) -> list[str]:
    try:
        with opened(path) as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            most = MAX_EXPANSION * path.stat().st_size + MAX_FILE_BYTES
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise InputError(f"{printable(path)} is not a whole zip file: {error}") from error
    if len(members) > MAX_MEMBERS or sum(member.file_size for member in members) > most:
        raise InputError(
            f"{printable(path)} holds more than {MAX_MEMBERS:,} files, or unpacks to {MAX_EXPANSION} times its size"
        )
    return [member.filename for member in members if _is_mat_member(member.filename)]


def _is_mat_member(name: str) -> bool:
    return name.lower().endswith(".mat") and "__MACOSX" not in name and not Path(name).name.startswith(".")


def _member(path: Path, name: str) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(name) as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except _UNPACKING_ERRORS as error:
        raise ImageError(f"{printable(path / name)} cannot be unpacked: {error}") from error
    if len(content) > MAX_FILE_BYTES:
        raise ImageError(f"{printable(path / name)} unpacks to more than {MAX_FILE_BYTES:,} bytes")
    return content
