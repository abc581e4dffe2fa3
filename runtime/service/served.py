"""A model of the service: a bundle, loaded and warm, exchanged as a whole when its folder changes."""

import asyncio
import logging
import os
import time
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ..detector import open_detector
from ..errors import EngineError, SalienceError
from ..methods.cgd import ObjectMap
from ..png_writer import encode_png
from ..saliency import SaliencyMap
from .adapters import Adapter, adapt
from .batching import Batcher
from .gate import BusyError
from .metrics import Metrics
from .queries import Answer, Options, Query, QueryError, check_counts
from .settings import ServiceSettings

log = logging.getLogger("salience.service")

# Name, time, size and inode of every file.
Fingerprint: TypeAlias = tuple[tuple[str, int, int, int], ...]
STAGES = ("queue", "decode", "infer", "encode")
_WARM_UP = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)


@dataclass(frozen=True, eq=False)
class Loaded:
    """One state of a bundle's folder, as it was read: what has been loaded never mixes with what comes later."""

    name: str
    adapter: Adapter[Any]
    fingerprint: Fingerprint

    @property
    def method(self) -> str:
        """Of the bundle."""
        method: str = self.adapter.detector.bundle.manifest.method
        return method


# What may share an engine call, and a prepared unit with its options.
Key: TypeAlias = tuple[Loaded, Hashable]
Item: TypeAlias = tuple[Any, Options]


@dataclass(frozen=True, eq=False)
class Answers:
    """Of all pictures of a query, and where the time went, in seconds by stage."""

    answers: list[Answer]
    stages: dict[str, float]


@dataclass(eq=False)
class Workshop:
    """What all models of a service share: threads, the engine's calls, and the count of units at work.

    Attributes:
        settings: see `ServiceSettings`.
        metrics: see `Metrics`.
    """

    settings: ServiceSettings
    metrics: Metrics
    hosts: ThreadPoolExecutor = field(init=False)
    batcher: Batcher[Key, Item, Any] = field(init=False)
    slots: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        calls, batch = self.settings.calls, self.settings.batch
        # Decoded pictures are large: so many units hold theirs that the engine never waits, the others bytes.
        at_work = calls * batch + calls + 2
        self.hosts = ThreadPoolExecutor(calls + 1, thread_name_prefix="host")
        self.slots = asyncio.Semaphore(at_work)
        self.batcher = Batcher(
            _infer,
            calls=calls,
            batch=batch,
            delay_s=self.settings.delay_s,
            watch=lambda key, size: self.metrics.batches.labels(key[0].name).observe(size),
        )

    def close(self) -> None:
        """End the threads."""
        self.batcher.close()
        self.hosts.shutdown()


