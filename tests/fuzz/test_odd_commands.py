"""Command lines with mistakes: each ends with its result or with status 2 and one message, whatever stands in it."""

import shlex
from pathlib import Path

import hypothesis
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judged import command, refused

COMMANDS = {
    "audit": ("--source", "--set", "--out", "--fail-on", "--json"),
    "run": ("--set", "--runs", "--name", "--resume", "--accept-changes", "--json", "--only"),
    "evaluate": (
        "--source",
        "--set",
        "--against",
        "--with",
        "--classes",
        "--split",
        "--out",
        "--corruptions",
        "--runs",
    ),
    "predict": ("--runs", "--precision", "--with", "--csv", "--json"),
    "explain": (
        "--method",
        "--target",
        "--set",
        "--split",
        "--limit",
        "--layer",
        "--scale",
        "--out",
        "--style",
        "--align",
    ),
    "recipe check": ("--set",),
    "recipe show": ("--set", "--json"),
    "data info": ("--source", "--set", "--json"),
    "data fetch": ("--to",),
    "data index": ("--source", "--set", "--to", "--title"),
    "plugins list": ("--json", "--plugins"),
    "plugins show": ("--json", "--plugins"),
    "plugins new": ("--to", "--package"),
    "bench": ("--only", "--depth", "--image-size", "--batch-size", "--rounds", "--out"),
    "report": ("--out", "--runs", "--json"),
    "export": ("--format", "--out", "--runs", "--json"),
    "serve": ("--host", "--port", "--runs", "--precision"),
    "doctor": ("--out", "--bundle", "--json"),
}
"""With the options of each, and some that it lacks; what would set it to long work is left out."""

ODD = (
    "", " ", "-", "--", "-1", "0", "1e9", "nan", "x", "..", "/nowhere", "~", "/dev/null", "/proc/self/mem", "a" * 300,
    "a\nb", "a\0b", "\x1b[2J", "é", "🧠", "\udcff", "$HOME", "%s", "[bold]", "--help=", "=", "a=b", "a.b.c=1", "seed=x",
    "source.root=/x", "source=1", "gradcam", "source", "explainer", "test", "nickparvar.x", "*.png", "con",
    "none.keras", "none.toml", "here.txt", "here.keras", "here.onnx", "here.toml", "here.png", "folder",
    "https://example.org/x.toml",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with files that are not what their names say."""
    folder = tmp_path_factory.mktemp("place")
    for name in ("here.txt", "here.keras", "here.onnx", "here.toml", "here.png"):
        (folder / name).write_text("nothing")
    (folder / "folder").mkdir()
    return folder


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    name = draw(st.sampled_from(sorted(COMMANDS)))
    words = name.split()
    if name in ("bench", "data fetch", "serve"):  # which would begin to work without any mistake
        words.append("--no-such-option")
    for _ in range(draw(st.integers(0, 5))):
        kind = draw(st.integers(0, 3))
        if kind == 0:
            words.append(draw(st.sampled_from(COMMANDS[name])))
        elif kind == 1:
            words.append(draw(st.text(max_size=10)))
        else:
            words.append(draw(st.sampled_from(ODD)))
    return words


def hold(words: list[str], place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("HOME", str(place))
    ended = command(*words)
    hypothesis.note(shlex.join(words))
    hypothesis.event(f"status {ended.status}")
    if ended.status == 3:  # a place that cannot be written
        assert "Traceback" not in ended.err
        assert ended.err.count("btkit: ") == 1
    else:
        refused(ended)


FAST = settings(
    max_examples=300,
    deadline=10_000,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@FAST
@given(words=lines())
def test_command_lines(words: list[str], place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hold(words, place, monkeypatch)


@pytest.mark.long
@settings(FAST, max_examples=3000, derandomize=False)
@given(words=lines())
def test_three_thousand_command_lines(words: list[str], place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hold(words, place, monkeypatch)
