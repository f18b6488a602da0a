"""`btkit export`."""

from pathlib import Path

import click

from braintumor_kit.commands.common import json_option, large_imports, print_json, runs_option, warn
from braintumor_kit.notice import NOTICE


@click.command()
@click.argument("run", required=False)
@click.option(
    "--format",
    "form",
    type=click.Choice(["onnx", "torch", "keras"]),
    default="onnx",
    show_default=True,
    help="ONNX; a program of torch.export (.pt2); or a copy in Keras' own form.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file; by default model.onnx or model.pt2 beside the model.",
)
@runs_option
@json_option
def export(run: str | None, form: str, out: Path | None, runs: Path, as_json: bool) -> None:
    """Write the model of RUN (a run folder or a .keras file; the newest run where it is left out) for other runtimes:
    pixel scaling inside, any number of pictures at once, checked against Keras before it is kept."""
    with large_imports():
        from braintumor_kit.workflows import export as workflow

    written = workflow.export(run, runs, form, out)
    warn(written.warning)
    size = written.path.stat().st_size
    if as_json:
        print_json(
            {
                "file": str(written.path),
                "format": form,
                "bytes": size,
                "pictures": ["N", *written.shape],
                "outputs": list(written.outputs),
                "classes": list(written.classes),
                "deviations": dict(written.deviations),
            }
        )
    else:
        taken = ", ".join(map(str, written.shape))
        click.echo(f"{written.path}: {size / 1e6:.1f} MB, pictures (N, {taken}) to {', '.join(written.outputs)}")
        if written.deviations:
            apart = ", ".join(f"{name} {value:.1g}" for name, value in written.deviations.items())
            click.echo(f"largest difference from Keras on 8 pictures: {apart}")
    click.echo(NOTICE, err=True)
