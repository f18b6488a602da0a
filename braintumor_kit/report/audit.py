"""The audit as one page: its tables, and the pictures of what it found. Nothing on it is fetched from elsewhere."""

import base64
from collections.abc import Mapping, Sequence
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from braintumor_kit.audit.tables import tables
from braintumor_kit.files import write_text
from braintumor_kit.notice import NOTICE


def write_audit_page(
    path: Path,
    findings: Mapping[str, Any],
    pairs: Sequence[Mapping[str, Any]],
    pictures: Mapping[str, NDArray[np.uint8]],
) -> None:
    """Writes `audit.html`.

    Args:
        findings: the content of `audit.json`.
        pairs: copies to show, as `audit.leaks.pairs` gives them.
        pictures: thumbnails, grey, by id.

    Raises:
        WorkError: where it cannot be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("audit.html").render(
        tables=list(tables(findings)),
        pairs=pairs,
        foreign=findings["foreign"],
        conflicts=findings["label_conflicts"],
        pictures={id: _embedded(picture) for id, picture in pictures.items()},
        notice=NOTICE,
    )
    write_text(path, page)


def _template(name: str) -> str:
    return (files("braintumor_kit.report") / "templates" / name).read_text(encoding="utf-8")


def _embedded(picture: NDArray[np.uint8]) -> str:
    """A picture as a data URL."""
    content = BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(content, "PNG")
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode("ascii")
