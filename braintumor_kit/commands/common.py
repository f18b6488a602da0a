"""Options and helpers that commands share."""

import gc
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from braintumor_kit.commands.completion import keys
from braintumor_kit.commands.completion import runs as completed_runs
from braintumor_kit.visible import visible

UNSHOWN = re.compile(r"[^\n -~]")
"""Letters that may be none that a terminal shows."""

if TYPE_CHECKING:
    from rich.console import Console

    from braintumor_kit.data.dataset import BadImage
    from braintumor_kit.progress import Reporter
    from braintumor_kit.registry import Registry

set_option: Callable[..., Any] = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY.PATH=VALUE",
    shell_complete=keys,
    help="Change a value of the recipe, such as training.epochs=2. May be given more than once.",
)
runs_option: Callable[..., Any] = click.option(
    "--runs",
    default="runs",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder that holds runs.",
)
json_option: Callable[..., Any] = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as one JSON value."
)


engine_option: Callable[..., Any] = click.option(
    "--engine",
    default="local",
    show_default=True,
    metavar="local|ray[://HOST:PORT]",
    help="Where work is done: on this machine, or on those of a Ray cluster (extra [ray]).",
)

cpus_option: Callable[..., Any] = click.option(
    "--cpus",
    type=click.IntRange(1, 1024),
    help="Cores of one task, by default all of this machine's; with fewer, several are done at a time.",
)


def precision_option(default: str) -> Callable[..., Any]:
    """`--precision`."""
    return click.option(
        "--precision",
        default=default,
        show_default=True,
        type=click.Choice(["auto", "float32", "bfloat16"]),
        help="Of convolutions; auto is bfloat16 where the device computes it natively: faster, and near.",
    )


def with_option(words: str) -> Callable[..., Any]:
    """`--with`, the other members of an ensemble."""
    return click.option("--with", "others", multiple=True, metavar="RUN", shell_complete=completed_runs, help=words)


plane_option: Callable[..., Any] = click.option(
    "--plane",
    type=click.Choice(["axial", "coronal", "sagittal"]),
    help="In which NIfTI volumes are cut; by default that of the run's own volumes, else axial.",
)


def divide(arguments: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    """The run, `.keras` or `.onnx` file that stands first, None where there is none, and the images after it."""
    from braintumor_kit.runs import is_run

    if arguments and (is_run(arguments[0]) or arguments[0].endswith((".keras", ".onnx"))):
        return arguments[0], arguments[1:]
    return None, arguments


def complain(bad: Sequence["BadImage"], total: int) -> None:
    """Ends the command where some pictures of so many could not be read, once the others are done.

    Raises:
        InputError: with each of them and why.
    """
    from braintumor_kit.errors import InputError

    if bad:
        lines = dict.fromkeys(f"  {_what_is_wrong(item)}" for item in bad)  # a damaged volume is said once
        raise InputError("\n".join([f"{len(bad)} of {total} cannot be read:", *lines]))


def _what_is_wrong(item: "BadImage") -> str:
    file = item.id.rpartition("#")[0] or item.id
    return item.reason if item.id in item.reason or file in item.reason else f"{item.id}: {item.reason}"


def warn(warning: str | None) -> None:
    """Says on standard error what a run's figures have to be read with."""
    if warning:
        click.echo(visible(f"WARNING: {warning}"), err=True)


def options_of_methods(methods: str, overrides: Sequence[str], known: "Registry") -> dict[str, dict[str, Any]]:
    """The options that `--set` gives each method of `--method`, all of them known."""
    from braintumor_kit.errors import InputError
    from braintumor_kit.recipe.layers import parse_override

    options: dict[str, dict[str, Any]] = {name.strip(): {} for name in methods.split(",") if name.strip()}
    if not options:
        raise InputError("--method: name at least one explainer; `btkit plugins list` shows them.")
    for text in overrides:
        keys, value = parse_override(text)
        if len(keys) != 2 or keys[0] not in options:
            raise InputError(f"--set {text}: write it as METHOD.KEY=VALUE, METHOD one of {', '.join(options)}.")
        options[keys[0]][keys[1]] = value
    for name in options:
        known.find("explainer", name)
    return options


@contextmanager
def large_imports() -> Iterator[None]:
    """Inside, torch and Keras are imported for the first time, and the garbage collector stands aside.

    They make half a million objects that stay to the end of the process. The collector would go through all of them
    again and again while they are made, then at every full collection of the command's own work, and last at exit:
    together nearly half of what `import torch, keras` costs. Where Keras is there already, nothing is done.
    """
    if "keras" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def registry(ctx: click.Context) -> "Registry":
    """The registry with the folders of `--plugins` and `BTKIT_PLUGINS`."""
    from braintumor_kit.registry import Registry

    return Registry.from_environment(ctx.find_root().obj["plugins"])


def reporter() -> "Reporter":
    """Progress on standard error."""
    from braintumor_kit.progress import Reporter

    return Reporter(_console(stderr=True))


def _console(**settings: Any) -> "Console":
    """A console that says when its reader is gone; rich's own ends the process."""
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return Plain(**settings)


def print_json(value: Any) -> None:
    """One JSON value on standard output; letters that a terminal could not show are escaped."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    if not all(line.isprintable() for line in text.split("\n")):
        text = UNSHOWN.sub(lambda found: json.dumps(found[0])[1:-1] if not found[0].isprintable() else found[0], text)
    click.echo(text)


def print_table(title: str, header: list[str], rows: list[list[str]], right: set[int] | None = None) -> None:
    """A table on standard output, columns in `right` aligned to the right; text is shown as it is."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(visible(title)) if title else None,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
        show_header=any(header),
    )
    for place, name in enumerate(header):
        table.add_column(Text(visible(name)), justify="right" if place in (right or set()) else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    _console(width=None if _console().is_terminal else 200).print(table)
