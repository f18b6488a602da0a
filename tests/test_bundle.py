"""`btkit doctor --bundle`: what a bug report needs, and nothing that tells of a patient or a place."""

import csv
import json
import re
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_runs import copy_run

from braintumor_kit.faults import recent_faults, write_fault
from braintumor_kit.files import read_csv, read_json, write_json
from braintumor_kit.progress import Reporter, log_to
from braintumor_kit.runs import Run
from braintumor_kit.scrub import OUT
from braintumor_kit.workflows.bundle import write_bundle

pytestmark = pytest.mark.usefixtures("two_layers")

CLASSES = ("glioma", "notumor")
PARTS = {"record.json", "resolved.json", "history.csv", "metrics.json", "log.jsonl", "files.txt"}

RECIPE = """
[source]
name = "phantom"
[split]
method = "grouped"
[backbone]
name = "two_layers"
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
def run(two_layers: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from braintumor_kit.commands.main import run_command_line

    home = tmp_path_factory.mktemp("ward")
    pictures(home / "scans of Dr Who")
    values = (
        "source.name=image_folder", f"source.root={json.dumps(str(home / 'scans of Dr Who'))}", "pixels.image_size=64",
        "source.on_bad_image=skip", "split.method=stratified", "training.epochs=1", "training.precision=float32",
    )  # fmt: skip
    options = [item for value in values for item in ("--set", value)]
    (home / "who.toml").write_text(RECIPE)
    begin = ["run", str(home / "who.toml"), *options, "--runs", str(home / "Quux files"), "--name", "r"]
    assert run_command_line(begin) == 0
    return home / "Quux files" / "r"


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
    (run / "notes on Mrs Smythe.txt").write_text("mine")
    with log_to(run):
        Reporter().say(f"{rows[0]['id']} cannot be read; see {run / rows[1]['id']}", "bad", sample=rows[2]["id"])
    ended = btkit("doctor", run, "--bundle", "--out", tmp_path / "b.zip")
    assert ended.status == 0, ended.err
    assert "Look it through before you send it." in ended.out
    held = content(tmp_path / "b.zip")
    assert set(held) == {"doctor.json", *PARTS}
    everything = "\n".join(held.values())
    assert len(rows) == 24
    for row in (*rows, {"id": "glioma/Zorro (2).png"}):
        assert Path(row["id"]).stem not in everything
    for told in ("ller", "Zorro", "Who", "Mrs", "Smythe", "Quux", str(run.parent), str(tmp_path)):
        assert told not in everything
    last = json.loads(held["log.jsonl"].splitlines()[-1])
    assert (last["event"], last["sample"]) == ("bad", OUT)
    assert " cannot be read; see " in last["message"]
    (epoch,) = (line for line in map(json.loads, held["log.jsonl"].splitlines()) if line["event"] == "epoch")
    assert epoch["loss"] == float(read_csv(run / "history.csv")[0]["loss"])
    assert epoch["message"].startswith("epoch 1: loss ")
    record = json.loads(held["record.json"])
    assert record["packages"]["torch"]
    assert (record["bad_images"], record["classes"], record["recipe_name"]) == (1, list(CLASSES), "who")
    assert len(record["data_digest"]) == 64
    assert record["argv"][:1]
    resolved = json.loads(held["resolved.json"])
    assert (resolved["source"]["root"], resolved["source"]["name"]) == (OUT, "image_folder")
    assert resolved["training"]["epochs"] == 1
    metrics = json.loads(held["metrics.json"])
    assert metrics["validation"]["n"]
    assert set(metrics["train"]["per_class"]) == set(CLASSES)
    columns = [{name: float(cell) for name, cell in row.items()} for row in read_csv(run / "history.csv")]
    written = [dict(row) for row in csv.DictReader(held["history.csv"].splitlines())]
    assert [{name: float(cell) for name, cell in row.items()} for row in written] == [
        {name: float(f"{cell:g}") for name, cell in row.items()} for row in columns
    ]
    assert "model.keras" in held["files.txt"]
    assert "2 files in explanations/maps" in held["files.txt"]


def test_ids_that_are_numbers_and_words_are_left_out_too(run: Path, tmp_path: Path, btkit: Callable) -> None:
    """As figshare's are; what is said of leaks names some."""
    damaged = copy_run(run, tmp_path / "r")
    (damaged / "split.csv").write_text("id,label,group,split\n17,glioma,JD,train\n4711,glioma,Mark,test\n")
    record = read_json(damaged / "record.json")
    record["leaks"] = {"identical": 3, "warning": "slices of 3 patients (such as 17 and Mark) stand in several splits"}
    record["reason"] = "InputError: 4711 = 17 of JD and Mark"
    record["resumed"] = [{"at": "2026-11-26T06:29:30+00:00", "argv": ["x"], "changes": ["Mark was another one"]}]
    record["secret"] = "new key"
    write_json(damaged / "record.json", record)
    assert btkit("doctor", damaged, "--bundle", "--out", tmp_path / "b.zip").status == 0
    told = json.loads(content(tmp_path / "b.zip")["record.json"])
    assert told["leaks"] == {"identical": 3}
    assert told["reason"] == f"InputError: {OUT} = {OUT} of {OUT} and {OUT}"
    assert told["resumed"] == [{"at": "2026-11-26T06:29:30+00:00", "changes": [f"{OUT} was another one"]}]
    assert "secret" not in told


