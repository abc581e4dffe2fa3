"""Decoding: every kind of picture comes out upright, RGB and 8 bits deep; what is no picture is named."""

import io
import threading
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from salience.runtime import ImageError
from salience.runtime.images import FORMATS, decode, decode_grey, decode_mask

from .encoded import QUARTERS, UPRIGHT, encode, named, png_header


def assert_rgb(found: NDArray[np.uint8], expected: NDArray[Any]) -> None:
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied_once(format_name: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    best: dict[str, dict[str, Any]] = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}
    options = best.get(format_name, {})
    found = decode(encode(QUARTERS, format_name, exif=exif, **options))
    expected = UPRIGHT[orientation](QUARTERS)
    # JPEG is off by a level or two.
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= (2 if format_name == "JPEG" else 0)


@pytest.mark.parametrize("damage", [b"Exif\0\0MM\xff*\0\0\0\x08", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_does_not_lose_the_pixels(damage: bytes) -> None:
    assert_rgb(decode(encode(QUARTERS, "WEBP", lossless=True, exif=damage)), QUARTERS)


@pytest.mark.parametrize("format_name", [name for name in FORMATS if name != "JPEG"])
def test_lossless_formats_come_back_exactly(format_name: str) -> None:
    options = {"lossless": True} if format_name == "WEBP" else {}
    assert_rgb(decode(encode(QUARTERS, format_name, **options)), QUARTERS)


def test_transparency_is_laid_on_white() -> None:
    rgba = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [0, 0, 0, 51]]], dtype=np.uint8)
    expected = np.array([[[200, 100, 0], [255, 255, 255], [204, 204, 204]]])
    for source in (rgba, encode(rgba), Image.fromarray(rgba), encode(rgba, "TIFF")):
        assert_rgb(decode(source), expected)


@pytest.mark.parametrize("mode", ["LA", "La", "PA"])
def test_grey_and_palette_with_alpha_are_laid_on_white(mode: str) -> None:
    image = Image.fromarray(np.array([[[0, 255], [0, 0]]], dtype=np.uint8), "LA" if mode == "La" else None)
    found = decode(image.convert("RGBA").convert("PA") if mode == "PA" else image.convert(mode))
    assert_rgb(found, np.array([[[0, 0, 0], [255, 255, 255]]]))


@pytest.mark.parametrize("format_name", ["PNG", "GIF"])
def test_transparent_palette_entry_is_white(format_name: str) -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    assert_rgb(decode(encode(image, format_name)), np.array([[[10, 20, 30], [40, 50, 60]]]))
    assert_rgb(decode(encode(image, format_name, transparency=1)), np.array([[[10, 20, 30], [255, 255, 255]]]))


def test_transparent_colour_without_alpha_channel_is_white() -> None:
    found = decode(encode(QUARTERS, transparency=(255, 0, 0)))
    assert (found[:16, :24] == 255).all()
    assert_rgb(found[16:], QUARTERS[16:])


def test_grey_and_one_bit_get_three_equal_channels() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert_rgb(decode(encode(grey)), np.dstack([grey] * 3))
    bits = grey % 3 == 0
    for format_name in ("PNG", "TIFF", "BMP"):
        assert_rgb(decode(encode(Image.fromarray(bits), format_name)), np.dstack([bits * 255] * 3))


@pytest.mark.parametrize("format_name", ["PNG", "TIFF"])
def test_16_bits_are_scaled_not_clipped(format_name: str) -> None:
    deep = np.array([[0, 257, 256 * 128, 65535 - 257, 65535]], dtype=np.uint16)
    expected = np.array([[0, 1, 128, 254, 255]])
    assert_rgb(decode(encode(deep, format_name)), np.dstack([expected] * 3))
    assert_rgb(decode(Image.fromarray(deep.astype(np.int32))), np.dstack([expected] * 3))


