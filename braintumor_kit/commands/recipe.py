"""`btkit recipe check | show | schema`."""

import click

from braintumor_kit.commands.common import json_option, print_json, registry, set_option
from braintumor_kit.commands.completion import recipes


@click.group()
def recipe() -> None:
    """Check a recipe, show it resolved, print its schema."""


@recipe.command()
@click.argument("recipe", shell_complete=recipes)
@set_option
@click.pass_context
def check(ctx: click.Context, recipe: str, overrides: tuple[str, ...]) -> None:
    """Say whether RECIPE is valid; every problem is named at once."""
    from braintumor_kit.recipe.load import load_recipe
    from braintumor_kit.recipe.shipped import find_recipe

    path = find_recipe(recipe)
    load_recipe(path, overrides, registry(ctx))
    click.echo(f"{path}: valid")


@recipe.command()
@click.argument("recipe", shell_complete=recipes)
@set_option
@json_option
@click.pass_context
def show(ctx: click.Context, recipe: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print RECIPE with every value in force: defaults, what it extends, and --set."""
    import tomli_w

    from braintumor_kit.recipe.load import load_recipe, without_none
    from braintumor_kit.recipe.shipped import find_recipe

    resolved = load_recipe(find_recipe(recipe), overrides, registry(ctx)).resolved()
    if as_json:
        print_json(resolved)
    else:
        click.echo(tomli_w.dumps(without_none(resolved)), nl=False)


@recipe.command()
@click.pass_context
def schema(ctx: click.Context) -> None:
    """Print the JSON Schema of recipes, the options of every plugin at hand included."""
    from braintumor_kit.recipe.schema import recipe_schema

    value, problems = recipe_schema(registry(ctx))
    print_json(value)
    for problem in problems:
        click.echo(f"left out: {problem}", err=True)
