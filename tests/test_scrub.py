"""Of texts that may be sent to strangers only what is known to be harmless stays."""

import time
import traceback
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braintumor_kit import scrub
from braintumor_kit.scrub import OUT, Scrubber, command_words, vocabulary

IDS = ("17", "007", "Mark_2", "train/Anna/0004.png", "Training/x.png", "q0003-axial-0")


@pytest.mark.parametrize(
    "text",
    [
        "64 slices of 4 classes: train 32, validation 16, test 16",
        "epoch 1: loss 1.0417, rate 1e-05; 25.1 images/s",
        "history.csv could not be written: No space left on device.",
        "torch was 2.13.0 and is 2.14.1+cpu; training in float32",
        "",
    ],
)
def test_what_btkit_says_is_kept(text: str) -> None:
    assert Scrubber(IDS).text(text) == text


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("patient 'Smith, John' is left out", f"patient '{OUT}, {OUT}' is left out"),
        ("such as 17 and 7 and 18", f"such as {OUT} and {OUT} and 18"),  # ids
        ("Mark is marked, and so is mark", f"{OUT} is marked, and so is mark"),  # a name that is a word too
        ("q0003-axial-0, q0003-axial-1: no picture", f"{OUT}, {OUT}-axial-1: no picture"),
        ("born 1955-03-12, 12.3.1955, 19550312", f"{OUT}, {OUT}, {OUT}"),
        ("is 1.2.840.113619.2.55.3 of", f"is {OUT} of"),
        ("M\\xfcller Müller Mu\u0308ller", None),
        ("'/data/Dr O'Brien/Smythe scans/x.png'", None),
        ("\\\\server\\Smythe smb://jdoe:secretpw@ward7 patient_Smythe Smythe_mask", None),
    ],
)
def test_what_it_does_not_say_is_left_out(text: str, scrubbed: str | None) -> None:
    found = Scrubber(IDS).text(text)
    assert scrubbed is None or found == scrubbed
    for name in ("xfc", "ller", "Dr", "Brien", "Smythe", "jdoe", "secretpw", "ward"):
        assert name not in found


def test_people_that_the_code_cites_are_none_of_its_words() -> None:
    assert not {"Smith", "Cheng", "Selvaraju", "Chattopadhay", "Draelos"} & vocabulary()
    assert {"glioma", "learning", "rate", "gradcampp", "KeyError", "directory"} <= vocabulary()
    assert Scrubber().text("Files of Smith") == f"Files of {OUT}"


ALPHABET = st.text(st.characters(categories=["L", "N"]), min_size=2, max_size=12)


@settings(deadline=None)
@given(st.lists(ALPHABET, min_size=1, max_size=4), st.sampled_from(["{}", "x {}.png", "/a/{}/b", "p_{}_3", "'{}'"]))
def test_no_word_that_is_not_btkits_own_is_left(names: list[str], form: str) -> None:
    found = Scrubber().text(" ".join(map(form.format, names)))
    for word in scrub.LETTERS.findall(found):
        assert word in vocabulary() or word.lower() in vocabulary()
    for number in scrub.re.findall(r"\d+", found):
        assert len(number) <= 5


@settings(deadline=None)
@given(st.lists(st.integers(0, 99_999), min_size=1, max_size=4))
def test_no_number_that_is_an_id_is_left(ids: list[int]) -> None:
    found = Scrubber(map(str, ids)).text(f"patients {', '.join(f'{id:04}' for id in ids)} and {ids[0]}")
    assert found == f"patients {', '.join([OUT] * len(ids))} and {OUT}"


def test_values_are_kept_whole_or_not_at_all() -> None:
    value = {
        "name": "phantom",
        "root": "/data/of Dr Who",
        "Müller": 1,
        "Eva": 2,
        "epochs": 30,
        "x": [None, True, "Eva"],
    }
    assert Scrubber().value(value) == {
        "name": "phantom", "root": OUT, f"{OUT}2": 1, f"{OUT}3": 2, "epochs": 30, "x": [None, True, OUT],
    }  # fmt: skip


def raised(source: str, name: str) -> str:
    try:
        exec(compile(source, name, "exec"), {"torch": torch, "Path": Path})  # noqa: S102  (the test's own text)
    except Exception:
        return traceback.format_exc()
    raise AssertionError


def test_tracebacks_keep_public_code(tmp_path: Path) -> None:
    own = tmp_path / "clinic" / "mine.py"
    own.parent.mkdir()
    own.write_text("patient_Smythe = torch.zeros(2).reshape(7)\n")
    found = Scrubber().traceback(raised(own.read_text(), str(own)))
    assert "Smythe" not in found
    assert "clinic" not in found
    assert f'File "{OUT}", line 1' in found
    assert "RuntimeError: " in found
    missing = Scrubber().traceback(raised("Path('/ward/Smythe.png').read_text()", "<string>"))
    assert 'File "PYTHON/pathlib.py", line ' in missing
    assert "    with self.open(" in missing
    assert "FileNotFoundError: [Errno 2] No such file or directory: " in missing
    assert "Smythe" not in missing


def test_messages_of_packages_are_known_from_their_code() -> None:
    text = raised("import json; json.loads('{')", "<string>")
    said = "property name enclosed in double quotes: line 1 column 2 (char 1)"
    assert said in text.splitlines()[-1]
    assert said not in Scrubber().text(text.splitlines()[-1])
    assert said in Scrubber().traceback(text).splitlines()[-1]


def test_size_costs_little() -> None:
    scrubber = Scrubber(f"train/glioma/p{number:07}.png" for number in range(100_000))
    lines = ["left out: train/glioma/p0000017.png: no picture", "a.a." * 1000, "/x" * 2000, "Ab3+/" * 800, "x, " * 1300]
    began = time.perf_counter()
    for line in lines * 20:
        assert "0000017" not in scrubber.text(line)
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["btkit", "run", "/x/y.toml", "--set", "source.root=/z"],
            ["btkit", "run", OUT, "--set", f"source.root={OUT}"],
        ),
        (["btkit", "run", "--name=smythe", "--smythe"], ["btkit", "run", "--name", OUT]),
        (["explain", "Smythe=1.png", "-smythe.png"], ["explain", OUT, OUT]),
        (["smythe.png"], [OUT]),
        ([], []),
    ],
)
def test_command_words(arguments: list[str], words: list[str]) -> None:
    assert command_words(arguments) == words
