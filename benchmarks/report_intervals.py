"""Bootstrap intervals over pictures: of max F and MAE, and of their difference between two rows."""

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from benchmarks.report_rules import LEVEL, RESAMPLES

Values = NDArray[np.float64]


class Estimate(BaseModel):
    """A value of all pictures, and the interval that `LEVEL` of the samples are in."""

    value: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """-1 or 1 where the interval lies on one side of 0, else 0."""
        return int(self.low > 0) - int(self.high < 0)


def f_max_estimate(curves: Values) -> Estimate:
    """Max F of the averaged curve, of curves (N, 256)."""
    return _estimate(lambda weights: _f_max(curves, weights), len(curves))


def mean_estimate(values: Values) -> Estimate:
    """The mean of (N,)."""
    return _estimate(lambda weights: weights @ values, len(values))


def f_max_difference(ours: Values, theirs: Values) -> Estimate:
    """Max F of curves (N, 256) less that of others on the same pictures, in the same order."""
    return _estimate(lambda weights: _f_max(ours, weights) - _f_max(theirs, weights), len(ours))


def mean_difference(ours: Values, theirs: Values) -> Estimate:
    """The mean of (N,) less that of others on the same pictures, in the same order."""
    return mean_estimate(ours - theirs)


def _f_max(curves: Values, weights: Values) -> Values:
    best: Values = (weights @ curves).max(axis=1)
    return best


def _estimate(statistic: Callable[[Values], Values], pictures: int) -> Estimate:
    """Of a statistic that gives a value for each row of weights (K, N)."""
    low, high = np.quantile(statistic(_samples(pictures)), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    whole = statistic(np.full((1, pictures), 1 / pictures))
    return Estimate(value=float(whole[0]), low=float(low), high=float(high))


@cache
def _samples(pictures: int) -> Values:
    """The weight of each picture in each sample (`RESAMPLES`, N); the same for all rows of as many pictures."""
    counts = np.random.default_rng(0).multinomial(pictures, np.full(pictures, 1 / pictures), size=RESAMPLES)
    return counts / pictures
