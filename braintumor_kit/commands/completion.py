"""What shells offer after Tab: recipes, runs, plugins, keys of recipes. Neither torch nor Keras is imported for it, and
what cannot be found is not offered."""

from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

MOST_RUNS = 50
"""The newest that are offered."""


def _offering(find: Callable[[click.Context, str], Iterable[CompletionItem]]) -> Completer:
    """A completer of what begins as the user began; a folder of plugins that is not there, or damaged files, must not
    end in a traceback at the prompt."""

    @wraps(find)
    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from braintumor_kit.errors import BtkitError

        try:
            found = list(find(ctx, incomplete))
        except (BtkitError, OSError, ValueError):
            return []
        return [item for item in found if item.type != "plain" or str(item.value).startswith(incomplete)]

    return complete


@_offering
def recipes(ctx: click.Context, incomplete: str) -> Iterator[CompletionItem]:
    """Recipes that ship with btkit, with what each is for, and files."""
    from braintumor_kit.recipe.shipped import shipped_recipes

    for name, path in shipped_recipes().items():
        yield CompletionItem(name, help=_first_line(path))
    yield CompletionItem(incomplete, type="file")


def _first_line(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()


@_offering
def runs(ctx: click.Context, incomplete: str) -> Iterator[CompletionItem]:
    """Run folders below --runs, the newest first, and files."""
    folder = Path(ctx.params.get("runs") or "runs")
    found = [path.parent for path in folder.glob("*/record.json")]
    for run in sorted(found, key=lambda run: run.stat().st_mtime, reverse=True)[:MOST_RUNS]:
        yield CompletionItem(str(run), help=_state(run))
    yield CompletionItem(incomplete, type="file")


def _state(run: Path) -> str:
    return "finished" if (run / "model.keras").is_file() or (run / "metrics.json").is_file() else "not finished"


def plugins_of(kind: str) -> Completer:
    """Names of the plugins of a kind."""
    return _offering(lambda ctx, incomplete: _plugins(ctx, kind))


@_offering
def plugin_names(ctx: click.Context, incomplete: str) -> Iterable[CompletionItem]:
    """Names of the plugins of the kind that stands before."""
    return _plugins(ctx, ctx.params["kind"])


@_offering
def methods(ctx: click.Context, incomplete: str) -> Iterator[CompletionItem]:
    """Names of explainers, the last of a list that commas divide."""
    before, comma, _ = incomplete.rpartition(",")
    for item in _plugins(ctx, "explainer"):
        if item.value not in before.split(","):
            yield CompletionItem(f"{before}{comma}{item.value}", help=item.help)


def _plugins(ctx: click.Context, kind: str) -> Iterator[CompletionItem]:
    from braintumor_kit.registry import Registry

    known = Registry.from_environment(ctx.find_root().params.get("plugin_folders") or ())
    for info in known.plugins:
        if info.kind == kind:
            yield CompletionItem(info.name, help=info.origin)


@_offering
def keys(ctx: click.Context, incomplete: str) -> Iterator[CompletionItem]:
    """Keys of recipes, with what each means: training.epochs."""
    from braintumor_kit.recipe.tables import RecipeTable

    yield from _keys(RecipeTable, "")


def _keys(table: Any, before: str) -> Iterator[CompletionItem]:
    from pydantic import BaseModel

    from braintumor_kit.recipe.load import types_within

    for name, field in table.model_fields.items():
        tables = [kind for kind in types_within(field.annotation) if issubclass(kind, BaseModel)]
        several = str(field.annotation).startswith("tuple")
        if tables:
            yield from _keys(tables[0], f"{before}{name}.{'0.' if several else ''}")
        else:
            yield CompletionItem(f"{before}{name}", help=field.description)


@_offering
def targets(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """What --target takes on any model."""
    return [CompletionItem(name) for name in ("predicted", "label", "all")]
