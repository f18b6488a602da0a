"""Pages in one look: templates that escape what comes from outside, and pictures inside of the page. Nothing on a page
is fetched from elsewhere."""

import base64
import re
from functools import cache
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from braintumor_kit.notice import NOTICE
from braintumor_kit.report.style import INK, PAPER, QUIET, RULE, TEST, TRAIN, VALIDATION

THEMED = {
    INK: "--ink", QUIET: "--quiet", RULE: "--line", PAPER: "--ground", TRAIN: "--train", VALIDATION: "--validation",
    TEST: "--test",
}  # fmt: skip
"""Colours of the style, and the properties of a page that stand for them, in its light or its dark."""

LARGEST = 640
"""Pixels along the longer side of a picture on a page."""


class Draws(Protocol):
    """What draws a figure into a file, in the format that its name ends in."""

    def __call__(self, path: Path) -> None: ...


def rendered(template: str, **values: Any) -> str:
    """A page, from a template and what it shows; text is shown as text, whatever it looks like.

    Raises:
        LookupError: where what it shows lacks something.
    """
    try:
        return _environment().get_template(template).render(notice=NOTICE, **values)
    except jinja2.UndefinedError as error:
        raise LookupError(str(error)) from error


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "figure": figure_text,
        "interval": interval_text,
        "signed": signed_text,
        "cell": markdown_cell,
    }
    return environment


def _template(name: str) -> str:
    return (files("braintumor_kit.report") / "templates" / name).read_text(encoding="utf-8")


def figure_text(value: float | None, digits: int = 3) -> str:
    """A figure as it is written; nothing where there is none."""
    return "" if value is None else f"{value:.{digits}f}"


def signed_text(value: float, digits: int = 3) -> str:
    """A difference as it is written; what rounds to nothing has no sign."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text


def interval_text(interval: tuple[float, float] | None, digits: int = 3) -> str:
    """An interval as it is written."""
    return "" if interval is None else f"{interval[0]:.{digits}f} to {interval[1]:.{digits}f}"


def markdown_cell(text: object) -> str:
    """Text as it stands in a cell of a Markdown table: marks are letters, and a line stays one."""
    line = " ".join(str(text).split())
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~$&-])", r"\\\1", line)


def embedded(picture: NDArray[np.uint8] | Path) -> str:
    """A picture as a data URL: of an array, lossless; of a file, at most `LARGEST` pixels a side, in WebP.

    Raises:
        OSError: where the file is no picture.
    """
    content = BytesIO()
    if isinstance(picture, Path):
        with Image.open(picture) as image:
            small = image.convert("RGB")
        small.thumbnail((LARGEST, LARGEST))
        small.save(content, "WEBP", quality=86, method=2)
        kind = "webp"
    else:
        Image.fromarray(np.ascontiguousarray(picture)).save(content, "PNG")
        kind = "png"
    return data_url(content.getvalue(), kind)


def data_url(content: bytes, kind: str) -> str:
    """A picture's file as a data URL."""
    return f"data:image/{kind};base64," + base64.b64encode(content).decode("ascii")


def drawing(draw: Draws, name: str, words: str) -> Markup:
    """A figure inside of a page, in the page's colours whether it is light or dark.

    Args:
        name: no other figure of the page has it.
        words: what it shows, for who cannot see it.
    """
    with TemporaryDirectory(prefix="btkit-figure-") as folder:
        draw(path := Path(folder) / "figure.svg")
        svg = path.read_text(encoding="utf-8")
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style .*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg [^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg [^>]*?) height="[^"]*"', r"\1", svg, count=1))
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\1{name}-", svg)
    for colour, stands_for in THEMED.items():
        svg = re.sub(re.escape(colour), f"var({stands_for})", svg, flags=re.IGNORECASE)
    label = Markup('<svg class="drawing" role="img" aria-label="{}"').format(words)
    return Markup(svg.replace("<svg", label, 1))  # its texts are escaped in it
