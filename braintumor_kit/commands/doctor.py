"""`btkit doctor`."""

import click

from braintumor_kit.commands.common import json_option, large_imports, print_json, print_table


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Versions, device, precision, what is missing and how to get it."""
    with large_imports():
        from braintumor_kit.workflows.doctor import examine

    report = examine()
    if as_json:
        print_json(report)
        return
    for title, lines in report.items():
        rows = [[name, _words(value)] for name, value in lines.items()]
        print_table(title.capitalize(), ["", ""], rows)


def _words(value: object) -> str:
    if value is None:
        return "not installed"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
