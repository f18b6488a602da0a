"""How notebooks show results: short pieces of HTML that stand by themselves, in whatever colours the notebook has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from markupsafe import Markup
from PIL import Image

from braintumor_kit.evaluation.metrics import HEADLINES
from braintumor_kit.report.page import data_url, rendered

SHOWN = 8
"""Maps, or predictions times four, that are shown at most."""

ROLES = {"train": "train", "validation": "validation (selects)", "test": "test (reported)", "held_out": "held out"}


@dataclass(frozen=True)
class Shown:
    """One map in a notebook.

    Attributes:
        picture: the map over its slice.
        target: what it explains.
        predicted, probability: the class that the model gives the slice.
        flags: sentences that say why to doubt it.
    """

    picture: Image.Image
    target: str
    predicted: str
    probability: float
    flags: Sequence[str]


def explanation_html(method: str, layer: str | None, maps: Sequence[Shown], total: int) -> str:
    """Maps side by side.

    Args:
        maps: those that are shown, of so many in all.
    """
    pictures = [Markup(_webp(item.picture)) for item in maps]  # of letters that need no escaping
    return rendered(
        "notebook_explanation.html",
        method=method,
        layer=layer,
        maps=list(zip(maps, pictures, strict=True)),
        more=total - len(maps),
    )


def result_html(name: str, metrics: Mapping[str, Any], caveats: Sequence[str]) -> str:
    """The headline figures of a run with their intervals, and what they have to be read with."""
    rows = [(role, metrics[part]) for part, role in ROLES.items() if metrics.get(part)]
    return rendered(
        "notebook_result.html",
        name=name,
        rows=rows,
        headlines=list(HEADLINES),
        by_patient=(metrics.get("test") or {}).get("by_group"),
        over=rows[0][1]["interval_over"],
        caveats=caveats,
    )


def predictions_html(rows: Sequence[Mapping[str, Any]], classes: Sequence[str], warning: str | None) -> str:
    """A row a picture, as `btkit predict --json` has them."""
    shown = rows[: 4 * SHOWN]
    return rendered(
        "notebook_predictions.html", rows=shown, classes=classes, more=len(rows) - len(shown), warning=warning
    )


def _webp(image: Image.Image) -> str:
    content = BytesIO()
    image.save(content, "WEBP", quality=86, method=2)
    return data_url(content.getvalue(), "webp")
