"""Limits on the structure of a JPEG file, checked before it is decoded.

The size of a JPEG file says little about the work of decoding it. Each progressive scan is a pass over all pixels,
however few bytes it has, and a file may hold thousands of scans, or millions of empty segments.
"""

import re
from collections.abc import Iterator
from typing import IO

from .errors import ImageError

# libjpeg's standard progression has 10 scans, an optimised one up to about 20; libtiff refuses more than 100, too.
MAX_SCANS = 100
# The standard progression is decoded at any size; beyond that, scans times pixels is bounded (40 at 50 megapixels).
_ALWAYS_SCANS, _MAX_SCANNED_PIXELS = 16, 2_000_000_000
# Colour profiles have up to 255 segments. Extended metadata fill segments of 64 KiB.
_MAX_SEGMENTS = 5000
# Bytes between segments, which Pillow passes over one by one.
_MAX_FILLING = 1 << 16
# The next segment mostly starts at once; behind a scan header it is far away.
_NEAR_BYTES, _BLOCK_BYTES = 256, 1 << 16

_SEQUENTIAL_FRAMES = frozenset({0xC0, 0xC1, 0xC9})
_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = 0xD8, 0xD9, 0xDA
# Reserved and standalone markers; a length behind them is not followed by Pillow, and libjpeg fails at most of them.
_WITHOUT_LENGTH = frozenset({*range(0xC0), 0xC8, _START_OF_IMAGE, _END_OF_IMAGE, *range(0xF0, 0xFE)})
# Entropy-coded data have 0 or a restart marker behind 0xFF, which may itself be repeated as filling.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)


def check_segments(stream: IO[bytes], name: str) -> None:
    """Raise ImageError where a JPEG file has too many segments before its first scan, or too much between them."""
    end = filling = count = 0
    for count, (code, start, next_start) in enumerate(_segments(stream), start=1):
        filling += start - end
        end = next_start
        if count > _MAX_SEGMENTS or filling > _MAX_FILLING or code == _START_OF_SCAN:
            break
    if count > _MAX_SEGMENTS or filling > _MAX_FILLING:
        raise ImageError(
            f"image {name}: has {count} segments and {filling} bytes between them before its first scan, the limits "
            f"are {_MAX_SEGMENTS} and {_MAX_FILLING}; save it again without metadata."
        )


def check_scans(stream: IO[bytes], name: str, *, pixels: int) -> None:
    """Raise ImageError where a JPEG file has too many scans.

    Args:
        stream: the file; its position changes.
        name: of the image, for the error.
        pixels: of the image; the more there are, the fewer scans are allowed.
    """
    limit = min(MAX_SCANS, max(_ALWAYS_SCANS, _MAX_SCANNED_PIXELS // max(1, pixels)))
    scans, components = 0, 0
    for code, start, _ in _segments(stream):
        if code in _SEQUENTIAL_FRAMES:
            components = _byte(stream, start + 9)
        if code == _START_OF_SCAN:
            scans += 1
            if scans == 1 and components and _byte(stream, start + 4) == components:
                # The one scan of a sequential image holds all components, and the decoder stops behind it.
                return
        if code == _END_OF_IMAGE or scans > limit:
            break
    if scans > limit:
        raise ImageError(
            f"image {name}: is a JPEG file of {pixels / 1e6:.1f} megapixels with more than {limit} scans, the limit at "
            "this size; save it again as a baseline JPEG."
        )


def _byte(stream: IO[bytes], position: int) -> int:
    stream.seek(position)
    return int.from_bytes(stream.read(1), "big")


def _segments(stream: IO[bytes]) -> Iterator[tuple[int, int, int]]:
    """Marker, start, and the start of what follows, of each segment of a JPEG file, as decoders walk it."""
    position = 0
    while (start := _find_marker(stream, position)) is not None:
        stream.seek(start + 1)
        head = stream.read(3)
        code, position = head[0], start + 2
        if code not in _WITHOUT_LENGTH:
            position += int.from_bytes(head[1:], "big")
        yield code, start, position


def _find_marker(stream: IO[bytes], position: int) -> int | None:
    """The start of the first segment at `position` or later."""
    size_bytes = _NEAR_BYTES
    while True:
        stream.seek(position)
        block = stream.read(size_bytes)
        if len(block) < 2:
            return None
        found = _MARKER.search(block)
        if found:
            return position + found.start()
        # The last byte may be the first half of a marker.
        position += len(block) - 1
        size_bytes = _BLOCK_BYTES
