"""Averages of the field's metrics over images; PySODMetrics computes those of each image."""

from collections.abc import Collection, Iterable

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from ..errors import DataError
from .image_metrics import CURVES, FPoint, ImageMetrics, ImageScorer, f_of, largest_f


class Scores(BaseModel):
    """Averages over images, in [0, 1]; lower is better for `mae` only.

    Papers mean four different numbers by "F" (beta^2 = .3); each has the precision and recall that belong to it:

    - `f_max`: maximum of the image-averaged F curve, the field's max F; precision and recall are the averages
      at its threshold.
    - `f_max_of_mean_pr`: maximum F of the image-averaged precision-recall curve.
    - `f_mean_of_max`: mean of each image's own maximum F; precision and recall are the means at these thresholds.
    - `f_adaptive`: mean F at twice each map's mean.

    `f_mean` is the mean of the image-averaged F curve. E divides by the number of pixels minus one, as published,
    so a perfect map scores a trace above 1. `auc` is the area under the ROC curve averaged over the images whose
    mask has foreground and background, and None where there is no such image. Other fields are None where only the
    basic metrics were asked for, or in files of earlier versions.
    """

    model_config = ConfigDict(frozen=True)

    images: int
    mae: float
    f_max: float
    f_max_precision: float | None = None
    f_max_recall: float | None = None
    f_max_of_mean_pr: float | None = None
    f_max_of_mean_pr_precision: float | None = None
    f_max_of_mean_pr_recall: float | None = None
    f_mean_of_max: float | None = None
    f_mean_of_max_precision: float | None = None
    f_mean_of_max_recall: float | None = None
    f_mean: float
    f_adaptive: float
    f_adaptive_precision: float | None = None
    f_adaptive_recall: float | None = None
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

    @property
    def f_of_mean_pr(self) -> list[float]:
        """F of the averaged precision and recall, over the same thresholds."""
        return [float(value) for value in f_of(np.array(self.precision), np.array(self.recall))]


