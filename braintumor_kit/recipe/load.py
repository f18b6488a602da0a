"""A recipe read, checked as a whole and ready to be carried out."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from braintumor_kit.contracts import InputError, Plugin, PluginError, PluginOptions
from braintumor_kit.contracts.options import NameOrPathMark
from braintumor_kit.recipe.conflicts import conflicts
from braintumor_kit.recipe.layers import Layers, layers_of, read_layers
from braintumor_kit.recipe.problems import Path_, Problem, RecipeError, explain
from braintumor_kit.recipe.tables import ExplainTable, PluginTable, RecipeTable
from braintumor_kit.registry import PluginInfo, Registry

ADDRESS = re.compile(r"[\w+-]{2,}:")
"""How what is no path begins: https:, file:, sqlite:; a single letter is a drive."""

DATA_TABLES = ("seed", "source", "pixels", "split")
"""The tables that say what the data are."""


@dataclass(frozen=True)
class ChosenPlugin:
    """A plugin named by a recipe, imported, with its checked options."""

    info: PluginInfo
    cls: type[Plugin[Any]]
    options: PluginOptions

    def make(self) -> Any:
        """A new instance of the plugin."""
        with self.info.blamed("being made"):
            return self.cls(self.options)

    @property
    def digest(self) -> str:
        """SHA-256 of which plugin it is and of every option but where files lie: what its pixels can depend on
        beside the files' content."""
        identity = self.info.version if self.info.origin == "file" else self.info.target
        fields = self.cls.Options.model_fields
        paths = {name for name, field in fields.items() if Path in types_within(field.annotation)}
        return hashlib.sha256(f"{identity}{self.options.model_dump_json(exclude=paths)}".encode()).hexdigest()

    def __reduce__(self) -> tuple[Callable[..., "ChosenPlugin"], tuple[Any, ...]]:
        """Sent to another process as names and plain values: the plugin is imported anew there."""
        return choose, (self.info, self.options.model_dump(mode="json"))


def choose(info: PluginInfo, options: Mapping[str, Any]) -> ChosenPlugin:
    """Imports the plugin that `info` describes and gives it options that were checked before."""
    folders = (Path(info.target).parents[1],) if info.origin == "file" else ()
    cls = Registry(folders).load(info.kind, info.name)
    return ChosenPlugin(info, cls, cls.Options.model_validate_json(json.dumps(options)))


@dataclass(frozen=True)
class DataRecipe:
    """What a recipe says of its data, checked.

    Attributes:
        tables: of which `seed`, `source`, `pixels` and `split` hold.
        source: the plugin named.
    """

    tables: RecipeTable
    source: ChosenPlugin


@dataclass(frozen=True)
class Recipe(DataRecipe):
    """A checked recipe.

    Attributes:
        path: the recipe's file; its stem names the run.
        tables: every value in force.
        source, backbone: the plugins named.
        explainers: those of each `[[explain]]` table.
    """

    path: Path
    backbone: ChosenPlugin
    explainers: tuple[ChosenPlugin, ...] = ()

    def resolved(self) -> dict[str, Any]:
        """Every value in force as plain JSON values, plugin options included and defaults filled in."""
        values = self.tables.model_dump(mode="json")
        for table, plugin in (("source", self.source), ("backbone", self.backbone)):
            values[table] |= plugin.options.model_dump(mode="json")
        for item, plugin in zip(values["explain"], self.explainers, strict=True):
            item |= plugin.options.model_dump(mode="json")
        return values


