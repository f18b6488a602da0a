"""`btkit explain`."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from braintumor_kit.commands.common import (
    complain,
    cpus_option,
    divide,
    engine_option,
    json_option,
    large_imports,
    options_of_methods,
    plane_option,
    precision_option,
    print_json,
    print_table,
    registry,
    reporter,
    runs_option,
    warn,
)
from braintumor_kit.commands.completion import methods as completed_methods
from braintumor_kit.commands.completion import runs as completed_runs
from braintumor_kit.commands.completion import targets
from braintumor_kit.notice import NOTICE


@click.command()
@click.argument("arguments", nargs=-1, metavar="[RUN] [IMAGE...]", shell_complete=completed_runs)
@click.option(
    "--method",
    "methods",
    default="gradcam",
    show_default=True,
    metavar="NAME[,NAME...]",
    shell_complete=completed_methods,
    help="Explainers; `btkit plugins list` shows them.",
)
@click.option(
    "--target",
    default="predicted",
    show_default=True,
    metavar="predicted|label|CLASS|CLASS-vs-CLASS|all",
    shell_complete=targets,
    help="What is explained.",
)
@click.option(
    "--split",
    type=click.Choice(["train", "validation", "test"]),
    help="Slices of the run's own; test by default, validation where it has no test.",
)
@click.option("--limit", type=click.IntRange(min=1), help="At most so many slices, evenly spaced over the split.")
@click.option("--layer", help="The layer that is looked at; by default the backbone's own, else the last spatial one.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="METHOD.KEY=VALUE",
    help="An option of a method, such as integrated_gradients.steps=100. May be given more than once.",
)
@click.option("--evaluate", is_flag=True, help="Measure how right the maps are; writes explanation_metrics.json.")
@click.option(
    "--style",
    default="heat",
    show_default=True,
    type=click.Choice(["heat", "contours", "none"]),
    help="How overlays show a map; none draws no overlays.",
)
@click.option(
    "--scale",
    default="image",
    show_default=True,
    type=click.Choice(["image", "patient", "all"]),
    help="Whose maps share a colour scale.",
)
@click.option(
    "--align",
    default="receptive_field",
    show_default=True,
    type=click.Choice(["receptive_field", "grid"]),
    help="Where a layer's cells lie: where what they see is centred, or evenly over the picture.",
)
@click.option("--original-size", is_flag=True, help="Maps and overlays at the stored pictures' own size.")
@precision_option("auto")
@plane_option
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the result; by default RUN/explanations, ./explanations for IMAGEs.",
)
@runs_option
@engine_option
@cpus_option
@json_option
@click.pass_context
def explain(
    ctx: click.Context,
    arguments: tuple[str, ...],
    methods: str,
    target: str,
    split: str | None,
    limit: int | None,
    layer: str | None,
    overrides: tuple[str, ...],
    evaluate: bool,
    style: str,
    scale: str,
    align: str,
    original_size: bool,
    precision: str,
    plane: str | None,
    out: Path | None,
    runs: Path,
    engine: str,
    cpus: int | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Show where a network looks: maps, overlays, their table and a summary sheet.

    RUN is a run folder or a .keras file, the newest run where it is left out; without IMAGEs its own test split is
    explained, of a cross-validation every slice, by the model that has not seen it. Maps of DICOM series and of NIfTI
    volumes are written in these forms too. Interrupted, the same command goes on where it stopped.
    """

    model, images = divide(arguments)
    if evaluate and original_size:
        raise click.UsageError("--evaluate measures maps at the network's size; leave --original-size out.")
    if images and (split or limit):
        raise click.UsageError("--split and --limit are about a run's own slices; leave them or the images out.")
    known = registry(ctx)
    options = options_of_methods(methods, overrides, known)
    with large_imports():
        from braintumor_kit.files import make_folder
        from braintumor_kit.workflows import explain_run as workflow
        from braintumor_kit.workflows.asked import AskedToExplain, options_as_text
        from braintumor_kit.workflows.evaluate_explanations import Evaluation
        from braintumor_kit.workflows.explain import Drawing
        from braintumor_kit.workflows.spread import spread

    asked = AskedToExplain(
        model, runs, images, options_as_text(options), known.folders, target, layer, split, limit, plane
    )
    told = reporter()
    with spread(engine, cpus, None, told) as opened:
        found = asked.find(told)
        place, asked = out or found.place, replace(asked, model=found.model)
        warn(found.warning)
        wish = workflow.Wish(precision, Drawing(style, scale, original_size, align), Evaluation() if evaluate else None)
        if out is not None:
            make_folder(out.resolve().parent)
        metrics, bad = workflow.explain(place, found.requests, wish, told, opened, asked)
    total = found.total
    count = total - len(bad)
    if as_json:
        print_json({"explanations": str(place), "n": count, "methods": list(options), "metrics": metrics})
    else:
        if metrics:
            _show(metrics)
        click.echo(f"{count} slices explained by {', '.join(options)}: {place}")
    click.echo(NOTICE, err=True)
    complain(bad, total)


def _show(metrics: Mapping[str, Any]) -> None:
    columns = {
        "pointing_game": "pointing game", "relevance_mass": "mass", "relevance_rank": "rank", "iou": "IoU",
        "insertion_auc": "insertion", "deletion_auc": "deletion", "road": "ROAD", "outside_head": "outside head",
    }  # fmt: skip
    passed = {True: "passed", False: "FAILED", None: ""}
    rows = [
        [name, *(_figure(figures, key) for key in columns), passed[figures.get("randomisation_passed")]]
        for name, figures in {**metrics["methods"], **metrics["baselines"]}.items()
    ]
    print_table("", ["", *columns.values(), "randomised"], rows)
    some = next(iter(metrics["methods"].values()), None)
    if some is None:
        return
    click.echo(
        f"{metrics['n']} slices of {metrics['split']}, {some['n_with_mask']} with a mask; "
        f"insertion, deletion and ROAD of {some['faithfulness_n']}. "
        f"95 % intervals by bootstrap over {some['interval_over']}."
    )
    for sentence in metrics["findings"]:
        click.echo(f"- {sentence}")


def _figure(figures: Mapping[str, Any], key: str) -> str:
    value, interval = figures.get(key), figures.get(f"{key}_ci")
    if value is None:
        return ""
    if interval is None or key in ("insertion_auc", "deletion_auc", "road", "outside_head"):
        return f"{value:.3f}"
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"
