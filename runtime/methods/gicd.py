"""`gicd`: segments what a group of pictures has in common, in two passes with the consensus between them."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends.engine import Engine
from ..backends.session import Held, Session
from ..detector import Detector, Prepared
from ..driver import LoopPool
from ..errors import SalienceError
from ..images import ImageSource
from ..saliency import SaliencyMap

# What `embed` leaves for the host; everything else of it stays on the device.
LOGITS = "logits"
DEFAULT_MEMORY_BYTES = 512_000_000


class GroupDetector(Detector):
    """Serves GICD; see `predict_group`. `predict` takes a picture for a group of its own."""

    graphs = ("embed", "consensus", "segment")

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.sessions = LoopPool(lambda batch: Sessions(self.engines, batch))

    def infer(self, prepared: Sequence[Prepared]) -> NDArray[np.float32]:
        """Maps (N, 1, h, w) of N pictures, each a group of its own."""
        if not prepared:
            height, width = self.bundle.manifest.input_size
            return np.zeros((0, 1, height, width), dtype=np.float32)
        found = self.engines["embed"].run({"input": np.concatenate([p.tensor for p in prepared])})
        logits = found.pop(LOGITS)
        return self.engines["segment"].run({**found, "guide": self.guide(logits[:, None])})["saliency"]

    def predict_group(
        self, images: Sequence[ImageSource], *, memory_bytes: int = DEFAULT_MEMORY_BYTES, batch: int = 1
    ) -> list[SaliencyMap]:
        """The maps of a group, in the order of `images`; none depends on that order, nor on the two settings.

        Args:
            images: pictures of any sizes, one or more; one that is there twice counts twice.
            memory_bytes: for features kept on the device between the passes; what does not fit is computed again.
            batch: pictures per engine call.

        Raises:
            ImageError: a picture cannot be read; the message says which. (`GroupPass` goes on without it.)
            SalienceError: there are no pictures.
            EngineError: the engine failed.
        """
        prepared = [self._member(index, image) for index, image in enumerate(images)]
        group = GroupPass(self, prepared.__getitem__, len(prepared), memory_bytes=memory_bytes, batch=batch)
        maps = {index: self.finish(member, values) for index, member, values in group.maps()}
        return [maps[index] for index in range(len(prepared))]

    def guide(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """What leads `segment` in G groups of N pictures: logits (G, N, K) -> (G, D).

        Sums are exact, so that their order does not matter; the largest of them is taken off, which the softmax does
        not see and fp32 needs.
        """
        totals = np.array([[math.fsum(column) for column in group.T] for group in logits.astype(np.float64)])
        totals -= totals.max(axis=1, keepdims=True)
        return self.engines["consensus"].run({"total": totals.astype(np.float32)})["guide"]

    def _member(self, index: int, image: ImageSource) -> Prepared:
        try:
            return self.prepare(image)
        except SalienceError as error:
            raise type(error)(f"picture {index + 1} of the group: {error}") from error


@dataclass
class GroupPass:
    """One group on its way through `detector`: the first pass gathers the consensus, the second gives the maps.

    Attributes:
        detector: whose graphs run.
        prepare: reads picture number i, at most twice; from several threads where there are `workers`.
        count: of pictures.
        memory_bytes: for features that are kept between the passes.
        batch: pictures per engine call.
        workers: threads that read pictures ahead.
        failures: pictures that could not be read, and why; the group goes on without them.
    """

    detector: GroupDetector
    prepare: Callable[[int], Prepared]
    count: int
    memory_bytes: int = DEFAULT_MEMORY_BYTES
    batch: int = 1
    workers: int = 1
    failures: dict[int, Exception] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checked = (("pictures", self.count, 1), ("batch", self.batch, 1), ("memory", self.memory_bytes, 0))
        for name, value, least in checked:
            if value < least:
                raise SalienceError(f"group: {name} is {value}, expected at least {least}.")
        self._kept: dict[tuple[int, ...], dict[str, Held[Any]]] = {}
        self._held_bytes = 0

    def maps(self, wanted: Callable[[int], bool] = lambda index: True) -> Iterator[tuple[int, Prepared, Any]]:
        """Number, picture and map (1, h, w) of every picture that is `wanted` and could be read.

        Raises:
            EngineError: the engine failed; what has come so far holds.
        """
        with self.detector.sessions.take(self.batch) as sessions:
            yield from self._maps(sessions, wanted)

    def _maps(self, sessions: "Sessions", wanted: Callable[[int], bool]) -> Iterator[tuple[int, Prepared, Any]]:
        members, guide = self._gather(sessions)
        for chunk, pictures in self._read([chunk for chunk in members if any(map(wanted, chunk))]):
            features = self._kept.pop(chunk, None)
            if not pictures:  # all of them are gone by now
                continue
            features = features or self._embed(sessions, chunk, pictures)[0]
            segment = sessions.session("segment", len(chunk))
            for name, held in features.items():
                segment.put(name, held)
            segment.feed("guide", np.repeat(guide, len(chunk), axis=0))
            segment.run()
            for index, values in zip(chunk, segment.read("saliency"), strict=True):
                if index in pictures and wanted(index):
                    yield index, pictures[index], values

    def _gather(self, sessions: "Sessions") -> tuple[list[tuple[int, ...]], NDArray[np.float32]]:
        """The first pass: the chunks of pictures that can be read, and the guide (1, D) of their consensus."""
        members, logits = [], []
        starts = range(0, self.count, self.batch)
        chunks = [tuple(range(start, min(start + self.batch, self.count))) for start in starts]
        for _, pictures in self._read(chunks):
            chunk = tuple(pictures)
            if not chunk:
                continue
            features, found = self._embed(sessions, chunk, pictures)
            size = sum(held.nbytes for held in features.values())
            if self._held_bytes + size <= self.memory_bytes:
                self._kept[chunk] = features
                self._held_bytes += size
            members.append(chunk)
            logits.append(found)
        guide = self.detector.guide(np.concatenate(logits)[None]) if members else np.zeros((0, 0), np.float32)
        return members, guide

    def _embed(
        self, sessions: "Sessions", chunk: tuple[int, ...], pictures: dict[int, Prepared]
    ) -> tuple[dict[str, Held[Any]], NDArray[np.float32]]:
        """Features of a chunk, on the device, and its logits (N, K). A picture that is gone by now counts as black."""
        blank = np.zeros_like(next(iter(pictures.values())).tensor)
        embed = sessions.session("embed", len(chunk))
        embed.feed("input", np.concatenate([pictures[i].tensor if i in pictures else blank for i in chunk]))
        embed.run()
        logits = embed.read(LOGITS)
        names = [name for name in self.detector.engines["embed"].outputs if name != LOGITS]
        return {name: embed.take(name) for name in names}, logits

    def _read(self, chunks: Sequence[tuple[int, ...]]) -> Iterator[tuple[tuple[int, ...], dict[int, Prepared]]]:
        """Chunks with the pictures that can be read, decoded ahead; the others go to `failures`."""
        with ThreadPoolExecutor(self.workers) as pool:
            queue: deque[tuple[tuple[int, ...], list[Future[Prepared]]]] = deque()
            source = iter(chunks)
            try:
                while True:
                    while len(queue) <= self.workers and (chunk := next(source, None)):
                        queue.append((chunk, [pool.submit(self.prepare, index) for index in chunk]))
                    if not queue:
                        return
                    chunk, futures = queue.popleft()
                    yield chunk, self._settled(chunk, futures)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _settled(self, chunk: tuple[int, ...], futures: list[Future[Prepared]]) -> dict[int, Prepared]:
        found = {}
        for index, future in zip(chunk, futures, strict=True):
            error = future.exception()
            if error is None:
                found[index] = future.result()
            elif isinstance(error, Exception):
                self.failures[index] = error
            else:
                raise error
        return found


class Sessions:
    """Of each graph one for chunks of `batch` pictures and one for smaller chunks, which few are."""

    def __init__(self, engines: dict[str, Engine], batch: int) -> None:
        self._engines = engines
        self._batch = batch
        self._open: dict[tuple[str, bool], Session[Any]] = {}

    def session(self, graph: str, count: int) -> Session[Any]:
        """For a chunk of `count` pictures."""
        key = (graph, count == self._batch)
        if key not in self._open or self._open[key].batch != count:
            self._open[key] = self._engines[graph].session(count)
        return self._open[key]
