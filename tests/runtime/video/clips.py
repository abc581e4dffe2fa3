"""Short clips for the tests of video, and what is read of the results."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

TIME_BASE = Fraction(1, 12800)
STEP = 512  # 1/25 s
SAMPLE_RATE = 48_000


def scene(index: int, height: int = 120, width: int = 160) -> NDArray[np.uint8]:
    """A bright disc that moves over a smooth background: what a codec keeps well."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([60 + rows / 3, 90 + columns / 4, np.full(rows.shape, 120.0)], axis=-1)
    centre = width * (0.2 + 0.6 * ((index % 250) / 250))
    distance = np.hypot(rows - height / 2, columns - centre)
    inside = np.clip((height / 4 - distance) / 4, 0, 1)[..., None]
    mixed: NDArray[np.uint8] = np.rint(image * (1 - inside) + np.array([230, 200, 40]) * inside).astype(np.uint8)
    return mixed


def write_clip(
    path: Path,
    images: Sequence[NDArray[np.uint8]],
    *,
    times: Sequence[int] | None = None,
    sound: str | None = "aac",
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    colour: tuple[int, int] = (1, 1),
    options: dict[str, str] | None = None,
    faststart: bool = False,
) -> Path:
    """A clip of `images` at `times` in units of 1/12800 s, 25 a second by default; `colour` is (matrix, range)."""
    times = [STEP * index for index in range(len(images))] if times is None else times
    with av.open(str(path), "w", options={"movflags": "+faststart"} if faststart else {}) as container:
        video: Any = container.add_stream(codec, rate=25, options=options or {})
        video.height, video.width = images[0].shape[:2]
        video.pix_fmt = pixel_format
        video.codec_context.time_base = TIME_BASE
        video.codec_context.colorspace, video.codec_context.color_range = colour
        audio: Any = container.add_stream(sound, rate=SAMPLE_RATE, layout="mono") if sound else None
        for time, image in zip(times, images, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame = frame.reformat(format=pixel_format, dst_colorspace=colour[0], dst_color_range=colour[1])
            frame.pts, frame.time_base = time, TIME_BASE
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            _write_tone(container, audio, float((times[-1] + STEP) * TIME_BASE))
    return path


def _write_tone(container: Any, audio: Any, length_s: float) -> None:
    samples = np.sin(np.arange(round(length_s * SAMPLE_RATE)) * (2 * np.pi * 440 / SAMPLE_RATE))
    levels = np.rint(samples * 8000).astype(np.int16)
    for start in range(0, len(levels), 1920):
        frame = av.AudioFrame.from_ndarray(levels[None, start : start + 1920], format="s16", layout="mono")
        frame.rate, frame.pts, frame.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
        container.mux(audio.encode(frame))
    container.mux(audio.encode(None))


def turn_header(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Give the picture track of an MP4 file the display matrix (a, b, c, d)."""
    data = bytearray(path.read_bytes())
    # The first track header; its matrix stands 40 bytes after the version.
    start = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (each << 16 for each in matrix)
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def damage(path: Path, start: float, count: int) -> None:
    """Overwrite `count` bytes with noise from a share `start` of the file on."""
    data = bytearray(path.read_bytes())
    at = round(start * len(data))
    data[at : at + count] = np.random.default_rng(0).integers(0, 256, count, dtype=np.uint8).tobytes()
    path.write_bytes(data)


def cut_short(path: Path, share: float) -> None:
    """Keep a share of the file."""
    data = path.read_bytes()
    path.write_bytes(data[: round(share * len(data))])


@dataclass(frozen=True)
class Clip:
    """What a video file holds.

    Attributes:
        images: (H, W, 3) uint8 RGB, or (H, W, 4) RGBA, of all frames.
        times_s: when they are shown.
        length_s: by the header.
        samples: (C, N), decoded sound; None without.
        codecs: of pictures and sound.
        colour: (matrix, range) of the stream.
        turned: whether a player has to turn the frames.
    """

    images: list[NDArray[np.uint8]]
    times_s: list[Fraction]
    length_s: float
    samples: NDArray[Any] | None
    codecs: tuple[str, ...]
    colour: tuple[int, int]
    turned: bool


def read_clip(path: Path, *, alpha: bool = False) -> Clip:
    """Decode a whole file, `alpha` with its transparency."""
    images: list[Any] = []
    times: list[Fraction] = []
    samples: list[Any] = []
    turned = False
    container: Any
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        # The built-in decoder of VP9 passes over the alpha channel.
        decoder = av.CodecContext.create("libvpx-vp9", "r") if alpha and video.name == "vp9" else video.codec_context
        for packet in container.demux():
            if packet.stream is video:
                for frame in decoder.decode(packet if packet.size else None):
                    images.append(frame.to_ndarray(format="rgba" if alpha else "rgb24"))
                    times.append(frame.pts * video.time_base)
                    turned |= bool(frame.side_data.get("DISPLAYMATRIX"))
            else:
                samples += [frame.to_ndarray() for frame in packet.decode()]
        codecs = tuple(stream.codec_context.codec.canonical_name for stream in container.streams)
        colour = video.codec_context.colorspace, video.codec_context.color_range
        sound = np.concatenate(samples, axis=1) if samples else None
        return Clip(images, times, (container.duration or 0) / 1e6, sound, codecs, colour, turned)
