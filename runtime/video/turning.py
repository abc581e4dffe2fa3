"""Frames that a player turns: the display matrix, and pixels that need none."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Turn:
    """What makes a stored frame upright, in this order.

    Attributes:
        transposed: rows become columns.
        upside_down: the rows change their order.
        mirrored: the columns do.
    """

    transposed: bool = False
    upside_down: bool = False
    mirrored: bool = False

    @classmethod
    def of_matrix(cls, matrix: bytes) -> "Turn":
        """The turn of a display matrix, 3 x 3 int32 with x' = a x + c y and y' = b x + d y, to the next right angle."""
        a, b, _, c, d, *_ = np.frombuffer(matrix, dtype=np.int32).tolist()
        if abs(b) > abs(a):
            return cls(transposed=True, upside_down=b < 0, mirrored=c < 0)
        return cls(upside_down=d < 0, mirrored=a < 0)

    def apply(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A view of (H, W, C) pixels, upright."""
        if self.transposed:
            pixels = pixels.transpose(1, 0, 2)
        return pixels[:: -1 if self.upside_down else 1, :: -1 if self.mirrored else 1]
