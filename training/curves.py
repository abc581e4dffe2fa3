"""A picture of one or several runs: `python -m salience.training.curves RUN... --output FILE.png`."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from salience.runtime.commands import report_errors
from salience.runtime.errors import DataError
from salience.runtime.evaluation.figures import COLOURS, figure_png, new_figure
from salience.runtime.files import write_atomic

from .run_state import HISTORY_FILE, EpochRecord

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
_LABELS = {"f_max": "validation max F", "mae": "validation MAE"}


@app.command()
@report_errors
def curves(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, or their history.json.")],
    output: Annotated[Path, typer.Option(help="The picture, a PNG.")],
) -> None:
    """Draw the loss and the validation scores of RUNS over their epochs."""
    plot_history(runs, output)
    typer.echo(output)


def read_history(path: Path) -> list[EpochRecord]:
    """The epochs of a run, from its folder or its history.json.

    Raises:
        DataError: the file is missing, damaged or without an epoch.
    """
    path = path / HISTORY_FILE if path.is_dir() else path
    try:
        history = TypeAdapter(list[EpochRecord]).validate_python(json.loads(path.read_bytes()))
    except OSError as error:
        raise DataError(
            f"history {path}: {error.strerror}; expected the folder of a run or its history.json."
        ) from error
    except (ValueError, ValidationError) as error:
        raise DataError(f"history {path}: not the record of a run, expected the history.json of one.") from error
    if not history:
        raise DataError(f"history {path}: has no epoch yet; wait for the first to end.")
    return history


def plot_history(paths: Sequence[Path], output: Path) -> None:
    """Write a PNG with a panel for the loss and for each validation score, a line for each run.

    Args:
        paths: folders of runs, or their history.json.
        output: the picture.

    Raises:
        DataError: see `read_history`, or `output` is no PNG.
        BackendUnavailableError: matplotlib is not installed.
    """
    if output.suffix.lower() != ".png":
        raise DataError(f"--output {output}: expected a name that ends in .png.")
    write_atomic(output, draw_history([(_title(path), read_history(path)) for path in paths]))


def draw_history(runs: Sequence[tuple[str, Sequence[EpochRecord]]]) -> bytes:
    """A PNG with a panel for the loss and for each validation score, a line for each run.

    Args:
        runs: of each its name and its epochs.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
    """
    panels = ["loss", *dict.fromkeys(name for _, history in runs for record in history for name in record.scores)]
    figure = new_figure((4.2 * len(panels), 3.6 + 0.22 * ((len(runs) + 2) // 3)))
    for axes, name in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for (title, history), colour in zip(runs, itertools.cycle(COLOURS)):
            values = {r.epoch + 1: r.loss if name == "loss" else r.scores.get(name) for r in history}
            axes.plot([*values], [*values.values()], color=colour, label=title, marker=".")
        axes.set(title=_LABELS.get(name, name), xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(color="0.9")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure_png(figure)


def _title(path: Path) -> str:
    return path.resolve().parent.name if path.name == HISTORY_FILE else path.resolve().name


if __name__ == "__main__":
    app()
