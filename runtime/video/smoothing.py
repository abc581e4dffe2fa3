"""Steadier maps: an exponential moving average over the frames, which starts anew at a cut."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import SalienceError

# Grey levels between the thumbnails of two frames, above which these are of two scenes.
CUT = 25.0
_CELLS = 16
_SAMPLES = 128


class Smoother:
    """s(t) = w s(t-1) + (1 - w) m(t), with s = m at the first frame and at each cut.

    m(t) is the map of frame t at the network's size. A cut is where the thumbnails of two frames, 16 x 16 grey levels,
    differ by more than `CUT` in the mean. Resizing a map is linear, so smoothing before it gives the same as after it.

    Raises:
        SalienceError: the weight w is not in [0, 1).
    """

    def __init__(self, weight: float) -> None:
        if not 0 <= weight < 1:
            raise SalienceError(f"smoothing {weight}: expected a number from 0, which is none, to less than 1.")
        self._weight = np.float32(weight)
        self._state: NDArray[np.float32] | None = None
        self._thumbnail: NDArray[np.float32] | None = None

    def smooth(self, values: NDArray[np.float32], image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The average up to a map `values` (1, h, w) float32 in [0, 1], which belongs to `image` (H, W, 3) RGB."""
        if not self._weight:
            return values
        current = thumbnail(image)
        if self._state is None or self._thumbnail is None or _is_cut(self._thumbnail, current):
            self._state = values
        else:
            self._state = self._weight * self._state + (1 - self._weight) * values
        self._thumbnail = current
        return self._state


def thumbnail(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(16, 16) float32: mean grey levels of the cells of an image (H, W, 3) uint8 RGB."""
    rows, columns = (max(1, side // _SAMPLES) for side in image.shape[:2])
    grey = Image.fromarray(np.ascontiguousarray(image[::rows, ::columns])).convert("L")
    return np.asarray(grey.resize((_CELLS, _CELLS), Image.Resampling.BOX), dtype=np.float32)


def _is_cut(before: NDArray[np.float32], after: NDArray[np.float32]) -> bool:
    return float(np.abs(after - before).mean()) > CUT
