"""What `benchmarks.mask_threshold` compares: rules for the threshold of masks, and images without an object."""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.forms import Floats
from salience.runtime import SaliencyMap
from salience.runtime.components import Box

Image8 = NDArray[np.uint8]
Mask = NDArray[np.bool_]
# The name of what `SaliencyMap.mask()` does, and of the rule that all are compared with.
DEFAULT, REFERENCE = "default", "fixed .5"
_FIXED = (0.3, 0.4, 0.5, 0.6, 0.7)
_SIDE, _NOISES = 256, 8
_COLOURS = (
    (0, 0, 0), (64, 64, 64), (128, 128, 128), (255, 255, 255),
    (255, 0, 0), (0, 0, 255), (30, 120, 60), (135, 206, 235), (200, 180, 140),
)  # fmt: skip


def fixed(values: Floats, *, level: float) -> float:
    """The same threshold for every map."""
    return level


def otsu(values: Floats) -> float:
    """Otsu's threshold of a map (H, W), by scikit-image."""
    from skimage.filters import threshold_otsu

    return float(threshold_otsu(values))


def twice_the_mean(values: Floats) -> float:
    """The adaptive threshold of evaluation, at most 1 (Achanta et al., Frequency-tuned salient region detection)."""
    return min(2 * float(values.mean(dtype=np.float64)), 1.0)


# Each takes the values of a map and returns a threshold.
RULES: dict[str, Callable[[Floats], float]] = {
    **{f"fixed .{round(10 * level)}": partial(fixed, level=level) for level in _FIXED},
    "Otsu": otsu,
    "twice the mean": twice_the_mean,
    "twice the mean, at most .5": lambda values: min(twice_the_mean(values), 0.5),
    "mean of Otsu and .5": lambda values: (otsu(values) + 0.5) / 2,
    "Otsu, .3 to .7": lambda values: min(max(otsu(values), 0.3), 0.7),
    "half of the maximum": lambda values: float(values.max()) / 2,
}


def masks_of(found: SaliencyMap) -> dict[str, Mask]:
    """The mask of each rule, and the default one."""
    masks = {name: found.mask(rule(found.values)) for name, rule in RULES.items()}
    return {**masks, DEFAULT: found.mask()}


def mask_iou(one: Mask, other: Mask) -> float:
    """Intersection over union of two masks, 1 where both are empty."""
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 1.0


def box_iou(one: Box | None, other: Box | None) -> float:
    """Intersection over union of two boxes, 0 where one is missing."""
    if one is None or other is None:
        return 0.0
    height = min(one[2], other[2]) - max(one[0], other[0])
    width = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(height, 0) * max(width, 0)
    return shared / (_area(one) + _area(other) - shared)


def images_without_object() -> dict[str, list[Image8]]:
    """Images (H, W, 3) uint8 RGB by kind: uniform ones of two sizes, gradients, patterns, noise of several grains."""
    ramp = np.linspace(0, 255, _SIDE)
    across = np.tile(ramp, (_SIDE, 1))
    rows, columns = np.indices((_SIDE, _SIDE))
    patterns = [columns // 8 % 2, rows // 32 % 2, (columns // 16 + rows // 16) % 2]
    return {
        "uniform": [np.full((side, side, 3), colour, np.uint8) for side in (50, _SIDE) for colour in _COLOURS],
        "gradient": [_grey(image) for image in (across, across.T, (across + across.T) / 2, across[:, ::-1])],
        "pattern": [_grey(pattern * 255) for pattern in patterns],
        "noise": [_noise(grain, seed) for grain in (1, 4, 16, 64) for seed in range(_NOISES)],
    }


def _noise(grain: int, seed: int) -> Image8:
    """Random colours, `grain` pixels apart, with smooth transitions."""
    side = _SIDE // grain
    colours = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(colours).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC))


def _grey(values: NDArray[np.generic]) -> Image8:
    return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])
