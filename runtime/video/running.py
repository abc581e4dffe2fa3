"""A video through a detector: decoding, engine calls, rendering and encoding overlap, and all stays in order."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor as Pool
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..detector import Detector, Prepared
from ..errors import SalienceError
from ..pipeline import run_ahead
from ..saliency import Kind
from .reading import Event, Frame, Video
from .smoothing import Smoother
from .writing import VideoWriter

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.packet import Packet
    from av.video.frame import VideoFrame

Infer: TypeAlias = Callable[[Sequence[Prepared]], NDArray[np.float32]]

# Packets of the sound in one group: a file that has no frame for long passes on in pieces.
_MOST_SOUND = 64


@dataclass(frozen=True, eq=False)
class Found:
    """A frame with its network input and its map (1, h, w) float32 in [0, 1]."""

    frame: Frame
    prepared: Prepared
    values: NDArray[np.float32]


@dataclass(frozen=True)
class VideoRun:
    """How frames go through a detector.

    Attributes:
        detector: what predicts.
        infer: its engine calls, such as `Detector.infer`.
        kind: what is written, see `SaliencyMap.render`.
        threshold: of masks; None for half of the map's maximum, at least .3.
        smooth: weight of the maps before, see `Smoother`; 0 for none.
        batch: frames per engine call.
        calls: engine calls at once.
        workers: threads that render.
    """

    detector: Detector
    infer: Infer
    kind: Kind = "map"
    threshold: float | None = None
    smooth: float = 0.0
    batch: int = 1
    calls: int = 1
    workers: int = 2

    def run(self, source: Video, writer: VideoWriter, done: Callable[[], None] = lambda: None) -> None:
        """Write every frame of `source`; `done` is called after each, in the calling thread, which encodes.

        However long the video is, only a few frames are in memory. Where the detector fails after some frames, these
        stay, and `source` is told why.

        Raises:
            SalienceError: the detector fails at once.
            av.FFmpegError: the output cannot be written.
        """
        import av

        pools = [Pool(threads) for threads in (1, self.calls, self.workers)]
        try:
            for item in self._rendered(source, writer, *pools):
                if isinstance(item, av.VideoFrame):
                    writer.write_frame(item)
                    done()
                else:
                    writer.write_sound(item)
        except SalienceError as error:
            if not writer.written:
                raise
            source.note(f"stops after {writer.written} frames: {error}")
        finally:
            for pool in pools:
                pool.shutdown(cancel_futures=True)

    def _rendered(
        self, source: Video, writer: VideoWriter, reader: Pool, engines: Pool, renderers: Pool
    ) -> "Iterator[VideoFrame | Packet[AudioStream]]":
        """Frames for the writer and packets of the sound, in order."""
        read = _read_ahead(reader, source.events(), ahead=2 * self.batch + self.calls)
        groups = _groups(read, self.batch)
        found = run_ahead(engines, self._infer, groups, ahead=self.calls + 1)
        steady = self._steady(item for _, future in found for item in future.result())
        render = partial(self._render, writer)
        for _, rendered in run_ahead(renderers, render, steady, ahead=2 * self.workers + 2):
            yield rendered.result()

    def _infer(self, group: Sequence[Event]) -> "list[Found | Packet[AudioStream]]":
        frames = [event for event in group if isinstance(event, Frame)]
        prepared = [self.detector.prepare(frame.image) for frame in frames]
        maps = self.infer(prepared) if prepared else ()
        found = map(Found, frames, prepared, maps)
        return [next(found) if isinstance(event, Frame) else event for event in group]

    def _steady(self, items: "Iterable[Found | Packet[AudioStream]]") -> "Iterator[Found | Packet[AudioStream]]":
        smoother = Smoother(self.smooth)
        for item in items:
            if isinstance(item, Found):
                yield replace(item, values=smoother.smooth(item.values, item.prepared.image))
            else:
                yield item

    def _render(self, writer: VideoWriter, item: "Found | Packet[AudioStream]") -> "VideoFrame | Packet[AudioStream]":
        if not isinstance(item, Found):
            return item
        saliency = self.detector.finish(item.prepared, item.values)
        pixels = saliency.render(self.kind, threshold=self.threshold)
        return writer.make_frame(pixels, item.frame.time, item.frame.duration)


def _read_ahead(reader: Pool, events: Iterator[Event], *, ahead: int) -> Iterator[Event]:
    """The events, read in a thread of their own, at most `ahead` before they are asked for."""
    for _, future in run_ahead(reader, lambda _: next(events, None), repeat(None), ahead=ahead):
        event = future.result()
        if event is None:
            return
        yield event


def _groups(events: Iterator[Event], batch: int) -> Iterator[list[Event]]:
    """Events in lists of at most `batch` frames, with the sound between them."""
    group: list[Event] = []
    frames = 0
    for event in events:
        group.append(event)
        frames += isinstance(event, Frame)
        if frames == batch or len(group) >= batch + _MOST_SOUND:
            yield group
            group, frames = [], 0
    if group:
        yield group
