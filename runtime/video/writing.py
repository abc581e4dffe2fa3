"""The video that is written: its codec, its frames, and the sound beside them; whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..files import atomic_path
from ..images import decode
from ..saliency import Kind
from .colour import LIMITED_RANGE, from_rgb
from .containers import plain_errors
from .reading import Video
from .sound import Track, add_track

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame

# AVI keeps no timestamps: frames at uneven times would move.
WRITABLE = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
# A time base that MPEG-4 part 2 can write, and that all usual frame rates divide.
_MPEG4_TIME_BASE = Fraction(1, 60_000)


@dataclass(frozen=True)
class Encoding:
    """How frames are encoded.

    Attributes:
        codec: the encoder's name.
        pixel_format: of its frames.
        even: whether height and width must be even.
        options: of the encoder.
    """

    codec: str
    pixel_format: str
    even: bool = False
    options: dict[str, str] = field(default_factory=dict)

    @property
    def transparent(self) -> bool:
        """Whether the frames have an alpha channel."""
        return self.pixel_format.startswith("yuva")


_VP9 = {"crf": "24", "deadline": "realtime", "cpu-used": "7", "row-mt": "1"}
# No B-frames: MP4 tells its length by the times of decoding, which lag behind those of showing at uneven frame rates.
_H264 = Encoding("libx264", "yuv420p", even=True, options={"crf": "18", "bf": "0"})
# A quantiser of 3, in the library's units of 1/118.
_MPEG4 = Encoding("mpeg4", "yuv420p", even=True, options={"flags": "+qscale", "global_quality": "354"})
_PRORES = Encoding("prores_ks", "yuva444p10le", options={"profile": "4444", "alpha_bits": "8"})


def choose_encoding(suffix: str, kind: Kind) -> Encoding:
    """The encoding for a file's ending, with an alpha channel where `kind` wants one and the container has it."""
    import av

    transparent = kind == "cutout" and suffix in (".mov", ".mkv", ".webm")
    if transparent and suffix == ".mov":
        return _PRORES
    if transparent or suffix == ".webm":
        return Encoding("libvpx-vp9", "yuva420p" if transparent else "yuv420p", options=_VP9)
    return _H264 if "libx264" in av.codecs_available else _MPEG4


class VideoWriter:
    """Writes frames and sound with the times, the colours and the pixel aspect of a video; see `open_writer`.

    Attributes:
        written: how many frames.
    """

    def __init__(self, container: "OutputContainer", source: Video, encoding: Encoding) -> None:
        from av.codec.context import Flags

        self.written = 0
        self._container, self._encoding, self._source = container, encoding, source
        self._matrix = source.layout.matrix
        height, width = (side + side % 2 if encoding.even else side for side in source.shape)
        stream: Any = container.add_stream(encoding.codec, rate=source.rate, options=dict(encoding.options))
        stream.width, stream.height, stream.pix_fmt = width, height, encoding.pixel_format
        context = stream.codec_context
        # A bit rate of the library's choice would stand beside the quality that the options ask for.
        context.bit_rate = 0
        # Without this flag the last frame would be shown as long as the mean one.
        context.flags |= Flags.frame_duration
        context.time_base = stream.time_base = self._time_base()
        if source.pixel_aspect != 1:
            context.sample_aspect_ratio = source.pixel_aspect
        context.color_range, context.colorspace = LIMITED_RANGE, self._matrix
        context.color_primaries, context.color_trc = source.layout.primaries, source.layout.transfer
        self._stream = stream
        self._tracks: dict[int, Track] = {each.index: add_track(container, each) for each in source.sound}

    def make_frame(self, pixels: NDArray[np.uint8], time: int, duration: int) -> "VideoFrame":
        """What `write_frame` takes of rendered pixels (H, W), (H, W, 3) or (H, W, 4) uint8; from any thread.

        Without an alpha channel transparent pixels are laid on white. Where sides must be even, the last row and
        column are repeated: a player shows one more line, and none of the picture is lost.
        """
        if not self._encoding.transparent:
            pixels = decode(pixels)
        if self._encoding.even:
            height, width = pixels.shape[:2]
            pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = from_rgb(pixels, pixel_format=self._encoding.pixel_format, matrix=self._matrix)
        frame.pts, frame.time_base, frame.duration = time, self._source.time_base, duration
        return frame

    def write_frame(self, frame: "VideoFrame") -> None:
        """Encode the next frame."""
        self._container.mux(self._stream.encode(frame))
        self.written += 1

    def write_sound(self, packet: "Packet[AudioStream]") -> None:
        """Write the next packet of a sound stream of the source."""
        self._tracks[packet.stream.index].write(packet)

    def finish(self) -> None:
        """Write what the encoders hold back."""
        self._container.mux(self._stream.encode(None))
        for track in self._tracks.values():
            for problem in track.finish():
                self._source.note(problem)

    def _time_base(self) -> Fraction:
        base = self._source.time_base
        return base if self._encoding.codec != "mpeg4" or base.denominator < 1 << 16 else _MPEG4_TIME_BASE


@contextmanager
def open_writer(path: Path, source: Video, kind: Kind) -> Iterator[VideoWriter]:
    """A writer whose file takes the name `path` when the block ends well; else there is none.

    Raises:
        DataError: nothing can be written there, or not in this format.
    """
    import av

    suffix = path.suffix.lower()
    with plain_errors(f"output {path}: cannot be written"), atomic_path(path) as temporary:
        container = av.open(f"file:{temporary}", "w", format=WRITABLE[suffix])
        try:
            writer = VideoWriter(container, source, choose_encoding(suffix, kind))
            yield writer
            writer.finish()
            if not writer.written:
                raise DataError(f"output {path}: no frame was left to write.")
        except BaseException:
            with suppress(av.FFmpegError):
                container.close()
            raise
        container.close()
