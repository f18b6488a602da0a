"""What a benchmark says, row by row."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        name: what was done, such as `fit/resnet18/bfloat16`.
        peer: with what it is compared.
        ours, theirs: medians over the rounds, in `unit`.
        unit: images/s, s, MiB or a share of time.
        ratio: above 1 means btkit is better, whatever the unit.
        low, high: the least and the greatest ratio of any one round; None where there was but one.
        at_least: the ratio that btkit promises; None promises nothing.
    """

    name: str
    peer: str
    ours: float
    theirs: float
    unit: str
    ratio: float
    low: float | None = None
    high: float | None = None
    at_least: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the promise is kept."""
        return self.at_least is None or self.ratio >= self.at_least

    def as_json(self) -> dict[str, Any]:
        """As in `bench.json`."""
        return {**asdict(self), "holds": self.holds}
