"""The command line that writes model repositories."""

from pathlib import Path
from typing import Annotated

import typer

from salience.runtime.bundle import Bundle
from salience.runtime.commands import report_errors
from salience.runtime.manifest import Precision
from salience.runtime.triton_interface import Device

from .configs import Backend, Serving
from .repository import write_repository

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def main() -> None:
    """Entry point."""
    app()


@app.command()
@report_errors
def triton_repository(
    bundle: Annotated[Path, typer.Argument(help="Folder made by build_engine.py.")],
    output: Annotated[Path, typer.Option(help="The repository's folder; new or empty.")],
    name: Annotated[str | None, typer.Option(help="What clients call the model. [the bundle's method]")] = None,
    precision: Annotated[Precision | None, typer.Option(help="Of the graphs. [the bundle's default]")] = None,
    backend: Annotated[Backend, typer.Option(help="tensorrt: the engines that the bundle holds.")] = "onnxruntime",
    instances: Annotated[int, typer.Option(min=1, max=64, help="Processes, each with a picture at a time.")] = 2,
    max_batch: Annotated[int, typer.Option(min=1, max=1024, help="Pictures in one call of a network.")] = 8,
    max_delay_us: Annotated[
        int, typer.Option(min=0, max=1_000_000, help="How long one waits for others to share its call, microseconds.")
    ] = 500,
    device: Annotated[Device, typer.Option(help="Where the networks run.")] = "gpu",
) -> None:
    """Write a model repository for Triton Inference Server, with the bundle in it."""
    opened = Bundle(bundle)
    serving = Serving(
        name=name or opened.manifest.method,
        precision=precision or opened.manifest.default_precision,
        backend=backend,
        device=device,
        instances=instances,
        max_batch=max_batch,
        max_delay_us=max_delay_us,
    )
    models = write_repository(opened, output, serving)
    typer.echo(f"{output}: {', '.join(models)}; serve with: tritonserver --model-repository {output}")
