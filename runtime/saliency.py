"""The result of a prediction: a saliency map with what people make of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from .bands import row_bands
from .components import Box, box_of_components
from .errors import SalienceError
from .files import write_atomic
from .png_writer import encode_png

Kind = Literal["map", "mask", "cutout", "overlay"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# Magenta is rare in photos, so the tint shows on almost every object.
_TINT = np.array([255, 0, 160], dtype=np.float32)
_TINT_STRENGTH = np.float32(0.6)
# Chosen on validation images by `python -m benchmarks.mask_threshold`; saliency_map.cpp has the same values.
# The default threshold, as a share of the map's maximum: masks agree as well with ground truth as those of the best
# fixed threshold, and a weak map has a mask too.
_THRESHOLD_SHARE = 0.5
# The least default threshold. Below it lie the maximums of uniform images and gradients, above it those of all objects.
_LEAST_THRESHOLD = 0.3
# Components of less than this share of the largest one's area are specks, which a box leaves out.
_SPECK_SHARE = 0.05


@dataclass(frozen=True, eq=False)
class SaliencyMap:
    """The saliency of one picture.

    Attributes:
        values: (H, W) float32 in [0, 1], 1 for the salient object, at the picture's own size.
        image: (H, W, 3) uint8 RGB, the picture, upright.
    """

    values: NDArray[np.float32]
    image: NDArray[np.uint8]

    def __repr__(self) -> str:
        height, width = self.values.shape
        return f"SaliencyMap({height} x {width}, mean {float(self.values.mean()):.3f})"

    def grey(self) -> NDArray[np.uint8]:
        """(H, W) uint8, 255 for saliency 1."""
        levels = np.empty(self.values.shape, dtype=np.uint8)
        for rows in row_bands(len(levels), self.values.strides[0]):
            scaled = self.values[rows] * 255
            levels[rows] = np.rint(scaled, out=scaled)
        return levels

    def threshold(self) -> float:
        """Return the default threshold of masks and boxes: half of the map's maximum, and at least .3."""
        return max(_THRESHOLD_SHARE * float(self.values.max()), _LEAST_THRESHOLD)

    def mask(self, threshold: float | None = None) -> NDArray[np.bool_]:
        """Return the pixels of the object, (H, W) bool.

        Args:
            threshold: 0 to 1. Values of at least this are inside, except 0. None for `threshold()`, where the mask is
                empty if the map's maximum is below .3.

        Raises:
            SalienceError: `threshold` is not in [0, 1].
        """
        if threshold is not None and not 0 <= threshold <= 1:
            raise SalienceError(f"threshold {threshold}: expected a number from 0 to 1.")
        limit = np.float32(self.threshold() if threshold is None else threshold)
        mask: NDArray[np.bool_] = self.values >= limit if limit > 0 else self.values > 0
        return mask

    def box(self, threshold: float | None = None) -> Box | None:
        """Return the box around the object: around `mask(threshold)` without specks.

        Specks are 8-connected components of less than 5 % of the largest component's area.

        Args:
            threshold: as in `mask`. With a threshold of your own, maps with a maximum below .3 have a box too.

        Returns:
            (top, left, bottom, right) in pixels, bottom and right exclusive; None if the mask is empty.

        Raises:
            SalienceError: `threshold` is not in [0, 1].
        """
        return box_of_components(self.mask(threshold), least_share=_SPECK_SHARE)

    def cutout(self) -> NDArray[np.uint8]:
        """(H, W, 4) uint8 RGBA: the picture with the map as its opacity."""
        return np.dstack([self.image, self.grey()])

    def overlay(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB: the picture, salient parts tinted magenta."""
        tinted = np.empty_like(self.image)
        for rows in row_bands(len(tinted), tinted.strides[0]):
            strength = (self.values[rows] * _TINT_STRENGTH)[..., None]
            mixed = self.image[rows] + (_TINT - self.image[rows]) * strength
            tinted[rows] = np.rint(mixed, out=mixed)
        return tinted

    def render(self, kind: Kind, *, threshold: float | None = None) -> NDArray[np.uint8]:
        """One of the pictures above as uint8; a mask is 0 or 255.

        Raises:
            SalienceError: an unknown kind, or a threshold that is not in [0, 1].
        """
        match kind:
            case "map":
                return self.grey()
            case "mask":
                return self.mask(threshold).astype(np.uint8) * np.uint8(255)
            case "cutout":
                return self.cutout()
            case "overlay":
                return self.overlay()
            case _:
                raise SalienceError(f"kind {kind!r} is not known: choose one of {', '.join(KINDS)}.")

    def save(self, path: str | Path, *, kind: Kind = "map", threshold: float | None = None) -> None:
        """Write `render(kind)` to `path` as PNG, whole or not at all."""
        write_atomic(Path(path), encode_png(self.render(kind, threshold=threshold)))
