"""`btkit predict --out`: Parquet parts that hold each picture once, from folders, manifests and object stores."""

import csv
import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_same_files import content, kill_when, workers

from braintumor_kit.archive import listing as listings
from braintumor_kit.archive import reading
from braintumor_kit.files import read_csv, read_json
from braintumor_kit.workflows import archive

parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is missing: pip install 'braintumor-kit[archive]'")
LOGS = frozenset({"log.txt", "log.jsonl"})


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seventy pictures, of which two cannot be read."""
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(1)
    for number in range(70):
        place = folder / f"scanner {number % 3}"
        place.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 256, (50, 40), np.uint8)).save(place / f"{number:03d}.png")
    (folder / "scanner 1" / "004.png").write_bytes(b"no picture")
    (folder / "scanner 2" / "065.png").write_bytes(b"")
    (folder / "scanner 2" / "notes.txt").write_text("no picture either")
    return folder


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listings, "SHARD", 16)
    monkeypatch.setattr(archive, "SHARD", 16)


def table(folder: Path, kind: str = "predictions") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for path in sorted((folder / kind).glob("*.parquet")):
        rows += parquet.read_table(path).to_pylist()
    return rows


@pytest.mark.usefixtures("small_shards")
def test_the_parts_hold_what_predict_prints(
    finished: Path, pictures: Path, tmp_path: Path, btkit: Callable[..., Any]
) -> None:
    out = tmp_path / "out"
    ended = btkit("predict", finished, pictures, "--out", out)
    assert ended.status == 2
    assert "2 of 70 cannot be read" in ended.err
    assert "004.png is not a picture" in ended.err
    assert "not a medical device" in ended.err
    printed = list(csv.DictReader(io.StringIO(btkit("predict", finished, pictures, "--csv").out)))
    rows = table(out)
    assert [row["id"] for row in rows] == [row["path"] for row in printed]
    assert len(list((out / "predictions").iterdir())) == 5
    for row, line in zip(rows, printed, strict=True):
        assert row["predicted"] == line["predicted"]
        for name in (name for name in line if name.startswith(("p_", "c_"))):
            assert row[name] == pytest.approx(float(line[name]), abs=1e-6)
        assert str(row["abstain"]) == line["abstain"]
    failed = table(out, "failed")
    assert [Path(row["id"]).name for row in failed] == ["004.png", "065.png"]
    assert failed[1]["reason"].endswith("065.png is empty")
    settings = read_json(out / "predict.json")
    assert (settings["status"], settings["pictures"], settings["failed"]) == ("finished", 70, 2)
    assert "not a medical device" in settings["notice"]


@pytest.mark.usefixtures("small_shards")
def test_maps_are_those_of_explain(finished: Path, pictures: Path, tmp_path: Path, btkit: Callable[..., Any]) -> None:
    """A row a map, of each picture that can be read, method and target; in parts of the same numbers."""
    out, asked = tmp_path / "out", ("--method", "gradcam,integrated_gradients", "--target", "all")
    options = ("--set", "integrated_gradients.steps=4")
    assert btkit("predict", finished, pictures, "--out", out, *asked, *options).status == 2  # two cannot be read
    assert [path.name for path in sorted((out / "maps").iterdir())] == [
        path.name for path in sorted((out / "predictions").iterdir())
    ]
    rows = table(out, "maps")
    classes = read_json(out / "predict.json")["classes"]
    keys = {(row["id"], row["method"], row["target"]) for row in rows}
    assert len(rows) == len(keys) == 68 * 2 * len(classes)
    assert {row["id"] for row in rows} == {row["id"] for row in table(out)}
    explained = tmp_path / "explained"
    btkit("explain", finished, pictures, "--out", explained, *asked, *options, "--style", "none")
    listed = {(row["id"], row["method"], row["target"]): row for row in read_csv(explained / "explanations.csv")}
    held = parquet.read_table(next((out / "maps").iterdir())).schema.metadata
    shape = int(held[b"btkit.height"]), int(held[b"btkit.width"])
    for row in rows[:: len(classes) * 5 + 1]:
        other = listed[row["id"], row["method"], row["target"]]
        expected = np.load(explained / other["map"])
        found = np.array(row["map"], np.float32).reshape(shape)
        np.testing.assert_allclose(found, expected, rtol=0.05, atol=0.02 * float(np.abs(expected).max()))
        assert (row["layer"] or "", row["flags"]) == (other["layer"], other["flags"])
    ended = btkit("predict", finished, pictures, "--out", out)
    assert ended.status == 2
    assert "made otherwise (methods, target, maps_precision)" in ended.err


@pytest.mark.usefixtures("small_shards")
def test_what_is_answered_is_not_asked_again(
    finished: Path, pictures: Path, tmp_path: Path, btkit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    btkit("predict", finished, pictures, "--out", out)
    whole = content(out, LOGS)
    for number in (1, 3):
        archive.part(out, "predictions", number).unlink()
    asked: list[int] = []
    answer = archive._answer_shard

    def spy(place: Path, number: int, *rest: Any) -> int:
        asked.append(number)
        return answer(place, number, *rest)

    monkeypatch.setattr(archive, "_answer_shard", spy)
    assert "38 were answered before" in btkit("predict", finished, pictures, "--out", out).err
    assert asked == [1, 3]
    assert content(out, LOGS) == whole


@pytest.mark.usefixtures("small_shards")
def test_an_interruption_keeps_what_is_done(
    finished: Path, pictures: Path, tmp_path: Path, btkit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, answer = tmp_path / "out", archive._answer_shard

    def interrupt(place: Path, number: int, *rest: Any) -> int:
        if number == 2:
            raise KeyboardInterrupt
        return answer(place, number, *rest)

    monkeypatch.setattr(archive, "_answer_shard", interrupt)
    ended = btkit("predict", finished, pictures, "--out", out)
    assert ended.status == 130
    assert "the same command goes on" in ended.err
    monkeypatch.setattr(archive, "_answer_shard", answer)
    assert "32 were answered before" in btkit("predict", finished, pictures, "--out", out).err
    assert len({row["id"] for row in table(out)}) == len(table(out)) == 68


def test_other_pictures_or_another_model_are_refused(
    finished: Path, pictures: Path, tmp_path: Path, btkit: Callable[..., Any]
) -> None:
    out, some = tmp_path / "out", tmp_path / "some"
    shutil.copytree(pictures / "scanner 0", some)
    assert btkit("predict", finished, some, "--out", out).status == 0
    before = content(out)
    ended = btkit("predict", finished, pictures / "scanner 0", "--out", out)
    assert ended.status == 2
    assert "made otherwise (listing)" in ended.err
    ended = btkit("predict", finished, some, "--out", out, "--precision", "bfloat16")
    assert "made otherwise (precision)" in ended.err
    assert content(out, LOGS) == {name: held for name, held in before.items() if name not in LOGS}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("dear")
    ended = btkit("predict", finished, some, "--out", tmp_path / "mine")
    assert ended.status == 2
    assert "exists and holds no predictions" in ended.err


def manifest(file: Path, /, **columns: list[Any]) -> Path:
    import pyarrow as pa

    parquet.write_table(pa.table(columns), file)
    return file


def test_a_manifest_names_pictures_and_their_ids(
    finished: Path, pictures: Path, tmp_path: Path, btkit: Callable[..., Any]
) -> None:
    """Paths are relative to it; a picture that is named twice counts once."""
    names = ["scanner 0/000.png", str(pictures / "scanner 0" / "003.png"), "scanner 0/000.png"]
    held = manifest(pictures / "mine.parquet", path=names, id=["a", "b", "a"], site=[1, 2, 1])
    out = tmp_path / "out"
    assert btkit("predict", finished, held, "--out", out).status == 0
    rows = table(out)
    assert [row["id"] for row in rows] == ["a", "b"]
    assert rows[0]["place"] == str(pictures / "scanner 0" / "000.png")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"file": ["a.png"]}, "has no column 'path'; its columns are file"),
        ({"path": ["a.png", "b.png"], "id": ["x", "x"]}, "id 'x' stands for two pictures"),
        ({"path": ["a.png", None]}, "has a row without id"),
        ({"path": ["a.png"], "id": [""]}, "has a row without id"),
        ({"path": []}, "holds no picture"),
    ],
)
def test_a_manifest_at_fault_is_told(
    columns: dict[str, list[Any]], said: str, finished: Path, tmp_path: Path, btkit: Callable[..., Any]
) -> None:
    held = manifest(tmp_path / "mine.parquet", **columns)
    ended = btkit("predict", finished, held, "--out", tmp_path / "out")
    assert ended.status == 2
    assert said in ended.err
    assert not (tmp_path / "out").exists()


def test_what_is_no_manifest_is_told(finished: Path, tmp_path: Path, btkit: Callable[..., Any]) -> None:
    (tmp_path / "mine.parquet").write_bytes(b"PAR1 and nothing else")
    ended = btkit("predict", finished, tmp_path / "mine.parquet", "--out", tmp_path / "out")
    assert ended.status == 2
    assert "is no Parquet manifest" in ended.err


def test_addresses_of_fsspec(finished: Path, pictures: Path, tmp_path: Path, btkit: Callable[..., Any]) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in pictures.glob("scanner 1/*.png"):
        memory.pipe(f"/btkit/{path.name}", path.read_bytes())
    ended = btkit("predict", finished, "memory://btkit", "--out", tmp_path / "memory")
    assert "1 of 23 cannot be read" in ended.err
    btkit("predict", finished, pictures / "scanner 1", "--out", tmp_path / "local")
    ours, theirs = table(tmp_path / "memory"), table(tmp_path / "local")
    strip = {"id", "place"}
    assert [{k: v for k, v in row.items() if k not in strip} for row in ours] == [
        {k: v for k, v in row.items() if k not in strip} for row in theirs
    ]
    assert ours[0]["id"] == "memory:///btkit/001.png"
    ended = btkit("predict", finished, "nosuch://x", "--out", tmp_path / "no")
    assert ended.status == 2
    assert "cannot be opened" in ended.err


@pytest.mark.parametrize(("fails", "error", "read"), [(3, OSError("busy"), 5), (9, OSError("busy"), 4)])
def test_a_store_that_refuses_is_asked_again(
    fails: int, error: Exception, read: int, finished: Path, pictures: Path, tmp_path: Path, btkit: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """One picture is refused so often; the fourth time it is taken for unreadable."""
    memory, _ = listings.file_system("memory:///busy")
    asked: list[str] = []
    for path in sorted(pictures.glob("scanner 0/*.png"))[:5]:
        memory.pipe(f"/busy{fails}/{path.name}", path.read_bytes())
    cat = memory.cat_file

    def refuse(name: str, **options: Any) -> bytes:
        if name.endswith("003.png"):
            asked.append(name)
            if len(asked) <= fails:
                raise error
        return bytes(cat(name, **options))

    monkeypatch.setattr(memory, "cat_file", refuse)
    monkeypatch.setattr(reading, "WAITS", (0.0, 0.0, 0.0))
    btkit("predict", finished, f"memory://busy{fails}", "--out", tmp_path / "out")
    assert len(table(tmp_path / "out")) == read
    assert len(asked) == 4
    assert [row["reason"].endswith("cannot be read: busy") for row in table(tmp_path / "out", "failed")] == [True] * (
        5 - read
    )


@pytest.fixture
def bucket(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The pictures in an S3 bucket of a server on this machine."""
    server_of = pytest.importorskip("moto.server", reason="moto is missing: pip install 'moto[server]'")
    fs = pytest.importorskip("s3fs", reason="s3fs is missing: pip install s3fs")
    server = server_of.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(listings, "_systems", {})  # none that knows another server
    fs.S3FileSystem.clear_instance_cache()
    system = fs.S3FileSystem()
    system.mkdir("scans")
    for path in pictures.rglob("*.*"):
        system.pipe(f"scans/{path.relative_to(pictures)}", path.read_bytes())
    yield "s3://scans"
    fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.mark.usefixtures("small_shards")