def test_float_pictures_are_in_0_to_1() -> None:
    values = np.array([[0, 0.2, 1]], dtype=np.float32)
    assert_rgb(decode(encode(values, "TIFF")), np.dstack([[[0, 51, 255]]] * 3))
    with pytest.raises(ImageError, match=r"hdr\.tiff .*from 0 to 255; expected \[0, 1\]"):
        decode(named("hdr.tiff", encode(values * 255, "TIFF")))


def test_cmyk_jpeg_has_its_colours() -> None:
    cmyk = Image.fromarray(QUARTERS).convert("CMYK")
    found = decode(encode(cmyk, "JPEG", quality=100, subsampling=0))
    # JPEG is off by a level in each of four channels.
    assert np.abs(found.astype(int) - QUARTERS).max() <= 8


@pytest.mark.parametrize("format_name", ["GIF", "WEBP", "TIFF", "PNG"])
def test_of_an_animation_the_first_frame_is_taken(format_name: str) -> None:
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "lime", "blue")]
    options: dict[str, Any] = {"lossless": True} if format_name == "WEBP" else {}
    found = decode(encode(frames[0], format_name, save_all=True, append_images=frames[1:], **options))
    assert_rgb(found, np.broadcast_to([255, 0, 0], (4, 5, 3)))


@pytest.mark.parametrize("format_name", FORMATS)
def test_one_pixel(format_name: str) -> None:
    assert_rgb(decode(encode(np.zeros((1, 1, 3), np.uint8), format_name)), np.zeros((1, 1, 3)))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 255]], np.uint8), [0, 255]),
        (np.array([[False, True]]), [0, 255]),
        (np.array([[0, 256 * 128, 65535]], np.uint16), [0, 128, 255]),
        (np.array([[0, 256 * 128, 65535]], ">u2"), [0, 128, 255]),
        (np.array([[0, 0.5, 1]], np.float16), [0, 128, 255]),
        (np.array([[0, 0.5, 1]], np.float32), [0, 128, 255]),
        (np.array([[0, 0.5, 1]], np.float64), [0, 128, 255]),
        # What an interpolation overshoots.
        (np.array([[-0.1, 0.5, 1.1]]), [0, 128, 255]),
    ],
    ids=lambda value: str(value.dtype) if isinstance(value, np.ndarray) else "",
)
def test_arrays_of_every_type_and_layout(values: NDArray[Any], expected: list[int]) -> None:
    rgb = np.dstack([[expected]] * 3)
    assert_rgb(decode(values), rgb)
    assert_rgb(decode(values[..., None]), rgb)
    assert_rgb(decode(np.dstack([values] * 3)), rgb)
    opaque = np.full_like(values, values.max())
    assert_rgb(decode(np.dstack([values] * 3 + [opaque])), rgb)


