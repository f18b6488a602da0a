"""`btkit doctor`."""

import click

from braintumor_kit.commands.common import json_option, large_imports, print_json, print_table


@click.command()
@click.option("--clear-cache", is_flag=True, help="Remove all caches; they are made again when needed.")
@json_option
def doctor(clear_cache: bool, as_json: bool) -> None:
    """Versions, device, precision, what is missing and how to get it."""
    if clear_cache:
        _clear(as_json)
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


def _words(value: object) -> str:
    if value is None:
        return "not installed"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
