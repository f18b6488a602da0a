"""`btkit doctor --bundle`: what a bug report needs, and nothing that tells of a patient or a place."""

import json
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from braintumor_kit.faults import recent_faults, write_fault
from braintumor_kit.files import read_csv
from braintumor_kit.progress import Reporter, log_to
from braintumor_kit.workflows import bundle

CLASSES = ("glioma", "notumor")
PARTS = {"record.json", "resolved.json", "history.csv", "metrics.json", "log.txt", "log.jsonl", "files.txt"}

RECIPE = """
[source]
name = "phantom"
[split]
method = "grouped"
[backbone]
name = "resnet"
depth = 18
weights = "none"
[training]
[[explain]]
method = "gradcam"
limit = 2
"""


def pictures(root: Path) -> None:
    """Slices of six patients of each class, whose names stand in the ids; the last file is no picture."""
    random = np.random.default_rng(0)
    for number in range(24):
        folder = root / CLASSES[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        patient = f"Müller, {number // 4:02}"
        Image.fromarray(random.integers(0, 255, (64, 64), dtype=np.uint8)).save(folder / f"{patient}_{number:03}.png")
    (root / CLASSES[0] / "Zorro (2).png").write_text("no picture")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from braintumor_kit.commands.main import run_command_line

    home = tmp_path_factory.mktemp("ward")
    pictures(home / "scans of Dr Who")
    values = (
        "source.name=image_folder", f"source.root={json.dumps(str(home / 'scans of Dr Who'))}", "pixels.image_size=64",
        "source.on_bad_image=skip", "split.method=stratified", "training.epochs=1", "training.precision=float32",
    )  # fmt: skip
    options = [item for value in values for item in ("--set", value)]
    (home / "who.toml").write_text(RECIPE)
    begin = ["run", str(home / "who.toml"), *options, "--runs", str(home / "of me"), "--name", "r"]
    assert run_command_line(begin) == 0
    return home / "of me" / "r"


@pytest.fixture(autouse=True)
def faults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Faults are kept in a folder of the test's own."""
    (tmp_path / "faults").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "faults"))
    return tmp_path / "faults"


def content(path: Path) -> dict[str, str]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name).decode() for name in archive.namelist()}


def test_it_holds_what_is_needed_and_names_nobody(run: Path, tmp_path: Path, btkit: Callable) -> None:
    rows = read_csv(run / "split.csv")
    with log_to(run):
        Reporter().say(f"{rows[0]['id']} cannot be read; see {run / rows[1]['id']}", "bad", sample=rows[2]["id"])
    ended = btkit("doctor", run, "--bundle", "--out", tmp_path / "b.zip")
    assert ended.status == 0, ended.err
    assert "Look it through before you send it." in ended.out
    held = content(tmp_path / "b.zip")
    assert set(held) == {"doctor.json", *PARTS}
    everything = "\n".join(held.values())
    ids = [row["id"] for row in rows]
    assert len(ids) == 24
    for id in (*ids, "glioma/Zorro (2).png"):
        for name in (id, Path(id).name, Path(id).stem, json.dumps(Path(id).stem)[1:-1]):
            assert name not in everything
    for told in ("Müller", "Zorro", "Dr Who", "of me", str(run.parent), str(Path.home()) + "/", str(tmp_path)):
        assert told not in everything
    assert "SAMPLE cannot be read; see RUN/SAMPLE" in held["log.txt"]
    assert json.loads(held["log.jsonl"].splitlines()[-1])["sample"] == "SAMPLE"
    record = json.loads(held["record.json"])
    assert record["packages"]["torch"]
    assert record["bad_images"] == 1
    resolved = json.loads(held["resolved.json"])
    assert resolved["source"]["root"] == "PATH"
    assert resolved["training"]["epochs"] == 1
    assert json.loads(held["metrics.json"])["validation"]["n"]
    assert held["history.csv"] == (run / "history.csv").read_text()
    assert "RUN/model.keras" in held["files.txt"]
    assert "2 files in RUN/explanations/maps" in held["files.txt"]
    assert str(Path(zipfile.__file__).parent) not in everything


