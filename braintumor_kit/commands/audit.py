"""`btkit audit`: what is wrong with a data set and its split."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from braintumor_kit.audit.failings import FAILINGS, failings
from braintumor_kit.commands.common import (
    engine_option,
    json_option,
    large_imports,
    print_json,
    print_table,
    registry,
    reporter,
    set_option,
)
from braintumor_kit.commands.completion import plugins_of, recipes

if TYPE_CHECKING:
    from braintumor_kit.recipe.load import DataRecipe
    from braintumor_kit.registry import Registry
    from braintumor_kit.runs import Run


def _kinds(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    names = tuple(name.strip() for name in (value or "").split(",") if name.strip())
    if unknown := [name for name in names if name not in FAILINGS]:
        raise click.BadParameter(f"'{unknown[0]}' is none of {', '.join(FAILINGS)}.")
    return names


@click.command()
@click.argument("recipe", required=False, metavar="[RECIPE|RUN]", shell_complete=recipes)
@click.option(
    "--source",
    shell_complete=plugins_of("source"),
    help="A source plugin instead of a recipe; its options come by --set source.key=value.",
)
@set_option
@click.option(
    "--out",
    "folder",
    default="audit",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder for audit.json, audit.html and collections.csv.",
)
@click.option(
    "--fail-on",
    metavar="KIND,...",
    callback=_kinds,
    help=f"Exit status 1 where the audit finds any of these: {', '.join(FAILINGS)}.",
)
@engine_option
@json_option
@click.pass_context
def audit(
    ctx: click.Context,
    recipe: str | None,
    source: str | None,
    overrides: tuple[str, ...],
    folder: Path,
    fail_on: tuple[str, ...],
    engine: str,
    as_json: bool,
) -> None:
    """What is wrong with RECIPE's data set and its split, with those of --source NAME, or of a finished RUN.

    Copies, however they were mirrored, turned, resized, recompressed, brightened or cropped; patients and copies on
    both sides of a split; labels that contradict each other; pictures of another kind; and how far shortcuts alone
    go. Of a RUN also how much of its accuracy stands on leaked slices.
    """
    if (recipe is None) == (source is None):
        raise click.UsageError("name either a RECIPE (or RUN) or --source NAME.")
    with large_imports():
        from braintumor_kit.engines.choose import engine_of
        from braintumor_kit.workflows.audit import audit as audit_data
        from braintumor_kit.workflows.audit import write_audit

    run, chosen = _subject(recipe, source, overrides, registry(ctx))
    told = reporter()
    with engine_of(engine, 1, 0, told) as opened:
        spread = opened if engine != "local" else None  # which uses all cores for its pictures by itself
        done = audit_data(chosen, run, told, as_it_comes=source is not None, engine=spread)
    write_audit(done, folder)
    if as_json:
        print_json(done.findings)
    else:
        _show(done.findings)
    told.say(f"audit.json, audit.html and collections.csv are in {folder}")
    if found := [name for name in failings(done.findings) if name in fail_on]:
        told.say(f"found: {', '.join(found)}")
        ctx.exit(1)


def _subject(
    recipe: str | None, source: str | None, overrides: tuple[str, ...], known: "Registry"
) -> tuple["Run | None", "DataRecipe"]:
    from braintumor_kit.errors import InputError
    from braintumor_kit.recipe.load import load_recipe_data, load_source_data, recipe_of
    from braintumor_kit.recipe.shipped import find_recipe
    from braintumor_kit.runs import find_run, is_run, refuse_sweep

    if source is not None:
        return None, load_source_data(source, overrides, known)
    if recipe is not None and is_run(recipe):
        if overrides:
            raise click.UsageError("--set goes with a recipe or --source; a run is audited as it was made.")
        run = find_run(recipe, Path())
        refuse_sweep(run)
        if run.folds is not None:
            raise InputError(f"'{recipe}' is a cross-validation: audit one of its folds, such as {recipe}/fold-1.")
        return run, recipe_of(run.resolved, run.folder / "resolved.json", known)
    return None, load_recipe_data(find_recipe(str(recipe)), overrides, known)


def _show(findings: dict[str, Any]) -> None:
    """The findings as tables on standard output."""
    from braintumor_kit.audit.tables import tables

    for table in tables(findings):
        print_table(table.title, list(table.header), [list(row) for row in table.rows], right=set(table.right))
        for line in table.notes:
            click.echo(line)
    click.echo(
        "Copies are found by what the pictures show; slices of one patient that merely resemble each other are not "
        "counted as copies."
    )
