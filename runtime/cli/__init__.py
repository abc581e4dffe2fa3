"""The `salience` command: predict, evaluate, inspect; one file each."""

import logging
import warnings
from typing import Annotated

import typer
from rich.console import Console
from rich.logging import RichHandler

from .evaluate import evaluate
from .inspect_bundle import inspect_bundle
from .predict import predict

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Saliency maps of pictures, from bundles made by export/build_engine.py.",
)
app.command()(predict)
app.command("evaluate")(evaluate)
app.command("inspect")(inspect_bundle)


def main() -> None:
    """Entry point."""
    handler = RichHandler(console=Console(stderr=True), show_time=False, show_path=False, show_level=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    # Large pictures are allowed up to the limit of `images.decode`, which refuses larger ones itself.
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit", category=UserWarning)
    warnings.filterwarnings("ignore", category=_bomb_warning())
    app()


@app.callback(invoke_without_command=True)
def version(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Global options."""
    if show_version:
        from salience import __version__

        typer.echo(f"salience {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        raise typer.BadParameter("name a command: predict, evaluate or inspect.")


def _bomb_warning() -> type[Warning]:
    from PIL import Image

    return Image.DecompressionBombWarning
