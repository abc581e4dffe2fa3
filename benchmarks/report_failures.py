"""How a map fails, told from the map and its mask."""

import numpy as np
from numpy.typing import NDArray

from benchmarks.report_attributes import object_masks
from benchmarks.report_rules import (
    MISSED,
    MISSED_RECALL,
    OBJECT_RECALL,
    PART,
    PART_RECALL,
    SOFT,
    SOFT_SHARE,
    SOFT_VALUES,
    TAKEN,
    TAKEN_PRECISION,
)
from salience.runtime.evaluation.metrics import stretch


def kinds_of(saliency: NDArray[np.uint8], mask: NDArray[np.bool_], *, threshold: int) -> tuple[str, ...]:
    """The kinds of failure of one map, empty where it has none.

    Args:
        saliency: (H, W) uint8, as it is scored: stretched to the full range first.
        mask: (H, W) bool.
        threshold: grey level, 0 to 255, from which on a pixel counts as salient.
    """
    values = stretch(saliency)
    taken = (values * 255).astype(np.uint8) >= threshold
    soft = (values > SOFT_VALUES[0]) & (values < SOFT_VALUES[1])
    precision = mask[taken].mean() if taken.any() else 1.0
    found = [
        *_missing(taken, mask),
        *([TAKEN] if precision < TAKEN_PRECISION else []),
        *([SOFT] if soft.mean() > SOFT_SHARE else []),
    ]
    return tuple(found)


def _missing(taken: NDArray[np.bool_], mask: NDArray[np.bool_]) -> list[str]:
    """Whether the object is missed, or a part of it."""
    if not mask.any():
        return []
    recall = taken[mask].mean()
    if recall < MISSED_RECALL:
        return [MISSED]
    parts = [taken[piece].mean() for piece in object_masks(mask)]
    return [PART] if recall < PART_RECALL or (len(parts) > 1 and min(parts) < OBJECT_RECALL) else []
