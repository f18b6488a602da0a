"""`btkit run`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from braintumor_kit.commands.common import (
    engine_option,
    json_option,
    large_imports,
    print_json,
    print_table,
    registry,
    reporter,
    runs_option,
    set_option,
)
from braintumor_kit.commands.completion import recipes
from braintumor_kit.commands.completion import runs as completed_runs
from braintumor_kit.engines.torchrun import torchrun_rank
from braintumor_kit.notice import NOTICE

if TYPE_CHECKING:
    from braintumor_kit.runs import Run


@click.command()
@click.argument("recipe", required=False, shell_complete=recipes)
@set_option
@runs_option
@click.option("--name", help="Name of the run folder; by default <recipe>-<UTC time>-<6 hex>.")
@click.option(
    "--resume",
    "resumed",
    metavar="RUN",
    shell_complete=completed_runs,
    help="Go on with an interrupted run, on the same trajectory; of a cross-validation finished folds are kept.",
)
@click.option(
    "--accept-changes",
    is_flag=True,
    help="With --resume: go on although the recipe, the data, a plugin or a package is not what it was, or begin anew "
    "where there is no checkpoint.",
)
@engine_option
@json_option
@click.pass_context
def run(
    ctx: click.Context,
    recipe: str | None,
    overrides: tuple[str, ...],
    runs: Path,
    name: str | None,
    resumed: str | None,
    accept_changes: bool,
    engine: str,
    as_json: bool,
) -> None:
    """Train and evaluate as RECIPE says, a file or the name of a shipped recipe; leaves a run folder.

    RECIPE may be a finished run's folder, or its record.json: that run is done again and compared, with exit status 1
    where it comes to something else.
    """
    from braintumor_kit.files import read_json

    repeats: dict[str, Any] | None = None
    if (recipe is None) == (resumed is None):
        raise click.UsageError("name either a RECIPE or --resume RUN.")
    if resumed is not None:
        if overrides or name is not None:
            raise click.UsageError("--set and --name do not go with --resume: a run goes on as it began.")
        done = _resume(ctx, resumed, accept_changes, engine)
    elif accept_changes:
        raise click.UsageError("--accept-changes goes with --resume.")
    elif (before := _run_named(str(recipe))) is not None:
        if overrides:
            raise click.UsageError("--set does not go with a run: it is repeated as it was.")
        done, repeats = _repeat(ctx, before, runs, name)
    else:
        done = _run(ctx, str(recipe), overrides, runs, name, engine)
    if done.is_sweep:
        _show_sweep(done, as_json)
        return
    metrics = read_json(done.folder / "metrics.json")
    if as_json:
        print_json({"run": str(done.folder), "metrics": metrics, **({"repeats": repeats} if repeats else {})})
    else:
        _show(metrics)
        click.echo(f"run folder: {done.folder}")
        if repeats:
            click.echo(_compared(repeats))
    if repeats and not repeats["same"]:
        ctx.exit(1)


def _run(
    ctx: click.Context, recipe: str, overrides: tuple[str, ...], runs: Path, name: str | None, engine: str
) -> "Run":
    from braintumor_kit.recipe.load import load_recipe
    from braintumor_kit.recipe.shipped import find_recipe

    path = find_recipe(recipe)
    known = registry(ctx)
    with large_imports():
        checked = load_recipe(path, overrides, known)  # which imports the plugins that it names

        from braintumor_kit.workflows.run import run_recipe
        from braintumor_kit.workflows.together import follow

    if torchrun_rank():
        follow(checked, engine)
        ctx.exit()
    text = path.read_text(encoding="utf-8")
    return run_recipe(checked, text, runs, name, ["btkit", *sys.argv[1:]], reporter(), engine, known)


def _resume(ctx: click.Context, resumed: str, accept: bool, engine: str) -> "Run":
    from braintumor_kit.runs import find_run

    found = find_run(resumed, Path())
    with large_imports():
        from braintumor_kit.workflows.run import recipe_of_run, resume
        from braintumor_kit.workflows.together import follow

    if torchrun_rank():
        follow(recipe_of_run(found, registry(ctx)), engine)
        ctx.exit()
    resume(found, ["btkit", *sys.argv[1:]], registry(ctx), reporter(), accept, engine)
    return found


def _run_named(text: str) -> "Run | None":
    """The run that RECIPE is, by its folder or its record; None of a recipe."""
    from braintumor_kit.runs import find_run, is_run

    folder = Path(text).parent if Path(text).name == "record.json" else Path(text)
    return find_run(str(folder), Path()) if is_run(str(folder)) else None


def _repeat(ctx: click.Context, before: "Run", runs: Path, name: str | None) -> tuple["Run", dict[str, Any]]:
    with large_imports():
        from braintumor_kit.workflows.repeat import repeat

    return repeat(before, runs, name, ["btkit", *sys.argv[1:]], registry(ctx), reporter())


def _compared(repeats: dict[str, Any]) -> str:
    if repeats["same"]:
        return f"It repeats {repeats['run']}: the same data, split, history, weights and predictions, bit for bit."
    changed = "".join(f"\n  {line}" for line in repeats["changed"])
    return f"It does not repeat {repeats['run']}: {repeats['first_difference']}.\n" + (
        f"What may be why:{changed}"
        if changed
        else "Nothing that btkit records is another: packages, code, device, "
        "threads and precision are the same. On a GPU some of torch's operations give other last digits each time."
    )


def _show(metrics: dict[str, Any]) -> None:
    roles = {"train": "train", "validation": "validation (selects)", "test": "test (reported)", "held_out": "held out"}
    rows = [
        [
            role,
            str(figures["n"]),
            *(_with_interval(figures, name) for name in ("accuracy", "balanced_accuracy", "macro_f1")),
            f"{figures['ece']:.3f}",
            f"{figures['ece_calibrated']:.3f}",
        ]
        for part, role in roles.items()
        if (figures := metrics.get(part))
    ]
    header = ["split", "n", "accuracy", "balanced accuracy", "macro F1", "ECE", "calibrated"]
    print_table("", header, rows, right={1, 5, 6})
    over = next(figures["interval_over"] for part in roles if (figures := metrics.get(part)))
    click.echo(f"95 % intervals by bootstrap over {over}. {NOTICE}")
    if not metrics["test"]:
        click.echo("No test split: validation selected the model, so its figures flatter it.")
    if folds := metrics.get("over_folds"):
        said = ", ".join(f"{name.replace('_', ' ')} {folds[name]['mean']:.3f} +- {folds[name]['sd']:.3f}"
                         for name in ("accuracy", "balanced_accuracy", "macro_f1"))  # fmt: skip
        click.echo(f"Pooled out of {len(metrics['folds'])} folds; over folds: {said}.")
    if by_patient := (metrics["test"] or {}).get("by_group"):
        figures = ", ".join(
            f"{name.replace('_', ' ')} {_with_interval(by_patient, name)}" for name in ("accuracy", "balanced_accuracy")
        )
        click.echo(f"By patient ({by_patient['n']}): {figures}.")
    if warning := metrics.get("warning"):
        click.echo(f"WARNING: {warning}.")


def _show_sweep(run: "Run", as_json: bool) -> None:
    from braintumor_kit.files import read_json
    from braintumor_kit.sweep.trials import short

    found = read_json(run.folder / "sweep.json")
    if as_json:
        print_json({"run": str(run.folder), "sweep": found})
        return
    keys = list(found["trials"][0]["values"])
    rows = [
        [
            item["trial"], item["status"], *(short(item["values"][key]) for key in keys), f"{item['epochs']}",
            *("" if item[name] is None else f"{item[name]:.4f}" for name in ("val_loss", "val_accuracy")),
        ]
        for item in _by_rank(found)
    ]  # fmt: skip
    print_table("", ["trial", "status", *keys, "epochs", "val loss", "val accuracy"], rows)
    click.echo(
        f"The best trial was chosen on validation, which flatters it; look at its test figures once, at the end: "
        f"btkit evaluate {run.folder / found['best']}. {NOTICE}"
    )
    click.echo(f"run folder: {run.folder}")


def _by_rank(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Trials, the best first; what stopped or failed after those that finished."""
    select, sign = found["select"], 1 if found["select"] == "val_loss" else -1
    return sorted(
        found["trials"],
        key=lambda item: (item["status"] != "finished", item[select] is None, sign * (item[select] or 0.0)),
    )


def _with_interval(figures: dict[str, Any], name: str) -> str:
    low, high = figures[f"{name}_ci"]
    return f"{figures[name]:.3f} [{low:.3f}, {high:.3f}]"
