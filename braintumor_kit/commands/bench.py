"""`btkit bench`."""

from pathlib import Path
from typing import Any

import click

from braintumor_kit.commands.common import json_option, large_imports, print_json, print_table, reporter

GROUPS = ("fit", "inference", "explain", "frozen", "data", "start")
DEPTHS = ("18", "50")


@click.command()
@click.option("--only", multiple=True, type=click.Choice(GROUPS), help="A group of rows; may be given more than once.")
@click.option("--depth", multiple=True, type=click.Choice(DEPTHS), help="Of the ResNets; 18 and 50 by default.")
@click.option("--image-size", default=224, show_default=True, type=click.IntRange(32, 1024), help="Side, in pixels.")
@click.option("--batch-size", default=32, show_default=True, type=click.IntRange(1, 4096), help="Slices a step.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 1000), help="Turns of each contender.")
@click.option(
    "--out",
    default="bench",
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for bench.json and bench.png.",
)
@click.option("--check", is_flag=True, help="Exit status 1 where a ratio is less than promised.")
@json_option
@click.pass_context
def bench(
    ctx: click.Context,
    only: tuple[str, ...],
    depth: tuple[str, ...],
    image_size: int,
    batch_size: int,
    rounds: int,
    out: Path,
    check: bool,
    as_json: bool,
) -> None:
    """Speed beside peers on this machine, as ratios: training, inference, explanations, frozen trunks,
    data, start-up."""
    with large_imports():
        from braintumor_kit.bench.bench import bench as run_bench

    depths = [int(text) for text in depth or DEPTHS]
    result = run_bench(only or GROUPS, depths, image_size, batch_size, rounds, out, reporter())
    if as_json:
        print_json(result)
    else:
        _show(result)
        click.echo(f"{out / 'bench.json'}, {out / 'bench.png'}")
    if check and not all(row["holds"] for row in result["rows"]):
        ctx.exit(1)


def _show(result: dict[str, Any]) -> None:
    machine = result["machine"]
    units = "matrix" if machine["bf16_matrix_units"] else "vector" if machine["bf16_units"] else "no"
    place = machine["gpu"] or f"{machine['cores']} cores of {machine['processor']}"
    header = ["", "beside", "btkit", "peer", "unit", "ratio", "rounds", "promised"]
    rows = [
        [
            row["name"],
            row["peer"],
            f"{row['ours']:.4g}",
            f"{row['theirs']:.4g}",
            row["unit"],
            f"{row['ratio']:.2f}",
            "" if row["low"] is None else f"{row['low']:.2f} .. {row['high']:.2f}",
            "" if row["at_least"] is None else f"{row['at_least']:.2f}{'' if row['holds'] else '  not kept'}",
        ]
        for row in result["rows"]
    ]
    print_table(
        f"{place}, {units} units for bfloat16; a ratio above 1 means btkit is better", header, rows, right={2, 3, 5}
    )
