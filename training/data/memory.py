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
    """A decoded sample; a mask that is not graded is packed to bits."""

    name: str
    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    label: str = ""

    def load(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | NDArray[np.uint8]]:
        """See `Loadable.load`."""
        if self.mask.ndim == 2:
            return self.image, self.mask
        height, width = self.image.shape[:2]
        bits = np.unpackbits(self.mask, count=height * width)
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
            graded = mask.dtype != np.bool_
            levels = mask if graded else mask.astype(np.uint8) * np.uint8(255)
            resized = np.asarray(Image.fromarray(levels).resize(size, Image.Resampling.BILINEAR))
            mask = resized if graded else resized > 127
        stored = np.packbits(mask) if mask.dtype == np.bool_ else mask.astype(np.uint8)
        return KeptSample(sample.name, np.ascontiguousarray(image), stored, getattr(sample, "label", ""))

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(keep, samples))
