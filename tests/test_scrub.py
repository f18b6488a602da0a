"""Names, places and people are taken out of texts."""

import sysconfig
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from braintumor_kit import scrub
from braintumor_kit.scrub import Scrubber, absolute_paths, command_words

NAMES = (
    "glioma/Te-gl_0012.jpg",
    "Te-gl_0012.jpg",
    "Te-gl_0012",
    "Smith, John",
    "Müller",
    "7",
    "1203",
    "(x) y.png",
    "ab",
)


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("left out: glioma/Te-gl_0012.jpg: no picture", "left out: SAMPLE: no picture"),
        ("Te-gl_0012, twice: Te-gl_0012.jpg", "SAMPLE, twice: SAMPLE"),
        ("patient 'Smith, John' has none", "patient 'SAMPLE' has none"),
        ("Müllers Kuh", "Müllers Kuh"),  # another word
        ("Müller.png", "SAMPLE.png"),
        ("7 of 1203 ab", "7 of 1203 ab"),  # ordinary words
        ("patient '7' and \"1203\" and 'ab'", "patient 'SAMPLE' and \"SAMPLE\" and 'SAMPLE'"),
        ("see (x) y.png", "see SAMPLE"),
        ("", ""),
    ],
)
def test_names(text: str, scrubbed: str) -> None:
    assert Scrubber(NAMES).text(text) == scrubbed


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("the root '/data/of Dr Who/x' is gone", "the root 'PATH' is gone"),
        ("/data/of Dr Who/scans/a b.png is gone", "PATH FILE is gone"),
        ('File "/home/who/x.py", line 3', 'File "PATH", line 3'),
        ("see ~/secrets, or C:\\Users\\who\\x.", "see PATH, or PATH"),
        ("root=/data/x;y", "root=PATH;y"),
        ("file:/data/x", "file:PATH"),
        ("https://docs.python.org/3/library and 1/2 or a/b", "https://docs.python.org/3/library and 1/2 or a/b"),
        ("scans/Jane_Doe.PNG and x.nii.gz", "FILE and FILE"),
        ("history.csv and model.keras", "history.csv and model.keras"),
        ("RUN/figures/reliability.png", "RUN/figures/reliability.png"),
    ],
)
def test_places(text: str, scrubbed: str) -> None:
    assert Scrubber(places=["/data/of Dr Who/scans"]).text(text) == scrubbed


def test_a_run_is_known_however_it_is_named(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "resnet_adam-20261123T072832Z-7fdd30"
    scrubber = Scrubber(run=run)
    for said in (run, run.name, f"runs/{run.name}", f"../my/runs/{run.name}"):
        assert scrubber.text(f"run {said} goes on") == "run RUN goes on"
        assert scrubber.text(f"{said}/history.csv could not be written") == "RUN/history.csv could not be written"
    assert Scrubber(run=tmp_path / "r").text("r is r/x in runs/r") == "r is r/x in RUN"


def test_code_that_everybody_has_is_told() -> None:
    said = Scrubber().text(f"{torch.__file__} {time.__spec__} {Path(scrub.__file__)}")
    assert "SITE/torch/__init__.py" in said
    assert "BTKIT/scrub.py" in said
    assert Scrubber().text(f'File "{sysconfig.get_path("stdlib")}/csv.py", line 3') == 'File "PYTHON/csv.py", line 3'


def test_people(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrub, "_user", lambda: "jdoe")
    monkeypatch.setattr(scrub.platform, "node", lambda: "ward-7")
    assert Scrubber().text("jdoe@ward-7, jdoes") == "NAME@NAME, jdoes"
    monkeypatch.setattr(scrub, "_user", lambda: "root")
    assert Scrubber().text("source.root") == "source.root"


def test_values() -> None:
    value = {"Müller": 1, "kept": ["Müller", 2.5, None, True, {"path": "/x/y"}]}
    scrubbed = Scrubber(NAMES).value(value)
    assert scrubbed == {"SAMPLE": 1, "kept": ["SAMPLE", 2.5, None, True, {"path": "PATH"}]}
    assert list(absolute_paths({"a": ["/x y", 3, {"b": "C:\\z"}], "c": "x/y"})) == ["/x y", "C:\\z"]


@given(st.lists(st.text(min_size=3), min_size=1, max_size=5), st.text())
def test_no_name_is_left_where_it_stands_alone(names: list[str], text: str) -> None:
    scrubber = Scrubber(names)
    for name in names:
        if not name.isdigit():
            assert scrubber.text(f"{text} '{name}' {text}").count("SAMPLE") >= 1


def test_a_million_names_cost_no_more_time_than_one() -> None:
    line = "left out: train/glioma/p0000017.png: no picture; see the log of the source and mend or remove it\n" * 2000
    times = []
    for count in (20, 200_000):
        scrubber = Scrubber(f"train/glioma/p{number:07}.png" for number in range(count))
        began = time.perf_counter()
        assert scrubber.text(line).count("SAMPLE") == 2000
        times.append(time.perf_counter() - began)
    assert times[1] < 5 * times[0] + 0.5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["btkit", "run", "/x/y.toml", "--set", "source.root=/z"], ["btkit", "run", "...", "--set", "source.root=..."]),
        (["btkit", "run", "--name=smith", "-v"], ["btkit", "run", "--name", "-v"]),
        (["explain", "x.png"], ["explain", "..."]),
        ([], []),
    ],
)
def test_command_words(arguments: list[str], words: list[str]) -> None:
    assert command_words(arguments) == words
