"""One video in order: upright RGB frames with their times, and the packets of the sound between them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..images import MAX_PIXELS
from .colour import matrix_of, to_rgb
from .containers import plain_errors, reason
from .turning import Turn

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# A file is whole when it goes on to this near the end that its header tells.
_END_TOLERANCE_S = 0.5
# Some packets of the sound before the first frame are usual; an hour of them would all be held in memory.
_MOST_BEFORE_FIRST = 5000
_MOST_PROBLEMS = 5


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame.

    Attributes:
        image: (H, W, 3) uint8 RGB, or (H, W, 4) RGBA where it has transparency; upright.
        time: when it is shown, in units of the video's time base.
        duration: for how long; that of the mean frame where the file does not say.
    """

    image: NDArray[np.uint8]
    time: int
    duration: int


Event: TypeAlias = "Frame | Packet[AudioStream]"


@dataclass(frozen=True)
class Layout:
    """What all frames share, taken from the first one.

    Attributes:
        size: (width, height) as stored.
        turn: what makes a frame upright.
        matrix: between RGB and what is stored; as ITU-T H.273 numbers it, and so the next two.
        primaries: the colours that RGB mixes.
        transfer: from light to RGB.
    """

    size: tuple[int, int]
    turn: Turn
    matrix: int
    primaries: int
    transfer: int

    @classmethod
    def of(cls, frame: "VideoFrame", stream: "VideoStream") -> "Layout":
        """The layout of the first frame that a stream gave."""
        display: Any = frame.side_data.get("DISPLAYMATRIX")
        turn = Turn() if display is None else Turn.of_matrix(bytes(display))
        context = stream.codec_context
        size = frame.width, frame.height
        return cls(size, turn, matrix_of(frame), context.color_primaries, context.color_trc)


