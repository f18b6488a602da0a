"""The API reference builds without a warning, says what the contracts say, and asks nothing of other machines."""

import html
import importlib
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MISSING = [name for name in ("mkdocs", "material", "mkdocstrings", "mkdocstrings_handlers") if find_spec(name) is None]

pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"no {', '.join(MISSING)}: install the extra docs, pip install -e '.[docs]'"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "-f",
        str(ROOT / "docs/mkdocs.yml"),
        "-d",
        str(folder),
    ]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    assert "WARNING" not in told
    return folder


@pytest.mark.parametrize("kind", ["sources", "backbones", "explainers"])
def test_a_kinds_page_holds_its_promises_and_its_example(site: Path, kind: str) -> None:
    page = (site / "plugins" / f"{kind}.html").read_text(encoding="utf-8")
    contract = importlib.import_module(f"braintumor_kit.contracts.{kind}")
    assert re.findall(r"<tr>\s*<td><code>(\w+)</code></td>", page) == list(contract.PROMISES)
    example = re.search(r"^(    class .*\n(?:(?:    .*)?\n)+)", contract.__doc__, flags=re.MULTILINE)
    assert example
    code = [html.unescape(re.sub(r"<[^>]*>", "", block)) for block in re.findall(r"<pre>.*?</pre>", page, re.DOTALL)]
    assert re.sub(r"^    ", "", example[1], flags=re.MULTILINE).strip() in [block.strip() for block in code]


def test_nothing_comes_from_outside(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 7
    for page in pages:
        tags = re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", page.read_text(encoding="utf-8"))
        assert tags
        assert not [tag for tag in tags if re.search(r"""(?:src|href)=["']?(?:https?:)?//""", tag)]