def test_of_a_cross_validation_each_fold_is_told(run: Path, tmp_path: Path, btkit: Callable) -> None:
    folds = copy_run(run, tmp_path / "folds")
    copy_run(run, folds / "fold-1")
    assert btkit("doctor", folds, "--bundle", "--out", tmp_path / "b.zip").status == 0
    held = content(tmp_path / "b.zip")
    assert set(held) == {"doctor.json", *PARTS, *(f"fold-1/{part}" for part in PARTS)}
    assert "fold-1" not in held["files.txt"]


def test_without_a_run_it_holds_the_report_and_recent_faults(tmp_path: Path, btkit: Callable) -> None:
    said = (
        'Traceback:\n  File "/home/who/clinic/x.py", line 3\n    x = Smythe\nValueError: scans/Smith_John.png is odd\n'
    )
    for _ in range(4):
        write_fault(["explain", "Smith John.png", "--method", "gradcam", "--set", "gradcam.x=secret"], said)
    assert len(recent_faults()) == 3
    recent_faults()[0].write_text("arguments ['Smith John.png']\n\n\udcff", errors="surrogateescape")
    ended = btkit("doctor", "--bundle", "--out", tmp_path / "b.zip", "--json")
    assert json.loads(ended.out)["files"] == ["doctor.json", "fault-1.txt", "fault-2.txt", "fault-3.txt"]
    held = content(tmp_path / "b.zip")
    assert held["fault-1.txt"].startswith("arguments []\n")
    expected = f'arguments ["explain", "{OUT}", "--method", "{OUT}", "--set", "gradcam.x={OUT}"]'
    assert expected in held["fault-2.txt"]
    assert f'File "{OUT}", line 3' in held["fault-2.txt"]
    assert "ValueError: " in held["fault-2.txt"]
    assert not {"Smythe", "Smith", "John", "clinic", "secret"} & set(re.findall(r"\w+", held["fault-2.txt"]))
    assert json.loads(held["doctor.json"])["packages"]["torch"]


def test_a_fault_of_btkit_is_taken_along(
    tmp_path: Path, btkit: Callable, monkeypatch: pytest.MonkeyPatch, faults: Path
) -> None:
    """Also where `btkit doctor` itself is what fails."""
    from braintumor_kit.workflows import doctor

    def fail() -> None:
        raise ZeroDivisionError("of a name \udcff")

    monkeypatch.setattr(doctor, "package_versions", fail)
    ended = btkit("doctor")
    assert ended.status == 70
    (kept,) = faults.iterdir()
    assert f"The traceback is in {kept}; please report it with what `btkit doctor --bundle` collects" in ended.err
    assert btkit("doctor", "--bundle", "--out", tmp_path / "b.zip").status == 0
    held = content(tmp_path / "b.zip")
    assert "ZeroDivisionError: of a name " in held["fault-1.txt"]
    assert 'File "BTKIT/workflows/doctor.py", line' in held["fault-1.txt"]
    assert held["doctor.json"].startswith("cannot be read: ZeroDivisionError: of a name ")


def test_a_fault_that_cannot_be_kept_is_shown(btkit: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    from braintumor_kit.commands import main
    from braintumor_kit.workflows import doctor

    def full(*rest: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(doctor, "package_versions", lambda: 1 / 0)
    monkeypatch.setattr(main, "write_fault", full)
    ended = btkit("doctor")
    assert ended.status == 70
    assert (
        "ZeroDivisionError: division by zero\n\nThat is the traceback, which could not be kept in a file" in ended.err
    )


@pytest.mark.parametrize(
    "name", ["record.json", "resolved.json", "split.csv", "metrics.json", "log.jsonl", "history.csv"]
)
@pytest.mark.parametrize("text", [b'{"folds": 3, \xff', b'{"bad_images": 5, "resumed": ["x"], "argv": 3}', b"[" * 9999])
def test_of_a_damaged_run_it_takes_what_there_is(
    name: str, text: bytes, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = copy_run(run, tmp_path / "damaged")
    (damaged / name).write_bytes(text)
    write_bundle(tmp_path / "b.zip", dict, Run(damaged))
    assert set(content(tmp_path / "b.zip")) == {"doctor.json", *PARTS}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--bundle", "--clear-cache"], "--clear-cache and --bundle do not go together."),
        (["somewhere"], "RUN and --out go with --bundle."),
        (["--out", "x.zip"], "RUN and --out go with --bundle."),
        (["nowhere", "--bundle"], "'nowhere' is no run"),
        (["--bundle", "--out", "nowhere/b.zip"], "--out 'nowhere/b.zip': the folder 'nowhere' does not exist."),
        (["--bundle", "--out", f"{'x' * 300}.zip"], "File name too long."),
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
