"""`btkit evaluate`: a model on its own split or another source, beside another model, under corruption."""

import re
from pathlib import Path
from typing import Any

import click

from braintumor_kit.commands.common import (
    json_option,
    large_imports,
    print_json,
    print_table,
    registry,
    reporter,
    runs_option,
    set_option,
    warn,
    with_option,
)
from braintumor_kit.commands.completion import plugins_of
from braintumor_kit.commands.completion import runs as completed_runs
from braintumor_kit.notice import NOTICE

TWO_RUNS, ENSEMBLE = ("the first", "the second"), ("the ensemble", "the first")
"""Who is compared."""


@click.command()
@click.argument("argument", required=False, metavar="[RUN]", shell_complete=completed_runs)
@runs_option
@click.option(
    "--source",
    shell_complete=plugins_of("source"),
    help="Another source than the run's own; its options come by --set source.key=value.",
)
@set_option
@click.option(
    "--split",
    "part",
    type=click.Choice(["train", "validation", "test", "held_out"]),
    help="Of the run's own slices; test by default, validation where a protocol has no test.",
)
@click.option(
    "--classes",
    default="",
    metavar="NAME,NAME,...",
    help="Of the outputs, in order, of a .keras file that stands in no run.",
)
@click.option(
    "--against", metavar="RUN", shell_complete=completed_runs, help="Another run: paired comparison on the same slices."
)
@with_option(
    "Another run, repeatable: what all say together, the mean of their probabilities. Of the same test slices and "
    "folds, as they recorded them, or with --source."
)
@click.option("--corruptions", is_flag=True, help="Also under eight changes typical of MRI, at five severities each.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for the results; by default evaluations/ of the run, ./evaluations for a .keras file in none.",
)
@json_option
@click.pass_context
def evaluate(
    ctx: click.Context,
    argument: str | None,
    runs: Path,
    source: str | None,
    overrides: tuple[str, ...],
    part: str | None,
    classes: str,
    against: str | None,
    others: tuple[str, ...],
    corruptions: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """How good the model of RUN is (a run folder, a .keras or .onnx file; the newest run where it is left out): on its
    own test split, or on every slice of another source."""
    if overrides and source is None:
        raise click.UsageError("--set goes with --source: a run's own split is evaluated as it was made.")
    if part is not None and source is not None:
        raise click.UsageError("--split goes with the run's own slices, not with --source.")
    if others and source is None:
        if part is not None or against is not None or classes or corruptions:
            raise click.UsageError(
                "--with takes together what runs recorded of their test slices, and goes alone, or with --source."
            )
        _together(argument, others, runs, out, as_json)
        return
    if against is not None and source is None and (part is not None or corruptions):
        raise click.UsageError(
            "--against compares the test slices that both runs recorded, or goes with --source: slices of another "
            "split, the other run may have been trained on."
        )
    if against is not None and source is None:
        if classes:
            raise click.UsageError("--classes goes with --source: runs recorded the names of their classes.")
        _recorded(argument, against, runs, out, as_json)
        return
    with large_imports():
        from braintumor_kit.recipe.load import load_source_data
        from braintumor_kit.workflows import evaluate as workflow
        from braintumor_kit.workflows.ensemble import answering_of_arguments
        from braintumor_kit.workflows.evaluation_folder import write_results
        from braintumor_kit.workflows.exported import answering_of_argument

    told = reporter()
    names = [name.strip() for name in classes.split(",") if name.strip()]
    trained = answering_of_arguments(argument, others, runs, classes=names)
    other = answering_of_argument(against, runs, classes=names) if against is not None else None
    models = [model for model in (trained, other) if model is not None]
    if names and all(model.run for model in models):
        raise click.UsageError(
            "--classes names the outputs of a .keras file that stands in no run; a run knows its own."
        )
    for model in models:
        warn(model.warning)
    if source is None:
        examined = workflow.own_split(trained, part, registry(ctx), told)
    else:
        recipe = load_source_data(source, overrides, registry(ctx), ("source",))
        examined = workflow.other_source(recipe, trained, told)
    given = workflow.answers(trained, examined, told)
    results: dict[str, Any] = {"metrics": workflow.figures_of(trained, examined, given)}
    if other is not None:
        seen_by_other = workflow.other_source(recipe, other, told)
        results["comparison"] = workflow.against(
            examined, given, seen_by_other, workflow.answers(other, seen_by_other, told)
        )
    if corruptions:
        results["robustness"] = workflow.robustness(trained, examined, given, told)
    if trained.run is None:  # other models may have been evaluated here, on the same data
        place = Path("evaluations") / f"{_folder_name(Path(str(argument)).stem)}-{trained.digest[:8]}"
    else:
        place = trained.run.folder / "evaluations"
    together = f"-with-{trained.digest[:8]}" if others else ""
    folder = out or place / f"{examined.folder}{together}"
    write_results(folder, examined, given, results)
    _print(results, as_json)
    told.say(f"results are in {folder}")


def _recorded(first: str | None, second: str, runs: Path, out: Path | None, as_json: bool) -> None:
    """Compares what two runs recorded; no data are read."""
    from braintumor_kit.files import make_folder, write_json
    from braintumor_kit.runs import find_run
    from braintumor_kit.workflows import recorded

    one, two = find_run(first, runs, folds=True), find_run(second, runs, folds=True)
    comparison = recorded.against(one, two)
    for warning in (warnings := [run.warning for run in (one, two) if run.warning]):
        warn(warning)
    if warnings:
        comparison["warning"] = "; ".join(warnings)
    folder = out or one.folder / "evaluations" / f"against-{_folder_name(two.folder.name)}"
    write_json(make_folder(folder) / "comparison.json", comparison)
    _print({"comparison": comparison}, as_json)


def _together(first: str | None, others: tuple[str, ...], runs: Path, out: Path | None, as_json: bool) -> None:
    """What several runs recorded, taken together; no data are read."""
    from braintumor_kit.runs import find_run
    from braintumor_kit.workflows import recorded
    from braintumor_kit.workflows.evaluation_folder import write_results

    found = [find_run(text, runs, folds=True) for text in (first, *others)]
    judged, given, results = recorded.together(found)
    warn(results["metrics"].get("warning"))
    names = "-".join(_folder_name(run.folder.name) for run in found[1:])
    folder = out or found[0].folder / "evaluations" / f"with-{names}"
    write_results(folder, judged, given, results)
    _print(results, as_json)
    reporter().say(f"results are in {folder}")


def _folder_name(name: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", name).strip("-") or "evaluation"


def _print(results: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(results)
        return
    if "metrics" in results:
        _print_metrics(results["metrics"])
    if "comparison" in results:
        several = "members" in results.get("metrics", {})
        _print_comparison(results["comparison"], ENSEMBLE if several else TWO_RUNS)
    if "robustness" in results:
        _print_robustness(results["robustness"])
    click.echo(NOTICE)


def _print_metrics(figures: dict[str, Any]) -> None:
    rows = []
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):
        low, high = figures[f"{name}_ci"]
        rows.append([name.replace("_", " "), f"{figures[name]:.3f} [{low:.3f}, {high:.3f}]"])
    for name, words in (
        ("auroc", "AUROC"),
        ("ece", "ECE"),
        ("ece_calibrated", "ECE, calibrated"),
        ("nll", "NLL"),
        ("nll_calibrated", "NLL, calibrated"),
        ("aurc", "area under risk-coverage"),
        ("out_of_distribution", "unlike the training"),
    ):
        if figures[name] is not None:
            rows.append([words, f"{figures[name]:.3f}"])
    print_table(f"{figures['source']}: {figures['n']} slices", ["", ""], rows)
    if members := figures.get("members"):
        alone = [
            [item["run"], *(f"{item[name]:.3f}" for name in ("accuracy", "balanced_accuracy", "macro_f1"))]
            for item in members
        ]
        print_table("alone", ["", "accuracy", "balanced accuracy", "macro F1"], alone, right={1, 2, 3})
    per_class = [
        [name, f"{row['precision']:.3f}", f"{row['recall']:.3f}", f"{row['f1']:.3f}", str(row["support"])]
        for name, row in figures["per_class"].items()
    ]
    print_table("", ["class", "precision", "recall", "F1", "n"], per_class, right={1, 2, 3, 4})
    click.echo(f"95 % intervals by bootstrap over {figures['interval_over']}.")
    if figures["left_out"]:
        click.echo(f"{figures['left_out']} more could not be read and are left out.")
    if tumours := (figures["detection"] or {}).get("tumours"):
        click.echo(_detected(tumours))
    if by_patient := figures["by_group"]:
        low, high = by_patient["accuracy_ci"]
        click.echo(f"By patient ({by_patient['n']}): accuracy {by_patient['accuracy']:.3f} [{low:.3f}, {high:.3f}].")


def _detected(tumours: dict[str, Any]) -> str:
    """What becomes of tumours, in a sentence."""
    said = f"Of {tumours['n']} slices with a tumour {tumours['called_tumour']:.3f} are called one of the tumours"
    if "abstained" not in tumours:
        return f"{said}."
    return (
        f"{said}; with abstention {tumours['found']:.3f} are found, {tumours['abstained']:.3f} are not answered and "
        f"{tumours['missed']:.3f} are called healthy."
    )


def _print_comparison(comparison: dict[str, Any], names: tuple[str, str]) -> None:
    rows = []
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):
        row = comparison[name]
        low, high = row["difference_ci"]
        difference = f"{row['difference']:+.3f} [{low:+.3f}, {high:+.3f}]"
        rows.append([name.replace("_", " "), f"{row['first']:.3f}", f"{row['second']:.3f}", difference])
    print_table(
        f"Paired, {comparison['n']} slices",
        ["", *(name.removeprefix("the ") for name in names), "difference"],
        rows,
        right={1, 2, 3},
    )
    test = comparison["mcnemar"]
    click.echo(
        f"McNemar's exact test: only {names[0]} right {test['only_first_right']} times, only {names[1]} "
        f"{test['only_second_right']} times, p = {test['p']:.3g} (takes slices for independent)."
    )


def _print_robustness(robustness: dict[str, Any]) -> None:
    rows = [["none", f"{robustness['clean']['accuracy']:.3f}", "", "", "", ""]]
    for name, severities in robustness["corruptions"].items():
        rows.append([name.replace("_", " "), *(f"{row['accuracy']:.3f}" for row in severities)])
    header = ["accuracy under", *(f"severity {number}" for number in range(1, 6))]
    print_table("Corruptions", header, rows, right=set(range(1, 6)))
    click.echo(f"Mean accuracy over all corruptions and severities: {robustness['mean_accuracy']:.3f}.")
