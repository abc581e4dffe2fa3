"""Between the colours of video frames and RGB: matrix and range."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

# Numbers of ITU-T H.273.
_BT709, _BT601_PAL, _BT601_NTSC = 1, 5, 6
_KNOWN_MATRICES = (_BT709, 4, _BT601_PAL, _BT601_NTSC, 7, 9)
LIMITED_RANGE = 1


def matrix_of(frame: "VideoFrame") -> int:
    """The matrix of a frame; of one that names none, what players take for its size."""
    named: int = frame.colorspace
    if named in _KNOWN_MATRICES:
        return named
    return _BT709 if frame.width >= 1280 or frame.height > 576 else _BT601_NTSC


def to_rgb(frame: "VideoFrame", *, width: int, height: int) -> NDArray[np.uint8]:
    """A frame as (height, width, 3) uint8 RGB, or (height, width, 4) RGBA where it has transparency."""
    transparent = any(component.is_alpha for component in frame.format.components)
    converted: Any = frame.reformat(
        width=width,
        height=height,
        format="rgba" if transparent else "rgb24",
        src_colorspace=_scaler_matrix(matrix_of(frame)),
        src_color_range=frame.color_range,
    )
    pixels: NDArray[np.uint8] = converted.to_ndarray()
    return pixels


def from_rgb(pixels: NDArray[np.uint8], *, pixel_format: str, matrix: int) -> "VideoFrame":
    """A frame of limited range of (H, W, 3) uint8 RGB or (H, W, 4) uint8 RGBA pixels."""
    import av

    frame = av.VideoFrame.from_ndarray(pixels, format="rgba" if pixels.shape[2] == 4 else "rgb24")
    return frame.reformat(
        format=pixel_format, dst_colorspace=_scaler_matrix(matrix), dst_color_range=LIMITED_RANGE, threads=1
    )


def _scaler_matrix(matrix: int) -> int:
    """Both of BT.601 are one to the scaler."""
    return _BT601_PAL if matrix == _BT601_NTSC else matrix
