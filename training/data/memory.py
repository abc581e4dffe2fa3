"""Samples kept in memory: decoded once, small, for machines whose processors are the bottleneck."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .dataset import Loadable
from .priors import PriorSample


@dataclass(frozen=True)
class KeptSample:
    """A decoded sample, its mask packed to bits."""

    name: str
    image: NDArray[np.uint8]
    packed: NDArray[np.uint8]
    label: str = ""

    def load(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Image (H, W, 3) uint8 RGB and mask (H, W) bool."""
        height, width = self.image.shape[:2]
        bits = np.unpackbits(self.packed, count=height * width)
        return self.image, bits.reshape(height, width).astype(np.bool_)


def keep_in_memory(samples: Sequence[Loadable], side: int, *, threads: int = 2) -> list[Any]:
    """Decode all samples, shrunk so that their longer side is at most `side` pixels (antialiased).

    Priors stay on disk.
    """

    def keep(sample: Loadable) -> KeptSample | PriorSample:
        if isinstance(sample, PriorSample):
            return replace(sample, sample=keep(sample.sample))
        image, mask = sample.load()
        factor = side / max(image.shape[:2])
        if factor < 1:
            size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
            image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
            levels = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)
            mask = np.asarray(levels) > 127
        return KeptSample(sample.name, np.ascontiguousarray(image), np.packbits(mask), getattr(sample, "label", ""))

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(keep, samples))
