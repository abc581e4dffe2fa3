"""Saliency maps from files and arrays: no depth is lost, and what is no map is named."""

import io
import os
import pickle
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from salience.runtime import ImageError
from salience.runtime.images import decode_map

from .encoded import QUARTERS, UPRIGHT, encode, named, png_header


def assert_map(found: NDArray[np.float32], expected: NDArray[Any]) -> None:
    assert type(found) is np.ndarray
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    # One rounding to float32.
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=0)


LEVELS = np.arange(256, dtype=np.uint8).reshape(8, 32)
DEEP = np.arange(0, 65536, 4, dtype=np.uint16).reshape(64, 256)
DEEP[-1, -1] = 65535
FLOATS = np.random.default_rng(0).random((7, 5), dtype=np.float32)


@pytest.mark.parametrize("format_name", ["PNG", "TIFF", "BMP", "GIF", "WEBP"])
def test_map_of_8_bits(format_name: str) -> None:
    options = {"lossless": True} if format_name == "WEBP" else {}
    assert_map(decode_map(encode(LEVELS, format_name, **options)), LEVELS / 255)


@pytest.mark.parametrize("format_name", ["PNG", "TIFF"])
def test_map_of_16_bits_keeps_them(format_name: str) -> None:
    assert_map(decode_map(encode(DEEP, format_name)), DEEP / 65535)
    assert_map(decode_map(Image.fromarray(DEEP.astype(np.int32))), DEEP / 65535)


def test_map_of_floats_is_taken_as_it_is() -> None:
    assert_map(decode_map(encode(FLOATS, "TIFF")), FLOATS)
    assert_map(decode_map(Image.fromarray(FLOATS)), FLOATS)


def test_map_of_one_bit_and_of_a_palette() -> None:
    bits = LEVELS % 3 == 0
    for format_name in ("PNG", "TIFF", "BMP"):
        assert_map(decode_map(encode(Image.fromarray(bits), format_name)), bits.astype(float))
    assert_map(decode_map(encode(Image.fromarray(LEVELS).convert("P"))), LEVELS / 255)


def test_map_of_colours_is_their_luminance() -> None:
    # ITU-R 601 luminance.
    expected = np.array([[76, 150], [29, 255]]) / 255
    assert_map(decode_map(encode(QUARTERS))[::31, ::47], expected)


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("values", [LEVELS, DEEP, FLOATS], ids=lambda values: str(values.dtype))
def test_map_is_upright(values: NDArray[Any], orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = UPRIGHT[orientation](np.dstack([values] * 3))[..., 0]
    found = decode_map(encode(values, "TIFF", exif=exif))
    assert_map(found, expected / {np.uint8: 255, np.uint16: 65535}.get(values.dtype.type, 1))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 51, 255]], np.uint8), [0, 0.2, 1]),
        (np.array([[False, True]]), [0, 1]),
        (np.array([[0, 13107, 65535]], np.uint16), [0, 0.2, 1]),
        (np.array([[0, 13107, 65535]], ">u2"), [0, 0.2, 1]),
        (np.array([[0, 0.5, 1]], np.float16), [0, 0.5, 1]),
        (np.array([[0, 0.25, 1]], np.float32), [0, 0.25, 1]),
        (np.array([[0, 0.25, 1]], ">f8"), [0, 0.25, 1]),
        (np.array([[0, 0.25, 1]], np.longdouble), [0, 0.25, 1]),
        # What rounding overshoots.
        (np.array([[-1e-4, 0.5, 1 + 1e-4]]), [0, 0.5, 1]),
    ],
    ids=lambda value: str(value.dtype) if isinstance(value, np.ndarray) else "",
)
def test_map_from_arrays_of_every_type(tmp_path: Path, values: NDArray[Any], expected: list[float]) -> None:
    np.save(tmp_path / "map.npy", values)
    for source in (values, values[..., None], np.asfortranarray(values), tmp_path / "map.npy"):
        assert_map(decode_map(source), np.array([expected]))


@pytest.mark.parametrize("values", [LEVELS, DEEP, FLOATS, FLOATS.astype(float)], ids=lambda values: str(values.dtype))
def test_map_is_no_view_of_its_source(tmp_path: Path, values: NDArray[Any]) -> None:
    array, image = values.copy(), Image.fromarray(values.astype(np.float32) if values.dtype == float else values)
    np.save(tmp_path / "map.npy", values)
    stored = np.load(tmp_path / "map.npy", mmap_mode="r+")
    found = [decode_map(source) for source in (array, image, tmp_path / "map.npy", stored)]
    kept = [one.copy() for one in found]
    array[:] = stored[:] = 1
    image.paste(1, (0, 0, *image.size))
    for one, before in zip(found, kept, strict=True):
        assert one.flags.writeable
        np.testing.assert_array_equal(one, before)


def test_map_from_a_masked_array_is_a_plain_array() -> None:
    assert_map(decode_map(np.ma.masked_array(FLOATS, mask=True)), FLOATS)  # type: ignore[no-untyped-call]


def test_map_from_npy_however_it_is_named(tmp_path: Path) -> None:
    for name in ("map.npy", "MAP.NPY", "ünï [1].Npy"):
        with (tmp_path / name).open("wb") as file:
            np.save(file, FLOATS)
        for source in (tmp_path / name, str(tmp_path / name)):
            assert_map(decode_map(source), FLOATS)


