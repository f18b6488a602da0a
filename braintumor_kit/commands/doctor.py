"""`btkit doctor`."""

from pathlib import Path
from typing import Any

import click

from braintumor_kit.commands.common import json_option, large_imports, print_json, print_table
from braintumor_kit.commands.completion import runs as completed_runs


@click.command()
@click.option("--clear-cache", is_flag=True, help="Remove all caches; they are made again when needed.")
@click.argument("run", required=False, shell_complete=completed_runs)
@click.option(
    "--bundle",
    is_flag=True,
    help="Collect what a bug report needs, of RUN too where it is named: no pictures, and of texts only words of "
    "btkit's own.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="With --bundle: the archive to write, btkit-report.zip by default.",
)
@json_option
def doctor(clear_cache: bool, run: str | None, bundle: bool, out: Path | None, as_json: bool) -> None:
    """Versions, device, precision, what is missing and how to get it."""
    if clear_cache and bundle:
        raise click.UsageError("--clear-cache and --bundle do not go together.")
    if not bundle and (run is not None or out is not None):
        raise click.UsageError("RUN and --out go with --bundle.")
    if clear_cache:
        _clear(as_json)
        return
    if bundle:
        _bundle(run, out or Path("btkit-report.zip"), as_json)
        return
    with large_imports():
        from braintumor_kit.workflows.doctor import examine

    report = examine()
    if as_json:
        print_json(report)
        return
    for title, lines in report.items():
        rows = [[name, _words(value)] for name, value in lines.items()]
        print_table(title.capitalize(), ["", ""], rows)


def _clear(as_json: bool) -> None:
    from braintumor_kit.data.caches import cache_folder, clear

    cleared = clear()
    if as_json:
        print_json({"removed": cleared.count, "bytes": cleared.size, "busy": cleared.busy})
        return
    click.echo(f"removed {cleared.count} caches of {cleared.size / 1e6:.0f} MB in {cache_folder()}")
    if cleared.busy:
        click.echo(f"{cleared.busy} caches stay: a process is at work on them, or they cannot be removed.")


def _bundle(named: str | None, out: Path, as_json: bool) -> None:
    from braintumor_kit.runs import find_run

    run = None if named is None else find_run(named, Path())
    with large_imports():
        from braintumor_kit.workflows.bundle import write_bundle

        held = write_bundle(out, _examined, run)
    if as_json:
        print_json({"bundle": str(out), "files": held})
        return
    click.echo(f"{out} holds {', '.join(held)}.\nLook it through before you send it.")


def _examined() -> dict[str, dict[str, Any]]:
    """What is found; where that fails, as it does where torch or Keras is broken, a bundle tells of it."""
    from braintumor_kit.workflows.doctor import examine

    return examine()


def _words(value: object) -> str:
    if value is None:
        return "not installed"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
