"""`btkit serve`."""

import os
import re
import secrets
from pathlib import Path

import click

from braintumor_kit.commands.common import large_imports, precision_option, registry, runs_option, warn
from braintumor_kit.commands.completion import runs as completed_runs
from braintumor_kit.notice import NOTICE

TOKEN = "BTKIT_TOKEN"


@click.command()
@click.argument("run", required=False, shell_complete=completed_runs)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Where to listen; beyond loopback a token is asked."
)
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@precision_option("auto")
@runs_option
@click.pass_context
def serve(ctx: click.Context, run: str | None, host: str, port: int, precision: str, runs: Path) -> None:
    """A web page on this machine: drop a scan, see class, certainty and maps; and the same as a JSON API.

    RUN is a run folder or a .keras file, the newest run where it is left out. Beyond loopback the token is that of the
    environment variable BTKIT_TOKEN, or a new one. Ctrl-C ends it.
    """
    from importlib.util import find_spec

    from braintumor_kit.errors import InputError

    if missing := [name for name in ("fastapi", "uvicorn") if find_spec(name) is None]:
        raise InputError(f"serving needs {' and '.join(missing)}: pip install 'braintumor-kit[serve]'.")
    given = os.environ.get(TOKEN)
    if given and not re.fullmatch(r"[\w.~-]{16,200}", given, re.ASCII):
        raise InputError(f"{TOKEN}: use 16 to 200 letters, digits, '.', '_', '~' and '-'.")
    known = registry(ctx)
    with large_imports():
        from braintumor_kit.serve.engine import Engine
        from braintumor_kit.serve.guard import is_loopback
        from braintumor_kit.serve.server import bound
        from braintumor_kit.serve.server import serve as listen
        from braintumor_kit.workflows.trained import trained_of_argument

    with bound(host, port) as listening:  # before the model is read: a port that is taken is told at once
        trained = trained_of_argument(run, runs, any_end=True)
        warn(trained.warning)
        name = trained.run.folder.resolve().name if trained.run else Path(str(run)).name
        engine = Engine(trained, name, known, precision)
        engine.warm_up()
        token = given or (None if is_loopback(host) else secrets.token_urlsafe(24))
        click.echo(NOTICE, err=True)
        listen(engine, listening, host, token, click.echo)
