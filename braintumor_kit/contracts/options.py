"""How a plugin declares its options: a frozen pydantic model in which every field is described.

    class MyOptions(PluginOptions):
        root: Path = Field(description="Folder that holds the images.")
        channel: int = Field(0, ge=0, description="Which channel to read.")

A recipe's table for the plugin is validated against it: unknown keys, wrong types and values out of range are
reported with file, table, key and the nearest valid spelling. Two kinds of field are given to the plugin already
resolved, so that no plugin asks where the recipe stands:

* `Path`: made absolute, against the recipe's own folder (against the working directory for `--set`);
* `NameOrPath`: a name such as `"imagenet"`, or a path; what looks like a path (it holds a `/`, or starts with `.`
  or `~`) is made absolute like a `Path`. Addresses (`hf://...`) are left alone, and so is a bare `weights.pth`, which
  could be a name: users write `./weights.pth`.
"""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict


@dataclass(frozen=True)
class NameOrPathMark:
    """Marks a text option that may be a path."""


NameOrPath = Annotated[str, NameOrPathMark()]
"""A text option that may be a path."""


class PluginOptions(BaseModel):
    """Base of every plugin's options.

    Raises:
        TypeError: on defining a subclass with a field that has no description.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        bare = [name for name, field in cls.model_fields.items() if not field.description]
        if bare:
            raise TypeError(f"{cls.__qualname__}: describe the option(s) {', '.join(bare)} (Field(description=...))")


class NoOptions(PluginOptions):
    """For plugins that have nothing to choose."""
