"""The tables of a recipe as frozen records: every key, its type, its default and what it means.

This is the one place where a recipe's keys are defined. `btkit recipe schema` prints it, `recipe check` holds
recipes to it, and everything below the recipe takes these records as its settings. Options of plugins are the
plugins' own and are checked against the plugins' own models.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0, le=1)]


class Table(BaseModel):
    """A table of a recipe: unknown keys are errors, and nothing changes after it is read."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PluginTable(Table):
    """A table that names a plugin; keys that are not listed here are the plugin's own options."""

    model_config = ConfigDict(frozen=True, extra="allow")

    @property
    def options(self) -> dict[str, Any]:
        """The plugin's own options, as given."""
        return dict(self.__pydantic_extra__ or {})


class SourceTable(PluginTable):
    """Where the slices come from."""

    name: str = Field(description="The source plugin; `btkit plugins list` shows them.")
    on_bad_image: Literal["error", "skip"] = Field(
        "error",
        description="What to do about pictures that cannot be read: stop and name them all, or leave them out and "
        "record them.",
    )


class PixelsTable(Table):
    """How any picture becomes the network's grey (or colour) square of 0..255."""

    image_size: int = Field(224, ge=32, le=1024, description="Side of the square, in pixels.")
    fit: Literal["stretch", "pad"] = Field(
        "stretch", description="Stretch to the square as the reference pipeline does, or keep the shape and pad with black."
    )
    colour: Literal["grey", "rgb"] = Field(
        "grey", description="Turn colour to grey by luminance (repeated to the network's channels), or keep it."
    )
    crop: Literal["none", "head"] = Field(
        "none", description='"head" cuts to the bounding box of the head, which hides how a collection was framed.'
    )
    crop_margin: Fraction = Field(
        0.05, description='Margin around the head for crop = "head", as a fraction of the box\'s longer side.'
    )
    intensity: Literal["full", "percentile"] = Field(
        "full",
        description='"percentile" stretches the head\'s 1st to 99th percentile to 0..255, which hides how a collection '
        "was exposed.",
    )
