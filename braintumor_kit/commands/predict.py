"""`btkit predict`."""

import csv
import sys
from pathlib import Path
from typing import Any

import click

from braintumor_kit.commands.common import divide, json_option, large_imports, print_json, print_table, runs_option


@click.command()
@click.argument("arguments", nargs=-1, required=True, metavar="[RUN] IMAGE...")
@runs_option
@click.option(
    "--precision",
    default="float32",
    show_default=True,
    type=click.Choice(["float32", "bfloat16", "auto"]),
    help="Of convolutions; auto is bfloat16 where the device computes it natively: faster, and near.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print the result as CSV.")
@json_option
def predict(arguments: tuple[str, ...], runs: Path, precision: str, as_csv: bool, as_json: bool) -> None:
    """Class probabilities for IMAGE files or folders, from RUN (a run folder or a .keras file; the newest run where
    it is left out)."""
    from braintumor_kit.errors import InputError

    run, images = divide(arguments)
    if not images:
        raise click.UsageError("name at least one image or folder of images.")
    with large_imports():
        from braintumor_kit.data.dataset import BadImage
        from braintumor_kit.workflows import predict as workflow
        from braintumor_kit.workflows.trained import trained_of_argument

    paths = workflow.pictures_in(images)
    trained = trained_of_argument(run, runs)
    results = list(workflow.predict(trained, paths, precision))
    good = [workflow.as_json(item, trained.classes) for item in results if not isinstance(item, BadImage)]
    bad = [item for item in results if isinstance(item, BadImage)]
    _print(good, trained.classes, as_csv, as_json)
    click.echo("Research use only, not a medical device.", err=True)
    if bad:
        raise InputError("\n".join([f"{len(bad)} of {len(results)} cannot be read:", *(f"  {b.reason}" for b in bad)]))


def _print(good: list[dict[str, Any]], classes: tuple[str, ...], as_csv: bool, as_json: bool) -> None:
    if as_json:
        print_json(good)
        return
    rows = [[item["path"], item["predicted"], *(item["probabilities"][name] for name in classes)] for item in good]
    header = ["path", "predicted", *(f"p_{name}" for name in classes)]
    if as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    else:
        shown = [[*row[:2], *(f"{p:.4f}" for p in row[2:])] for row in rows]
        print_table("", header, shown, right=set(range(2, 2 + len(classes))))
