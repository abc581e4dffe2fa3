"""Many pictures through one detector: decoding, inference and writing overlap, and a failure stays its own."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

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
    done: Callable[[], None] = lambda: None,
    extras: Extras | None = None,
) -> list[Failure]:
    """Predict and write every job; the failures, in no fixed order.

    Args:
        detector: what predicts.
        jobs: what to read and write.
        kind: what is written, see `SaliencyMap.render`.
        threshold: of masks; None for the adaptive one.
        batch: pictures per engine call, at most.
        workers: threads that decode, and as many that write.
        done: called after each job, failed or not, in the calling thread.
        extras: gives further maps of a job, and where to write them, from what `prepare` and `infer` gave.
    """
    failures: list[Failure] = []

    def keep(job: Job, error: BaseException) -> None:
        failures.append(Failure(job, _message(error)))
        done()

    def write(job: Job, prepared: Prepared, values: object) -> None:
        for target, saliency in extras(job, prepared, values) if extras else ():
            save(target, saliency)
        save(job.target, detector.finish(prepared, values))

    def save(target: Path, saliency: SaliencyMap) -> None:
        try:
            saliency.save(target, kind=kind, threshold=threshold)
        except OSError as error:
            raise DataError(f"{target}: cannot be written ({error.strerror or error}).") from error

    writing: deque[tuple[Job, Future[None]]] = deque()

    def settle(limit: int) -> None:
        while len(writing) > limit:
            job, future = writing.popleft()
            try:
                future.result()
            except Exception as error:
                keep(job, error)
            else:
                done()

    with ThreadPoolExecutor(workers) as readers, ThreadPoolExecutor(workers) as writers:
        try:
            decoded = _ahead(readers, lambda job: detector.prepare(job.source), jobs, ahead=workers + batch)
            for group in _batches(decoded, batch, keep):
                for job, prepared, values in _infer(detector, group, keep):
                    writing.append((job, writers.submit(write, job, prepared, values)))
                settle(2 * workers)
            settle(0)
        except BaseException:
            readers.shutdown(wait=False, cancel_futures=True)
            writers.shutdown(wait=False, cancel_futures=True)
            raise
    return failures


def _ahead(
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


def _infer(
    detector: Predictor, group: Sequence[tuple[Job, Prepared]], keep: Callable[[Job, BaseException], None]
) -> Iterator[tuple[Job, Prepared, object]]:
    """Maps of a batch; where it fails, of each picture by itself, so that one cannot lose the others."""
    try:
        maps = detector.infer([prepared for _, prepared in group])
    except Exception as error:
        if len(group) == 1:
            keep(group[0][0], error)
        else:
            for member in group:
                yield from _infer(detector, [member], keep)
        return
    for (job, prepared), values in zip(group, maps, strict=True):
        yield job, prepared, values


def _message(error: BaseException) -> str:
    return str(error) if isinstance(error, SalienceError) else f"{type(error).__name__}: {error}"
