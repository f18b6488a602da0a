"""The log of a run: every line of it is whole."""

from pathlib import Path

import pytest

from braintumor_kit import progress
from braintumor_kit.progress import Reporter


def test_the_log_has_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also where the disk fills within one."""
    monkeypatch.setattr(progress.log, "propagate", False)  # pytest-xdist cannot send what pytest would catch of it
    with progress.log_to(tmp_path):
        Reporter().say("first")
        handler = progress.log.handlers[-2]
        assert isinstance(handler, progress._Lines)
        file = handler._file
        assert file is not None

        class Full:
            """Takes five bytes of each line."""

            def __getattr__(self, name: str) -> object:
                return getattr(file, name)

            def write(self, line: bytes) -> int:
                return file.write(line[:5])

        monkeypatch.setattr(handler, "_file", Full())
        Reporter().say("second")
        monkeypatch.setattr(handler, "_file", file)
        Reporter().say("third \udcff")
    capfd.readouterr()
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [line.split("INFO ")[1] for line in lines] == ["first", "third \\udcff"]
    assert (tmp_path / "log.jsonl").read_text().count("\n") == 3


def test_what_cannot_be_logged_stops_no_work(tmp_path: Path) -> None:
    endless: dict[str, object] = {}
    endless["endless"] = endless
    with progress.log_to(tmp_path):
        Reporter().say("first", value={("a", "key"): 1})
        Reporter().say("second", value=endless)
        Reporter().say("last")
    assert (tmp_path / "log.txt").read_text().splitlines()[-1].endswith("last")
    assert '"last"' in (tmp_path / "log.jsonl").read_text().splitlines()[-1]