class MetricAccumulator:
    """Takes one map and mask after another, then gives `scores` and `curves`.

    Curves are summed, not kept: the memory grows by a few numbers per image.

    Args:
        full: also S, E, weighted F and AUC, which take about ten times as long.
        normalise: stretch every map to [0, 1] first, as PySODMetrics and the field's tools do.
        keep_curves: keep the F curve of each image (2 KB) for `image_curves`.
    """

    def __init__(self, *, full: bool = True, normalise: bool = True, keep_curves: bool = True) -> None:
        self._scorer = ImageScorer(full=full)
        self._full, self._normalise, self._keep_curves = full, normalise, keep_curves
        self._sums = {name: np.zeros(256) for name in CURVES}
        self._rates = {name: np.zeros(256) for name in ("fpr", "recall")}
        self._rated = 0
        self._f_curves: list[NDArray[np.float64]] = []
        self._maes: list[float] = []
        self._best: list[FPoint] = []
        self._adaptive: list[FPoint] = []
        self._alignment = np.zeros(256)
        self._structures: list[float] = []
        self._singles: list[tuple[float, float]] = []

    def add(self, saliency: NDArray[np.uint8], mask: NDArray[np.bool_]) -> ImageMetrics:
        """Count one image in.

        Args:
            saliency: (H, W) uint8, 0 to 255.
            mask: (H, W) bool.

        Returns:
            The metrics of this image, which `include` of other accumulators takes.

        Raises:
            DataError: the sizes differ, or there are fewer than two pixels (E is undefined for one).
        """
        if saliency.shape != mask.shape:
            raise DataError(
                f"saliency map of shape {saliency.shape}: its mask has {mask.shape}; bring it to the mask's size."
            )
        if mask.size < 2:
            raise DataError(f"saliency map of shape {saliency.shape}: expected at least 2 pixels.")
        found = self._scorer.measure(stretch(saliency) if self._normalise else saliency / 255, mask)
        self.include(found)
        return found

    def include(self, found: ImageMetrics) -> None:
        """Count in an image that another accumulator has measured.

        Raises:
            DataError: this accumulator takes the full set of metrics, and `found` has the basic ones.
        """
        if self._full:
            self._include_full(found)
        for name, total in self._sums.items():
            total += found.curves[name]
        if found.has_both:
            self._rated += 1
            for name, total in self._rates.items():
                total += found.curves[name]
        self._maes.append(found.mae)
        self._best.append(found.best)
        self._adaptive.append(found.adaptive)
        if self._keep_curves:
            self._f_curves.append(found.curves["f"])

    def image_scores(self) -> list[dict[str, float]]:
        """MAE and largest F of each image, in the order of `add`."""
        return [{"mae": mae, "f_max": best.f} for best, mae in zip(self._best, self._maes, strict=True)]

    def image_curves(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """F over the thresholds (N, 256) and MAE (N,) of each image, in the order of `add`.

        Raises:
            DataError: the accumulator keeps no curves.
        """
        if not self._keep_curves:
            raise DataError("evaluation: the F curves of the images were not kept; expected `keep_curves=True`.")
        return np.array(self._f_curves), np.array(self._maes)

    def image_structures(self) -> NDArray[np.float64]:
        """S of each image (N,), in the order of `add`.

        Raises:
            DataError: the accumulator takes the basic scores only.
        """
        if not self._full:
            raise DataError("evaluation: S of each image needs the full set of metrics; expected `full=True`.")
        return np.array(self._structures)

    def curves(self) -> Curves:
        """The averaged curves so far."""
        found = self._means()
        return Curves(
            precision=found["precision"].tolist(),
            recall=found["recall"].tolist(),
            f=found["f"].tolist(),
            false_positive_rate=found["fpr"].tolist(),
        )

    def scores(self) -> Scores:
        """The averages so far."""
        means = self._means()
        f, precision, recall = (means[name] for name in FPoint._fields)
        found = {"images": len(self._maes), "mae": float(np.mean(self._maes)), "f_mean": float(f.mean())}
        conventions = {
            "f_max": largest_f(f, precision, recall),
            "f_max_of_mean_pr": largest_f(f_of(precision, recall), precision, recall),
            "f_mean_of_max": _mean_point(self._best),
            "f_adaptive": _mean_point(self._adaptive),
        }
        for name, point in conventions.items():
            found |= {name: point.f, f"{name}_precision": point.precision, f"{name}_recall": point.recall}
        return Scores.model_validate(found | (self._full_scores() if self._full else {}))

    def _include_full(self, found: ImageMetrics) -> None:
        if found.full is None:
            raise DataError("evaluation: an image has the basic metrics only; expected the full set.")
        self._alignment += found.full.e_curve
        self._structures.append(found.full.s)
        self._singles.append((found.full.e_adaptive, found.full.f_weighted))

    def _full_scores(self) -> dict[str, float | None]:
        alignment = self._alignment / len(self._maes)
        e_adaptive, f_weighted = np.mean(self._singles, axis=0)
        return {
            "s": float(np.mean(self._structures)),
            "e_max": float(alignment.max()),
            "e_mean": float(alignment.mean()),
            "e_adaptive": float(e_adaptive),
            "f_weighted": float(f_weighted),
            "auc": self._auc(),
        }

    def _auc(self) -> float | None:
        """Trapezoids from (0, 0), where nothing is salient; a rate needs foreground and background."""
        if not self._rated:
            return None
        false, true = (np.concatenate([[0.0], self._rates[name] / self._rated]) for name in ("fpr", "recall"))
        return float(np.sum(np.diff(false) * (true[1:] + true[:-1]) / 2))

    def _means(self) -> dict[str, NDArray[np.float64]]:
        if not self._maes:
            raise DataError("evaluation: no image was scored; expected at least one map with a mask.")
        return {name: total / len(self._maes) for name, total in self._sums.items()}


def average(images: Iterable[ImageMetrics], *, full: bool = True) -> Scores:
    """Return the averages over images that were measured before.

    Raises:
        DataError: there are none, or `full` is asked for and they have the basic metrics only.
    """
    total = MetricAccumulator(full=full, keep_curves=False)
    for image in images:
        total.include(image)
    return total.scores()


def mean_scores(scores: Collection[Scores]) -> Scores:
    """Return the mean of each score over sets of images, each set of equal weight; `images` is their sum.

    A score is None where a set has none.
    """
    found: dict[str, float | None] = {"images": sum(score.images for score in scores)}
    for name in Scores.model_fields.keys() - {"images"}:
        values = [getattr(score, name) for score in scores]
        found[name] = None if None in values else float(np.mean(values))
    return Scores.model_validate(found)


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


def _mean_point(points: list[FPoint]) -> FPoint:
    return FPoint(*(float(value) for value in np.mean(points, axis=0)))
