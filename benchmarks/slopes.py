"""Least-squares fits of cost curves: a line where each step adds the same, a power law where it multiplies."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

# What the scale of a power law over pixels is given at: a picture of 224 x 224.
REFERENCE_PIXELS = 224 * 224


class Line(BaseModel):
    """value = fixed + slope * x."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    law: Literal["line"] = "line"
    fixed: float
    slope: float

    @classmethod
    def of(cls, x: Sequence[float], values: Sequence[float]) -> Self:
        """The line of least squares through two points or more."""
        slope, fixed = np.polyfit(*_checked(x, values), 1)
        return cls(fixed=float(fixed), slope=float(slope))

    def at(self, x: float) -> float:
        """The value that the line gives for x."""
        return self.fixed + self.slope * x

    def numbers(self) -> tuple[float, float]:
        """Fixed cost and slope."""
        return self.fixed, self.slope


class Power(BaseModel):
    """value = scale * (pixels / REFERENCE_PIXELS) ** exponent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    law: Literal["power"] = "power"
    scale: float
    exponent: float

    @classmethod
    def of(cls, pixels: Sequence[float], values: Sequence[float]) -> Self:
        """The straight line of least squares in log-log, whose slope is the exponent."""
        x, y = _checked(pixels, values)
        if min(x.min(), y.min()) <= 0:
            raise ValueError("a power law: got a number that is not positive, which has no logarithm.")
        exponent, scale = np.polyfit(np.log(x / REFERENCE_PIXELS), np.log(y), 1)
        return cls(scale=float(np.exp(scale)), exponent=float(exponent))

    def at(self, pixels: float) -> float:
        """The value that the law gives for a picture of so many pixels."""
        return float(self.scale * (pixels / REFERENCE_PIXELS) ** self.exponent)

    def numbers(self) -> tuple[float, float]:
        """Scale and exponent."""
        return self.scale, self.exponent


Fit: TypeAlias = Annotated[Line | Power, Field(discriminator="law")]


def worst_residual(fit: Line | Power, x: Sequence[float], values: Sequence[float]) -> float:
    """How far the fit is off at the point where it is worst, as a fraction of that point's value."""
    return max(abs(fit.at(place) / value - 1) for place, value in zip(x, values, strict=True))


def _checked(x: Sequence[float], values: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Raise ValueError where there is nothing to fit."""
    if len(x) != len(values) or len(set(x)) < 2:
        raise ValueError(f"a fit: got {len(values)} values at {sorted(set(x))}, expected one each at two places.")
    return np.asarray(x, dtype=np.float64), np.asarray(values, dtype=np.float64)
