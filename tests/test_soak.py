"""A real training, killed again and again at random moments, comes to the files of one that nothing stopped."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from test_resume import assert_same_runs, begun, command

from braintumor_kit.files import read_csv

pytestmark = pytest.mark.alone

EPOCHS = 8
REAL = (
    "source.patients=16", "source.size=64", "pixels.image_size=64", f"training.epochs={EPOCHS}",
    "training.batch_size=4", "training.precision=float32", "backbone.depth=18", "explain=[]",
    "callbacks.reduce_lr_on_plateau.patience=1", "callbacks.reduce_lr_on_plateau.min_delta=1.0",
    "training.checkpoint_seconds=0.3",
)  # fmt: skip
OPTIONS = [item for value in REAL for item in ("--set", value)]
INTERRUPTED = (130, -signal.SIGINT)
"""Before Python has begun to run btkit, Ctrl-C ends it in its own way."""


@dataclass
class Soak:
    """A run that is killed.

    Attributes:
        run: its folder.
        draw: of the moments.
        log: takes what the processes say.
        epoch_seconds: how long an epoch takes, about.
        startup_seconds: from the beginning of a process to its first step, about.
        kills: after how many epochs each kill came, and by which signal.
    """

    run: Path
    draw: random.Random
    log: Path
    epoch_seconds: float
    startup_seconds: float
    kills: list[tuple[int, signal.Signals]]

    @property
    def epochs(self) -> int:
        """So many are done."""
        history = self.run / "history.csv"
        return len(read_csv(history)) if history.is_file() else 0

    def kill(self, after: float, sign: signal.Signals) -> None:
        """Begins the run, or goes on with it, and sends a signal once so many epochs are done; where they are done
        already, at a random moment from its beginning on."""
        with self.log.open("a") as said, begun(self._command(), said) as process:
            began, whole = time.monotonic(), int(after)
            early = self.epochs > after
            while process.poll() is None and not early and self.epochs < whole:
                assert time.monotonic() - began < 300, f"no progress:\n{self.log.read_text()[-3000:]}"
                time.sleep(0.02)
            self._wait(self.draw.random() * (self.epoch_seconds + (self.startup_seconds if early else 0)), process)
            assert process.poll() is None, f"over before it was killed:\n{self.log.read_text()[-3000:]}"
            process.send_signal(sign)
            ended = process.wait(timeout=60)
        assert ended in (INTERRUPTED if sign == signal.SIGINT else (-signal.SIGKILL,))
        self.kills.append((self.epochs, sign))

    def _wait(self, seconds: float, process: "subprocess.Popen[str]") -> None:
        """Waits, but not past the last epoch: what comes after it is short, on a machine that has become faster."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and process.poll() is None and self.epochs < EPOCHS:
            time.sleep(0.01)

    def finish(self) -> None:
        """Lets it come to its end."""
        with self.log.open("a") as said:
            subprocess.run(self._command(), check=True, stderr=said, stdout=said)

    def _command(self) -> list[str]:
        if not (self.run / "record.json").is_file():
            return begin(self.run)
        begun = (self.run / "checkpoints" / "latest.safetensors").is_file()
        return command("--resume", self.run, *([] if begun else ["--accept-changes"]))


def begin(run: Path) -> list[str]:
    return [*command("resnet_adam"), *OPTIONS, "--runs", str(run.parent), "--name", run.name]


def moments(kills: int, draw: random.Random) -> list[float]:
    """In epochs, spread over the whole training, the first before the learning rate falls and the last after."""
    return [(number + draw.random()) / kills * EPOCHS for number in range(kills)]


def soak(folder: Path, kills: int, seed: int) -> Sequence[tuple[int, signal.Signals]]:
    """Trains once without and once with so many kills, by SIGKILL and SIGINT in turn, and compares."""
    whole = folder / "whole"
    began = time.monotonic()
    subprocess.run(begin(whole), check=True, capture_output=True)
    training = sum(float(row["seconds"]) for row in read_csv(whole / "history.csv"))
    draw = random.Random(seed)
    startup = max(1.0, (time.monotonic() - began - training) / 2)
    killed = Soak(folder / "killed", draw, folder / "said.txt", training / EPOCHS, startup, [])
    for number, after in enumerate(moments(kills, draw)):
        killed.kill(after, (signal.SIGKILL, signal.SIGINT)[number % 2])
    killed.finish()
    assert_same_runs(killed.run, whole)
    rates = [float(row["learning_rate"]) for row in read_csv(whole / "history.csv")]
    falls = [number for number in range(1, EPOCHS) if rates[number] < rates[number - 1]]
    assert any(falls[0] <= epochs < falls[-1] for epochs, _ in killed.kills), "the plateau acts before and after a kill"
    return killed.kills


def seed_of_the_day() -> int:
    """Other moments each time; `BTKIT_SOAK_SEED` repeats those of a run that failed."""
    return int(os.environ.get("BTKIT_SOAK_SEED") or time.time())


def test_five_kills(tmp_path: Path) -> None:
    seed = seed_of_the_day()
    print(f"BTKIT_SOAK_SEED={seed}")
    assert len(soak(tmp_path, 5, seed)) == 5


@pytest.mark.long
def test_fifty_kills(tmp_path: Path) -> None:
    seed = seed_of_the_day()
    print(f"BTKIT_SOAK_SEED={seed}")
    kills = soak(tmp_path, 50, seed)
    print(f"killed {len(kills)} times, after epochs {sorted({epochs for epochs, _ in kills})}")
    assert len(kills) == 50