class Video:
    """An open video, which is read once.

    Attributes:
        name: of the file or camera.
        time_base: the unit of all times, in seconds.
        rate: frames a second in the mean.
        shape: (H, W) of the upright frames.
        layout: of the frames as they are stored.
        pixel_aspect: width by height of an upright pixel.
        sound: the streams whose packets `events` gives.
        left_out: how many streams are passed over.
        frames: how many there are, by the file's header and about; None where it does not say.
    """

    def __init__(self, container: "InputContainer", name: str, *, stop: Callable[[float], bool] | None = None) -> None:
        """Open the decoders and read as far as the first frame.

        Args:
            container: what to read.
            name: for messages.
            stop: of a camera, whose times are counted from the first frame: whether to end there, so many seconds on.

        Raises:
            DataError: no frame can be decoded, or the frames are too large.
        """
        self.name = name
        self._container, self._stop = container, stop
        self._stream = _open_pictures(container, name)
        self.sound = [stream for stream in container.streams.audio if stream.codec_context is not None]
        self.left_out = len(container.streams) - len(self.sound) - 1
        self.time_base: Fraction = self._stream.time_base or Fraction(1, 1000)
        self.rate: Fraction = self._stream.average_rate or self._stream.guessed_rate or Fraction(25)
        self._mean_duration = max(1, round(1 / (self.rate * self.time_base)))
        self._length_s = _length_s(self._stream)
        whole_s = self._length_s or (container.duration or 0) / 1_000_000
        self.frames = round(whole_s * self.rate) or None
        self._problems: list[str] = []
        self._problem_count = 0
        self._origin = 0
        self._last: Frame | None = None
        self._packets_end_s = 0.0
        self._events, first = self._begin()
        self.shape = first.image.shape[:2]
        aspect = self._stream.sample_aspect_ratio or Fraction(1)
        self.pixel_aspect = 1 / aspect if self.layout.turn.transposed else aspect

    def events(self) -> Iterator[Event]:
        """All frames, and the sound's packets where they stand in the file; damaged frames are left out."""
        return self._events

    def note(self, problem: str) -> None:
        """Remember what went wrong."""
        self._problem_count += 1
        if len(self._problems) < _MOST_PROBLEMS:
            self._problems.append(problem)

    def problems(self) -> list[str]:
        """What was damaged or missing, in sentences; to be asked after the last event."""
        more = self._problem_count - len(self._problems)
        return self._problems + ([f"{more} more such problems."] if more else [])

    def _begin(self) -> tuple[Iterator[Event], Frame]:
        """All events, and the first frame, which has been decoded."""
        events = self._read()
        before: list[Event] = []
        for event in events:
            before.append(event)
            if isinstance(event, Frame):
                return chain(before, events), event
            if len(before) > _MOST_BEFORE_FIRST:
                break
        details = f" ({self._problems[0].rstrip('.')})" if self._problems else ""
        raise DataError(f"video {self.name}: holds no frame that can be decoded{details}.")

    def _read(self) -> Iterator[Event]:
        for packet in self._packets():
            if packet.stream in self.sound:
                # The last one of a file that is cut short may be a part.
                if not packet.is_corrupt:
                    yield packet
            elif packet.stream is self._stream:
                for frame in self._decode(packet):
                    if self._stop is not None and self._stop(float(frame.time * self.time_base)):
                        return
                    yield frame
        yield from self._decode(None)
        if self._stop is None:
            self._check_end()

    def _packets(self) -> "Iterator[Packet[Any]]":
        import av

        try:
            for packet in self._container.demux():
                # Each stream ends with a packet that has no time and no bytes.
                if packet.dts is None and not packet.size:
                    continue
                if packet.pts is not None:
                    end_s = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                    self._packets_end_s = max(self._packets_end_s, end_s)
                yield packet
        except av.FFmpegError as error:
            self.note(f"cannot be read beyond {self._packets_end_s:.2f} s ({reason(error)}).")

    def _decode(self, packet: "Packet[VideoStream] | None") -> Iterator[Frame]:
        import av

        try:
            decoded = self._stream.decode(packet)
        except av.FFmpegError as error:
            near_s = float((packet.pts or 0) * self.time_base) if packet is not None else self._packets_end_s
            self.note(f"a frame near {near_s:.2f} s cannot be decoded and is left out ({reason(error)}).")
            return
        for each in decoded:
            self._last = self._frame(each)
            yield self._last

    def _frame(self, decoded: "VideoFrame") -> Frame:
        if self._last is None:
            self.layout = Layout.of(decoded, self._stream)
            self._origin = 0 if self._stop is None else decoded.pts or 0
        width, height = self.layout.size
        with plain_errors(f"video {self.name}: a frame of {decoded.format.name} cannot be brought to RGB"):
            image = self.layout.turn.apply(to_rgb(decoded, width=width, height=height))
        return Frame(image, self._time(decoded.pts), decoded.duration or self._mean_duration)

    def _time(self, told: int | None) -> int:
        """When to show a frame; times grow, as encoders want it, also where damage or an old container breaks them."""
        if self._last is None:
            return (told or 0) - self._origin
        if told is None:
            return self._last.time + self._last.duration
        return max(told - self._origin, self._last.time + 1)

    def _check_end(self) -> None:
        """Note where the file ends before the end that its header tells."""
        if self._length_s is not None and self._last is not None:
            start = self._stream.start_time or 0
            end = self._last.time + self._last.duration
            wanted_s, found_s = self._length_s, float((end - start) * self.time_base)
        else:
            wanted_s = (self._container.duration or 0) / 1_000_000
            found_s = self._packets_end_s - (self._container.start_time or 0) / 1_000_000
        if found_s < wanted_s - max(_END_TOLERANCE_S, float(2 / self.rate)):
            self.note(f"ends at {found_s:.2f} s of {wanted_s:.2f} s; what comes before is written.")


def _open_pictures(container: "InputContainer", name: str) -> "VideoStream":
    """The stream of frames, ready to be decoded, with bounds on its size."""
    with plain_errors(f"video {name}: cannot be decoded"):
        found: Any = container.streams.best("video")
        if found is None or found.codec_context is None:
            raise DataError(f"video {name}: holds no frames that can be decoded, only other streams.")
        if found.width * found.height > MAX_PIXELS:
            raise DataError(
                f"video {name}: frames of {found.width} x {found.height}, the limit is {MAX_PIXELS / 1e6:.0f} "
                "megapixels; scale it down."
            )
        # Frames may claim another size than the header.
        found.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        found.thread_type = "AUTO"
    stream: VideoStream = found
    return stream


def _length_s(stream: "VideoStream") -> float | None:
    """How long the frames go on by the header; Matroska may tell it as text HH:MM:SS.s."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    try:
        hours, minutes, seconds = stream.metadata.get("DURATION", "").split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except ValueError:
        return None
