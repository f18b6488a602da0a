"""What an archive holds, listed once in a Parquet file whose row groups are the shards that work is divided into.

Nothing here holds all names at once: folders, object stores and manifests are gone through as they come.
"""

import hashlib
import importlib.util
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from braintumor_kit.contracts.folders import is_utf8
from braintumor_kit.contracts.pictures import PICTURE_SUFFIXES, has_suffix, is_junk, printable
from braintumor_kit.errors import InputError
from braintumor_kit.files import whole

SHARD = 512
"""Pictures of a shard: a part of the answer each, and what is lost at most with a process."""

MANIFEST = ".parquet"
ROWS_AT_ONCE = 65_536


class Entry(NamedTuple):
    """One picture.

    Attributes:
        id: what it is called in the answer, once in an archive.
        place: a path, or an address that fsspec knows, such as s3://bucket/scan.png.
    """

    id: str
    place: str


@dataclass(frozen=True)
class Listed:
    """A listing.

    Attributes:
        count: of pictures.
        digest: SHA-256 of ids and places in order.
    """

    count: int
    digest: str


def require_parquet() -> None:
    """Finds early that pyarrow is missing.

    Raises:
        InputError: with the command that installs it.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise InputError("--out needs the package pyarrow: pip install 'braintumor-kit[archive]'.")


def is_address(argument: str) -> bool:
    """Whether an argument names a place that is no path, such as s3://bucket/folder."""
    return "://" in argument


def write_listing(path: Path, arguments: Sequence[str]) -> Listed:
    """Lists what the arguments name, each picture once.

    Args:
        arguments: pictures, folders of them, Parquet manifests with a column `path` and, where ids are another,
            `id`; as paths or as addresses.

    Raises:
        InputError: where one of them does not exist, holds no picture, or an id stands for two pictures.
    """
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema([("id", pa.string()), ("place", pa.string())])
    digest, count, seen = hashlib.sha256(), 0, dict[bytes, bytes]()
    rows: list[Entry] = []
    with whole(path) as beside, parquet.ParquetWriter(beside, schema) as writer:

        def put() -> None:
            writer.write_table(pa.table({"id": [row.id for row in rows], "place": [row.place for row in rows]}, schema))
            rows.clear()

        for entry in _entries(arguments):
            name, place = _key(entry.id), _key(entry.place)
            if seen.setdefault(name, place) != place:
                raise InputError(f"id '{printable(entry.id)}' stands for two pictures, the second {entry.place}.")
            if len(seen) == count:
                continue  # named before
            count += 1
            digest.update(f"{entry.id}\0{entry.place}\n".encode())
            rows.append(entry)
            if len(rows) == SHARD:
                put()
        if rows:
            put()
    return Listed(count, digest.hexdigest())


def read_shard(path: Path, number: int) -> list[Entry]:
    """The pictures of one shard of a listing."""
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        table = file.read_row_group(number)
    return [Entry(*row) for row in zip(table["id"].to_pylist(), table["place"].to_pylist(), strict=True)]


def _key(text: str) -> bytes:
    """Sixteen bytes in the place of a text: millions of them have to fit into memory."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _entries(arguments: Sequence[str]) -> Iterator[Entry]:
    for argument in arguments:
        found = False
        for entry in _stored(argument) if is_address(argument) else _local(argument):
            found = True
            yield entry
        if not found:
            kinds = ", ".join(sorted(PICTURE_SUFFIXES))
            raise InputError(f"'{argument}' holds no picture ({kinds}); --out takes pictures and no volumes.")


def _local(argument: str) -> Iterator[Entry]:
    path = Path(argument)
    if path.is_dir():
        for below in sorted(path.rglob("*")):
            inside = below.relative_to(path).parts
            if has_suffix(below.name, PICTURE_SUFFIXES) and not any(map(is_junk, inside)) and below.is_file():
                yield _entry(str(below))
    elif path.suffix == MANIFEST and path.is_file():
        with path.open("rb") as file:
            yield from _manifest(file, argument, str(path.parent))
    elif path.is_file():
        yield _entry(argument)
    else:
        raise InputError(f"'{argument}' does not exist; name pictures, folders of them, or Parquet manifests.")


def _entry(path: str) -> Entry:
    if not is_utf8(path):
        raise InputError(f"the name of {printable(path)} is not UTF-8, which no table could hold: rename it.")
    return Entry(path, path)


def _stored(argument: str) -> Iterator[Entry]:
    system, root = file_system(argument)
    try:
        if argument.endswith(MANIFEST):
            with system.open(root, "rb") as file:
                yield from _manifest(file, argument, argument.rpartition("/")[0])
            return
        names = [root] if system.isfile(root) else sorted(system.find(root))
    except (OSError, ValueError) as error:
        raise InputError(f"'{argument}' cannot be read: {error or type(error).__name__}.") from error
    for name in names:
        parts = name.removeprefix(root).split("/")
        if has_suffix(parts[-1] or name, PICTURE_SUFFIXES) and not any(map(is_junk, parts)):
            place = system.unstrip_protocol(name)
            yield Entry(place, place)


_opening = threading.Lock()
_systems: dict[str, Any] = {}


def file_system(address: str) -> tuple[Any, str]:
    """The file system of an address, and the name there. A process opens each once, for all of its threads: by itself
    fsspec would open one a thread, all at the same time.

    Raises:
        InputError: where fsspec knows no such system, or a package for it is missing.
    """
    import fsspec

    scheme, _, rest = address.partition("://")
    root = f"{scheme}://{rest.partition('/')[0]}"
    try:
        with _opening:
            if root not in _systems:
                _systems[root] = fsspec.core.url_to_fs(address)[0]
        return _systems[root], fsspec.core.strip_protocol(address)
    except (ImportError, ValueError) as error:  # which says what to install
        raise InputError(f"'{address}' cannot be opened: {error}.") from error


def _manifest(file: Any, name: str, folder: str) -> Iterator[Entry]:
    """The pictures of a manifest; paths in it are relative to its folder."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file) as table:
            columns = set(table.schema_arrow.names)
            if "path" not in columns:
                raise InputError(f"{name} has no column 'path'; its columns are {', '.join(sorted(columns))}.")
            wanted = ["id", "path"] if "id" in columns else ["path"]
            for batch in table.iter_batches(ROWS_AT_ONCE, columns=wanted):
                paths = batch.column("path").cast(pa.string()).to_pylist()
                ids = batch.column("id").cast(pa.string()).to_pylist() if "id" in columns else paths
                for id, path in zip(ids, paths, strict=True):
                    if not id or not path:
                        raise InputError(f"{name} has a row without {'path' if id else 'id'}.")
                    place = path if is_address(path) or path.startswith("/") else f"{folder}/{path}" if folder else path
                    yield Entry(id, place)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{name} is no Parquet manifest: {str(error).splitlines()[0]}.") from error
