"""`btkit report`."""

from pathlib import Path

import click

from braintumor_kit.commands.common import json_option, print_json, runs_option, warn
from braintumor_kit.commands.completion import runs as completed_runs


@click.command()
@click.argument("runs_to_report", nargs=-1, metavar="[RUN]...", shell_complete=completed_runs)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The page's file; by default RUN/report.html, of several runs comparison.html beside the first.",
)
@runs_option
@json_option
def report(runs_to_report: tuple[str, ...], out: Path | None, runs: Path, as_json: bool) -> None:
    """Write a run as one HTML page that stands by itself, and as a model card; or several runs beside each other.

    The newest run where none is named. Only files of the run folders are read; runs end with their report anyway.
    """
    from braintumor_kit.runs import find_run

    chosen = [find_run(text, runs, folds=True) for text in runs_to_report or (None,)]
    for run in chosen:
        warn(run.warning)
    if len(chosen) > 1:
        from braintumor_kit.workflows.compare_runs import write_comparison

        page = write_comparison(chosen, out or chosen[0].folder.resolve().parent / "comparison.html")
        written = {"report": str(page)}
    else:
        from braintumor_kit.workflows.report import write_reports

        page, card = write_reports(chosen[0], out)
        written = {"report": str(page), "model_card": str(card)}
    if as_json:
        print_json(written)
    else:
        for path in written.values():
            click.echo(path)
