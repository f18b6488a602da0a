"""One published file over HTTP: goes on where an earlier attempt stopped, and checks what came."""

import hashlib
import http.client
import os
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import braintumor_kit
from braintumor_kit.errors import WorkError

CHUNK_BYTES = 2**20
ANSWER_SECONDS = 10.0

Progress = Callable[[str, int, int], None]
"""Called with a file's name, the bytes that have come and the bytes there are."""


class UnreachableError(Exception):
    """The server cannot be reached, or will not give the file; the message is the reason alone."""


@dataclass(frozen=True)
class RemoteFile:
    """A file that its publisher never changes.

    Attributes:
        name: what it is called, there and here.
        url: where it is.
        size: its length in bytes.
        md5: its MD5 as the publisher states it, in hexadecimal.
    """

    name: str
    url: str
    size: int
    md5: str


def download(file: RemoteFile, folder: Path, progress: Progress | None = None) -> Path:
    """Downloads a file into a folder, unless it is there already.

    What has come so far is kept as `<name>.part`, and the next call goes on from there. The file gets its own
    name once its MD5 is right.

    Raises:
        UnreachableError: where the server gives nothing.
        WorkError: where the download is cut off, or what came is not what was published.
    """
    target, part = folder / file.name, folder / f"{file.name}.part"
    if not target.exists():
        _append_rest(file, part, progress)
        _check(file, part)
        os.replace(part, target)
    elif target.stat().st_size != file.size or _md5(target) != file.md5:
        raise WorkError(f"{target} is not the file that was published: remove it and fetch again")
    return target


def check_connection(url: str, seconds: float = ANSWER_SECONDS) -> None:
    """Makes sure that a server, or the proxy before it, takes connections.

    A thread keeps the time: looking a name up can hang for longer than any socket's timeout.

    Raises:
        UnreachableError: where it does not within `seconds`.
    """
    address = _address(url)
    failures: list[OSError] = []

    def connect() -> None:
        try:
            socket.create_connection(address, timeout=seconds).close()
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive() or failures:
        reason = failures[0].strerror if failures else f"no answer within {seconds:g} s"
        raise UnreachableError(f"there is no connection to {address[0]} ({reason})")


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        parts = urlsplit(proxy if "//" in proxy else f"http://{proxy}")
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _append_rest(file: RemoteFile, part: Path, progress: Progress | None) -> None:
    have = part.stat().st_size if part.exists() else 0
    if have >= file.size:
        return
    with _open(file.url, have) as response, part.open("ab" if response.status == 206 else "wb") as out:
        _copy(file, response, out.write, out.tell(), progress)


def _open(url: str, start: int) -> http.client.HTTPResponse:
    headers = {"User-Agent": f"btkit/{braintumor_kit.__version__}"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = urllib.request.Request(url, headers=headers)
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=ANSWER_SECONDS)
    except urllib.error.HTTPError as error:
        raise UnreachableError(f"the publisher's server answers {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        host = urlsplit(url).hostname
        reason = getattr(error, "reason", error)
        raise UnreachableError(f"there is no connection to {host} ({reason})") from error
    return response


def _copy(
    file: RemoteFile,
    response: http.client.HTTPResponse,
    write: Callable[[bytes], int],
    have: int,
    progress: Progress | None,
) -> None:
    while (chunk := _read(file, response, have)) and have <= file.size:  # one chunk too many tells a wrong file
        write(chunk)
        have += len(chunk)
        if progress:
            progress(file.name, have, file.size)
    if have < file.size:
        raise _cut_off(file, have)


def _read(file: RemoteFile, response: http.client.HTTPResponse, have: int) -> bytes:
    try:
        return response.read(CHUNK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _cut_off(file, have) from error


def _cut_off(file: RemoteFile, have: int) -> WorkError:
    return WorkError(
        f"the download of {file.name} was cut off after {have:,} of {file.size:,} bytes; "
        "they are kept, and the same command goes on from there"
    )


def _check(file: RemoteFile, part: Path) -> None:
    size, md5 = part.stat().st_size, _md5(part)
    if size != file.size or md5 != file.md5:
        part.unlink()
        raise WorkError(
            f"what came as {file.name} is not what was published and was removed: "
            f"{size:,} bytes with MD5 {md5}, expected {file.size:,} with {file.md5}"
        )


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
