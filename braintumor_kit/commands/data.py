"""`btkit data fetch | index | info`."""

from pathlib import Path

import click

from braintumor_kit.commands.common import (
    json_option,
    print_json,
    print_table,
    registry,
    reporter,
    set_option,
)
from braintumor_kit.commands.completion import plugins_of, recipes


@click.group()
def data() -> None:
    """Obtain a public data set; describe one; index its patients."""


@data.command()
@click.argument("name", type=click.Choice(["nickparvar", "figshare", "sartaj"]))
@click.option("--to", "folder", required=True, type=click.Path(path_type=Path), help="Folder to put it in.")
def fetch(name: str, folder: Path) -> None:
    """Obtain the public data set NAME where a network is at hand."""
    from braintumor_kit.data.fetch import DATA_SETS
    from braintumor_kit.data.fetch import fetch as fetch_data_set

    told = reporter()
    with told.bar(f"fetching {name}") as progress:
        root = fetch_data_set(name, folder, lambda file, done, size: progress(done, size))
    chosen = DATA_SETS[name]
    told.say(f"{chosen.title}, licence {chosen.licence}, {chosen.page}")
    click.echo(root)


@data.command()
@click.option(
    "--source", required=True, shell_complete=plugins_of("source"), help="The source whose patients are known."
)
@set_option
@click.option("--to", "path", required=True, type=click.Path(path_type=Path), help="The index, a .npz file.")
@click.option("--title", required=True, help="What the slices are, where they come from, under which licence.")
@click.pass_context
def index(ctx: click.Context, source: str, overrides: tuple[str, ...], path: Path, title: str) -> None:
    """Make an index of a source's slices and patients, for [source] recover_patients of other sources."""
    from braintumor_kit.recipe.load import load_source_data
    from braintumor_kit.workflows.patient_index import make_index

    told = reporter()
    slices, patients = make_index(load_source_data(source, overrides, registry(ctx)), title, path, told)
    told.say(f"{slices} slices of {patients} patients, {path.stat().st_size / 1000:.0f} kB")
    click.echo(path)


@data.command()
@click.argument("recipe", required=False, shell_complete=recipes)
@click.option(
    "--source",
    shell_complete=plugins_of("source"),
    help="A source plugin instead of a recipe; its options come by --set source.key=value.",
)
@set_option
@json_option
@click.pass_context
def info(ctx: click.Context, recipe: str | None, source: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Counts, sizes, modes, classes, splits and groups of RECIPE's source, or of --source NAME."""
    from braintumor_kit.recipe.load import load_recipe_source, load_source
    from braintumor_kit.recipe.shipped import find_recipe
    from braintumor_kit.workflows.describe import describe

    if (recipe is None) == (source is None):
        raise click.UsageError("name either a RECIPE or --source NAME.")
    if source is not None:
        chosen = load_source(source, overrides, registry(ctx))
    else:
        chosen = load_recipe_source(find_recipe(str(recipe)), overrides, registry(ctx))
    description = describe(chosen, reporter())
    if as_json:
        print_json(description.as_json())
        return
    print_table("", ["", "count"], [[name, str(count)] for name, count in description.totals().items()], right={1})
    print_table("Classes by split", *description.table(), right=set(range(1, 9)))
    for title, counts in (
        ("Sizes", description.sizes),
        ("Modes", description.modes),
        ("Passed over", description.notes),
    ):
        if counts:
            rows = [[name, str(count)] for name, count in counts.items()]
            print_table(title, [title.lower(), "count"], rows, right={1})
    for bad in description.bad:
        click.echo(f"unreadable: {bad.id}: {bad.reason}")
