"""What all tables of a recipe have in common."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Table(BaseModel):
    """A table of a recipe: unknown keys are errors, and nothing changes after it is read."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class OpenTable(Table):
    """A table that names a plugin; keys that are not listed here are the plugin's own options."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    @property
    def options(self) -> dict[str, Any]:
        """The plugin's own options, as given."""
        return dict(self.__pydantic_extra__ or {})
