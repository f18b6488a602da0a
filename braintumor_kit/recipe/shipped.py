"""Recipes that ship with btkit, found by name where no file of that name is at hand."""

from importlib.resources import files
from pathlib import Path

from braintumor_kit.contracts import InputError
from braintumor_kit.spelling import nearest

MAX_NAME = 4096
"""Longer names are no files: the system refuses even to look for them."""


def shipped_recipes() -> dict[str, Path]:
    """Name and file of every shipped recipe."""
    folder = Path(str(files("btkit_recipes")))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def find_recipe(name: str) -> Path:
    """The recipe file that the user means: a path, or the name of a shipped recipe, with or without
    `recipes/` before and `.toml` after it.

    Raises:
        InputError: where there is neither.
    """
    path = Path(name)
    if len(name) < MAX_NAME and path.is_file():
        return path
    shipped = shipped_recipes()
    if path.parent.as_posix() in (".", "recipes") and path.suffix in ("", ".toml") and path.stem in shipped:
        return shipped[path.stem]
    near = nearest(path.stem, shipped)
    hint = f"did you mean the shipped recipe '{near}'?" if near else f"Shipped recipes: {', '.join(shipped)}."
    raise InputError(f"there is no recipe file '{name}'; {hint}")
