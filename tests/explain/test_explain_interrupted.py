"""`btkit explain` interrupted anywhere loses nothing and does nothing twice."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explained import IG, explain_few, files, load

from braintumor_kit.commands.main import run_command_line
from braintumor_kit.workflows import draw_explanations, explanation_folder
from braintumor_kit.workflows import explain as explaining

pytestmark = pytest.mark.usefixtures("one_thread")


WHOLE = ("--limit", "12", "--method", "gradcam,integrated_gradients", *IG, "--scale", "all")

KILLED = """
import os, signal, sys
from braintumor_kit.backend import use_torch_backend
use_torch_backend()
from braintumor_kit.commands.main import run_command_line
from braintumor_kit.workflows import explain, explanation_folder
explain.BATCH = 4
write_json, whole, done = explanation_folder.write_json, explanation_folder.whole, []

def counting(path, value):
    write_json(path, value)
    done.append(path)

def killing(path):
    if len(done) == 3 and path.name.startswith("p"):  # the settings and two batches; the third one's first map
        with whole(path) as beside:
            beside.write_bytes(b"torn")
            os.kill(os.getpid(), signal.SIGKILL)
    return whole(path)

explanation_folder.write_json, explanation_folder.whole = counting, killing
run_command_line(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def uninterrupted(run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("uninterrupted") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explaining, "BATCH", 4)
        assert run_command_line(["explain", str(run), *WHOLE, "--out", str(out)]) == 0
    return files(out)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Method and number of pictures of every batch that is explained; batches are of 4, so that there are three."""
    monkeypatch.setattr(explaining, "BATCH", 4)
    seen: list[tuple[str, int]] = []
    explain_batch = explaining.explain_batch

    def spy(network: Any, method: Any, images: Any, *rest: Any) -> Any:
        seen.append((method.name, len(images)))
        return explain_batch(network, method, images, *rest)

    monkeypatch.setattr(explaining, "explain_batch", spy)
    return seen


def test_a_killed_work_goes_on_and_nothing_done_is_done_again(
    run: Path, tmp_path: Path, uninterrupted: dict[str, bytes], calls: list[tuple[str, int]], btkit: Callable
) -> None:
    out, beside = tmp_path / "out", tmp_path / ".out.unfinished"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, "explain", str(run), *WHOLE, "--out", str(out)], capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    assert len(list((beside / "batches").iterdir())) == 2
    assert [path.read_bytes() for path in beside.rglob(".writing-*")] == [b"torn"]
    assert btkit("explain", run, *WHOLE, "--out", out).status == 0
    assert calls == [("gradcam", 4), ("integrated_gradients", 4)]  # the last third of 12 slices
    assert files(out) == uninterrupted
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str, int], None]:
    """Makes the n-th call of a function an interruption."""

    def arrange(module: Any, name: str, number: int) -> None:
        original, count = getattr(module, name), iter(range(1, 10**6))

        def stopped(*arguments: Any, **options: Any) -> Any:
            if next(count) == number:
                raise KeyboardInterrupt
            return original(*arguments, **options)

        monkeypatch.setattr(module, name, stopped)

    return arrange


@pytest.mark.parametrize(
    ("name", "number", "left"),
    [("save_overlay", 15, 0), ("draw_summary", 1, 0), ("explain_batch", 4, 2)],
)
def test_an_interruption_anywhere_costs_nothing(
    name: str, number: int, left: int, run: Path, tmp_path: Path, uninterrupted: dict[str, bytes],
    calls: list[tuple[str, int]], drawn: list[dict[str, Any]], btkit: Callable, monkeypatch: pytest.MonkeyPatch,
    interrupt: Callable,
) -> None:  # fmt: skip
    from braintumor_kit.workflows import explain_run

    out = tmp_path / "out"
    explain_few(btkit, run, out, "--style", "none")
    before = files(out)
    module = {"explain_batch": explaining, "save_overlay": draw_explanations}.get(name, explain_run)
    with monkeypatch.context():
        original = getattr(module, name)
        interrupt(module, name, number)
        ended = btkit("explain", run, *WHOLE, "--out", out)
        monkeypatch.setattr(module, name, original)
    assert ended.status == 130
    assert "the same command goes on where it stopped" in " ".join(ended.err.split())
    assert files(out) == before  # the old one stays until the new one is whole
    calls.clear()
    had = {path.name for path in (tmp_path / ".out.unfinished" / "overlays").glob("*")}
    drawn.clear()
    assert btkit("explain", run, *WHOLE, "--out", out).status == 0
    assert len(calls) == 2 * left
    assert not had & {one["path"].name for one in drawn}
    assert files(out) == uninterrupted


def test_changed_settings_begin_anew(
    run: Path, tmp_path: Path, calls: list[tuple[str, int]], btkit: Callable, interrupt: Callable
) -> None:
    interrupt(explaining, "explain_batch", 3)
    assert btkit("explain", run, *WHOLE, "--out", tmp_path / "out").status == 130
    done = len(calls)
    changed = [text.replace("steps=4", "steps=3") for text in WHOLE]
    assert btkit("explain", run, *changed, "--style", "none", "--out", tmp_path / "out").status == 0
    assert len(calls) - done == 6
    assert load(tmp_path / "out" / "explanations.json")["methods"][1]["options"]["steps"] == 3


def test_a_full_disk_loses_nothing(
    run: Path, made: Path, tmp_path: Path, btkit: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    save, count = np.save, iter(range(100))

    def full(*arguments: Any, **options: Any) -> None:
        if next(count) == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(*arguments, **options)

    monkeypatch.setattr(explanation_folder.np, "save", full)
    ended = btkit("explain", run, "--limit", 3, "--out", tmp_path / "out")
    assert ended.status == 3
    assert "No space left on device" in ended.err
    assert not (tmp_path / "out").exists()
    rows = explain_few(btkit, run, tmp_path / "out")
    for row in rows:
        np.testing.assert_array_equal(np.load(tmp_path / "out" / row["map"]), np.load(made / row["map"]))
