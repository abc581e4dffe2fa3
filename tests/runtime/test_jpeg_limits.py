"""JPEG files whose decoding would take far longer than their size says are refused; all real ones are decoded."""

import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from salience.runtime import ImageError
from salience.runtime.images import decode, decode_grey, decode_map, decode_mask
from salience.runtime.jpeg_limits import MAX_SCANS, check_scans

from .encoded import encode

SCAN = b"\xff\xda"


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    """(200, 300, 3): smooth, with some detail."""
    y, x = np.mgrid[:200, :300]
    return np.stack([x % 256, y, (x * y) % 251], axis=2).astype(np.uint8)


@pytest.fixture(scope="module")
def progressive(pixels: NDArray[np.uint8]) -> bytes:
    return encode(pixels, "JPEG", progressive=True)


def with_scans(data: bytes, count: int) -> bytes:
    """A progressive JPEG with its last scan repeated until there are `count`."""
    last = data[data.rindex(SCAN) : -2]
    return data[:-2] + last * (count - data.count(SCAN)) + data[-2:]


def with_segments(data: bytes, segments: bytes) -> bytes:
    return data[:2] + segments + data[2:]


def segment(code: int, content: bytes) -> bytes:
    return bytes([0xFF, code]) + (len(content) + 2).to_bytes(2, "big") + content


@pytest.mark.parametrize("read", [decode, decode_grey, decode_map, decode_mask])
def test_many_scans_are_refused_at_once(progressive: bytes, read: Callable[[bytes], object]) -> None:
    data = with_scans(progressive, 3000)
    start = time.process_time()
    with pytest.raises(ImageError, match="scans, the limit"):
        read(data)
    # Decoding this one takes about a second.
    assert time.process_time() - start < 0.5


def test_many_scans_are_refused_from_any_source(progressive: bytes, tmp_path: Path) -> None:
    data = with_scans(progressive, 200)
    path = tmp_path / "scans.jpg"
    path.write_bytes(data)
    with path.open("rb") as file, Image.open(path) as image:
        for source in (path, file, image):
            with pytest.raises(ImageError, match="scans, the limit"):
                decode(source)


def test_sequential_scans_count_too() -> None:
    """Without progression, too, the decoder reads all scans where the first one lacks a component."""
    data = encode(np.zeros((16, 16, 3), np.uint8), "JPEG")
    place = data.index(SCAN)
    header, rest = data[:place], data[place:]
    one = bytes([0xFF, 0xDA, 0, 8, 1, 1, 0, 0, 63, 0]) + rest[14:-2]
    with pytest.raises(ImageError, match="scans, the limit"):
        decode(header + one * 500 + b"\xff\xd9")


def test_the_largest_number_of_scans_is_decoded(progressive: bytes, pixels: NDArray[np.uint8]) -> None:
    for count in (10, MAX_SCANS):
        assert decode(with_scans(progressive, count)).shape == pixels.shape
    with pytest.raises(ImageError):
        decode(with_scans(progressive, MAX_SCANS + 1))


@pytest.mark.parametrize(("megapixels", "most"), [(1, 100), (20, 100), (50, 40), (150, 16), (1000, 16)])
def test_large_images_may_have_fewer_scans(progressive: bytes, megapixels: int, most: int) -> None:
    check_scans(io.BytesIO(with_scans(progressive, most)), "a", pixels=megapixels * 1_000_000)
    with pytest.raises(ImageError, match=f"more than {most} scans"):
        check_scans(io.BytesIO(with_scans(progressive, most + 1)), "a", pixels=megapixels * 1_000_000)


def test_ordinary_files_are_decoded_as_pillow_does(pixels: NDArray[np.uint8], progressive: bytes) -> None:
    grey = encode(pixels[:, :, 0], "JPEG")
    other = Image.fromarray(pixels[::-1])
    files = {
        "baseline": encode(pixels, "JPEG"),
        "progressive": progressive,
        "grey": grey,
        "CMYK": encode(Image.fromarray(pixels).convert("CMYK"), "JPEG"),
        "restart markers": encode(pixels, "JPEG", restart_marker_blocks=1),
        "progressive with restart markers": encode(pixels, "JPEG", restart_marker_rows=1, progressive=True),
        "thumbnail": with_segments(progressive, segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + progressive)),
        "scan headers as metadata": with_segments(progressive, segment(0xE5, SCAN * 30_000)),
        "255 segments": with_segments(progressive, segment(0xE5, bytes(1000)) * 255),
        "filling": with_segments(progressive, b"\xff" * 100),
        "bytes at the end": progressive + SCAN * 1000,
        "several images": encode(Image.fromarray(pixels), "MPO", save_all=True, append_images=[other] * 3),
    }
    for name, data in files.items():
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        np.testing.assert_array_equal(decode(data), expected, err_msg=name)


def test_cut_and_damaged_files_are_refused_as_before(progressive: bytes) -> None:
    for end in (3, 10, 100, progressive.index(SCAN) + 1, len(progressive) // 2):
        with pytest.raises(ImageError, match="whole"):
            decode(progressive[:end])


@pytest.mark.parametrize(
    "segments",
    [
        segment(0xE5, b"") * 200_000,
        segment(0xFE, b"") * 200_000,
        b"\xff\xd9" + segment(0xE5, b"") * 200_000,
        segment(0xE5, b"") + bytes(400_000),
        b"\xff" * 400_000,
        # What Pillow reads on behind two bytes must not be passed over by a length.
        (b"\xff\xf0" + b"\xff\xff" + b"\xff\x01" * 32_765) * 12,
    ],
    ids=["application", "comment", "behind the end", "zeros", "filling", "hidden"],
)
def test_endless_metadata_are_refused_at_once(progressive: bytes, segments: bytes) -> None:
    data = with_segments(progressive, segments)
    start = time.process_time()
    with pytest.raises(ImageError, match="before its first scan"):
        decode(data)
    assert time.process_time() - start < 0.5


def test_checking_costs_little() -> None:
    """12 megapixels of noise in 10 scans."""
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1000), dtype=np.uint8)
    data = encode(np.tile(noise, (3, 4)), "JPEG", progressive=True, quality=50)
    spent = []
    for _ in range(5):
        start = time.process_time()
        check_scans(io.BytesIO(data), "a", pixels=12_000_000)
        spent.append(time.process_time() - start)
    # 2 ms for 4 MB, quietly; a check byte by byte would take half a second.
    assert min(spent) < 0.02, f"{len(data)} bytes"
