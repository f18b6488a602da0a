"""`btkit plugins list | show | check | new`."""

import shlex
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from braintumor_kit.commands.common import json_option, large_imports, print_json, print_table, registry
from braintumor_kit.commands.completion import plugin_names
from braintumor_kit.visible import visible

if TYPE_CHECKING:
    from braintumor_kit.testing import Result

kind_argument: Callable[..., Any] = click.argument("kind", type=click.Choice(["source", "backbone", "explainer"]))


@click.group()
def plugins() -> None:
    """See, begin and check sources, backbones and explainers."""


@plugins.command("list")
@click.option("--verify", is_flag=True, help="Import each plugin, in a process of its own, and show its error.")
@json_option
@click.pass_context
def list_plugins(ctx: click.Context, verify: bool, as_json: bool) -> int:
    """List what is known; nothing is imported without --verify, and then a faulty plugin gives status 1."""
    known = registry(ctx)
    rows: list[dict[str, Any]] = [asdict(info) for info in known.plugins]
    faulty = False
    if verify:
        from braintumor_kit.workflows.plugins import verify_all

        errors = verify_all(known)
        rows = [{**row, "error": errors.get(info)} for row, info in zip(rows, known.plugins, strict=True)]
        faulty = any(errors.values())
    if as_json:
        print_json(rows)
    else:
        _print_list(rows, verify)
    for said in known.unreadable:
        click.echo(f"left out: {visible(said)}", err=True)
    return int(faulty)


def _print_list(rows: list[dict[str, Any]], verify: bool) -> None:
    header = ["kind", "name", "origin", "target", *(["verified"] if verify else [])]
    if verify:
        rows = [{**row, "verified": row["error"] or "ok"} for row in rows]
    widths = [max(len(name), *(len(row[name]) for row in rows), 0) if rows else len(name) for name in header]
    for cells in (header, *([visible(row[name]) for name in header] for row in rows)):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())


@plugins.command()
@kind_argument
@click.argument("name", shell_complete=plugin_names)
@json_option
@click.pass_context
def show(ctx: click.Context, kind: str, name: str, as_json: bool) -> None:
    """Show what plugin NAME does, where it comes from, and its options."""
    known = registry(ctx)
    info = known.find(kind, name)
    with redirect_stdout(sys.stderr), info.blamed("describing its options"):
        cls = known.load(kind, name)
        schema = cls.Options.model_json_schema()
    if as_json:
        doc = (cls.__doc__ or "").strip()
        print_json(
            {
                "kind": kind,
                "name": name,
                "origin": info.origin,
                "target": info.target,
                "doc": doc,
                "options": schema,
            }
        )
        return
    click.echo(f"{kind} {name}, {info.where}, API version {cls.api_version}")
    click.echo((cls.__doc__ or "no description").strip().splitlines()[0])
    required = schema.get("required", [])
    rows = [
        [
            option,
            _type_of(field),
            "required" if option in required else str(field.get("default", "")),
            field["description"],
        ]
        for option, field in schema.get("properties", {}).items()
    ]
    print_table("", ["option", "type", "default", "meaning"], rows)


def _type_of(field: dict[str, object]) -> str:
    if "enum" in field:
        return " | ".join(str(value) for value in field["enum"])  # type: ignore[attr-defined]
    if "anyOf" in field:
        return " | ".join(_type_of(part) for part in field["anyOf"])  # type: ignore[attr-defined]
    return str(field.get("format") or field.get("type") or field.get("const") or "")


@plugins.command()
@kind_argument
@click.argument("name", shell_complete=plugin_names)
@json_option
@click.pass_context
def check(ctx: click.Context, kind: str, name: str, as_json: bool) -> int:
    """Hold plugin NAME to every promise of its contract; status 1 where it breaks one."""
    with large_imports():
        from braintumor_kit.testing.run import Examination, Outcome, Result
    examination = Examination(registry(ctx), kind, name)
    outcomes: list[Outcome] = []
    for each in examination.checks:
        with redirect_stdout(sys.stderr):  # what the plugin prints is no part of the result
            outcome = examination.outcome(each.name)
        outcomes.append(outcome)
        if not as_json:
            click.echo(outcome.told)
    result = Result(tuple(outcomes))
    if as_json:
        print_json(_as_json(kind, name, result))
    else:
        click.echo(f"{examination.subject.info}: {result.told}")
    return int(not result.passed)


def _as_json(kind: str, name: str, result: "Result") -> dict[str, Any]:
    checks = [
        {
            "name": outcome.check.name,
            "ending": outcome.ending,
            "wants": outcome.check.wants,
            "saw": outcome.saw,
            "contract": outcome.check.line,
        }
        for outcome in result.outcomes
    ]
    return {"kind": kind, "name": name, "passed": result.passed, "ran": result.ran, "of": len(checks), "checks": checks}


@plugins.command()
@kind_argument
@click.argument("name")
@click.option(
    "--package", is_flag=True, help="Write an installable package btkit-NAME into the working directory instead."
)
@click.pass_context
def new(ctx: click.Context, kind: str, name: str, package: bool) -> None:
    """Begin a plugin: a working file NAME and its test, in --plugins DIR, else BTKIT_PLUGINS, else ./plugins."""
    from braintumor_kit.registry import Registry, folders_of_environment
    from braintumor_kit.scaffold import write_package, write_plugin

    named = [*ctx.find_root().obj["plugins"], *folders_of_environment()]
    known = Registry(tuple(folder.resolve() for folder in named if folder.is_dir()))
    if package:
        written = write_package(known, kind, name, Path())
        install = ["pip", "install", "-e", str(written[0].parents[1])]
        folder, tests, first = [], written[2], [install]
    else:
        place = named[0] if named else Path("plugins")
        written = write_plugin(known, kind, name, place)
        folder, tests, first = ["--plugins", str(place)], written[1], []
    for path in written:
        click.echo(f"wrote {path}")
    click.echo("Change it to your needs, then:")
    for words in (
        *first,
        ["btkit", *folder, "plugins", "check", kind, name],
        ["pytest", str(tests)],
        ["btkit", *folder, *_use(kind, name)],
    ):
        click.echo(f"  {shlex.join(words)}")


def _use(kind: str, name: str) -> list[str]:
    """A command that uses the plugin."""
    if kind == "explainer":
        return ["explain", "--method", name]
    if kind == "backbone":
        return ["run", "recipes/resnet_adam.toml", "--set", f'backbone={{name = "{name}"}}']
    return ["data", "info", "--source", name, "--set", "source.root=DIR"]
