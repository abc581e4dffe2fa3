"""Connected components of a mask, by NumPy alone.

A mask is taken as its horizontal runs, a few per row, so that components of 12 million pixels take milliseconds.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Box: TypeAlias = tuple[int, int, int, int]
_Indices: TypeAlias = "NDArray[np.intp]"


@dataclass(frozen=True, eq=False)
class _Runs:
    """Horizontal runs of a mask in reading order.

    A pixel has the place `row * stride + column`. The stride exceeds the width by one, so that a run that ends at the
    right border never touches the one that starts the next row.

    Attributes:
        starts: (n,) places of the first pixels.
        ends: (n,) places behind the last pixels.
        stride: places from a row to the next.
    """

    starts: _Indices
    ends: _Indices
    stride: int

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> "_Runs":
        height, width = mask.shape
        # One place more at the front, so that a run at the first pixel starts with a change too.
        padded = np.zeros(height * (width + 1) + 1, dtype=np.bool_)
        padded[1:].reshape(height, width + 1)[:, :width] = mask
        changes = np.flatnonzero(padded[1:] != padded[:-1])
        return cls(changes[::2], changes[1::2], width + 1)

    def touching(self) -> tuple[_Indices, _Indices]:
        """Pairs of runs that touch, also at corners: (m,) run of a row, (m,) run of the next row."""
        first = np.searchsorted(self.ends, self.starts + self.stride, side="left")
        counts = np.maximum(np.searchsorted(self.starts, self.ends + self.stride, side="right") - first, 0)
        upper = np.repeat(np.arange(len(first)), counts)
        offsets = np.arange(len(upper)) - np.repeat(np.cumsum(counts) - counts, counts)
        return upper, first[upper] + offsets

    def box(self, chosen: NDArray[np.bool_]) -> Box:
        """The box around the chosen runs."""
        starts, lengths = self.starts[chosen], (self.ends - self.starts)[chosen]
        rows, columns = starts // self.stride, starts % self.stride
        return int(rows[0]), int(columns.min()), int(rows[-1]) + 1, int((columns + lengths).max())


def box_of_components(mask: NDArray[np.bool_], *, least_share: float) -> Box | None:
    """Return the box around the 8-connected components of a mask that are large enough.

    Args:
        mask: (H, W) bool.
        least_share: area of the smallest component that counts, as a share of the largest component's area.

    Returns:
        (top, left, bottom, right) in pixels, bottom and right exclusive; None if the mask is empty.
    """
    runs = _Runs.of(mask)
    if not runs.starts.size:
        return None
    roots = _roots(len(runs.starts), *runs.touching())
    areas = np.bincount(roots, weights=runs.ends - runs.starts)
    return runs.box((areas >= least_share * areas.max())[roots])


def _roots(count: int, one: _Indices, other: _Indices) -> _Indices:
    """The first member of each of `count` items' component, (count,), where `one` and `other` (m,) are connected.

    Each round joins components to the lowest neighbour that they have, then makes all paths to the root one step long.
    """
    roots = np.arange(count)
    while True:
        left, right = roots[one], roots[other]
        apart = left != right
        if not apart.any():
            return roots
        one, other, left, right = one[apart], other[apart], left[apart], right[apart]
        np.minimum.at(roots, np.maximum(left, right), np.minimum(left, right))
        while (roots != (shorter := roots[roots])).any():
            roots = shorter
