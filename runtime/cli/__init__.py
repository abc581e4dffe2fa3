"""The `salience` command: predict, promote, cosaliency, serve, batch, evaluate, inspect, tune; one file each."""

import logging
from typing import Annotated

import typer

from .batch import batch
from .cosaliency import cosaliency
from .evaluate import SeveralValues, evaluate
from .inspect_bundle import inspect_bundle
from .predict import predict
from .promote import promote
from .serve import serve
from .tune import tune_bundle

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Saliency maps of pictures, from bundles made by export/build_engine.py.",
)
app.command()(predict)
app.command()(promote)
app.command()(cosaliency)
app.command()(serve)
app.command()(batch)
app.command("evaluate", cls=SeveralValues)(evaluate)
app.command("inspect")(inspect_bundle)
app.command("tune")(tune_bundle)


def main() -> None:
    """Entry point."""
    logging.basicConfig(level=logging.WARNING, format="warning: %(message)s")
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
        raise typer.BadParameter("name a command; salience --help lists them.")
