"""The audit as one page: its tables, and the pictures of what it found. Nothing on it is fetched from elsewhere."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.audit.tables import tables
from braintumor_kit.files import write_text
from braintumor_kit.report.page import embedded, rendered


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
    page = rendered(
        "audit.html",
        tables=list(tables(findings)),
        pairs=pairs,
        foreign=findings["foreign"],
        conflicts=findings["label_conflicts"],
        pictures={id: embedded(picture) for id, picture in pictures.items()},
    )
    write_text(path, page)
