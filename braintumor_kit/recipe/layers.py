"""Recipe files, the files they extend, and `--set`, laid over each other; each value remembers where it came from."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from braintumor_kit.contracts import InputError
from braintumor_kit.recipe.problems import Path_
from braintumor_kit.recipe.shape import MAX_BYTES, MAX_DEPTH, check_text, check_values
from braintumor_kit.recipe.tables import BackboneTable, PluginTable, SourceTable
from braintumor_kit.regular import open_regular

MAX_CHAIN = 16
"""Recipes that extend each other in a row."""

PLUGIN_TABLES: Mapping[str, type[PluginTable]] = {"source": SourceTable, "backbone": BackboneTable}


@dataclass(frozen=True)
class Origin:
    """Where a value came from.

    Attributes:
        file: the file's name as the user would know it, or "--set".
        folder: what relative paths in the value are relative to.
    """

    file: str
    folder: Path


@dataclass(frozen=True)
class Layers:
    """The merged values of a recipe and the origin of each leaf."""

    values: dict[str, Any]
    origins: dict[Path_, Origin]
    top: Origin

    def origin(self, path: Path_) -> Origin:
        """Origin of the value at `path`, of what holds it, or of what it holds; else the recipe itself."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
        within = (origin for place, origin in self.origins.items() if place[: len(path)] == path)
        return next(within, self.top)


def read_layers(recipe: Path, overrides: Sequence[str] = (), changes: Mapping[str, Any] | None = None) -> Layers:
    """Reads a recipe, what it extends, and lays `key.path=value` overrides over it.

    Args:
        changes: tables and keys of a caller in Python, laid over the recipe before that.

    Raises:
        InputError: where a file is missing, no TOML, too large, or extends itself; or an override is not understood.
    """
    layers = _read_file(recipe, ())
    if changes:
        check_values(changes, "Python")
        layers = _lay_over(layers, changes, Origin("Python", Path.cwd()))
    if overrides:
        changes = _merge_overrides(overrides, layers.values)
        layers = _lay_over(layers, changes, Origin("--set", Path.cwd()))
    return layers


def layers_of(values: Mapping[str, Any], overrides: Sequence[str] = (), file: str = "command line") -> Layers:
    """Layers of values that stand in no file (paths relative to the working directory), with overrides over them."""
    origin = Origin(file, Path.cwd())
    layers = Layers(dict(values), dict.fromkeys(_leaves(values), origin), origin)
    return _lay_over(layers, _merge_overrides(overrides, values), Origin("--set", Path.cwd()))


def _read_file(path: Path, chain: tuple[Path, ...]) -> Layers:
    try:
        place = path.resolve()
    except (OSError, RuntimeError) as error:  # links that lead in circles
        raise InputError(f"{path}: the recipe cannot be read: {error}.") from error
    if place in chain:
        raise InputError(f"{path}: extends itself (by way of {chain[-1].name}).")
    if len(chain) >= MAX_CHAIN:
        raise InputError(f"{path}: is the end of {MAX_CHAIN} recipes that extend each other; join some of them.")
    values = _parse(path)
    origin = Origin(str(path), place.parent)
    base = values.pop("extends", None)
    own = Layers(values, dict.fromkeys(_leaves(values), origin), origin)
    if base is None:
        return own
    if not isinstance(base, str):
        raise InputError(f"{path}: extends: must be the name of one recipe file, not {base!r}.")
    below = _read_file(origin.folder / base, (*chain, place))
    merged = _lay_over(below, values, origin)
    return Layers(merged.values, merged.origins, origin)


def _parse(path: Path) -> dict[str, Any]:
    try:
        with open_regular(path) as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: the recipe cannot be read: {error.strerror}.") from error
    if len(data) > MAX_BYTES:
        raise InputError(f"{path}: is larger than {MAX_BYTES >> 20} MiB; that is no recipe.")
    try:
        text = data.decode()
        check_text(text, str(path))
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not valid TOML: {error}.") from error
    check_values(values, str(path))
    return values


def _lay_over(below: Layers, above: Mapping[str, Any], origin: Origin) -> Layers:
    kept = _without_replaced_options(below.values, above)
    values = _merge(kept, above)
    changed = set(_leaves(above))
    old = {path: below.origins[path] for path in _leaves(values) if path in below.origins and path not in changed}
    return Layers(values, old | dict.fromkeys(changed, origin), below.top)


def _without_replaced_options(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Naming another plugin drops the options of the one below: they are not its own. Keys of the table itself stay."""
    kept = dict(below)
    for table in PLUGIN_TABLES:
        old, new = kept.get(table), above.get(table)
        if isinstance(old, dict) and isinstance(new, dict) and new.get("name", old.get("name")) != old.get("name"):
            kept[table] = {key: value for key, value in old.items() if key in PLUGIN_TABLES[table].model_fields}
    return kept


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _leaves(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    if isinstance(value, Mapping) and (value or not path):
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for index, item in enumerate(value):
            yield from _leaves(item, (*path, index))
    else:
        yield path


def _merge_overrides(overrides: Sequence[str], values: Mapping[str, Any]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for override in overrides:
        keys, value = parse_override(override)
        _put(changes, values, keys, value, override)
    return changes


def parse_override(override: str) -> tuple[list[str], Any]:
    """The keys and the value of one `key.path=value`; what is no TOML value is text.

    Raises:
        InputError: where it is of another form.
    """
    key, equals, text = override.partition("=")
    keys = key.strip().split(".")
    if not equals or not all(keys):
        raise InputError(f"--set {override}: write it as key.path=value, for example training.epochs=2.")
    if len(keys) > MAX_DEPTH:
        raise InputError(f"--set {override[:60]}...: the key has more than {MAX_DEPTH} parts.")
    check_text(text, f"--set {keys[0][:60]}")
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # no TOML value: a bare word or path, taken as text
        parsed = {"value": text}
    value = parsed["value"] if set(parsed) == {"value"} else text  # what goes on in further lines is no value
    check_values({keys[0]: value}, "--set")
    return keys, value


def _put(changes: dict[str, Any], below: Any, keys: list[str], value: Any, override: str) -> None:
    """Puts one override into `changes`; a list on the way is copied from `below`, so that one item can change."""
    here: Any = changes
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(here, list):
            if not (key.isdecimal() and int(key) < len(here)):
                raise InputError(f"--set {override}: '{key}' is none of the {len(here)} items, 0 to {len(here) - 1}.")
            index: Any = int(key)
        else:
            index = key
        below = _step(below, key)
        if last:
            here[index] = value
        else:
            if isinstance(here, dict) and not isinstance(here.get(index), (dict, list)):
                here[index] = _copy(below) if isinstance(below, list) else {}
            here = here[index]
            if not isinstance(here, (dict, list)):
                raise InputError(f"--set {override}: '{key}' is a value, not a table.")


def _step(below: Any, key: str) -> Any:
    if isinstance(below, Mapping):
        return below.get(key)
    if isinstance(below, list) and key.isdecimal() and int(key) < len(below):
        return below[int(key)]
    return None


def _copy(items: list[Any]) -> list[Any]:
    return [dict(item) if isinstance(item, dict) else item for item in items]
