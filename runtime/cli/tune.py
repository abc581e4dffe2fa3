"""`salience tune`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from ..commands import report_errors
from ..errors import DataError
from ..tuning import tune
from .inspect_bundle import timings_table


@report_errors
def tune_bundle(
    bundle: Annotated[Path, typer.Argument(help="The bundle's folder.")],
    rounds: Annotated[int, typer.Option(min=1, help="Timed calls of each choice.")] = 7,
) -> None:
    """Time the bundle on this machine's CPU by every engine and thread count; what serves it by default follows."""
    console = Console(stderr=True)
    try:
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("", total=None)
            found = tune(bundle, rounds=rounds, done=lambda total: progress.update(task, advance=1, total=total))
    except OSError as error:
        raise DataError(f"bundle {bundle}: its manifest cannot be written ({error.strerror or error}).") from error
    Console(markup=False).print(timings_table(found))
