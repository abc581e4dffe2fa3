"""The field's metrics, computed by PySODMetrics (`py_sod_metrics`), the reference implementation."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from ..errors import BackendUnavailableError, DataError

BETA_SQUARED = 0.3


class Scores(BaseModel):
    """Averages over images, in [0, 1]; lower is better for `mae` only.

    `f_max` and `f_mean` are taken from the image-averaged F curve (beta^2 = .3), `f_adaptive` at twice
    each map's mean. E divides by the number of pixels minus one, as published, so a perfect map scores a
    trace above 1. `auc` is the area under the ROC curve averaged over the images whose mask has foreground
    and background, and None where there is no such image. The fields that need the full set of metrics are
    None where only the basic were asked for.
    """

    model_config = ConfigDict(frozen=True)

    images: int
    mae: float
    f_max: float
    f_mean: float
    f_adaptive: float
    s: float | None = None
    e_max: float | None = None
    e_mean: float | None = None
    e_adaptive: float | None = None
    f_weighted: float | None = None
    auc: float | None = None


class Curves(BaseModel):
    """Image-averaged curves over the thresholds 255, 254, ..., 0: 256 values each."""

    model_config = ConfigDict(frozen=True)

    precision: list[float]
    recall: list[float]
    f: list[float]
    false_positive_rate: list[float]


class MetricAccumulator:
    """Takes one map and mask after another, then gives `scores` and `curves`.

    Args:
        full: also S, E, weighted F and AUC, which take about ten times as long.
        normalise: stretch every map to [0, 1] first, as PySODMetrics and the field's tools do.
    """

    def __init__(self, *, full: bool = True, normalise: bool = True) -> None:
        reference = _reference()
        self._normalise = normalise
        self._mae = reference.MAE()
        self._handlers = {
            "f": reference.FmeasureHandler(with_dynamic=True, with_adaptive=True, beta=BETA_SQUARED),
            "precision": reference.PrecisionHandler(with_dynamic=True, with_adaptive=False),
            "recall": reference.RecallHandler(with_dynamic=True, with_adaptive=False),
            "fpr": reference.FPRHandler(with_dynamic=True, with_adaptive=False),
        }
        self._curves = reference.FmeasureV2(self._handlers)
        self._s = _s_measure(reference) if full else None
        self._e = reference.Emeasure() if full else None
        self._weighted = reference.WeightedFmeasure() if full else None
        self._has_both: list[bool] = []

    def add(self, saliency: NDArray[np.uint8], mask: NDArray[np.bool_]) -> None:
        """Count one image in.

        Args:
            saliency: (H, W) uint8, 0 to 255.
            mask: (H, W) bool.

        Raises:
            DataError: the sizes differ, or there are fewer than two pixels (E is undefined for one).
        """
        if saliency.shape != mask.shape:
            raise DataError(
                f"saliency map of shape {saliency.shape}: its mask has {mask.shape}; bring it to the mask's size."
            )
        if mask.size < 2:
            raise DataError(f"saliency map of shape {saliency.shape}: expected at least 2 pixels.")
        prediction = stretch(saliency) if self._normalise else saliency / 255
        for metric in (self._mae, self._curves, self._s, self._e, self._weighted):
            if metric is not None:
                metric.step(prediction, mask, normalize=False)
        self._has_both.append(bool(mask.any() and not mask.all()))

    def image_scores(self) -> list[dict[str, float]]:
        """MAE and largest F of each image, in the order of `add`."""
        curves, errors = self.image_curves()
        return [{"mae": float(mae), "f_max": float(curve.max())} for curve, mae in zip(curves, errors, strict=True)]

    def image_curves(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """F over the thresholds (N, 256) and MAE (N,) of each image, in the order of `add`."""
        return np.array(self._handlers["f"].dynamic_results), np.array(self._mae.maes)

    def image_structures(self) -> NDArray[np.float64]:
        """S of each image (N,), in the order of `add`.

        Raises:
            DataError: the accumulator takes the basic scores only.
        """
        if self._s is None:
            raise DataError("evaluation: S of each image needs the full set of metrics; expected `full=True`.")
        return np.array(self._s.sms)

    def curves(self) -> Curves:
        """The averaged curves so far."""
        found = self._results()
        return Curves(
            precision=found["precision"]["dynamic"].tolist(),
            recall=found["recall"]["dynamic"].tolist(),
            f=found["f"]["dynamic"].tolist(),
            false_positive_rate=found["fpr"]["dynamic"].tolist(),
        )

    def scores(self) -> Scores:
        """The averages so far."""
        found = self._results()
        basic = {
            "images": len(self._has_both),
            "mae": float(self._mae.get_results()["mae"]),
            "f_max": float(found["f"]["dynamic"].max()),
            "f_mean": float(found["f"]["dynamic"].mean()),
            "f_adaptive": float(found["f"]["adaptive"]),
        }
        if self._s is None or self._e is None or self._weighted is None:
            return Scores.model_validate(basic)
        alignment = self._e.get_results()["em"]
        return Scores.model_validate(
            basic
            | {
                "s": float(self._s.get_results()["sm"]),
                "e_max": float(alignment["curve"].max()),
                "e_mean": float(alignment["curve"].mean()),
                "e_adaptive": float(alignment["adp"]),
                "f_weighted": float(self._weighted.get_results()["wfm"]),
                "auc": self._auc(),
            }
        )

    def _auc(self) -> float | None:
        """Trapezoids from (0, 0), where nothing is salient; a rate needs foreground and background."""
        if not any(self._has_both):
            return None
        rates = [np.array(self._handlers[name].dynamic_results)[self._has_both] for name in ("fpr", "recall")]
        false, true = (np.concatenate([[0.0], rate.mean(axis=0)]) for rate in rates)
        return float(np.sum(np.diff(false) * (true[1:] + true[:-1]) / 2))

    def _results(self) -> Any:
        if not self._has_both:
            raise DataError("evaluation: no image was scored; expected at least one map with a mask.")
        return self._curves.get_results()


def stretch(saliency: NDArray[np.uint8]) -> NDArray[np.float64]:
    """A map stretched to all of [0, 1], as the field's tools score it; a flat map keeps its level.

    Args:
        saliency: (H, W) uint8.

    Returns:
        (H, W) float64.
    """
    values = saliency / 255
    low, high = values.min(), values.max()
    return values if low == high else (values - low) / (high - low)


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
