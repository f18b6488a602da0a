"""One look for every figure: colours that colour-blind readers tell apart (Okabe and Ito 2008), quiet axes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from braintumor_kit.files import whole

TRAIN, VALIDATION, TEST = "#0072B2", "#E69F00", "#009E73"
MANY = (TRAIN, VALIDATION, TEST, "#CC79A7", "#D55E00", "#56B4E9")
"""Colours of lines that stand for more than the three splits."""

INK, QUIET, RULE, PAPER = "#222222", "#888888", "#DDDDDD", "#FFFFFF"
SEQUENTIAL = "Blues"

_STYLE: Any = {
    "font.size": 10,
    "text.parse_math": False,  # names of classes are the user's, dollars and all
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": RULE,
    "legend.frameon": False,
    "savefig.dpi": 150,
    "svg.fonttype": "none",  # letters stay letters
    "svg.hashsalt": "btkit",  # and names the same at each time
}


class _Figure(Figure):
    """A figure that is drawn once: to lay it out, matplotlib draws it with a renderer that puts nothing to paper, and
    then again for the file. What is left of the first time is where things lie, which needs no drawing."""

    def draw(self, renderer: Any) -> None:
        engine = self.get_layout_engine()  # none any more where it is drawn for the file
        if isinstance(engine, ConstrainedLayoutEngine):
            engine.execute(self)
        else:
            super().draw(renderer)


@contextmanager
def figure(path: Path, width: float, height: float) -> Iterator[Figure]:
    """A figure of that size in inches, saved whole to `path` when the block ends well; no global state changes."""
    with matplotlib.rc_context(_STYLE):
        drawn = _Figure(figsize=(width, height), layout="constrained")
        yield drawn
        with whole(path) as beside:
            drawn.savefig(beside)


def bare(axes: Axes) -> None:
    """Takes ticks and frame away, for pictures."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
