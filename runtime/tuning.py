"""Which engine serves a bundle fastest on this machine's CPU, and with how many threads: measured, then recorded."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .backends import BACKENDS
from .backends.engine import EngineOptions, available_cores
from .bundle import Bundle
from .detector import load
from .errors import BundleError
from .files import write_atomic
from .manifest import MANIFEST_FILE, Precision, Timing, Tuning
from .tables import entry

# A photograph's usual size, (height, width); its content does not matter.
_PHOTO = (360, 480)

Choice = tuple[str, int]


def tune(
    path: Path,
    backends: Sequence[str] | None = None,
    *,
    rounds: int = 7,
    done: Callable[[int], None] = lambda total: None,
) -> Tuning:
    """Time the whole way from a picture to its map, in every precision, and record it in the bundle's manifest.

    The choices take turns, so that what else the machine does falls on all of them.

    Args:
        path: the bundle's folder.
        backends: those of the CPU to compare; None for all that it was verified on and that work here.
        rounds: each choice runs once in each, and once before.
        done: called after each call, with the number of all calls.

    Raises:
        BundleError: no bundle, or it was verified on no engine that works here.
        OSError: its manifest cannot be written.
    """
    bundle = Bundle(path)
    chosen = list(backends or _verified(bundle))
    if not chosen:
        raise BundleError(f"bundle {path}: was verified on no engine that runs on this machine's CPU; build it again.")
    cores = available_cores()
    choices = {
        precision: [
            (backend, threads) for backend in chosen if _runs(backend, precision) for threads in _thread_counts(cores)
        ]
        for precision in bundle.precisions()
    }
    total = sum(map(len, choices.values())) * (rounds + 1)
    found = [
        Timing(precision=precision, backend=backend, threads=threads, milliseconds=round(1e3 * seconds, 3))
        for precision, some in choices.items()
        for (backend, threads), seconds in _measure(path, precision, some, rounds, partial(done, total)).items()
    ]
    tuning = Tuning(cores=cores, rounds=rounds, timings=tuple(found))
    text = bundle.manifest.model_copy(update={"tuning": tuning}).model_dump_json(indent=1)
    write_atomic(path / MANIFEST_FILE, f"{text}\n".encode())
    return tuning


def _verified(bundle: Bundle) -> list[str]:
    """The backends of the record that work on this CPU."""
    record = bundle.verification()
    named = dict.fromkeys(check.backend for check in record.tensors) if record else ()
    types: Iterator[tuple[str, Any]] = ((name, entry(BACKENDS, name, what="backend")) for name in named)
    return [name for name, engine in types if engine.unavailable(EngineOptions()) is None]


def _runs(backend: str, precision: Precision) -> bool:
    engine: Any = entry(BACKENDS, backend, what="backend")
    return engine.refuses(precision, EngineOptions()) is None


def _thread_counts(cores: int) -> list[int]:
    """All cores, and half of them: where two share their units, one thread each is often faster."""
    return sorted({cores, max(1, cores // 2)}, reverse=True)


def _measure(
    path: Path, precision: Precision, choices: Sequence[Choice], rounds: int, done: Callable[[], None]
) -> dict[Choice, float]:
    """Median seconds of each choice."""
    image = np.random.default_rng(0).integers(0, 256, (*_PHOTO, 3), dtype=np.uint8)
    detectors: dict[Choice, Any] = {}
    for name, threads in choices:
        backend: Any = name
        detectors[name, threads] = load(path, backend=backend, precision=precision, device="cpu", threads=threads)
    seconds: dict[Choice, list[float]] = {choice: [] for choice in choices}
    for _ in range(rounds + 1):
        for choice, detector in detectors.items():
            start = time.perf_counter()
            detector.try_out(image)
            seconds[choice].append(time.perf_counter() - start)
            done()
    return {choice: statistics.median(found[1:]) for choice, found in seconds.items()}
