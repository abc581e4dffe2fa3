"""Metrics of one saliency map, computed by PySODMetrics (`py_sod_metrics`), the reference implementation."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendUnavailableError

BETA_SQUARED = 0.3
CURVES = ("f", "precision", "recall", "fpr")


class FPoint(NamedTuple):
    """F with the precision and recall that belong to it, all in [0, 1]."""

    f: float
    precision: float
    recall: float


@dataclass(frozen=True)
class FullMetrics:
    """The metrics that take about ten times as long as the basic ones.

    Attributes:
        s: structure measure.
        e_curve: (256,) E over the thresholds 255, 254, ..., 0.
        e_adaptive: E at twice the map's mean.
        f_weighted: weighted F.
    """

    s: float
    e_curve: NDArray[np.float64]
    e_adaptive: float
    f_weighted: float


@dataclass(frozen=True)
class ImageMetrics:
    """The metrics of one map.

    Attributes:
        mae: mean absolute error.
        curves: (256,) values over the thresholds 255, 254, ..., 0 for each name of `CURVES`.
        adaptive: F, precision and recall at twice the map's mean.
        has_both: the mask has foreground and background.
        full: None where only the basic metrics were asked for.
    """

    mae: float
    curves: dict[str, NDArray[np.float64]]
    adaptive: FPoint
    has_both: bool
    full: FullMetrics | None

    @property
    def best(self) -> FPoint:
        """F, precision and recall at this map's best threshold; the highest one where several are equal."""
        return largest_f(self.curves["f"], self.curves["precision"], self.curves["recall"])


class ImageScorer:
    """Measures one map after another; keeps nothing of them.

    Args:
        full: also S, E and weighted F.

    Raises:
        BackendUnavailableError: PySODMetrics is not installed.
    """

    def __init__(self, *, full: bool) -> None:
        reference = _reference()
        self._mae = reference.MAE()
        self._handlers = {
            "f": reference.FmeasureHandler(with_dynamic=True, with_adaptive=True, beta=BETA_SQUARED),
            "precision": reference.PrecisionHandler(with_dynamic=True, with_adaptive=True),
            "recall": reference.RecallHandler(with_dynamic=True, with_adaptive=True),
            "fpr": reference.FPRHandler(with_dynamic=True, with_adaptive=False),
        }
        self._curves = reference.FmeasureV2(self._handlers)
        self._s = _s_measure(reference) if full else None
        self._e = reference.Emeasure() if full else None
        self._weighted = reference.WeightedFmeasure() if full else None

    def measure(self, prediction: NDArray[np.float64], mask: NDArray[np.bool_]) -> ImageMetrics:
        """Return the metrics of one map.

        Args:
            prediction: (H, W) in [0, 1].
            mask: (H, W) bool, of at least two pixels.
        """
        for metric in (self._mae, self._curves):
            metric.step(prediction, mask, normalize=False)
        return ImageMetrics(
            mae=float(self._mae.maes.pop()),
            curves={name: self._handlers[name].dynamic_results.pop() for name in CURVES},
            adaptive=FPoint(*(float(self._handlers[name].adaptive_results.pop()) for name in FPoint._fields)),
            has_both=bool(mask.any() and not mask.all()),
            full=self._measure_full(prediction, mask),
        )

    def _measure_full(self, prediction: NDArray[np.float64], mask: NDArray[np.bool_]) -> FullMetrics | None:
        if self._s is None or self._e is None or self._weighted is None:
            return None
        for metric in (self._s, self._e, self._weighted):
            metric.step(prediction, mask, normalize=False)
        return FullMetrics(
            s=float(self._s.sms.pop()),
            e_curve=np.asarray(self._e.changeable_ems.pop(), np.float64),
            e_adaptive=float(self._e.adaptive_ems.pop()),
            f_weighted=float(self._weighted.weighted_fms.pop()),
        )


def largest_f(f: NDArray[np.float64], precision: NDArray[np.float64], recall: NDArray[np.float64]) -> FPoint:
    """Return the largest F of a curve with the precision and recall at its threshold."""
    best = int(np.argmax(f))
    return FPoint(float(f[best]), float(precision[best]), float(recall[best]))


def f_of(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return F (beta^2 = .3) of precision and recall; 0 where both are 0."""
    weighted = BETA_SQUARED * precision + recall
    found = np.zeros_like(weighted)
    np.divide((1 + BETA_SQUARED) * precision * recall, weighted, out=found, where=weighted > 0)
    return found


def _reference() -> Any:
    try:
        import py_sod_metrics
    except ImportError as error:
        raise BackendUnavailableError(
            "metrics: PySODMetrics is not installed; run: pip install 'salience[evaluate]'"
        ) from error
    return py_sod_metrics


def _s_measure(reference: Any) -> Any:
    """S-measure that survives an object in the last row or column.

    One of the four regions is empty there; its weight is 0, its similarity NaN in the reference.
    """

    class BorderSafe(reference.Smeasure):  # type: ignore[misc]
        def ssim(self, pred: NDArray[np.float64], gt: NDArray[np.bool_]) -> float:
            return float(super().ssim(pred, gt)) if pred.size else 0.0

    return BorderSafe()
