"""Fetching: figshare's files from a server on this machine, Kaggle's through a stand-in for kagglehub."""

import dataclasses
import hashlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from PIL import Image

from braintumor_kit.data import download, fetch
from braintumor_kit.data.download import RemoteFile
from braintumor_kit.errors import InputError, WorkError

CONTENT = bytes(range(256)) * 40
HALF = len(CONTENT) // 2


class Publisher(BaseHTTPRequestHandler):
    """Serves /whole, /cut (stops half-way unless asked for the rest) and /norange; anything else is 404."""

    requests: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        type(self).requests.append((self.path, wanted))
        if self.path not in ("/whole", "/cut", "/norange"):
            self.send_error(404)
            return
        start = int(wanted[6:-1]) if wanted and self.path != "/norange" else 0
        body = CONTENT[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:HALF] if self.path == "/cut" and not start else body)

    def log_message(self, *arguments: object) -> None:
        """Silent."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    Publisher.requests = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Publisher) as httpd:
        Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


def remote(url: str, md5: str | None = None) -> RemoteFile:
    return RemoteFile("part.zip", url, len(CONTENT), md5 or hashlib.md5(CONTENT).hexdigest())


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch) -> Callable[[RemoteFile], None]:
    """Makes a file of this machine's server all there is of figshare's set."""

    def publish(file: RemoteFile) -> None:
        small = dataclasses.replace(fetch.DATA_SETS["figshare"], files=(file,))
        monkeypatch.setitem(fetch.DATA_SETS, "figshare", small)

    return publish


Publish = Callable[[RemoteFile], None]


def test_publishers_files(server: str, publish: Publish, tmp_path: Path) -> None:
    publish(remote(f"{server}/whole"))
    seen: list[tuple[str, int, int]] = []
    folder = fetch.fetch("figshare", tmp_path / "new/set", lambda *step: seen.append(step))
    assert (folder / "part.zip").read_bytes() == CONTENT
    assert sorted(path.name for path in folder.iterdir()) == ["dataset.json", "part.zip"]
    assert seen[-1] == ("part.zip", len(CONTENT), len(CONTENT))
    record = json.loads((folder / "dataset.json").read_text())
    assert record["name"] == "figshare"
    assert record["licence"] == "CC BY 4.0"
    assert record["version"] == f"part.zip MD5 {hashlib.md5(CONTENT).hexdigest()}"


def test_fetched_set_is_not_fetched_again(server: str, publish: Publish, tmp_path: Path) -> None:
    publish(remote(f"{server}/whole"))
    fetch.fetch("figshare", tmp_path)
    fetch.fetch("figshare", tmp_path)
    assert len(Publisher.requests) == 1


def test_whole_files_are_kept_where_the_record_is_missing(server: str, publish: Publish, tmp_path: Path) -> None:
    publish(remote(f"{server}/whole"))
    (tmp_path / "part.zip").write_bytes(CONTENT)
    fetch.fetch("figshare", tmp_path)
    assert Publisher.requests == []
    assert (tmp_path / "dataset.json").exists()


def test_cut_off_download_goes_on(server: str, publish: Publish, tmp_path: Path) -> None:
    publish(remote(f"{server}/cut"))
    with pytest.raises(WorkError) as caught:
        fetch.fetch("figshare", tmp_path)
    assert str(caught.value) == (
        "the download of part.zip was cut off after 5,120 of 10,240 bytes; they are kept, "
        "and the same command goes on from there"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["part.zip.part"]
    fetch.fetch("figshare", tmp_path)
    assert (tmp_path / "part.zip").read_bytes() == CONTENT
    assert Publisher.requests == [("/cut", None), ("/cut", "bytes=5120-")]


def test_server_that_cannot_go_on_sends_all_again(server: str, publish: Publish, tmp_path: Path) -> None:
    publish(remote(f"{server}/norange"))
    (tmp_path / "part.zip.part").write_bytes(CONTENT[:100])
    fetch.fetch("figshare", tmp_path)
    assert (tmp_path / "part.zip").read_bytes() == CONTENT


def test_wrong_md5(server: str, publish: Publish, tmp_path: Path) -> None:
    publish(remote(f"{server}/whole", md5="0" * 32))
    with pytest.raises(WorkError) as caught:
        fetch.fetch("figshare", tmp_path)
    assert str(caught.value) == (
        "what came as part.zip is not what was published and was removed: 10,240 bytes with MD5 "
        f"{hashlib.md5(CONTENT).hexdigest()}, expected 10,240 with {'0' * 32}"
    )
    assert list(tmp_path.iterdir()) == []


def test_damaged_file_that_is_there(server: str, publish: Publish, tmp_path: Path) -> None:
    publish(remote(f"{server}/whole"))
    (tmp_path / "part.zip").write_bytes(b"other")
    with pytest.raises(WorkError, match=r"is not the file that was published: remove it and fetch again$"):
        fetch.fetch("figshare", tmp_path)


def test_publisher_refuses(server: str, publish: Publish, tmp_path: Path) -> None:
    publish(remote(f"{server}/gone"))
    with pytest.raises(InputError) as caught:
        fetch.fetch("figshare", tmp_path)
    assert str(caught.value) == (
        "brain tumor dataset (Cheng) cannot be fetched, the publisher's server answers 404 Not Found: "
        f"download it by hand from https://doi.org/10.6084/m9.figshare.1512427 and unpack it to {tmp_path}"
    )


def test_no_network(publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: refuses connections
        publish(remote(f"http://127.0.0.1:{unused.getsockname()[1]}/whole"))
        with pytest.raises(InputError) as caught:
            fetch.fetch("figshare", tmp_path / "set")
    assert str(caught.value) == (
        "brain tumor dataset (Cheng) cannot be fetched, "
        "there is no connection to 127.0.0.1 (Connection refused)"
        ": download it by hand from https://doi.org/10.6084/m9.figshare.1512427 "
        f"and unpack it to {tmp_path / 'set'}"
    )
    assert not (tmp_path / "set").exists()


def test_silent_network_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object, **__: object) -> None:
        time.sleep(5)
        raise OSError("nobody there")

    monkeypatch.setattr(download.socket, "create_connection", hang)
    begun = time.monotonic()
    with pytest.raises(download.UnreachableError, match=r"connection to 127\.0\.0\.1 \(no answer within 0\.1 s\)$"):
        download.check_connection("http://127.0.0.1/", seconds=0.1)
    assert time.monotonic() - begun < 3


def test_proxy_is_asked_instead(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("https_proxy", server)
    download.check_connection("https://nowhere.invalid/file")


# Folders


@pytest.mark.parametrize("name", ["figshare", "nickparvar"])
def test_folder_of_something_else(name: str, tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").touch()
    with pytest.raises(InputError) as caught:
        fetch.fetch(name, tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} is not empty (thesis.docx) and has no dataset.json of {name}: name an empty folder"
    )


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"is a file where a folder was expected$"):
        fetch.fetch("nickparvar", tmp_path / "file")


def test_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        fetch.fetch("brats", tmp_path)
    assert str(caught.value) == ("there is no data set 'brats' to fetch: choose from nickparvar, sartaj, figshare")


# Kaggle


@pytest.fixture
def kaggle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """kagglehub's cache with a data set of three pictures in it."""
    cached = tmp_path / "cache/versions/1"
    for name in ("Training/glioma/1.jpg", "Training/notumor/1.jpg", "Testing/glioma/1.jpg"):
        (cached / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(cached / name)
    handles = []

    def dataset_download(handle: str) -> str:
        handles.append(handle)
        assert handle == "masoudnickparvar/brain-tumor-mri-dataset/versions/1"
        return str(cached)

    monkeypatch.setattr(fetch.kagglehub, "dataset_download", dataset_download)
    small = dataclasses.replace(fetch.DATA_SETS["nickparvar"], images=3)
    monkeypatch.setitem(fetch.DATA_SETS, "nickparvar", small)
    return cached


@pytest.mark.parametrize("there", [False, True])
def test_kaggle_set_is_copied_whole(kaggle: Path, tmp_path: Path, there: bool) -> None:
    to = tmp_path / "data/set"
    if there:
        to.mkdir(parents=True)
    assert fetch.fetch("nickparvar", to) == to
    assert sorted(path.name for path in to.iterdir()) == ["Testing", "Training", "dataset.json"]
    assert [path.name for path in to.parent.iterdir()] == ["set"]
    record = json.loads((to / "dataset.json").read_text())
    assert (record["version"], record["images"], record["licence"]) == ("1", 3, "CC0")
    fetch.fetch("nickparvar", to)


def test_kaggle_set_with_other_counts(kaggle: Path, tmp_path: Path) -> None:
    (kaggle / "Testing/glioma/1.jpg").unlink()
    with pytest.raises(WorkError) as caught:
        fetch.fetch("nickparvar", tmp_path / "set")
    assert str(caught.value) == (
        "what Kaggle gave as masoudnickparvar/brain-tumor-mri-dataset/versions/1 has 2 pictures, expected 3: "
        f"look at {kaggle}, or remove it to download again"
    )
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionError("HTTPSConnectionPool(...)"), "there is no connection to Kaggle"),
        (fetch.kagglehub.exceptions.BackendError("busy\nlater"), "Kaggle refuses (busy)"),
        (fetch.kagglehub.exceptions.UnauthenticatedError(), "Kaggle refuses (User is not authenticated)"),
    ],
)
def test_kaggle_gives_nothing(error: Exception, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dataset_download(handle: str) -> str:
        raise error

    monkeypatch.setattr(fetch.kagglehub, "dataset_download", dataset_download)
    with pytest.raises(InputError) as caught:
        fetch.fetch("sartaj", tmp_path / "set")
    assert str(caught.value) == (
        f"Brain Tumor Classification (MRI) (SARTAJ) cannot be fetched, {reason}: download it by hand from "
        "https://www.kaggle.com/datasets/sartajbhuvaji/brain-tumor-classification-mri "
        f"and unpack it to {tmp_path / 'set'}"
    )


# The table


def test_table_of_data_sets() -> None:
    counts = {name: data_set.images for name, data_set in fetch.DATA_SETS.items()}
    assert counts == {"nickparvar": 7023, "sartaj": 3264, "figshare": 3064}
    assert all(bool(data_set.kaggle) != bool(data_set.files) for data_set in fetch.DATA_SETS.values())
    assert [file.name for file in fetch.DATA_SETS["figshare"].files] == [
        f"brainTumorDataPublic_{slices}.zip" for slices in ("1-766", "767-1532", "1533-2298", "2299-3064")
    ]
