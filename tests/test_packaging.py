"""A wheel built from the checkout, installed elsewhere with no checkout at hand, runs the embedded recipe."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built in a copy, so that the checkout stays clean, with the setuptools that is installed: no network."""
    copy = tmp_path_factory.mktemp("checkout")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split("\n")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(copy / "dist"), str(copy)]
    subprocess.run(command, check=True, capture_output=True)
    return next((copy / "dist").glob("*.whl"))


def test_the_wheel_holds_plugins_and_recipes(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for kind in ("sources", "backbones"):
        for path in (ROOT / "plugins" / kind).glob("*.py"):
            assert f"btkit_plugins/{kind}/{path.name}" in names
    for path in (ROOT / "recipes").glob("*.toml"):
        assert f"btkit_recipes/{path.name}" in names
    for path in (ROOT / "braintumor_kit").rglob("*.py"):
        assert path.relative_to(ROOT).as_posix() in names
    assert not [name for name in names if name.startswith(("tests", "plugins", "recipes"))]


def test_it_runs_without_a_checkout(wheel: Path, tmp_path: Path) -> None:
    """The wheel alone is put before everything else; the checkout's own installation is not seen."""
    site, work = tmp_path / "site", tmp_path / "work"
    work.mkdir()
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(command, check=True)
    sets = ("source.patients=12", "source.size=64", "pixels.image_size=64", "training.epochs=1")
    script = (
        "import sys\n"
        "sys.meta_path[:] = [finder for finder in sys.meta_path if 'Editable' not in getattr(finder, '__name__', '')]\n"
        "import braintumor_kit, btkit_plugins\n"
        f"assert braintumor_kit.__file__.startswith({str(site)!r}), braintumor_kit.__file__\n"
        f"assert btkit_plugins.__file__.startswith({str(site)!r}), btkit_plugins.__file__\n"
        "from braintumor_kit.commands.main import main\n"
        f"main(['run', 'recipes/resnet_adam.toml', '--name', 'r', *[a for s in {sets!r} for a in ('--set', s)]])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run([sys.executable, "-c", script], cwd=work, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    record = json.loads((work / "runs" / "r" / "record.json").read_text())
    assert record["status"] == "finished"
    assert record["code"] is None
