"""The box around the connected components of a mask."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from salience.runtime.components import Box, box_of_components

measure = pytest.importorskip("skimage.measure")
MASKS = npst.arrays(np.bool_, npst.array_shapes(min_dims=2, max_dims=2, max_side=14))


def box_by_labels(mask: NDArray[np.bool_], least_share: float) -> Box | None:
    """The same by scikit-image's labels."""
    labels = measure.label(mask, connectivity=2)
    areas = np.bincount(labels[mask])
    if not areas.size:
        return None
    kept = mask & np.append(areas >= least_share * areas.max(), False)[labels]
    rows, columns = np.flatnonzero(kept.any(axis=1)), np.flatnonzero(kept.any(axis=0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


# The first call compiles code of scikit-image's package, or waits for it.
@settings(deadline=None)
@given(MASKS, st.sampled_from([0.0, 0.05, 0.3, 1.0]))
def test_components_are_those_of_scikit_image(mask: NDArray[np.bool_], least_share: float) -> None:
    assert box_of_components(mask, least_share=least_share) == box_by_labels(mask, least_share)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("transposed", [False, True])
def test_long_winding_components_are_one(threshold: float, transposed: bool) -> None:
    # A snake through all rows, and pixels at random beside it.
    mask = np.random.default_rng(0).random((120, 90)) > 1 - threshold / 10
    mask[::4] = True
    mask[2::8, -1] = mask[1::8, -1] = mask[3::8, -1] = True
    mask[6::8, 0] = mask[5::8, 0] = mask[7::8, 0] = True
    for case in (mask.T if transposed else mask, mask[::-1], np.asfortranarray(mask)):
        for share in (0.0, 0.5, 1.0):
            assert box_of_components(case, least_share=share) == box_by_labels(case, share)


def test_runs_do_not_go_on_in_the_next_row() -> None:
    mask = np.zeros((3, 5), dtype=np.bool_)
    mask[0, 2:] = mask[1, 0] = True
    assert box_of_components(mask, least_share=1.0) == (0, 2, 1, 5)
