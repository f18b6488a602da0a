"""`btkit plugins list | show`."""

from dataclasses import asdict
from typing import Any

import click

from braintumor_kit.commands.common import json_option, print_json, print_table, registry


@click.group()
def plugins() -> None:
    """See the sources, backbones and explainers at hand."""


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
    return int(faulty)


def _print_list(rows: list[dict[str, Any]], verify: bool) -> None:
    header = ["kind", "name", "origin", "target", *(["verified"] if verify else [])]
    if verify:
        rows = [{**row, "verified": row["error"] or "ok"} for row in rows]
    widths = [max(len(name), *(len(row[name]) for row in rows), 0) if rows else len(name) for name in header]
    for cells in (header, *([row[name] for name in header] for row in rows)):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())


@plugins.command()
@click.argument("kind", type=click.Choice(["source", "backbone", "explainer"]))
@click.argument("name")
@json_option
@click.pass_context
def show(ctx: click.Context, kind: str, name: str, as_json: bool) -> None:
    """Show what plugin NAME does, where it comes from, and its options."""
    known = registry(ctx)
    info, cls = known.find(kind, name), known.load(kind, name)
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
