"""Pictures of any kind become `(H, W, 3) uint8 RGB`, upright; nothing else in the project decodes images."""

import io
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import ImageError

ImageSource: TypeAlias = "str | Path | bytes | IO[bytes] | Image.Image | NDArray[np.generic]"

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
MAX_PIXELS = 150_000_000


def decode(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read one picture.

    EXIF orientation is applied, transparency is laid on white, 16-bit and float values are scaled to
    8 bits, of an animation the first frame is taken.

    Args:
        source: a path, encoded bytes, a binary file, a PIL image, or an array: (H, W), (H, W, 1),
            (H, W, 3) or (H, W, 4) of uint8, uint16, or float in [0, 1].
        max_pixels: larger pictures are refused before memory is taken for them.

    Returns:
        (H, W, 3) uint8 RGB, contiguous.

    Raises:
        ImageError: the picture is missing, damaged, of an unknown format, or too large.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    name = _name(source)
    try:
        with _open(source, name) as image:
            _check_size(image, name, max_pixels)
            return _to_rgb(image)
    except ImageError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError, Image.DecompressionBombError) as error:
        raise ImageError(f"image {name}: cannot be decoded ({_reason(error)}); is the file whole?") from error


def decode_grey(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read a saliency map or mask as (H, W) uint8; colour is turned into luminance. Errors as `decode`."""
    image = Image.fromarray(decode(source, max_pixels=max_pixels))
    return np.asarray(image.convert("L"))


def decode_mask(source: ImageSource) -> NDArray[np.bool_]:
    """Read a ground-truth mask as (H, W) bool: true where the grey level is above 128."""
    mask: NDArray[np.bool_] = decode_grey(source) > 128
    return mask


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """PNG bytes of (H, W), (H, W, 3) or (H, W, 4) uint8."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _name(source: object) -> str:
    if isinstance(source, str | Path):
        return str(source)
    return str(getattr(source, "filename", "") or getattr(source, "name", "") or "from memory")


def _open(source: object, name: str) -> Image.Image:
    if isinstance(source, Image.Image):
        return source.copy()
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        return Image.open(stream, formats=FORMATS)  # type: ignore[arg-type]
    except UnidentifiedImageError as error:
        raise ImageError(f"image {name}: not a picture of a known format; expected {', '.join(FORMATS)}.") from error


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(
            f"image {name}: {width} x {height} is {width * height / 1e6:.0f} megapixels, the limit is "
            f"{max_pixels / 1e6:.0f}; scale it down or raise max_pixels."
        )


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        return _from_array(np.asarray(image))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.ascontiguousarray(np.asarray(image.convert("RGB")))


def _from_array(array: NDArray[np.generic]) -> NDArray[np.uint8]:
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise ImageError(
            f"image array of shape {array.shape}: expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), not empty."
        )
    grey = _to_8_bit(array)
    if grey.shape[2] == 4:
        return _to_rgb(Image.fromarray(grey))
    return np.ascontiguousarray(np.broadcast_to(grey, (*grey.shape[:2], 3)))


def _to_8_bit(array: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Integers above 255 are 16-bit values; floats are in [0, 1], or else in the range of their kind."""
    if array.dtype == np.uint8:
        return array.view(np.uint8)
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind in "iu":
        return (np.clip(array.astype(np.int64), 0, 65535) // 257).astype(np.uint8)
    if array.dtype.kind == "f":
        values = array.astype(np.float32)
        if not np.isfinite(values).all():
            raise ImageError("image array: holds NaN or infinity; expected finite values in [0, 1].")
        return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    raise ImageError(f"image array of type {array.dtype}: expected uint8, uint16 or float in [0, 1].")


def _reason(error: BaseException) -> str:
    return str(error).rstrip(".") or type(error).__name__