def test_without_a_run_it_holds_the_report_and_recent_faults(tmp_path: Path, btkit: Callable) -> None:
    def fault() -> str:
        return 'Traceback:\n  File "/home/who/clinic/x.py", line 3\nValueError: scans/Smith_John.png is odd\n'

    for _ in range(4):
        write_fault(["explain", "Smith John.png", "--method", "gradcam", "--set", "gradcam.x=secret"], fault())
    assert len(recent_faults()) == 3
    recent_faults()[0].write_text("arguments ['Smith John.png']\n\udcff", errors="surrogateescape")
    ended = btkit("doctor", "--bundle", "--out", tmp_path / "b.zip", "--json")
    assert json.loads(ended.out)["files"] == ["doctor.json", "fault-1.txt", "fault-2.txt", "fault-3.txt"]
    assert content(tmp_path / "b.zip")["fault-1.txt"] == "arguments []\n\\xff"
    text = content(tmp_path / "b.zip")["fault-2.txt"]
    assert 'arguments ["explain", "...", "--method", "...", "--set", "gradcam.x=..."]' in text
    assert 'File "PATH", line 3\nValueError: FILE is odd' in text
    assert json.loads(content(tmp_path / "b.zip")["doctor.json"])["packages"]["torch"]


def test_a_fault_of_btkit_is_taken_along(
    tmp_path: Path, btkit: Callable, monkeypatch: pytest.MonkeyPatch, faults: Path
) -> None:
    from braintumor_kit.workflows import doctor

    with monkeypatch.context() as broken:
        broken.setattr(doctor, "package_versions", lambda: 1 / 0)
        ended = btkit("doctor")
    assert ended.status == 70
    (kept,) = faults.iterdir()
    assert f"The traceback is in {kept}; please report it with what `btkit doctor --bundle` collects" in ended.err
    assert btkit("doctor", "--bundle", "--out", tmp_path / "b.zip").status == 0
    assert "ZeroDivisionError: division by zero" in content(tmp_path / "b.zip")["fault-1.txt"]
    assert 'File "BTKIT/workflows/doctor.py", line' in content(tmp_path / "b.zip")["fault-1.txt"]


@pytest.mark.parametrize("name", ["record.json", "resolved.json", "split.csv", "metrics.json", "log.jsonl", "log.txt"])
def test_of_a_damaged_run_it_takes_what_there_is(name: str, run: Path, tmp_path: Path, btkit: Callable) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for part in (*PARTS - {"files.txt"}, "split.csv"):
        (damaged / part).write_bytes((run / part).read_bytes())
    (damaged / name).write_bytes(b'{"folds": 3, \xff')
    assert btkit("doctor", damaged, "--bundle", "--out", tmp_path / "b.zip").status == 0
    assert set(content(tmp_path / "b.zip")) == {"doctor.json", *PARTS}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--bundle", "--clear-cache"], "--clear-cache and --bundle do not go together."),
        (["somewhere"], "RUN and --out go with --bundle."),
        (["--out", "x.zip"], "RUN and --out go with --bundle."),
        (["nowhere", "--bundle"], "'nowhere' is no run"),
    ],
)
def test_wrong_calls(arguments: list[str], said: str, btkit: Callable) -> None:
    ended = btkit("doctor", *arguments)
    assert ended.status == 2
    assert said in ended.err


def test_a_bundle_that_exists_stays(tmp_path: Path, btkit: Callable) -> None:
    (tmp_path / "b.zip").write_text("mine")
    ended = btkit("doctor", "--bundle", "--out", tmp_path / "b.zip")
    assert ended.status == 2
    assert "exists already; name another file with --out." in ended.err
    assert (tmp_path / "b.zip").read_text() == "mine"


def test_what_is_not_known_stays_at_home() -> None:
    """A key that someone adds to `record.json` is not taken until someone has thought about it."""
    assert "bad_images" not in bundle.OF_RECORD
    assert "source_notes" not in bundle.OF_RECORD
    assert "recipe" not in bundle.OF_RECORD
