"""Spread the units over the workers of a cluster, and gather what came of them."""

import csv
import io
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import SalienceError
from ..files import write_atomic
from .cluster import Share, joined, share_out
from .plan import make_plan
from .settings import Settings
from .state import State
from .units import Failure, Unit
from .worker import Done, Worker

log = logging.getLogger("salience")

FAILURES_FILE = "failures.csv"
# Each costs the driver some milliseconds.
_MAX_TASKS = 2000


@dataclass(frozen=True)
class Outcome:
    """What came of all inputs.

    Attributes:
        written: maps that are there.
        earlier: those of them that were there before.
        failures: inputs without a map, sorted.
        elapsed_s: from the first unit to the last, with the start of the workers.
        share: what worked; None where nothing was left to do.
        engine: of the workers, in words.
    """

    written: int
    earlier: int
    failures: tuple[Failure, ...]
    elapsed_s: float
    share: Share | None
    engine: str

    @property
    def rate(self) -> float:
        """Maps a second."""
        return (self.written - self.earlier) / max(self.elapsed_s, 1e-9)


def run_batch(
    source: Path,
    output: Path,
    settings: Settings,
    *,
    column: str | None = None,
    address: str = "local",
    workers: int | None = None,
    gpus: float = 0,
    progress: Callable[[int, int, int], None] = lambda done, total, maps: None,
) -> Outcome:
    """Make a map of every picture; what an earlier run has done is left, and what failed is tried again.

    A shard or a table that is done stays as it is, with its failures, until its result is removed. All machines of the
    cluster must see the input, the output and the bundle under the same paths.

    Args:
        source: a folder, or a file; see `plan.make_plan`.
        output: the folder for the results, and for `FAILURES_FILE`.
        settings: how maps are made; their device is set here, and the threads where there are none.
        column: see `plan.make_plan`.
        address: of the cluster, see `cluster.joined`.
        workers: see `cluster.share_out`.
        gpus: of each worker, 0 for none.
        progress: called with the units that are done, all units, and the maps of this run.

    Raises:
        SalienceError: the input, the bundle or the cluster is not what it should be; nothing is lost, and the same
            call goes on.
    """
    source, output = source.absolute(), output.absolute()
    settings = replace(settings, bundle=settings.bundle.absolute())
    settings.check()
    plan, state = make_plan(source, output, column), State(output, settings.identity(column))
    state.begin()
    found, start, share, engine = plan.earlier, time.monotonic(), None, ""
    earlier, finished = found.written, 0
    if plan.jobs or plan.units:
        with joined(address) as ray:
            share = share_out(ray, workers, gpus, settings.load.threads)
            place = replace(settings.load, threads=share.threads, device="cuda" if gpus else "cpu")
            settings = replace(settings, load=place)
            units = plan.cut(share.workers)
            start = time.monotonic()
            for done in _work(ray, units, settings, share, state):
                engine = done.engine
                found.add(done.report)
                finished += 1
                progress(finished, len(units), found.written - earlier)
    elapsed_s = time.monotonic() - start
    for table in plan.tables:
        table.join()
    failures = sorted(found.failures, key=lambda failure: (str(failure.source), failure.key))
    write_failures(output / FAILURES_FILE, failures)
    return Outcome(found.written, earlier, tuple(failures), elapsed_s, share, engine)


def _work(ray: Any, units: Sequence[Unit], settings: Settings, share: Share, state: State) -> Iterator[Done]:
    """Do the units on workers that Ray replaces when they die, and their units with them."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    rows = ray.data.from_items([{"unit": unit} for unit in units], override_num_blocks=min(len(units), _MAX_TASKS))
    found = rows.map_batches(
        Worker,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=share.workers),
        num_cpus=share.threads,
        num_gpus=share.gpus or None,
        fn_constructor_args=(settings, state),
    )
    try:
        for row in found.iter_rows():
            done: Done = row["done"]
            if done.fatal:
                raise SalienceError(done.fatal)
            if done.attempts > 1:
                log.warning("%s: was begun %d times, since its worker died", done.unit, done.attempts)
            yield done
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1]
        raise SalienceError(f"Ray gave up ({reason}); what is done is kept, the same command goes on.") from error


def write_failures(path: Path, failures: Iterable[Failure]) -> None:
    """Write the table of what gave no map, CSV in UTF-8 with the columns input, key and error."""
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(("input", "key", "error"))
    table.writerows((failure.source, failure.key, failure.message) for failure in failures)
    write_atomic(path, text.getvalue().encode(errors="backslashreplace"))
