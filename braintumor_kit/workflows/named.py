"""The pictures that a user names on the command line: picture files, folders of them, DICOM series, NIfTI volumes."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.contracts import ImageError, InputError
from braintumor_kit.contracts.folders import is_utf8
from braintumor_kit.contracts.pictures import PICTURE_SUFFIXES, has_suffix, is_junk, printable, read_picture
from braintumor_kit.contracts.volumes.dicom import NO_PICTURE, DicomFile, is_dicom
from braintumor_kit.contracts.volumes.nifti import NiftiVolume, is_nifti
from braintumor_kit.contracts.volumes.series import COPY, find_series
from braintumor_kit.contracts.volumes.volume import Volume
from braintumor_kit.data.pixels import prepare
from braintumor_kit.recipe.tables import PixelsTable
from braintumor_kit.runs import is_run
from braintumor_kit.workflows.pictures import Item


@dataclass(frozen=True)
class Named:
    """One picture that is read when it is asked for.

    Attributes:
        name: as the user would name it.
        path: its file.
        volume: it is a slice of; None of a picture file.
        place: in the volume, from 0.
        fault: why it cannot be read, where that is known already.
    """

    name: str
    path: Path
    volume: Volume | None = None
    place: int = 0
    fault: str | None = None

    def read(self) -> NDArray[Any]:
        """The picture as it is stored.

        Raises:
            ImageError: where it cannot be read.
        """
        if self.fault is not None:
            raise ImageError(self.fault)
        return read_picture(self.path) if self.volume is None else self.volume.picture(self.place)


@dataclass(frozen=True)
class FilePictures:
    """Pictures that the user named.

    Attributes:
        named: which.
        pixels: how they are prepared.
    """

    named: Sequence[Named]
    pixels: PixelsTable

    @cached_property
    def items(self) -> Sequence[Item]:
        return [Item(one.name) for one in self.named]

    @cached_property
    def digest(self) -> str:
        try:
            seen = {one.path: os.stat(one.path) for one in self.named}
        except OSError as error:
            raise InputError(f"{printable(str(error.filename))} cannot be read: {error.strerror}.") from error
        files = (f"{path} {file.st_size} {file.st_mtime_ns}" for path, file in seen.items())
        names = (f"{one.name} {getattr(one.volume, 'plane', '')}" for one in self.named)
        return hashlib.sha256("\n".join([*names, *files]).encode(errors="surrogateescape")).hexdigest()

    def prepared(self, place: int) -> NDArray[np.uint8]:
        return prepare(self.original(place), self.pixels)

    def original(self, place: int) -> NDArray[Any]:
        return self.named[place].read()

    def mask(self, place: int, original: bool = False) -> None:
        return None


@dataclass(frozen=True)
class Files:
    """Files that the user means, not yet looked into.

    Attributes:
        paths: all of them.
        named: those that were named one by one.
    """

    paths: Sequence[Path]
    named: frozenset[Path]

    def pictures(self, plane: str = "axial") -> list[Named]:
        """Their pictures in the same order; the slices of a volume in their own, and a series where the first of its
        files stands. DICOM files named one by one are sorted into series, like those of a folder.

        Args:
            plane: that NIfTI volumes are cut in.

        Raises:
            InputError: where the extra [dicom] is missing.
        """
        return list(_opened(self.paths, self.named, plane))


def files_in(arguments: Sequence[str]) -> Files:
    """The files that the user means: those named, and all pictures and volumes below the folders named, in order of
    name.

    Raises:
        InputError: where an argument does not exist or a folder holds no picture.
    """
    found: list[Path] = []
    named = set()
    for argument in arguments:
        path = Path(argument)
        if is_run(argument):
            raise InputError(f"'{argument}' is a run; name it first, before the images.")
        if path.is_dir():
            inside = sorted(_below(path))
            if not inside:
                raise InputError(
                    f"folder '{argument}' holds no picture ({', '.join(sorted(PICTURE_SUFFIXES))}, DICOM or NIfTI)."
                )
            found += inside
        elif path.exists():
            found.append(path)
            named.add(path)
        else:
            raise InputError(f"'{argument}' does not exist; name images, folders of images, or a run before them.")
    odd = next((path for path in found if not is_utf8(str(path))), None)
    if odd is not None:
        raise InputError(f"the name of {printable(odd)} is not UTF-8, which no table could hold: rename it.")
    return Files(found, frozenset(named))


def _below(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        inside = path.relative_to(folder).parts
        if path.is_file() and not any(is_junk(part) for part in inside) and _is_meant(path):
            yield path


def _is_meant(path: Path) -> bool:
    return has_suffix(path.name, PICTURE_SUFFIXES) or is_nifti(path.name) or is_dicom(path)


def _opened(paths: Sequence[Path], named: Set[Path], plane: str) -> Iterator[Named]:
    # A file named for a picture is one, whatever it begins with.
    kept = [path for path in paths if path.is_file() and not has_suffix(path.name, PICTURE_SUFFIXES)]
    dicom = dict.fromkeys(path for path in kept if not is_nifti(path.name) and is_dicom(path))
    series = _by_first_file(list(dicom), named) if dicom else {}
    done: set[Path] = set()
    for path in paths:
        if path in done:  # a volume counts once, however often it is named
            continue
        if path in dicom:
            done.add(path)
            yield from series.get(path, ())
        elif is_nifti(path.name) and path.is_file():
            done.add(path)
            yield from _slices(NiftiVolume(str(path), path, plane), path)
        else:
            yield Named(str(path), path)


def _by_first_file(paths: Sequence[Path], named: Set[Path]) -> dict[Path, list[Named]]:
    """Under the first of its files, the slices of each series; and under its own path each file that is none.

    DICOM that holds no picture of a scan, such as reports and DICOMDIR, and copies are passed over where only their
    folder was named.
    """
    files = {str(path): path for path in paths}
    order = {path: place for place, path in enumerate(paths)}
    series, bad = find_series([DicomFile(name, path) for name, path in files.items()], "DICOM")
    found: dict[Path, list[Named]] = {}
    for one in series:
        slices = [Named(place.name, files[place.file.name], one, at) for at, place in enumerate(one.places)]
        found.setdefault(min((piece.path for piece in slices), key=order.__getitem__), []).extend(slices)
    for name, reason in bad.items():
        path = files[name]
        if path in named or not (NO_PICTURE in reason or COPY in reason):
            found.setdefault(path, []).append(Named(name, path, fault=reason))
    return found


def _slices(volume: Volume, path: Path) -> Iterator[Named]:
    try:
        yield from (Named(name, path, volume, place) for place, name in enumerate(volume.names))
    except ImageError as error:
        yield Named(volume.name, path, fault=str(error))


def volumes_among(named: Iterable[Named]) -> dict[str, list[int]]:
    """Of each volume of several slices, by name, the places that they have among the pictures, in their order."""
    found: dict[str, list[int]] = {}
    for place, one in enumerate(named):
        if one.volume is not None:
            found.setdefault(one.volume.name, []).append(place)
    return {name: places for name, places in found.items() if len(places) > 1}
