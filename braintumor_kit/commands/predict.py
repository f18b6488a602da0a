"""`btkit predict`."""

import csv
import sys
from pathlib import Path
from typing import Any

import click

from braintumor_kit.commands.common import (
    complain,
    divide,
    json_option,
    large_imports,
    precision_option,
    print_json,
    print_table,
    runs_option,
)
from braintumor_kit.notice import NOTICE


@click.command()
@click.argument("arguments", nargs=-1, required=True, metavar="[RUN] IMAGE...")
@runs_option
@precision_option("float32")
@click.option("--csv", "as_csv", is_flag=True, help="Print the result as CSV.")
@json_option
def predict(arguments: tuple[str, ...], runs: Path, precision: str, as_csv: bool, as_json: bool) -> None:
    """Class probabilities for IMAGE files or folders, from RUN (a run folder or a .keras file; the newest run where
    it is left out)."""
    run, images = divide(arguments)
    if not images:
        raise click.UsageError("name at least one image or folder of images.")
    with large_imports():
        from braintumor_kit.data.dataset import BadImage
        from braintumor_kit.workflows import predict as workflow
        from braintumor_kit.workflows.pictures import pictures_in
        from braintumor_kit.workflows.trained import trained_of_argument

    paths = pictures_in(images)
    trained = trained_of_argument(run, runs)
    results = list(workflow.predict(trained, paths, precision))
    good = [workflow.as_json(item, trained.classes) for item in results if not isinstance(item, BadImage)]
    bad = [item for item in results if isinstance(item, BadImage)]
    _print(good, trained.classes, as_csv, as_json)
    click.echo(NOTICE, err=True)
    complain(bad, len(results))


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