def test_limit_holds_for_maps(tmp_path: Path) -> None:
    (tmp_path / "map.png").write_bytes(encode(LEVELS))
    np.save(tmp_path / "map.npy", LEVELS)
    for name, message in (("map.png", "32 x 8"), ("map.npy", "0 megapixels, the limit is 0")):
        assert_map(decode_map(tmp_path / name, max_pixels=256), LEVELS / 255)
        with pytest.raises(ImageError, match=message):
            decode_map(tmp_path / name, max_pixels=255)
    with pytest.raises(ImageError, match="60000 x 60000 is 3600 megapixels"):
        decode_map(png_header(60000, 60000))


def npy(shape: str, *, descr: str = "<f4", data: bytes = b"") -> bytes:
    """A .npy file with a header of one's own."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def saved(values: NDArray[Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, **options)
    return buffer.getvalue()


def zipped() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, map=FLOATS)
    return buffer.getvalue()


class Trap:
    """Unpickling it leaves a trace."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("unpickled",))


BROKEN_NPY = {
    "empty": b"",
    "text": b"no array",
    "magic alone": b"\x93NUMPY",
    "later version": b"\x93NUMPY\x09\x09" + bytes(64),
    "cut header": saved(FLOATS)[:40],
    "cut data": saved(FLOATS)[:-8],
    "archive": zipped(),
    "pickle": pickle.dumps(Trap()),
    "objects": saved(np.array([[Trap(), None]], object), allow_pickle=True),
    "tera of elements": npy("(1000000, 1000000)", data=bytes(64)),
    "more than a size can be": npy("(10000000000, 10000000000, 100)"),
    "more than an integer can be": npy("(100000000000000000000000, 1)"),
    "negative": npy("(-2, -2)", data=bytes(64)),
    "no numbers": npy("(True, 'x')", data=bytes(64)),
    "code": npy("__import__('os').mkdir('unpickled')"),
    "unbalanced": npy("(" * 3000),
    "long header": npy("(2, 2)" + " " * 60000, data=bytes(16)),
}


@pytest.mark.filterwarnings("always")
@pytest.mark.parametrize("name", BROKEN_NPY)
def test_broken_npy_is_named_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("map.npy").write_bytes(BROKEN_NPY[name])
    with pytest.raises(ImageError, match=r"^map map\.npy: cannot be read as \.npy \(.+\); is the file whole\?$") as e:
        decode_map("map.npy")
    assert "\n" not in str(e.value)
    assert not recwarn
    # Nothing in the file was run.
    assert [path.name for path in tmp_path.iterdir()] == ["map.npy"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (saved(np.zeros((2, 2), [("a", "f4")])), r"of type \[\('a', '<f4'\)\]: expected uint8"),
        (saved(np.zeros((2, 2), np.int8)), "of type int8"),
        (saved(np.zeros((2, 2), np.complex64)), "of type complex64"),
        (saved(np.zeros((2, 2), "M8[s]")), "of type datetime64"),
        (saved(np.array(0.5)), r"of shape \(\): expected \(H, W\)"),
        (saved(np.zeros((2, 2, 2))), r"of shape \(2, 2, 2\)"),
        (saved(np.zeros((0, 4))), r"of shape \(0, 4\): expected \(H, W\), not empty"),
        (saved(np.full((2, 2), np.nan)), "values from nan to nan"),
        (saved(np.full((2, 2), -np.inf)), "values from -inf to -inf"),
        (saved(np.full((2, 2), 1e300)), r"values from 1e[+]300 to 1e[+]300, expected \[0, 1\]"),
        (saved(np.full((2, 2), 1.01)), r"values from 1\.01 to 1\.01"),
    ],
)
def test_array_that_is_no_map_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "map.npy").write_bytes(data)
    with pytest.raises(ImageError, match=rf"map\.npy .*{message}"):
        decode_map(tmp_path / "map.npy")
    with pytest.raises(ImageError, match=f"^map array .*{message}"):
        decode_map(np.load(io.BytesIO(data)))


def test_picture_that_is_no_map_is_refused() -> None:
    for values in (np.array([[-1, 5]], np.int32), np.array([[0, 65536]], np.int32)):
        with pytest.raises(ImageError, match=r"values from .* expected \[0, 65535\]"):
            decode_map(Image.fromarray(values))
    with pytest.raises(ImageError, match=r"hdr\.tiff of float32: holds values from 0 to 255, expected \[0, 1\]"):
        decode_map(named("hdr.tiff", encode(LEVELS.astype(np.float32), "TIFF")))


def test_size_of_npy_is_checked_before_memory_is_taken(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "map.npy"
    path.write_bytes(npy("(1000000, 1000000)", descr="|u1"))
    try:
        # As large as it says, on a file system that stores no zeros.
        os.truncate(path, 10**12 + 1000)
    except OSError:
        pytest.skip("this file system holds no such file")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError, match=r"map\.npy: 1000000 megapixels, the limit is 150; scale it down\.$"):
        decode_map(path)
    # Kilobytes on Linux.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


@pytest.mark.parametrize("name", ["gone.npy", "gone.png"])
def test_missing_map_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError, match=rf"{re.escape(name)}: cannot be read \(No such file or directory\)"):
        decode_map(tmp_path / name)
    (tmp_path / name).mkdir()
    with pytest.raises(ImageError, match=rf"{re.escape(name)}: cannot be read \(Is a directory\)"):
        decode_map(tmp_path / name)
