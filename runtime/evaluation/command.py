"""What `salience evaluate` does between its options and its output."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.table import Table

from ..errors import DataError, ImageError
from ..images import decode_grey, decode_mask
from .metrics import Curves, MetricAccumulator, Scores
from .pairs import Pair

LoadMap: TypeAlias = Callable[[Pair], NDArray[np.uint8]]
"""Gives the saliency map of a pair, (H, W) uint8 of any size; may raise ImageError or DataError."""

Progress: TypeAlias = Callable[[int, int], None]
"""Told after each image how many are done, and of how many."""


@dataclass(frozen=True)
class ImageResult:
    """Scores of one image: mean absolute error and the largest F over all thresholds, both in [0, 1]."""

    pair: Pair
    mae: float
    f_max: float


@dataclass(frozen=True)
class Failure:
    """A pair that could not be scored, and the sentence that says why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Evaluation:
    """Scores of a set of maps.

    Attributes:
        scores: averages over `images`.
        curves: averaged curves over `images`.
        images: in the order of the pairs, without those that failed.
        failures: pairs with a broken file; they are in no average, so a caller must tell of them.
        normalised: every map was stretched to the full range before it was scored.
        resized: how many maps had another size than their mask.
    """

    scores: Scores
    curves: Curves
    images: tuple[ImageResult, ...]
    failures: tuple[Failure, ...]
    normalised: bool
    resized: int


def load_stored_map(pair: Pair) -> NDArray[np.uint8]:
    """The map of a pair whose source is a saliency map, (H, W) uint8. Errors as `decode_grey`."""
    return decode_grey(pair.source)


def evaluate_maps(
    pairs: Sequence[Pair], load_map: LoadMap, *, normalise: bool, progress: Progress | None = None
) -> Evaluation:
    """Score the map of every pair against its mask, at the mask's size.

    Args:
        pairs: what to score, at least one.
        load_map: gives the map of a pair; ImageError and DataError from it are collected as failures, any
            other error ends the run.
        normalise: stretch every map to the full range first, as PySODMetrics and the field's tools do.
        progress: called after each image.

    Raises:
        DataError: there are no pairs, or not one of them could be scored.
    """
    accumulator = MetricAccumulator(normalise=normalise)
    scored: list[Pair] = []
    failures: list[Failure] = []
    resized = 0
    for index, pair in enumerate(pairs, start=1):
        try:
            mask, saliency = decode_mask(pair.mask), load_map(pair)
            accumulator.add(fit_to(saliency, mask.shape), mask)
        except (ImageError, DataError) as error:
            failures.append(Failure(pair.name, str(error)))
        else:
            scored.append(pair)
            resized += saliency.shape != mask.shape
        if progress:
            progress(index, len(pairs))
    if not scored:
        reason = f"; the first failed so: {failures[0].reason}" if failures else "."
        raise DataError(f"evaluation: none of {len(pairs)} maps could be scored, at least one was expected{reason}")
    values = accumulator.image_scores()
    return Evaluation(
        scores=accumulator.scores(),
        curves=accumulator.curves(),
        images=tuple(ImageResult(pair, **value) for pair, value in zip(scored, values, strict=True)),
        failures=tuple(failures),
        normalised=normalise,
        resized=resized,
    )


def fit_to(saliency: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Bring a map to another size by (antialiased) bilinear interpolation.

    Args:
        saliency: (H, W) uint8.
        shape: (height, width) that is wanted.

    Raises:
        DataError: `saliency` is of another type or has no two dimensions.
    """
    if saliency.ndim != 2 or saliency.dtype != np.uint8:
        raise DataError(f"saliency map of {saliency.shape} {saliency.dtype}: expected (H, W) uint8, 0 to 255.")
    if saliency.shape == shape:
        return saliency
    height, width = shape
    return np.asarray(Image.fromarray(saliency).resize((width, height), Image.Resampling.BILINEAR))


def score_rows(scores: Scores) -> list[tuple[str, str, str]]:
    """Name, value to 4 digits, and what it measures, of every score that was taken."""
    rows = [
        ("MAE", scores.mae, "mean absolute error, lower is better"),
        ("F max", scores.f_max, "best single threshold for all images"),
        ("F mean", scores.f_mean, "average over all thresholds"),
        ("F adaptive", scores.f_adaptive, "threshold at twice each map's mean"),
        ("F weighted", scores.f_weighted, "errors weighted by place and neighbourhood"),
        ("S", scores.s, "structure, by object and region"),
        ("E max", scores.e_max, "alignment, best single threshold"),
        ("E mean", scores.e_mean, "alignment, average over all thresholds"),
        ("E adaptive", scores.e_adaptive, "alignment, threshold at twice each map's mean"),
        ("AUC", scores.auc, "area under the ROC curve"),
    ]
    return [(name, f"{value:.4f}", meaning) for name, value, meaning in rows if value is not None]


def scores_table(scores: Scores) -> Table:
    """The scores for a terminal; all but MAE are better when higher."""
    table = Table(title=f"Scores of {scores.images} image{'' if scores.images == 1 else 's'}", title_justify="left")
    table.add_column("score")
    table.add_column("value", justify="right")
    table.add_column("what it measures", style="dim")
    for row in score_rows(scores):
        table.add_row(*row)
    return table
