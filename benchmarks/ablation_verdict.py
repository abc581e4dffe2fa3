"""Whether one form of a method makes better maps than another: paired differences over seeds and pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.report_intervals import Estimate
from benchmarks.report_rules import LEVEL, RESAMPLES

Verdict = Literal["holds", "does not hold", "not decidable here"]


@dataclass(frozen=True)
class Outcome:
    """What every picture scored under each seed.

    Attributes:
        curves: F over 256 thresholds, (seeds, pictures, 256).
        errors: MAE, (seeds, pictures).
    """

    curves: NDArray[np.float32]
    errors: NDArray[np.float32]

    def f_max(self) -> list[float]:
        """Return max F of each seed: the maximum of the image-averaged F curve."""
        return [float(curve.max()) for curve in self.curves.mean(axis=1, dtype=np.float64)]

    def mae(self) -> list[float]:
        """Of each seed."""
        return [float(error) for error in self.errors.mean(axis=1, dtype=np.float64)]


def differences(form: Outcome, without: Outcome, *, seed: int = 0) -> tuple[Estimate, Estimate]:
    """Of max F and of MAE, `form` less `without`: bootstrap over seeds and, within them, the same pictures of both."""
    rng = np.random.default_rng(seed)
    seeds, pictures = form.errors.shape
    f, mae = np.empty(RESAMPLES), np.empty(RESAMPLES)
    for draw in range(RESAMPLES):
        runs = np.asarray(rng.integers(seeds, size=seeds))
        weights = rng.multinomial(pictures, np.full(pictures, 1 / pictures)) / pictures
        f[draw], mae[draw] = _difference(form, without, runs, weights)
    whole = _difference(form, without, np.arange(seeds), np.full(pictures, 1 / pictures))
    outside = [50 * (1 - LEVEL), 50 * (1 + LEVEL)]
    return tuple(  # type: ignore[return-value]
        Estimate(value=value, low=float(np.percentile(drawn, outside[0])), high=float(np.percentile(drawn, outside[1])))
        for value, drawn in zip(whole, (f, mae), strict=True)
    )


def judge(f: Estimate, mae: Estimate) -> tuple[Verdict, str]:
    """Better in one of max F and MAE and worse in neither: holds; worse and in neither better: does not hold.

    With the reason where neither is so.
    """
    signs = {f.sign, -mae.sign}
    if {1, -1} <= signs:
        return "not decidable here", "max F and MAE say different things"
    if signs == {0}:
        return "not decidable here", "both intervals hold 0"
    return ("holds" if 1 in signs else "does not hold"), ""


def decided(form: Outcome, without: Outcome) -> dict[str, Any]:
    """Verdict and differences, for JSON."""
    f, mae = differences(form, without)
    verdict, reason = judge(f, mae)
    return {
        "verdict": verdict,
        "reason": reason,
        "f_max_difference": f.model_dump(),
        "mae_difference": mae.model_dump(),
    }


def _difference(
    form: Outcome, without: Outcome, runs: NDArray[np.int64], weights: NDArray[np.float64]
) -> tuple[float, float]:
    """Of the means over `runs` of max F and of MAE, pictures by `weights`."""
    f = [_largest(form, runs, weights), _largest(without, runs, weights)]
    mae = [float((outcome.errors[runs] @ weights).mean()) for outcome in (form, without)]
    return f[0] - f[1], mae[0] - mae[1]


def _largest(outcome: Outcome, runs: Sequence[int] | NDArray[np.int64], weights: NDArray[np.float64]) -> float:
    """Max F of each run's weighted mean curve, the mean over runs."""
    return float(np.mean([(weights @ outcome.curves[run]).max() for run in runs]))
