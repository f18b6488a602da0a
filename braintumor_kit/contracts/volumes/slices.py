"""Which slices of a volume become samples."""

from pydantic import Field

from braintumor_kit.contracts.options import PluginOptions


class SliceOptions(PluginOptions):
    """Options that sources of volumes have in common."""

    classes: tuple[str, ...] | None = Field(
        None, min_length=1, description="Take these classes only, in this order; all that are found by default."
    )
    trim: float = Field(
        0.0,
        ge=0.0,
        lt=0.5,
        description="Share of a volume's slices left out at each end, where there is little of the head.",
    )
    every: int = Field(1, ge=1, description="Take every so many slices; neighbours are nearly alike.")

    def chosen(self, count: int) -> range:
        """Places of the slices taken, of so many."""
        rim = int(self.trim * count)
        return range(rim, count - rim, self.every)