def test_array_is_copied_whatever_its_strides() -> None:
    array = QUARTERS.copy()
    found = decode(array)
    array[...] = 7
    assert_rgb(found, QUARTERS)
    assert_rgb(decode(QUARTERS[::-2, ::3]), QUARTERS[::-2, ::3])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((2, 2), np.nan), "nan"),
        (np.full((2, 2), np.inf, np.float32), "inf"),
        (np.full((2, 2), 1e300), "from 1e[+]300 to 1e[+]300"),
        (np.full((2, 2), 255.0), "from 255 to 255"),
        (np.zeros((2, 2), np.int64), "int64"),
        (np.zeros((2, 2), np.complex64), "complex64"),
        (np.array([["a"]]), "<U1"),
        (np.zeros(3, np.uint8), r"\(3,\)"),
        (np.zeros((3, 8, 8), np.uint8), r"\(3, 8, 8\)"),
        (np.zeros((8, 8, 2), np.uint8), r"\(8, 8, 2\)"),
        (np.zeros((1, 8, 8, 3), np.uint8), r"\(1, 8, 8, 3\)"),
        (np.zeros((0, 8, 3), np.uint8), r"\(0, 8, 3\)"),
        (np.zeros((8, 0), np.uint8), r"\(8, 0, 1\)"),
    ],
)
def test_array_that_is_no_picture_is_refused(array: NDArray[Any], message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        decode(array)
    assert "expected" in str(caught.value)


@pytest.mark.parametrize("format_name", FORMATS)
def test_truncated_file_is_named(tmp_path: Path, format_name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(noise, format_name)
    for part in (0.02, 0.5, 0.9):
        path = tmp_path / f"cut-{part}.{format_name.lower()}"
        path.write_bytes(data[: int(len(data) * part)])
        with pytest.raises(ImageError, match=path.name):
            decode(path)


@pytest.mark.parametrize(
    "text", [b"", b"hello", b"<html>404</html>" * 100, b"\xff\xd8\xff", b"BM", b"GIF89a", b"II*\0"]
)
def test_file_that_is_no_picture_is_named(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "notes.jpg"
    path.write_bytes(text)
    for source in (path, str(path)):
        with pytest.raises(ImageError, match=r"notes\.jpg"):
            decode(source)


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.jpg.*No such file"):
        decode(tmp_path / "gone.jpg")
    with pytest.raises(ImageError, match=f"{tmp_path.name}.*directory"):
        decode(tmp_path)


def test_source_of_another_type_is_named() -> None:
    with pytest.raises(ImageError, match=r"type list: expected a path, bytes"):
        decode([[1, 2], [3, 4]])  # type: ignore[arg-type]
    with pytest.raises(ImageError):
        decode(io.StringIO("text"))  # type: ignore[arg-type]


@pytest.mark.parametrize("format_name", FORMATS)
def test_damaged_bytes_give_a_picture_or_an_image_error(format_name: str, capfd: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(1)
    data = np.frombuffer(encode(QUARTERS, format_name, exif=Image.Exif()), np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(200):
            damaged = data.copy()
            damaged[rng.integers(0, min(len(data), 300), 3)] = rng.integers(0, 256, 3)
            with suppress(ImageError):
                assert decode(damaged.tobytes(), max_pixels=1_000_000).ndim == 3
    capfd.readouterr()  # libtiff writes to standard error by itself


def test_too_large_is_refused_before_decoding() -> None:
    # 10.8 GB if it were decoded.
    with pytest.raises(ImageError, match=r"60000 x 60000 is 3600 megapixels, the limit is 150"):
        decode(png_header(60000, 60000))


def test_limit_is_inclusive_and_holds_for_every_source(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(encode(QUARTERS))
    pixels = 32 * 48
    for source in (path, path.read_bytes(), Image.fromarray(QUARTERS)):
        assert_rgb(decode(source, max_pixels=pixels), QUARTERS)
        with pytest.raises(ImageError, match="48 x 32"):
            decode(source, max_pixels=pixels - 1)


@pytest.mark.parametrize("format_name", FORMATS)
def test_the_limit_of_pillow_does_not_count(monkeypatch: pytest.MonkeyPatch, format_name: str) -> None:
    data = encode(QUARTERS, format_name)
    # Above its limit Pillow warns (an error in these tests), above twice its limit it raises; a WebP raises still,
    # which takes a limit of decode's above 179 megapixels to be seen.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 32 * 48 - 1 if format_name == "WEBP" else 10)
    assert decode(data).shape == QUARTERS.shape


def test_no_warning_state_is_shared_by_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    data, filters, failed = encode(QUARTERS), list(warnings.filters), list[BaseException]()

    def work() -> None:
        try:
            for _ in range(20):
                assert_rgb(decode(data), QUARTERS)
                assert list(warnings.filters) == filters
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_path_bytes_file_and_pil_image_agree_and_stay_open(tmp_path: Path) -> None:
    path = tmp_path / "ünï [1].png"
    path.write_bytes(encode(QUARTERS))
    with path.open("rb") as file, Image.open(path) as image:
        for source in (path, str(path), path.read_bytes(), file, image):
            for _ in range(2):
                assert_rgb(decode(source), QUARTERS)
        assert not file.closed
        assert image.size == (48, 32)


def test_file_that_cannot_seek() -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: object) -> int:
            raise io.UnsupportedOperation("seek")

    assert_rgb(decode(Pipe(encode(QUARTERS))), QUARTERS)


def test_grey_and_mask() -> None:
    levels = np.array([[0, 128, 129, 255]], dtype=np.uint8)
    np.testing.assert_array_equal(decode_grey(encode(levels)), levels)
    np.testing.assert_array_equal(decode_mask(encode(levels)), [[False, False, True, True]])
    # ITU-R 601 luminance.
    np.testing.assert_array_equal(decode_grey(QUARTERS)[::31, ::47], [[76, 150], [29, 255]])


def test_pixels_may_be_written_to() -> None:
    for mode in ("RGB", "RGBA", "L", "P"):
        assert decode(Image.new(mode, (3, 2))).flags.writeable


def test_pictures_of_many_bands_are_decoded_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).integers(0, 256, (23, 5, 3), dtype=np.uint8)
    photo, modes = Image.fromarray(image), ("RGB", "L", "P", "CMYK")
    expected = {mode: np.asarray(photo.convert(mode).convert("RGB")) for mode in modes}
    for size in (1, 60, 1 << 18):  # a row, three rows, all
        monkeypatch.setattr("salience.runtime.bands._BAND_BYTES", size)
        for mode, pixels in expected.items():
            np.testing.assert_array_equal(decode(photo.convert(mode)), pixels)


@pytest.mark.slow
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "TIFF"])
def test_100_megapixels(tmp_path: Path, format_name: str) -> None:
    path = tmp_path / f"large.{format_name.lower()}"
    grey = np.zeros((10_000, 10_000), dtype=np.uint8)
    grey[2000:4000, 5000:9000] = 255
    Image.fromarray(grey).save(path, format_name)
    found = decode(path)
    assert found.shape == (10_000, 10_000, 3)
    assert (found[2000:4000, 5000:9000].min(), found[5000:].max()) == (255, 0)


def mask_of(values: list[int], dtype: type = np.uint8) -> NDArray[Any]:
    """(8, 8) of zeros, with the values in its first row."""
    mask: NDArray[Any] = np.zeros((8, 8), dtype)
    mask[0, : len(values)] = values
    return mask


@pytest.mark.parametrize(
    ("mask", "shown"),
    [
        (mask_of([1]), "values 0, 1, .*expected 0 for background and 255"),
        (np.ones((8, 8), np.uint8), "values 1, "),
        (mask_of([128]), "values 0, 128, "),
        (mask_of([1, 2, 3, 4, 5, 6]), r"values 0, 1, 2, 3, \.\.\. 6, "),
        (mask_of([100, 120]), "values 0, 100, 120, "),
        (mask_of([1], np.uint16), "values 0, 1, .*expected 0 for background and 65535"),
        (mask_of([255], np.uint16), "values 0, 255, .*65535"),
    ],
    ids=["0/1", "1", "0/128", "labels", "two levels", "16 bits 0/1", "16 bits 0/255"],
)
def test_masks_of_another_scale_are_refused(mask: NDArray[Any], shown: str, tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(mask).save(path)
    for source in (path, encode(mask, "TIFF"), mask):
        with pytest.raises(ImageError, match=shown):
            decode_mask(source)


def test_palettes_of_labels_are_refused() -> None:
    image = Image.fromarray(mask_of([1]), "P")
    image.putpalette([0, 0, 0, 128, 0, 0])
    with pytest.raises(ImageError, match="values 0, 38, "):
        decode_mask(encode(image))


@pytest.mark.parametrize(
    ("mask", "objects"),
    [
        (mask_of([]), 0),
        (mask_of([255]), 1),
        (mask_of([1, 129]), 1),
        (mask_of([True], np.bool_), 1),
        (mask_of([1], np.float32), 1),
        (mask_of([65535], np.uint16), 1),
        # Twelve people chose, and no object was chosen by more than six of them.
        (mask_of([21, 64, 128]), 0),
    ],
    ids=["empty", "0/255", "compressed", "bool", "float", "16 bits", "graded"],
)
def test_masks_of_the_right_scale_are_read(mask: NDArray[Any], objects: int) -> None:
    for source in (mask, encode(mask, "TIFF")):
        assert decode_mask(source).sum() == objects
