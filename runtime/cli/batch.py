"""`salience batch`."""

import contextlib
import io
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..bundle import DEFAULT_BUNDLE
from ..commands import parse_pairs, report_errors
from ..errors import SalienceError
from ..load_options import LoadOptions
from ..objects import choose_preset
from ..option_groups import expand_options
from ..saliency import Kind
from ..scale.run import FAILURES_FILE, Outcome, run_batch
from ..scale.settings import Settings
from .folders import check_threshold
from .options import (
    BundleOption,
    ClassOption,
    ParameterOption,
    PresetOption,
    ThresholdOption,
)

_SHOWN_FAILURES = 10


@report_errors
@expand_options
def batch(
    source: Annotated[
        Path,
        typer.Argument(metavar="INPUT", help="Folder of pictures, of .tar shards or of .parquet files; or a file."),
    ],
    output: Annotated[Path, typer.Argument(help="Folder for the results; an unfinished one is continued.")],
    bundle: BundleOption = None,
    kind: Annotated[Kind, typer.Option(help="What to write.")] = "map",
    threshold: ThresholdOption = None,
    ray: Annotated[
        str,
        typer.Option(metavar="local|auto|HOST:PORT", help="Cluster: started here, one that runs here, or its head."),
    ] = "local",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that predict. [as many as find room]")] = None,
    gpus_per_worker: Annotated[float, typer.Option(min=0.0, max=1.0, help="0 for the CPU, 0.5: two share a GPU.")] = 0,
    column: Annotated[
        str | None,
        typer.Option(help="Of Parquet files, [the first of bytes]; of shards, the extension. [of any picture]"),
    ] = None,
    target: ClassOption = None,
    preset: PresetOption = "default",
    parameter: ParameterOption = None,
    *,
    options: LoadOptions,
) -> None:
    """Write the saliency map of every picture, on many workers; exit code 1 if any gave none."""
    check_threshold(kind, threshold)
    if options.device not in ("auto", "cuda" if gpus_per_worker else "cpu"):
        raise SalienceError(
            f"--device {options.device}: contradicts --gpus-per-worker {gpus_per_worker:g}, which says where workers "
            "run; leave --device out."
        )
    settings = Settings(
        bundle=bundle or DEFAULT_BUNDLE, kind=kind, threshold=threshold, load=options, target=target,
        preset=choose_preset(preset, parse_pairs(parameter, "--set")),
    )  # fmt: skip
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]:.1f} images/s"), TimeRemainingColumn())
    console = Console(stderr=True)
    # Ray tells of workers that died on standard output.
    with (
        contextlib.redirect_stdout(io.StringIO()),
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar,
    ):
        task = bar.add_task("", total=None, rate=0.0)
        start = time.monotonic()

        def progress(done: int, total: int, maps: int) -> None:
            bar.update(task, completed=done, total=total, rate=maps / max(time.monotonic() - start, 1e-9))

        outcome = run_batch(
            source, output, settings, column=column, address=ray, workers=workers, gpus=gpus_per_worker,
            progress=progress,
        )  # fmt: skip
    _report(outcome, output)


def _report(outcome: Outcome, output: Path) -> None:
    """Name the first failures, say what was done, and exit with 1 if any failed."""
    for failure in outcome.failures[:_SHOWN_FAILURES]:
        typer.echo(f"error: {failure.message}", err=True)
    if len(outcome.failures) > _SHOWN_FAILURES:
        typer.echo(f"error: {len(outcome.failures)} failures in all, see {output / FAILURES_FILE}", err=True)
    notes = [f"{outcome.written} of {outcome.written + len(outcome.failures)} written to {output}"]
    notes += [f"{outcome.earlier} of them by an earlier run"] if outcome.earlier else []
    notes += [f"{outcome.rate:.1f} images/s"]
    made_by = f" ({outcome.share.workers} workers, {outcome.engine})" if outcome.share else ""
    typer.echo(f"{', '.join(notes)}{made_by}", err=True)
    if outcome.failures:
        raise typer.Exit(1)
