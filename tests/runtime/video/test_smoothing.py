"""The average of maps over the frames of a video."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from salience.runtime.errors import SalienceError
from salience.runtime.video.smoothing import CUT, Smoother, thumbnail

GREY = np.full((40, 60, 3), 100, dtype=np.uint8)
weights = st.floats(0.01, 0.99)


def maps(count: int) -> list[NDArray[np.float32]]:
    random = np.random.default_rng(count)
    return [random.random((1, 4, 6), dtype=np.float32) for _ in range(count)]


@given(weight=weights)
def test_it_is_the_weighted_sum_of_the_maps_before(weight: float) -> None:
    smoother, values = Smoother(weight), maps(6)
    found = [smoother.smooth(each, GREY) for each in values]
    shares = [weight**5] + [(1 - weight) * weight ** (5 - index) for index in range(1, 6)]
    assert sum(shares) == pytest.approx(1)
    # Six float32 steps round by less than this.
    assert np.allclose(found[-1], sum(s * v for s, v in zip(shares, values, strict=True)), atol=1e-6)
    assert found[-1].dtype == np.float32


@given(weight=weights)
def test_a_constant_map_stays(weight: float) -> None:
    smoother, (value,) = Smoother(weight), maps(1)
    for _ in range(5):
        found = smoother.smooth(value, GREY)
    assert np.allclose(found, value, atol=1e-6)


def test_weight_zero_changes_nothing() -> None:
    smoother = Smoother(0)
    assert all(smoother.smooth(each, GREY) is each for each in maps(3))


def test_a_cut_starts_anew() -> None:
    smoother, (first, second, third) = Smoother(0.9), maps(3)
    smoother.smooth(first, GREY)
    bright = GREY + np.uint8(CUT + 2)
    assert np.array_equal(smoother.smooth(second, bright), second)
    assert not np.array_equal(smoother.smooth(third, bright), third)


def test_a_change_below_the_limit_is_no_cut() -> None:
    smoother, (first, second) = Smoother(0.9), maps(2)
    smoother.smooth(first, GREY)
    assert np.allclose(smoother.smooth(second, GREY + np.uint8(CUT - 2)), 0.9 * first + 0.1 * second, atol=1e-6)


def test_photographs_differ_by_more_than_a_cut_and_a_pan_by_less(photos: dict[str, NDArray[np.uint8]]) -> None:
    names = list(photos)
    for before, after in zip(names, names[1:] + names[:1], strict=True):
        assert np.abs(thumbnail(photos[before]) - thumbnail(photos[after])).mean() > CUT
    for photo in photos.values():
        # A fiftieth of the width from one frame to the next: the whole picture in two seconds.
        step = photo.shape[1] // 50
        assert np.abs(thumbnail(photo[:, step:]) - thumbnail(photo[:, :-step])).mean() < CUT


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (3, 2000), (480, 640)])
def test_any_size_has_a_thumbnail(shape: tuple[int, int]) -> None:
    found = thumbnail(np.full((*shape, 3), 77, dtype=np.uint8))
    assert found.shape == (16, 16)
    assert (found == 77).all()


@pytest.mark.parametrize("weight", [-0.1, 1.0, float("nan")])
def test_other_weights_are_refused(weight: float) -> None:
    with pytest.raises(SalienceError, match="less than 1"):
        Smoother(weight)
