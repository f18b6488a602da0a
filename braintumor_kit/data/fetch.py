"""Obtains the public data sets: the two of Kaggle through kagglehub, figshare's from its publisher."""

import json
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import kagglehub
import kagglehub.exceptions

from braintumor_kit.contracts.folders import Folder, list_folder
from braintumor_kit.contracts.pictures import printable
from braintumor_kit.data.download import Progress, RemoteFile, UnreachableError, check_connection, download
from braintumor_kit.errors import InputError, WorkError

RECORD = "dataset.json"
"""Written into the folder last: which data set and version it holds, and under which licence."""

# What kagglehub raises, connection failures (OSError, from requests) included.
_KAGGLE_ERRORS = (
    OSError,
    ValueError,
    RuntimeError,
    zipfile.BadZipFile,
    kagglehub.exceptions.BackendError,
    kagglehub.exceptions.CredentialError,
    kagglehub.exceptions.DataCorruptionError,
    kagglehub.exceptions.NotFoundError,
    kagglehub.exceptions.UnauthenticatedError,
    kagglehub.exceptions.KaggleEnvironmentError,
    kagglehub.exceptions.ColabEnvironmentError,
)


@dataclass(frozen=True)
class DataSet:
    """A public data set.

    Attributes:
        name: what `btkit data fetch` calls it.
        title: what its publisher calls it.
        licence: as its publisher states it.
        page: its public page, where it can be downloaded by hand.
        images: how many slices it has.
        source: the source plugin that reads it.
        kaggle: its handle at Kaggle, with the version where one is wanted; "" if it is not from there.
        files: the publisher's files, if not from Kaggle.
    """

    name: str
    title: str
    licence: str
    page: str
    images: int
    source: str
    kaggle: str = ""
    files: tuple[RemoteFile, ...] = ()


def _cheng_zip(slices: str, number: int, size: int, md5: str) -> RemoteFile:
    url = f"https://ndownloader.figshare.com/files/{number}"
    return RemoteFile(f"brainTumorDataPublic_{slices}.zip", url, size, md5)


DATA_SETS = {
    data_set.name: data_set
    for data_set in (
        DataSet(
            name="nickparvar",
            title="Brain Tumor MRI Dataset (Nickparvar), version 1",
            licence="CC0",
            page="https://www.kaggle.com/datasets/masoudnickparvar/brain-tumor-mri-dataset",
            images=5712 + 1311,
            source="image_folder",
            kaggle="masoudnickparvar/brain-tumor-mri-dataset/versions/1",
        ),
        DataSet(
            name="sartaj",
            title="Brain Tumor Classification (MRI) (SARTAJ)",
            licence="MIT",
            page="https://www.kaggle.com/datasets/sartajbhuvaji/brain-tumor-classification-mri",
            images=2870 + 394,
            source="image_folder",
            kaggle="sartajbhuvaji/brain-tumor-classification-mri",
        ),
        DataSet(
            name="figshare",
            title="brain tumor dataset (Cheng)",
            licence="CC BY 4.0",
            page="https://doi.org/10.6084/m9.figshare.1512427",
            images=3064,
            source="figshare",
            files=(
                _cheng_zip("1-766", 3381290, 214_401_279, "74b949ad33f042e6e103523091cd1428"),
                _cheng_zip("767-1532", 3381296, 217_848_429, "7e8a875500d2c8a346f270538e29890e"),
                _cheng_zip("1533-2298", 3381293, 215_563_856, "8227bf6080cb71f15a88be8d25c79ae7"),
                _cheng_zip("2299-3064", 3381302, 231_679_762, "b378a80d6174e5317d59eb28430c6652"),
            ),
        ),
    )
}


