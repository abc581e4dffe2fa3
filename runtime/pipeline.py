"""Many pictures through one detector: decoding, inference and writing overlap, and a failure stays its own."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, Self, TypeAlias, TypeVar

from .apart import each_apart
from .detector import Prepared
from .errors import DataError, SalienceError
from .jobs import Job
from .saliency import Kind, SaliencyMap

# Above this many pixels in one batch the batch is closed: pictures of 100 megapixels come one by one.
_BATCH_PIXELS = 60_000_000

T = TypeVar("T")
R = TypeVar("R")


Extras: TypeAlias = Callable[[Job, Any, Any], Iterable[tuple[Path, SaliencyMap]]]


@dataclass(frozen=True)
class Failure:
    """A job that gave no result, and why."""

    job: Job
    message: str


class Predictor(Protocol):
    """What a job needs of a detector, see `Detector`; `finish` gets one item of what `infer` returns."""

    @property
    def backend(self) -> str:
        """The engine, in words."""

    @property
    def precision(self) -> str:
        """Of the graphs."""

    def prepare(self, image: Path, /) -> Prepared:
        """Read one picture and bring it to the network's input."""

    def infer(self, prepared: Sequence[Any], /) -> Iterable[Any]:
        """What the network makes of N pictures, N items."""

    def finish(self, prepared: Any, values: Any, /) -> SaliencyMap:
        """The map at the picture's size."""


def run_jobs(
    detector: Predictor,
    jobs: Iterable[Job],
    *,
    kind: Kind = "map",
    threshold: float | None = None,
    batch: int = 1,
    workers: int = 2,
    calls: int = 1,
    done: Callable[[], None] = lambda: None,
    extras: Extras | None = None,
) -> list[Failure]:
    """Predict and write every job; the failures, in no fixed order.

    Args:
        detector: what predicts.
        jobs: what to read and write.
        kind: what is written, see `SaliencyMap.render`.
        threshold: of masks; None for half of the map's maximum, at least .3.
        batch: pictures per engine call, at most.
        workers: threads that decode, and as many that write.
        calls: engine calls that run at once. On a CPU several, each by few threads, give the most pictures a second,
            since no core waits for another one.
        done: called after each job, failed or not, in the calling thread.
        extras: gives further maps of a job, and where to write them, from what `prepare` and `infer` gave.
    """
    with (
        Writers(detector, kind=kind, threshold=threshold, workers=workers, done=done, extras=extras) as writers,
        ThreadPoolExecutor(workers) as readers,
        ThreadPoolExecutor(calls) as engines,
    ):
        try:
            decoded = run_ahead(readers, lambda job: detector.prepare(job.source), jobs, ahead=workers + batch)
            groups = _batches(decoded, batch, writers.fail)
            for _, inferred in run_ahead(engines, partial(_infer, detector), groups, ahead=calls + 1):
                for job, prepared, found in inferred.result():
                    if isinstance(found, Exception):
                        writers.fail(job, found)
                    else:
                        writers.write(job, prepared, found)
        except BaseException:
            for pool in (engines, readers):
                pool.shutdown(wait=False, cancel_futures=True)
            raise
    return writers.failures


class Writers:
    """Threads that bring maps to their pictures' sizes and write them; a failure stays its own.

    To be used as a context, which ends when all is written. Arguments as for `run_jobs`.

    Attributes:
        failures: the jobs that gave no result.
    """

    def __init__(
        self,
        detector: "Predictor",
        *,
        kind: Kind,
        threshold: float | None,
        workers: int,
        done: Callable[[], None],
        extras: Extras | None = None,
    ) -> None:
        self.failures: list[Failure] = []
        self._detector, self._extras, self._done = detector, extras, done
        self._render: dict[str, Any] = {"kind": kind, "threshold": threshold}
        self._limit = 2 * workers
        self._pool = ThreadPoolExecutor(workers)
        self._under_way: deque[tuple[Job, Future[None]]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        try:
            if kind is None:
                self._settle(0)
        finally:
            self._pool.shutdown(cancel_futures=True)

    def write(self, job: Job, prepared: Prepared, values: object) -> None:
        """Hand over what `infer` gave for a job; waits where too much is under way."""
        self._under_way.append((job, self._pool.submit(self._write, job, prepared, values)))
        self._settle(self._limit)

    def fail(self, job: Job, error: BaseException) -> None:
        """A job that gives no result."""
        self.failures.append(Failure(job, _message(error)))
        self._done()

    def _settle(self, limit: int) -> None:
        while len(self._under_way) > limit:
            job, future = self._under_way.popleft()
            try:
                future.result()
            except Exception as error:
                self.fail(job, error)
            else:
                self._done()

    def _write(self, job: Job, prepared: Prepared, values: object) -> None:
        for target, saliency in self._extras(job, prepared, values) if self._extras else ():
            self._save(target, saliency)
        self._save(job.target, self._detector.finish(prepared, values))

    def _save(self, target: Path, saliency: SaliencyMap) -> None:
        try:
            saliency.save(target, **self._render)
        except OSError as error:
            raise DataError(f"{target}: cannot be written ({error.strerror or error}).") from error


def run_ahead(
    pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T], *, ahead: int
) -> Iterator[tuple[T, Future[R]]]:
    """Items with their futures, in order, at most `ahead` of them under way."""
    source = iter(items)
    waiting = deque((item, pool.submit(function, item)) for item in islice(source, ahead))
    while waiting:
        current = waiting.popleft()
        current[1].exception()
        for item in islice(source, 1):
            waiting.append((item, pool.submit(function, item)))
        yield current


def _batches(
    decoded: Iterable[tuple[Job, Future[Prepared]]], size: int, keep: Callable[[Job, BaseException], None]
) -> Iterator[list[tuple[Job, Prepared]]]:
    group: list[tuple[Job, Prepared]] = []
    pixels = 0
    for job, future in decoded:
        error = future.exception()
        if error is not None:
            keep(job, error)
            continue
        prepared = future.result()
        group.append((job, prepared))
        pixels += prepared.image.shape[0] * prepared.image.shape[1]
        if len(group) == size or pixels > _BATCH_PIXELS:
            yield group
            group, pixels = [], 0
    if group:
        yield group


def _infer(detector: Predictor, group: Sequence[tuple[Job, Prepared]]) -> list[tuple[Job, Prepared, object]]:
    """What each picture of a batch gave; where the batch fails, each by itself, so that one cannot lose the others."""
    found = each_apart(detector.infer, [each for _, each in group])
    return [(job, each, values) for (job, each), values in zip(group, found, strict=True)]


def _message(error: BaseException) -> str:
    return str(error) if isinstance(error, SalienceError) else f"{type(error).__name__}: {error}"
