"""What the commands that write maps share: a progress bar, the names of failures, and a last line."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..backends.engine import available_cores
from ..errors import SalienceError
from ..jobs import Job, plan_jobs
from ..pipeline import Extras, Failure, Predictor, run_jobs
from ..saliency import Kind

# Engine calls at once, at most: each holds the activations of its pictures.
_CALLS = 4


def share_cores(threads: int | None, jobs: int) -> tuple[int | None, int]:
    """Threads of an engine call, and how many calls run at once, so that these use all cores together.

    Args:
        threads: what the user wants of one call; None to choose.
        jobs: pictures to do; one alone gets all cores.
    """
    cores = available_cores()
    if jobs > 1 and threads is None:
        threads = max(1, cores // _CALLS)
    return threads, max(1, min(_CALLS, jobs, cores // (threads or cores)))


def check_threshold(kind: Kind, threshold: float | None) -> None:
    """Raise SalienceError where a threshold is given for what has none."""
    if threshold is not None and kind != "mask":
        raise SalienceError(f"--threshold {threshold}: is for --kind mask, and the kind is {kind}.")


def pending_jobs(inputs: list[str], output: Path, *, skip_existing: bool) -> tuple[list[Job], int]:
    """The jobs to do, and how many are left out because their result is there."""
    jobs = plan_jobs(inputs, output)
    wanted = [job for job in jobs if not (skip_existing and job.target.exists())]
    return wanted, len(jobs) - len(wanted)


def write_all(
    detector: Predictor,
    jobs: list[Job],
    *,
    output: Path,
    skipped: int,
    kind: Kind,
    threshold: float | None,
    batch: int,
    workers: int,
    calls: int,
    extras: Extras | None = None,
) -> None:
    """Write the map of every job, say what was done, and exit with 1 if any job gave none."""
    run = partial(
        run_jobs, detector, jobs, kind=kind, threshold=threshold, batch=batch, workers=workers, calls=calls,
        extras=extras,
    )  # fmt: skip
    report(run, len(jobs), output=output, skipped=skipped, source=f"{detector.backend}, {detector.precision}")


def report(run: Callable[..., list[Failure]], total: int, *, output: Path, skipped: int, source: str) -> None:
    """Run `total` jobs with a progress bar, name the failures, say what was done, and exit with 1 if any failed.

    Args:
        run: does the jobs, calls its argument `done` after each, and returns the failures.
        total: the number of jobs.
        output: the folder of the results.
        skipped: jobs that were left out.
        source: what made the results, for the last line.
    """
    start = time.monotonic()
    with progress_bar(total, "images") as done:
        failures = run(done=done)
    elapsed = time.monotonic() - start
    for failure in failures:
        named = str(failure.job.source) in failure.message
        typer.echo(f"error: {'' if named else f'{failure.job.source}: '}{failure.message}", err=True)
    written = total - len(failures)
    notes = [f"{written} of {total} written to {output}", f"{written / max(elapsed, 1e-9):.1f} images/s"]
    notes += [f"{skipped} skipped"] if skipped else []
    typer.echo(f"{', '.join(notes)} ({source})", err=True)
    if failures:
        raise typer.Exit(1)


@contextmanager
def progress_bar(total: int | None, unit: str) -> Iterator[Callable[[], None]]:
    """A bar, shown on a terminal only; gives what to call after each of `total` things, None where it is not known."""
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.1f} " + unit + "/s"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total, rate=0.0)
        start = time.monotonic()

        def done() -> None:
            finished = progress.tasks[0].completed + 1
            progress.update(task, advance=1, rate=finished / max(time.monotonic() - start, 1e-9))

        yield done