def load_recipe(
    path: Path,
    overrides: Sequence[str] = (),
    registry: Registry | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Recipe:
    """Reads and checks a recipe.

    Args:
        overrides: `key.path=value` texts of `--set`.
        changes: tables and keys of a caller in Python, such as {"training": {"epochs": 2}}.

    Raises:
        RecipeError: with every problem that the recipe has.
        InputError: where a file cannot be read at all.
    """
    return _check(read_layers(path, overrides, _plain(changes or {})), path, registry or Registry.from_environment())


def recipe_of(
    values: Mapping[str, Any], path: Path, registry: Registry | None = None, overrides: Sequence[str] = ()
) -> Recipe:
    """The recipe whose resolved values a run keeps.

    Args:
        path: the file that holds the values, for messages.
        overrides: `key.path=value` texts that are laid over them.

    Raises:
        RecipeError: where its plugins are not at hand any more, or take other options now.
    """
    return _check(layers_of(values, overrides, str(path)), path, registry or Registry.from_environment())


def load_explainer(name: str, options: Mapping[str, Any], registry: Registry | None = None) -> ChosenPlugin:
    """The explainer plugin `name` with options.

    Raises:
        PluginError: where there is no such plugin.
        InputError: where it takes no such options.
    """
    registry = registry or Registry.from_environment()
    registry.find("explainer", name)
    layers = layers_of({"explain": [{"method": name, **options}]})
    problems: list[Problem] = []
    chosen = _check_plugin("explainer", ("explain", 0), name, options, layers, registry, problems)
    if chosen is None:
        raise InputError("\n".join(f"{name}.{problem.path[-1]}: {problem.message}" for problem in problems))
    return chosen


def load_recipe_source(path: Path, overrides: Sequence[str] = (), registry: Registry | None = None) -> ChosenPlugin:
    """The source plugin of a recipe; the rest of the recipe is not looked at.

    Raises:
        RecipeError: where the recipe's [source] is at fault.
    """
    return _only_source(read_layers(path, overrides), registry)


def load_source(name: str, overrides: Sequence[str] = (), registry: Registry | None = None) -> ChosenPlugin:
    """The source plugin `name` with options given as `--set source.key=value` texts alone.

    Raises:
        RecipeError: as for a recipe.
    """
    return _only_source(layers_of({"source": {"name": name}}, overrides), registry)


def load_recipe_data(path: Path, overrides: Sequence[str] = (), registry: Registry | None = None) -> DataRecipe:
    """What a recipe says of its data; the rest of the recipe is not looked at.

    Raises:
        RecipeError: where that is at fault.
    """
    return _only_data(read_layers(path, overrides), registry)


def load_source_data(
    name: str,
    overrides: Sequence[str] = (),
    registry: Registry | None = None,
    only: Sequence[str] = DATA_TABLES,
) -> DataRecipe:
    """The same for the source plugin `name` with options given as `--set` texts alone, of the tables `only`.

    Raises:
        RecipeError: as for a recipe.
    """
    return _only_data(layers_of({"source": {"name": name}}, overrides), registry, only, alone=True)


def _only_source(layers: Layers, registry: Registry | None) -> ChosenPlugin:
    return _only_data(layers, registry, ("source",)).source


def _only_data(
    layers: Layers,
    registry: Registry | None,
    only: Sequence[str] = DATA_TABLES,
    alone: bool = False,
) -> DataRecipe:
    """What layers say of the data; with `alone` there is no recipe, so that tables other than `only` are mistakes."""
    problems: list[Problem] = []
    if alone:
        said = f"has no meaning here; {', '.join(only)} {'has' if len(only) == 1 else 'have'}."
        problems += [Problem("--set", (key,), said) for key in layers.values if key not in only]
    _resolve_own_paths(layers)
    tables = _check_tables(layers, problems, only)
    chosen = _check_named("source", tables, layers, registry or Registry.from_environment(), problems)
    problems += _conflicts(tables, layers)
    if problems or chosen is None:
        raise RecipeError(problems)
    return DataRecipe(RecipeTable(**{**_placeholders(("backbone",)), **tables}), chosen)


def _check(layers: Layers, path: Path, registry: Registry) -> Recipe:
    problems: list[Problem] = []
    _resolve_own_paths(layers)
    tables = _check_tables(layers, problems)
    source = _check_named("source", tables, layers, registry, problems)
    backbone = _check_named("backbone", tables, layers, registry, problems)
    explainers = [
        _check_plugin(
            "explainer", ("explain", at), table.method, table.options, layers, registry, problems, type(table)
        )
        for at, table in enumerate(tables.get("explain", ()))
    ]
    problems += _conflicts(tables, layers)
    if problems or source is None or backbone is None:
        raise RecipeError(sorted(problems, key=lambda problem: [str(part) for part in problem.path]))
    return Recipe(RecipeTable(**tables), source, path, backbone, tuple(filter(None, explainers)))


def _plain(value: Any) -> Any:
    """A caller's value as TOML would have it: paths are texts, and what is read-only or a tuple is none."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _conflicts(tables: Mapping[str, Any], layers: Layers) -> list[Problem]:
    return [Problem(layers.origin(place).file, place, message) for place, message in conflicts(tables)]


def _resolve_own_paths(layers: Layers) -> None:
    """Makes the paths of btkit's own keys absolute, relative to where each was written."""
    for table, key in (("source", "patient_index"), ("split", "collections"), ("mlflow", "tracking_uri")):
        values = layers.values.get(table)
        if isinstance(values, dict) and isinstance(values.get(key), str) and not ADDRESS.match(values[key]):
            values[key] = str(layers.origin((table, key)).folder / Path(values[key]).expanduser())


def _check_tables(layers: Layers, problems: list[Problem], only: Sequence[str] = ()) -> dict[str, Any]:
    """Each top-level value of its own checked, so that a fault in one table hides none in another."""
    checked: dict[str, Any] = {}
    fields = RecipeTable.model_fields
    for key in sorted(only or {*layers.values, *fields}):
        holder = {key: layers.values[key]} if key in layers.values else {}
        others = [name for name, field in fields.items() if field.is_required() and name != key]
        try:
            whole = _strictly(RecipeTable, {**_placeholders(others), **holder})
        except ValidationError as error:
            problems += _problems(error, RecipeTable, layers, ())
        else:
            checked[key] = getattr(whole, key)
    return checked


def _placeholders(required: Sequence[str]) -> dict[str, Any]:
    """Stand-ins for required tables other than the one that is being checked."""
    return {name: {"name": "-"} for name in required}


def _strictly(model: type[BaseModel], values: Mapping[str, Any]) -> Any:
    """Validates TOML values as strict JSON: "30" is no number and 1 no truth value, but lists and paths are taken."""
    return model.model_validate_json(json.dumps(values, default=str), strict=True)


def _problems(
    error: ValidationError, model: type[BaseModel], layers: Layers, table: Path_, holder: type[BaseModel] | None = None
) -> Iterator[Problem]:
    """The faults of a table; `holder` is what the values of `model` stand among."""
    for item in error.errors():
        place = (*table, *item["loc"])
        known = _keys_of(model, item["loc"][:-1])
        if holder and len(item["loc"]) == 1:
            known += holder.model_fields
        yield Problem(layers.origin(place).file, place, explain(item, known))


def _keys_of(model: type[BaseModel], path: Path_) -> list[str]:
    """Keys of the table at `path` inside `model`."""
    fields = model.model_fields
    for part in path:
        if isinstance(part, int):
            continue
        inside = types_within(fields[part].annotation) if part in fields else []
        tables = [item for item in inside if issubclass(item, BaseModel)]
        if not tables:
            return []
        fields = tables[0].model_fields
    return list(fields)


def types_within(annotation: Any) -> list[type]:
    """The plain types that an annotation is made of: `tuple[Path, ...] | None` holds Path."""
    if isinstance(annotation, type) and not get_args(annotation):
        return [annotation]
    return [inner for part in get_args(annotation) for inner in types_within(part)]


def _check_named(
    kind: str, tables: Mapping[str, Any], layers: Layers, registry: Registry, problems: list[Problem]
) -> ChosenPlugin | None:
    table: PluginTable | None = tables.get(kind)
    if table is None:
        return None
    return _check_plugin(kind, (kind,), table.name, table.options, layers, registry, problems, type(table))


def _check_plugin(
    kind: str,
    table: Path_,
    name: str,
    options: Mapping[str, Any],
    layers: Layers,
    registry: Registry,
    problems: list[Problem],
    holder: type[PluginTable | ExplainTable] | None = None,
) -> ChosenPlugin | None:
    """The plugin that the table at `table`, a `holder`, names, with its options checked."""
    try:
        info = registry.find(kind, name)
        cls = registry.load(kind, name)
    except PluginError as error:
        place: Path_ = (*table, "method" if kind == "explainer" else "name")
        problems.append(Problem(layers.origin(place).file, place, str(error)))
        return None
    values = {key: _resolve(cls.Options, key, value, layers, (*table, key)) for key, value in options.items()}
    try:
        return ChosenPlugin(info, cls, _strictly(cls.Options, values))
    except ValidationError as error:
        problems += _problems(error, cls.Options, layers, table, holder)
        return None


def _resolve(model: type[PluginOptions], key: str, value: Any, layers: Layers, place: Path_) -> Any:
    """Makes a path option absolute, relative to where the value was written."""
    if isinstance(value, list):
        return [_resolve(model, key, item, layers, (*place, index)) for index, item in enumerate(value)]
    field = model.model_fields.get(key)
    if field is None or not isinstance(value, str):
        return value
    may_be_name = _is_marked(field.annotation) or any(isinstance(mark, NameOrPathMark) for mark in field.metadata)
    if Path in types_within(field.annotation) or (may_be_name and _looks_like_path(value)):
        return str(layers.origin(place).folder / Path(value).expanduser())
    return value


def _is_marked(annotation: Any) -> bool:
    """Whether `NameOrPath` is part of an annotation, as in `NameOrPath | None`."""
    marks = getattr(annotation, "__metadata__", ())
    return any(isinstance(mark, NameOrPathMark) for mark in marks) or any(map(_is_marked, get_args(annotation)))


def _looks_like_path(value: str) -> bool:
    return "://" not in value and (value.startswith((".", "~")) or "/" in value or os.sep in value)


def without_none(value: Any) -> Any:
    """A JSON value as TOML can hold it: keys without a value are left out."""
    if isinstance(value, dict):
        return {key: without_none(item) for key, item in value.items() if item is not None}
    return [without_none(item) for item in value] if isinstance(value, list) else value
