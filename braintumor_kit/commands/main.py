"""The command `btkit`: finds the subcommand, and turns every ending into its exit status.

0 done; 1 done, and what was asked to hold does not; 2 the input is at fault; 3 the work failed on the way;
70 a fault of btkit itself; 130 interrupted
"""

import errno
import importlib
import os
import sys
import traceback
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import Any

import click

from braintumor_kit import __version__
from braintumor_kit.errors import BtkitError, InputError, WorkError, is_out_of_memory
from braintumor_kit.faults import write_fault
from braintumor_kit.interrupts import interrupted, listen, stop_listening
from braintumor_kit.visible import visible

COMMANDS = {
    "audit": ("braintumor_kit.commands.audit:audit", "What is wrong with a data set and its split."),
    "run": ("braintumor_kit.commands.run:run", "Train and evaluate as a recipe says; leaves a run folder."),
    "evaluate": (
        "braintumor_kit.commands.evaluate:evaluate",
        "How good a model is: on its own test split, on another source, beside another run, under corruption.",
    ),
    "predict": (
        "braintumor_kit.commands.predict:predict",
        "Class probabilities for images or folders of them.",
    ),
    "explain": (
        "braintumor_kit.commands.explain:explain",
        "Maps of where a network looks, with overlays, and how right they are.",
    ),
    "report": (
        "braintumor_kit.commands.report:report",
        "A run as one HTML page and a model card; several runs beside each other.",
    ),
    "serve": ("braintumor_kit.commands.serve:serve", "A web page on this machine: drop a scan, see class and maps."),
    "export": ("braintumor_kit.commands.export:export", "A model for other runtimes: ONNX, torch.export."),
    "recipe": (
        "braintumor_kit.commands.recipe:recipe",
        "Check a recipe, show it resolved, print its schema.",
    ),
    "data": ("braintumor_kit.commands.data:data", "Obtain a public data set; describe one; index its patients."),
    "plugins": (
        "braintumor_kit.commands.plugins:plugins",
        "See, begin and check sources, backbones and explainers.",
    ),
    "bench": ("braintumor_kit.commands.bench:bench", "Speed beside peers on this machine, as ratios."),
    "doctor": (
        "braintumor_kit.commands.doctor:doctor",
        "Versions, device, what is missing and how to get it.",
    ),
}
"""Name, where the command is, and its line in `btkit --help`: nothing is imported to show help."""

OUT_OF_MEMORY = (
    "memory ran out. A smaller training.batch_size or pixels.image_size needs less; what the run folder holds is whole."
)
UNPRINTED = "the result could not be printed: {}. What was written before is whole."
UNUSABLE = (errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM)
"""Of a name that the user gave: asking what stands there fails already."""

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
INTERNAL_FAULT = 70
INTERRUPTED = 130
FOLDER = click.Path(path_type=Path)


class LazyGroup(click.Group):
    """Imports a subcommand when it is called, not to list it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        _take_global_options(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def _take_global_options(command: click.Command) -> None:
    """Lets `--plugins` and `--debug` stand behind the subcommand too, where fingers put them."""
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            _take_global_options(inner)
    elif not any(parameter.name == "late_plugins" for parameter in command.params):
        command.params += [
            click.Option(["--plugins", "late_plugins"], multiple=True, type=FOLDER, hidden=True, expose_value=False,
                         callback=_add_folders),
            click.Option(["--debug"], is_flag=True, hidden=True, expose_value=False),
        ]  # fmt: skip


def _add_folders(ctx: click.Context, parameter: click.Parameter, folders: tuple[Path, ...]) -> None:
    ctx.find_root().obj["plugins"] += folders


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="btkit")
@click.option("--debug", is_flag=True, help="Show the traceback of errors.")
@click.option(
    "--plugins",
    "plugin_folders",
    multiple=True,
    metavar="DIR",
    type=FOLDER,
    help="A folder of your own plugins, <kind>s/<name>.py inside. May be given more than once.",
)
@click.pass_context
def cli(ctx: click.Context, debug: bool, plugin_folders: tuple[Path, ...]) -> None:
    """Train, evaluate and explain brain-tumour MRI classifiers, driven by TOML recipes.

    Research software, not a medical device.
    """
    ctx.obj = {"debug": debug, "plugins": plugin_folders}


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line and exits with its status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    listen()
    status = run_command_line(arguments)
    stop_listening()  # it is over: Python would print how it was interrupted in what is left to do
    sys.exit(status)


def run_command_line(arguments: list[str]) -> int:
    """Runs the command line and gives its exit status; every message has been shown by then."""
    debug, stdout = "--debug" in arguments, sys.stdout
    if any("\0" in argument for argument in arguments):  # a caller's: no shell can pass one
        return _say("btkit: an argument holds a NUL, which no name may have.", InputError.exit_status)
    try:
        status: Any = cli.main(arguments, prog_name="btkit", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as ending:
        return ending.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _say("interrupted.", INTERRUPTED)
    except BrokenPipeError as error:
        return _say_error(error, debug) if interrupted() else _leave_closed_pipe()
    except SystemExit:
        if sys.stdout is stdout:
            raise
        sys.stdout = stdout  # click has put another in its place: its way of saying the same
        return _leave_closed_pipe()
    except Exception as error:
        return _say_error(error, debug)
    return status if isinstance(status, int) else 0


def _say_error(error: Exception, debug: bool) -> int:
    """Says what went wrong, and gives the exit status of it."""
    if interrupted():  # and a library made another error of it
        if debug:
            traceback.print_exc()
        return _say("interrupted.", INTERRUPTED)
    if isinstance(error, click.ClickException):
        shown = StringIO()
        error.show(shown)
        return _say(shown.getvalue().rstrip("\n"), error.exit_code)
    if isinstance(error, BtkitError):
        if debug:
            traceback.print_exc()
        return _say(f"btkit: {error}", error.exit_status)
    if isinstance(error, OSError) and error.errno in UNWRITABLE and _is_of_printing(error):
        _leave_closed_pipe()
        return _say(f"btkit: {UNPRINTED.format(error.strerror)}", WorkError.exit_status)
    if isinstance(error, OSError) and error.errno in UNUSABLE and error.filename is not None:
        return _say(f"btkit: {os.fsdecode(error.filename)} cannot be used: {error.strerror}.", InputError.exit_status)
    if is_out_of_memory(error):
        return _say(f"btkit: {OUT_OF_MEMORY}", WorkError.exit_status)
    return _say(_fault(error, debug), INTERNAL_FAULT)


def _say(text: str, status: int) -> int:
    with suppress(OSError):  # nobody listens any more; the status says it too
        click.echo(visible(text), err=True)
    return status


def _is_of_printing(error: OSError) -> bool:
    """Whether an error came of what was printed, and not of any other file that has no name."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals.get("__name__", "").partition(".")[0] in ("click", "rich") or frame.f_globals is globals()


def _leave_closed_pipe() -> int:
    """The reader of a pipe has gone, content (`btkit ... | head`): Python must not try to flush to it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _fault(error: Exception, debug: bool) -> str:
    """Writes the traceback to a file and says where, and what to report."""
    text = traceback.format_exc()
    if debug:
        click.echo(text, err=True)
    first = next(iter(str(error).strip().splitlines()), "")
    try:
        place = f"The traceback is in {write_fault(sys.argv[1:], text)}"
    except OSError:
        place = f"{text}\nThat is the traceback, which could not be kept in a file"
    return (
        f"btkit: a fault of btkit itself: {type(error).__name__}: {first}\n"
        f"{place}; please report it with what `btkit doctor --bundle` collects, that file included."
    )
