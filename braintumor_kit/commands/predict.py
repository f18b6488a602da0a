"""`btkit predict`."""

import csv
import sys
from collections.abc import Mapping
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
    with_option,
)
from braintumor_kit.commands.completion import methods as completed_methods
from braintumor_kit.commands.completion import runs as completed_runs
from braintumor_kit.commands.completion import targets
from braintumor_kit.notice import NOTICE
from braintumor_kit.visible import visible


@click.command()
@click.argument("arguments", nargs=-1, required=True, metavar="[RUN] IMAGE...", shell_complete=completed_runs)
@runs_option
@precision_option("float32")
@plane_option
@with_option("Another run or model, repeatable: the mean of what all say.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the result as CSV.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Answer an archive into this folder, in Parquet: IMAGEs may then be Parquet manifests and addresses such as "
    "s3://bucket/folder too.",
)
@click.option(
    "--method",
    "methods",
    metavar="NAME[,NAME...]",
    shell_complete=completed_methods,
    help="With --out: make maps by these explainers as well, in Parquet.",
)
@click.option(
    "--target",
    default="predicted",
    show_default=True,
    metavar="predicted|CLASS|CLASS-vs-CLASS|all",
    shell_complete=targets,
    help="With --method: what is explained.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="METHOD.KEY=VALUE",
    help="With --method: an option of a method, such as integrated_gradients.steps=100.",
)
@engine_option
@cpus_option
@json_option
@click.pass_context
def predict(
    ctx: click.Context,
    arguments: tuple[str, ...],
    runs: Path,
    precision: str,
    plane: str | None,
    others: tuple[str, ...],
    as_csv: bool,
    out: Path | None,
    methods: str | None,
    target: str,
    overrides: tuple[str, ...],
    engine: str,
    cpus: int | None,
    as_json: bool,
) -> None:
    """Class probabilities for IMAGE files or folders, from RUN (a run folder, a .keras or an .onnx file; the newest
    run where it is left out). DICOM series and NIfTI volumes are answered slice by slice, then as a whole."""
    run, images = divide(arguments)
    if not images:
        raise click.UsageError("name at least one image or folder of images.")
    if out is not None:
        if as_csv or plane or others:
            raise click.UsageError("--csv, --plane and --with do not go with --out.")
        if methods is None and (overrides or target != "predicted"):
            raise click.UsageError("--set and --target go with --method.")
        known = registry(ctx)
        options = {} if methods is None else options_of_methods(methods, overrides, known)
        _answer_archive(out, run, runs, images, precision, engine, cpus, as_json, (options, target, known.folders))
        return
    if engine != "local" or cpus or methods is not None or overrides or target != "predicted":
        raise click.UsageError(
            "--engine, --cpus, --method, --target and --set go with --out (btkit explain makes maps)."
        )
    with large_imports():
        from braintumor_kit.data.dataset import BadImage
        from braintumor_kit.workflows import predict as workflow
        from braintumor_kit.workflows.ensemble import answering_of_arguments
        from braintumor_kit.workflows.named import files_in
        from braintumor_kit.workflows.trained import plane_of
        from braintumor_kit.workflows.whole_volumes import VolumePrediction, volume_json, with_volumes

    files = files_in(images)
    trained = answering_of_arguments(run, others, runs)
    named = files.pictures(plane or plane_of(trained.run))
    warn(trained.warning)
    results = list(workflow.predict(trained, named, precision))
    good = [
        volume_json(item, trained.classes)
        if isinstance(item, VolumePrediction)
        else workflow.as_json(item, trained.classes)
        for item in with_volumes(results, named, trained.limits)
        if not isinstance(item, BadImage)
    ]
    bad = [item for item in results if isinstance(item, BadImage)]
    _print(good, trained.classes, as_csv, as_json)
    click.echo(NOTICE, err=True)
    complain(bad, len(results))


def _answer_archive(
    out: Path,
    run: str | None,
    runs: Path,
    images: tuple[str, ...],
    precision: str,
    engine: str,
    cpus: int | None,
    as_json: bool,
    maps: tuple[Mapping[str, Mapping[str, Any]], str, tuple[Path, ...]],
) -> None:
    with large_imports():
        from braintumor_kit.errors import InputError
        from braintumor_kit.workflows.archive import predict_archive
        from braintumor_kit.workflows.archive_maps import MapsWanted
        from braintumor_kit.workflows.asked import options_as_text
        from braintumor_kit.workflows.exported import answering_of_argument
        from braintumor_kit.workflows.spread import spread

    told = reporter()
    with spread(engine, cpus, None, told) as opened:
        trained = answering_of_argument(run, runs)
        warn(trained.warning)
        model = run or (str(trained.run.folder) if trained.run else None)
        options, target, plugins = maps
        wanted = MapsWanted(options_as_text(options), plugins, target) if options else None
        done = predict_archive(out, trained, model, runs, images, precision, opened, told, wanted)
    if as_json:
        print_json({"predictions": str(done.place), "n": done.count, "failed": done.failed})
    click.echo(NOTICE, err=True)
    if done.failed:
        lines = [f"  {reason}" for _, reason in done.examples]
        more = [f"  and {done.failed - len(lines)} more"] if done.failed > len(lines) else []
        said = f"{done.failed} of {done.count} cannot be read; {done.place / 'failed'} lists them:"
        raise InputError("\n".join([said, *lines, *more]))


def _print(good: list[dict[str, Any]], classes: tuple[str, ...], as_csv: bool, as_json: bool) -> None:
    if as_json:
        print_json(good)
        return
    rows = [[item["path"], item["predicted"], *(item["probabilities"][name] for name in classes)] for item in good]
    header = ["path", "predicted", *(f"p_{name}" for name in classes)]
    if certain := bool(good) and all(item["calibrated"] for item in good):
        header += [*(f"c_{name}" for name in classes), "out_of_distribution", "ood_score", "abstain"]
        for row, item in zip(rows, good, strict=True):
            row += [*item["calibrated"].values(), item["out_of_distribution"], item["ood_score"], item["abstain"]]
    if as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow([visible(name) for name in header])
        writer.writerows([visible(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    else:
        _print_table(good, classes, certain)


def _print_table(good: list[dict[str, Any]], classes: tuple[str, ...], certain: bool) -> None:
    """Calibrated probabilities where there are any, and in words what speaks against an answer."""
    kind = "calibrated" if certain else "probabilities"
    rows = [
        [item["path"], item["predicted"], *(f"{item[kind][name]:.4f}" for name in classes), *_caution(item, certain)]
        for item in good
    ]
    header = ["path", "predicted", *(f"{kind[0]}_{name}" for name in classes), *(["caution"] if certain else [])]
    print_table("", header, rows, right=set(range(2, 2 + len(classes))))


def _caution(item: dict[str, Any], certain: bool) -> list[str]:
    if not certain:
        return []
    if item["out_of_distribution"]:
        return [f"unlike the training slices (score {item['ood_score']:.1f}): do not use"]
    return ["too unsure: do not use"] if item["abstain"] else [""]
