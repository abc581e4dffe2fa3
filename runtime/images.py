"""Pictures of any kind become `(H, W, 3) uint8 RGB`, upright; nothing else in the project decodes images."""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin

from .bands import row_bands
from .errors import ImageError

ImageSource: TypeAlias = "str | Path | bytes | IO[bytes] | Image.Image | NDArray[np.generic]"

T = TypeVar("T")

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
MAX_PIXELS = 150_000_000
# By the value of EXIF's orientation tag.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPPING_TURNS = (5, 6, 7, 8)


def decode(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read one picture.

    EXIF orientation is applied, transparency is laid on white, 16-bit and float values are scaled to
    8 bits, of an animation the first frame is taken.

    Args:
        source: a path, encoded bytes, a binary file, a PIL image, or an array: (H, W), (H, W, 1),
            (H, W, 3) or (H, W, 4) of uint8, uint16, bool, or float in [0, 1].
        max_pixels: larger pictures are refused before memory is taken for them; it stands in place of
            Pillow's `Image.MAX_IMAGE_PIXELS`, which warns at other sizes.

    Returns:
        (H, W, 3) uint8 RGB, contiguous, never a view of `source`.

    Raises:
        ImageError: the picture is missing, damaged, of an unknown format, or too large.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    return _read(source, max_pixels, _to_rgb)


def image_size(source: str | Path | bytes | IO[bytes]) -> tuple[int, int]:
    """Return (height, width) of an encoded image, upright, from its header.

    Raises:
        ImageError: the image is missing, of an unknown format, or its header is damaged.
    """
    name = _name(source)
    try:
        with _stream(source) as stream, _open(stream, name) as image:
            width, height = image.size
            turned = _orientation(image) in _SWAPPING_TURNS
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(f"image {name}: its size cannot be read ({_reason(error)}); is the file whole?") from error
    return (width, height) if turned else (height, width)


def decode_map(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.float32]:
    """Read a saliency map, such as a prior, without loss of depth.

    Args:
        source: as for `decode`, also the path of a `.npy` file; arrays are (H, W) or (H, W, 1). Grey levels of 8 or
            16 bits are divided by their maximum, floats must be in [0, 1], colour is turned into luminance.
        max_pixels: as for `decode`.

    Returns:
        (H, W) float32 in [0, 1], never a view of `source`.

    Raises:
        ImageError: the map is missing, damaged, too large, or holds NaN or values outside of its range.
    """
    if isinstance(source, np.ndarray):
        return _to_map(source, "array")
    if isinstance(source, str | os.PathLike) and Path(source).suffix.lower() == ".npy":
        return _read_npy(Path(source), max_pixels)
    return _read(source, max_pixels, _to_grey_map)


def decode_grey(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read a saliency map or mask as (H, W) uint8; colour is turned into luminance. Errors as `decode`."""
    image = Image.fromarray(decode(source, max_pixels=max_pixels))
    return np.asarray(image.convert("L"))


def decode_mask(source: ImageSource) -> NDArray[np.bool_]:
    """Read a ground-truth mask as (H, W) bool: true where the grey level is above 128."""
    mask: NDArray[np.bool_] = decode_grey(source) > 128
    return mask


def _read(
    source: str | Path | bytes | IO[bytes] | Image.Image, max_pixels: int, convert: Callable[[Image.Image, str], T]
) -> T:
    """Open an encoded picture, check its size, turn it upright, and convert it; all errors as ImageError."""

    def checked(image: Image.Image) -> T:
        _check_size(image, name, max_pixels)
        return convert(_upright(image), name)

    name = _name(source)
    try:
        if isinstance(source, Image.Image):
            return checked(source)
        with _stream(source) as stream:
            return checked(_open(stream, name))
    except ImageError:
        raise
    except OSError as error:
        reason = error.strerror or _reason(error)
        raise ImageError(f"image {name}: cannot be read ({reason}); is the file there and whole?") from error
    # On damaged bytes Pillow raises errors of many kinds, struct.error and TypeError among them.
    except Exception as error:
        raise ImageError(f"image {name}: cannot be decoded ({_reason(error)}); is the file whole?") from error


def _read_npy(path: Path, max_pixels: int) -> NDArray[np.float32]:
    try:
        # Mapped, so that no memory is taken before the size is known; one that overflows is an error, no warning.
        with np.errstate(over="raise"):
            stored = np.lib.format.open_memmap(path, mode="r")  # type: ignore[no-untyped-call]
    except OSError as error:
        reason = error.strerror or _reason(error)
        raise ImageError(f"map {path}: cannot be read ({reason}); is the file there and whole?") from error
    # On damaged headers numpy raises errors of many kinds; one that asks for pickled objects is a ValueError.
    except Exception as error:
        raise ImageError(f"map {path}: cannot be read as .npy ({_reason(error)}); is the file whole?") from error
    if stored.size > max_pixels:
        raise ImageError(
            f"map {path}: {stored.size / 1e6:.0f} megapixels, the limit is {max_pixels / 1e6:.0f}; scale it down."
        )
    return _to_map(stored, str(path))


def _name(source: object) -> str:
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return str(getattr(source, "filename", "") or getattr(source, "name", "") or "from memory")


@contextmanager
def _stream(source: str | Path | bytes | IO[bytes]) -> Iterator[IO[bytes]]:
    """The encoded picture as a file that can seek; a file that the caller opened stays open."""
    if isinstance(source, bytes):
        yield io.BytesIO(source)
    elif isinstance(source, str | os.PathLike):
        with Path(source).open("rb") as file:
            yield file if file.seekable() else io.BytesIO(file.read())
    elif hasattr(source, "read"):
        yield source if source.seekable() else io.BytesIO(source.read())
    else:
        raise ImageError(
            f"image of type {type(source).__name__}: expected a path, bytes, a binary file, a PIL image or an array."
        )


def _open(stream: IO[bytes], name: str) -> Image.Image:
    """As `Image.open`, without Pillow's limit on the size, whose warning no thread can turn off for itself."""
    Image.init()
    stream.seek(0)
    prefix = stream.read(16)
    for factory, accept in map(Image.OPEN.__getitem__, FORMATS):
        if accept is None or accept(prefix):
            stream.seek(0)
            return factory(stream, "")
    raise ImageError(f"image {name}: not a picture of a known format; expected {', '.join(FORMATS)}.")


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(
            f"image {name}: {width} x {height} is {width * height / 1e6:.0f} megapixels, the limit is "
            f"{max_pixels / 1e6:.0f}; scale it down or raise max_pixels."
        )


def _to_rgb(image: Image.Image, name: str) -> NDArray[np.uint8]:
    if image.mode == "F":
        return _from_array(np.asarray(image), name)
    if image.mode.startswith("I"):
        return _from_array(np.asarray(image).clip(0, 65535).astype(np.uint16), name)
    return _flatten(image)


def _to_grey_map(image: Image.Image, name: str) -> NDArray[np.float32]:
    if image.mode == "F":
        return _to_map(np.asarray(image), name)
    if image.mode.startswith("I"):
        levels = np.asarray(image)
        _check_range(levels, name, 65535, tolerance=0)
        return _to_map(levels.astype(np.uint16), name)
    return _to_map(np.asarray(Image.fromarray(_flatten(image)).convert("L")), name)


def _to_map(array: NDArray[np.generic], name: str) -> NDArray[np.float32]:
    array = np.asarray(array)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 or 0 in array.shape:
        raise ImageError(f"map {name} of shape {array.shape}: expected (H, W), not empty.")
    kind, size_bytes = array.dtype.kind, array.dtype.itemsize
    if kind not in "bf" and not (kind == "u" and size_bytes <= 2):
        raise ImageError(f"map {name} of type {array.dtype}: expected uint8, uint16, bool or float in [0, 1].")
    if kind == "u":
        scaled: NDArray[np.float32] = array.astype(np.float32) / np.float32(255 if size_bytes == 1 else 65535)
        return scaled
    # What rounding overshoots is clipped; another scale is not guessed at.
    _check_range(array, name, 1, tolerance=1e-3)
    return array.astype(np.float32).clip(0, 1)


def _check_range(array: NDArray[np.generic], name: str, limit: int, *, tolerance: float) -> None:
    """Raise ImageError for values outside of [0, limit]; NaN lies within no limits."""
    low, high = float(array.min()), float(array.max())
    if not (low >= -tolerance and high <= limit + tolerance):
        raise ImageError(
            f"map {name} of {array.dtype}: holds values from {low:g} to {high:g}, expected [0, {limit}]; "
            "divide it by its maximum, or mend what made NaN."
        )


def _upright(image: Image.Image) -> Image.Image:
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tile:
        # Memory that Pillow finds in place is not checked against its own limit (for TIFF alone it is).
        size = image.tag_v2[ExifTags.Base.ImageWidth], image.tag_v2[ExifTags.Base.ImageLength]
        image.im = Image.new(image.mode, size, None).im
    image.load()
    turn = _TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 where the EXIF data are damaged and the pixels whole."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1


def _flatten(image: Image.Image) -> NDArray[np.uint8]:
    """Any mode of 8 bits or fewer, on white where transparent."""
    if image.mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return _pixels(image)


def _pixels(image: Image.Image) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 of an opaque picture; at once it would take three copies of it, one of them padded."""
    width, height = image.size
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    for band in row_bands(height, 4 * width):
        rows = image.crop((0, band.start, width, band.stop))
        pixels[band] = np.asarray(rows if rows.mode == "RGB" else rows.convert("RGB"))
    return pixels


def _from_array(array: NDArray[np.generic], name: str = "array") -> NDArray[np.uint8]:
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise ImageError(
            f"image {name} of shape {array.shape}: expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), not empty."
        )
    pixels = _to_8_bit(array, name)
    if pixels.shape[2] == 4:
        return _flatten(Image.fromarray(pixels))
    return np.array(np.broadcast_to(pixels, (*pixels.shape[:2], 3)), order="C")


def _to_8_bit(array: NDArray[np.generic], name: str) -> NDArray[np.uint8]:
    kind, size_bytes = array.dtype.kind, array.dtype.itemsize
    if kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if kind == "u" and size_bytes == 1:
        return array.view(np.uint8)
    if kind == "u" and size_bytes == 2:
        # 65535 is 257 * 255.
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if kind == "f":
        values = array.astype(np.float64 if size_bytes > 4 else np.float32)
        low, high = float(values.min()), float(values.max())
        # What a filter overshoots is clipped; another scale is not guessed at. NaN lies within no limits.
        if not (low >= -0.5 and high <= 1.5):
            raise ImageError(f"image {name} of {array.dtype}: holds values from {low:g} to {high:g}; expected [0, 1].")
        scaled: NDArray[np.uint8] = np.rint(values.clip(0, 1) * 255).astype(np.uint8)
        return scaled
    raise ImageError(f"image {name} of type {array.dtype}: expected uint8, uint16, bool or float in [0, 1].")


def _reason(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