def test_an_object_store_over_a_cluster_that_loses_a_process(
    cluster: Any, bucket: str, finished: Path, pictures: Path, tmp_path: Path, btkit: Callable[..., Any]
) -> None:
    """The same parts as from one process, byte by byte, and no picture twice."""
    local, mine = tmp_path / "local", tmp_path / "ray"
    maps = ("--method", "gradcam")
    assert btkit("predict", finished, bucket, "--out", local, "--cpus", 1, *maps).status == 2  # two cannot be read

    def one_that_answers() -> int | None:
        return next(iter(workers(cluster)), None) if any((mine / "predictions").glob("part-*")) else None

    killing = kill_when(one_that_answers)
    ended = btkit("predict", finished, bucket, "--out", mine, "--cpus", 1, "--engine", cluster.btkit, *maps)
    killing.join()
    assert "2 of 70 cannot be read" in ended.err
    assert "was lost" in (mine / "log.txt").read_text()
    assert table(mine, "failed") == table(local, "failed")
    assert table(mine) == table(local)
    assert len(table(mine, "maps")) == 68
    assert content(mine, LOGS) == content(local, LOGS)
    assert len({row["id"] for row in table(mine)}) == len(table(mine)) == 68


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--engine", "ray"), "--engine, --cpus, --method, --target and --set go with --out"),
        (("--cpus", "1"), "--engine, --cpus, --method, --target and --set go with --out"),
        (("--method", "gradcam"), "go with --out"),
        (("--out", "x", "--set", "rise.masks=9"), "--set and --target go with --method"),
        (("--out", "x", "--method", "gradcm"), "did you mean 'gradcam'"),
        (("--out", "x", "--method", "gradcam", "--target", "label"), "the pictures of an archive have none"),
        (("--out", "x", "--csv"), "do not go with --out"),
        (("--out", "x", "--plane", "axial"), "do not go with --out"),
    ],
)
def test_options_that_do_not_go_together(
    arguments: tuple[str, ...], said: str, finished: Path, pictures: Path, btkit: Callable[..., Any]
) -> None:
    ended = btkit("predict", finished, pictures, *arguments)
    assert ended.status == 2
    assert said in ended.err


def test_without_the_extra_the_command_that_installs_it_is_said(
    finished: Path, pictures: Path, tmp_path: Path, btkit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listings.importlib.util, "find_spec", lambda name: None)
    ended = btkit("predict", finished, pictures, "--out", tmp_path / "out")
    assert ended.status == 2
    assert "pip install 'braintumor-kit[archive]'" in ended.err
    assert not (tmp_path / "out").exists()
