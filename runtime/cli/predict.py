"""`salience predict`."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..commands import report_errors
from ..detector import Detector, load
from ..errors import SalienceError
from ..images import encode_png
from ..jobs import Job, plan_jobs
from ..pipeline import Failure, run_jobs
from ..saliency import Kind
from .options import BackendOption, BundleOption, DeviceOption, PrecisionOption, ProviderOption, ThreadsOption

STDIN_LIMIT_BYTES = 1 << 30


@report_errors
def predict(
    inputs: Annotated[list[str], typer.Argument(help="Files, folders, patterns; '-' reads one picture from stdin.")],
    bundle: BundleOption = None,
    output: Annotated[Path, typer.Option(help="Folder for the results, PNG files.")] = Path("saliency"),
    kind: Annotated[Kind, typer.Option(help="What to write.")] = "map",
    threshold: Annotated[float | None, typer.Option(min=0.0, max=1.0, help="Of masks. [twice the map's mean]")] = None,
    batch: Annotated[int, typer.Option(min=1, max=1024, help="Pictures per engine call.")] = 1,
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="Leave results that are there.")] = False,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Threads that decode, and that write.")] = 2,
    backend: BackendOption = "auto",
    precision: PrecisionOption = "auto",
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    provider: ProviderOption = None,
) -> None:
    """Write the saliency map of every picture; exit code 1 if any gave none."""
    if threshold is not None and kind != "mask":
        raise SalienceError(f"--threshold {threshold}: is for --kind mask, and the kind is {kind}.")
    from_stdin = inputs == ["-"]
    if "-" in inputs and not from_stdin:
        raise SalienceError("input '-': reads one picture from stdin and cannot be mixed with other inputs.")
    jobs = [] if from_stdin else plan_jobs(inputs, output)
    skipped = len(jobs)
    if skip_existing:
        jobs = [job for job in jobs if not job.target.exists()]
    skipped -= len(jobs)
    detector = load(bundle, backend=backend, precision=precision, device=device, threads=threads, provider=provider)
    if from_stdin:
        _predict_stdin(detector, kind, threshold)
        return
    start = time.monotonic()
    failures = _with_progress(detector, jobs, kind=kind, threshold=threshold, batch=batch, workers=workers)
    elapsed = time.monotonic() - start
    for failure in failures:
        named = str(failure.job.source) in failure.message
        typer.echo(f"error: {'' if named else f'{failure.job.source}: '}{failure.message}", err=True)
    written = len(jobs) - len(failures)
    notes = [f"{written} of {len(jobs)} written to {output}", f"{written / max(elapsed, 1e-9):.1f} images/s"]
    notes += [f"{skipped} skipped"] if skipped else []
    typer.echo(f"{', '.join(notes)} ({detector.backend}, {detector.precision})", err=True)
    if failures:
        raise typer.Exit(1)


def _predict_stdin(detector: Detector, kind: Kind, threshold: float | None) -> None:
    data = sys.stdin.buffer.read(STDIN_LIMIT_BYTES + 1)
    if len(data) > STDIN_LIMIT_BYTES:
        raise SalienceError(f"stdin: more than {STDIN_LIMIT_BYTES >> 30} GB, which no picture needs.")
    png = encode_png(detector.predict(data).render(kind, threshold=threshold))
    sys.stdout.buffer.write(png)
    sys.stdout.buffer.flush()


def _with_progress(
    detector: Detector, jobs: list[Job], *, kind: Kind, threshold: float | None, batch: int, workers: int
) -> list[Failure]:
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.1f} images/s"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(jobs), rate=0.0)
        start = time.monotonic()

        def done() -> None:
            finished = progress.tasks[0].completed + 1
            progress.update(task, advance=1, rate=finished / max(time.monotonic() - start, 1e-9))

        return run_jobs(detector, jobs, kind=kind, threshold=threshold, batch=batch, workers=workers, done=done)