class Served:
    """A bundle by name.

    Attributes:
        name: of the model.
        folder: of the bundle.
    """

    def __init__(self, name: str, folder: Path, workshop: Workshop) -> None:
        self.name, self.folder = name, folder
        self._workshop = workshop
        self._loaded: Loaded | None = None
        self._refused: Fingerprint = ()

    @property
    def ready(self) -> bool:
        """Whether it is loaded and warm."""
        return self._loaded is not None

    @property
    def loaded(self) -> Loaded:
        """What is served now.

        Raises:
            BusyError: nothing yet.
        """
        if self._loaded is None:
            raise BusyError(f"model {self.name}: is still being loaded; ask again in a few seconds.", 5)
        return self._loaded

    def load(self) -> None:
        """Open the folder as it is now, warm up, and serve that from then on; takes seconds.

        Raises:
            SalienceError: the bundle cannot be opened, or fails; what was served before is served still.
        """
        settings, found = self._workshop.settings, fingerprint(self.folder)
        detector = open_detector(self.folder, settings.load)
        detector.try_out(_WARM_UP)
        self._loaded = Loaded(self.name, adapt(detector, settings.limits.pixels), found)
        self._workshop.metrics.ready.labels(self.name).set(1)

    def refresh(self) -> bool:
        """Load again where the folder has changed; whether it has. A change that cannot be served is told once."""
        found = fingerprint(self.folder)
        if self._loaded is None or not found or found in (self._loaded.fingerprint, self._refused):
            return False
        try:
            self.load()
        # A folder may be half there, and an engine may raise anything.
        except Exception as error:
            self._refused = found
            self._workshop.metrics.reloads.labels(self.name, "refused").inc()
            log.warning("bundle refused", extra={"model": self.name, "reason": str(error)})
            return False
        self._workshop.metrics.reloads.labels(self.name, "loaded").inc()
        log.info("bundle loaded", extra={"model": self.name})
        return True

    def rest(self) -> None:
        """Give memory back that only large pictures need."""
        if self._loaded is not None:
            self._loaded.adapter.detector.release_memory()

    async def answer(self, query: Query) -> Answers:
        """The maps of a query.

        Raises:
            QueryError: the query cannot be answered as it is.
            SalienceError: the service failed.
        """
        loaded = self.loaded
        check_counts(query, loaded.method, self._workshop.settings.limits.images)
        asked = time.monotonic()
        stages = dict.fromkeys(STAGES, 0.0)
        try:
            async with asyncio.TaskGroup() as tasks:
                units = [tasks.create_task(self._unit(loaded, unit, stages)) for unit in loaded.adapter.units(query)]
        except ExceptionGroup as group:
            # The others have been given up for the first.
            raise group.exceptions[0] from None
        for stage, seconds in (*stages.items(), ("total", time.monotonic() - asked)):
            self._workshop.metrics.stages.labels(self.name, stage).observe(seconds)
        answers = [answer for unit in units for answer in unit.result()]
        self._workshop.metrics.pictures.labels(self.name).inc(len(answers))
        return Answers(answers, stages)

    async def _unit(self, loaded: Loaded, unit: Query, stages: dict[str, float]) -> list[Answer]:
        """One unit on its way; the time of each stage is added to `stages`."""
        loop, hosts = asyncio.get_running_loop(), self._workshop.hosts
        times = [time.monotonic()]
        async with self._workshop.slots:
            times.append(time.monotonic())
            prepared = await loop.run_in_executor(hosts, _prepare, loaded.adapter, unit)
            times.append(time.monotonic())
            key = (loaded, loaded.adapter.key(unit.options))
            found = await self._workshop.batcher.run(key, (prepared, unit.options))
            times.append(time.monotonic())
            answers = await loop.run_in_executor(hosts, _finish, loaded.adapter, unit, prepared, found)
            times.append(time.monotonic())
        for stage, start, end in zip(STAGES, times, times[1:], strict=False):
            stages[stage] += end - start
        return answers


def fingerprint(folder: Path) -> Fingerprint:
    """Changes when a file of the bundle does; empty where there is none."""
    try:
        with os.scandir(folder) as entries:
            states = [(entry.name, entry.stat()) for entry in entries if entry.is_file()]
    except OSError:
        return ()
    return tuple(sorted((name, state.st_mtime_ns, state.st_size, state.st_ino) for name, state in states))


def _infer(key: Key, items: Sequence[Item]) -> Sequence[Any]:
    prepared, options = zip(*items, strict=True)
    return key[0].adapter.infer(prepared, options)


def _prepare(adapter: Adapter[Any], unit: Query) -> Any:
    try:
        return adapter.prepare(unit)
    except EngineError:
        raise
    except SalienceError as error:
        raise QueryError(str(error)) from error


def _finish(adapter: Adapter[Any], unit: Query, prepared: Any, found: Any) -> list[Answer]:
    maps = adapter.finish(prepared, found, unit.options)
    encoded = [isinstance(image, bytes) for image in unit.images]
    return [_answer(each, unit.options, png=png) for each, png in zip(maps, encoded, strict=True)]


def _answer(found: SaliencyMap, options: Options, *, png: bool) -> Answer:
    pixels = found.render(options.kind, threshold=options.threshold)
    data = encode_png(pixels) if png else b""
    if isinstance(found, ObjectMap):
        return Answer(pixels, data, found.label, found.probability)
    return Answer(pixels, data)