def fetch(name: str, to: Path, progress: Progress | None = None) -> Path:
    """Obtains a data set, or finishes an interrupted attempt; does nothing where it is there already.

    Args:
        name: one of `DATA_SETS`.
        to: the folder that shall hold it: missing, empty, or that of an earlier attempt.
        progress: told about every megabyte of the publisher's files; kagglehub shows its own progress.

    Returns:
        The folder, which is what the data set's source takes as its root.

    Raises:
        InputError: where there is no such data set, `to` holds something else, or there is no network; the
            message then says where to get the data set by hand.
        WorkError: where the download is cut off or damaged.
    """
    if name not in DATA_SETS:
        raise InputError(f"there is no data set {name!r} to fetch: choose from {', '.join(DATA_SETS)}")
    data_set = DATA_SETS[name]
    if _recorded(to) == name:
        return to
    try:
        _refuse_foreign(data_set, to)
        if data_set.kaggle:
            _fetch_from_kaggle(data_set, to)
        else:
            _fetch_files(data_set, to, progress)
    except UnreachableError as error:
        raise InputError(
            f"{data_set.title} cannot be fetched, {error}: "
            f"download it by hand from {data_set.page} and unpack it to {printable(to)}"
        ) from error
    except OSError as error:
        raise WorkError(f"{printable(to)} cannot be used: {error.strerror or error}") from error
    return to


# What the folder holds


def _recorded(to: Path) -> str | None:
    """The data set that a finished fetch left in the folder."""
    try:
        record = json.loads((to / RECORD).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return record.get("name") if isinstance(record, dict) else None


def _refuse_foreign(data_set: DataSet, to: Path) -> None:
    """Refuses a folder that holds anything but the beginnings of this set: nothing may be overwritten."""
    if to.exists() and not to.is_dir():
        raise InputError(f"{printable(to)} is a file where a folder was expected")
    own = {name for file in data_set.files for name in (file.name, f"{file.name}.part")}
    names = sorted(entry.name for entry in to.iterdir()) if to.exists() else []
    if names and not own.intersection(names):
        raise InputError(
            f"{printable(to)} is not empty ({', '.join(map(printable, names[:3]))}) and has no {RECORD} "
            f"of {data_set.name}: name an empty folder"
        )


def _write_record(data_set: DataSet, folder: Path, version: str, images: int) -> None:
    record = {
        "name": data_set.name,
        "title": data_set.title,
        "version": version,
        "licence": data_set.licence,
        "page": data_set.page,
        "images": images,
        "source": data_set.source,
    }
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", "utf-8")


# From the publisher


def _fetch_files(data_set: DataSet, to: Path, progress: Progress | None) -> None:
    if any(not (to / file.name).exists() for file in data_set.files):
        check_connection(data_set.files[0].url)
    to.mkdir(parents=True, exist_ok=True)
    for file in data_set.files:
        download(file, to, progress)
    version = ", ".join(f"{file.name} MD5 {file.md5}" for file in data_set.files)
    _write_record(data_set, to, version, data_set.images)


# From Kaggle


def _fetch_from_kaggle(data_set: DataSet, to: Path) -> None:
    """kagglehub downloads to its cache, where it can resume; the folder gets a copy, whole and at once."""
    cached = _kaggle_download(data_set)
    images = _count_pictures(list_folder(cached))
    if images != data_set.images:
        raise WorkError(
            f"what Kaggle gave as {data_set.kaggle} has {images:,} pictures, expected {data_set.images:,}: "
            f"look at {cached}, or remove it to download again"
        )
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{to.name}-", dir=to.parent) as staging:
        copy = Path(staging) / to.name
        shutil.copytree(cached, copy)
        _write_record(data_set, copy, _kaggle_version(cached), images)
        if to.exists():
            to.rmdir()  # empty, as _refuse_foreign made sure
        copy.rename(to)


def _kaggle_download(data_set: DataSet) -> Path:
    try:
        return Path(kagglehub.dataset_download(data_set.kaggle))
    except _KAGGLE_ERRORS as error:
        raise UnreachableError(_kaggle_reason(error)) from error


def _kaggle_reason(error: Exception) -> str:
    if isinstance(error, OSError) and getattr(error, "response", None) is None:
        return "there is no connection to Kaggle"
    first_line = str(error).partition("\n")[0]
    return f"Kaggle refuses ({first_line[:200] or type(error).__name__})"


def _kaggle_version(cached: Path) -> str:
    """kagglehub's folder for a data set ends in versions/N."""
    return cached.name if cached.parent.name == "versions" else "unknown"


def _count_pictures(folder: Folder) -> int:
    return len(folder.files) + sum(_count_pictures(folder.subfolder(name)) for name in folder.folders)
