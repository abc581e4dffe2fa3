"""What `salience evaluate` does between its options and its output."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import DataError, ImageError
from ..images import decode_grey, decode_mask
from .metrics import Curves, MetricAccumulator, Scores, mean_scores
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
        groups: scores of each group of images (`Pair.group`), sorted; empty where they were not asked for.
    """

    scores: Scores
    curves: Curves
    images: tuple[ImageResult, ...]
    failures: tuple[Failure, ...]
    normalised: bool
    resized: int
    groups: Mapping[str, Scores] = field(default_factory=dict)

    @property
    def mean_of_groups(self) -> Scores | None:
        """Mean over `groups`, each of equal weight; None where there are none."""
        return mean_scores(self.groups.values()) if self.groups else None


def load_stored_map(pair: Pair) -> NDArray[np.uint8]:
    """The map of a pair whose source is a saliency map, (H, W) uint8. Errors as `decode_grey`."""
    return decode_grey(pair.source)


def evaluate_maps(
    pairs: Sequence[Pair],
    load_map: LoadMap,
    *,
    normalise: bool,
    per_group: bool | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score the map of every pair against its mask, at the mask's size.

    Args:
        pairs: what to score, at least one.
        load_map: gives the map of a pair; ImageError and DataError from it are collected as failures, any
            other error ends the run.
        normalise: stretch every map to the full range first, as PySODMetrics and the field's tools do.
        per_group: also score each group of images; None does so where there is more than one group.
        progress: called after each image.

    Raises:
        DataError: there are no pairs, or not one of them could be scored.
    """
    return compare_maps(
        {"": pairs}, {"": load_map}, normalise=normalise, per_group=per_group, progress=progress
    )[""]  # fmt: skip


def compare_maps(
    pairs: Mapping[str, Sequence[Pair]],
    load_maps: Mapping[str, LoadMap],
    *,
    normalise: bool,
    per_group: bool | None = None,
    progress: Progress | None = None,
) -> dict[str, Evaluation]:
    """Score the maps of several methods on the same images, as `evaluate_maps` does for one.

    An image counts for every method or for none: where the map of one method fails, the image is a failure of all.

    Args:
        pairs: of each method, by its name; the same images and masks in the same order.
        load_maps: gives the maps of each method.
        normalise, per_group, progress: as for `evaluate_maps`.
    """
    count = len(next(iter(pairs.values())))
    if per_group is None:
        per_group = len({pair.group for pair in next(iter(pairs.values()))}) > 1
    tallies = {name: _Tally(normalise, per_group=per_group) for name in pairs}
    failures: list[Failure] = []
    for index, members in enumerate(zip(*pairs.values(), strict=True), start=1):
        chosen = dict(zip(pairs, members, strict=True))
        try:
            _score_image(chosen, load_maps, tallies)
        except (ImageError, DataError) as error:
            failures.append(Failure(members[0].name, str(error)))
        if progress:
            progress(index, count)
    if len(failures) == count:
        reason = f"; the first failed so: {failures[0].reason}" if failures else "."
        raise DataError(f"evaluation: none of {count} maps could be scored, at least one was expected{reason}")
    return {name: tally.evaluation(failures) for name, tally in tallies.items()}


class _Tally:
    """What is known of one method so far."""

    def __init__(self, normalise: bool, *, per_group: bool) -> None:
        self.normalise, self.per_group = normalise, per_group
        self.total = MetricAccumulator(normalise=normalise, keep_curves=False)
        self.groups: dict[str, MetricAccumulator] = {}
        self.scored: list[Pair] = []
        self.resized = 0

    def add(self, pair: Pair, saliency: NDArray[np.uint8], mask: NDArray[np.bool_], *, resized: bool) -> None:
        found = self.total.add(saliency, mask)
        if self.per_group:
            self.groups.setdefault(pair.group, MetricAccumulator(keep_curves=False)).include(found)
        self.scored.append(pair)
        self.resized += resized

    def evaluation(self, failures: Sequence[Failure]) -> Evaluation:
        values = self.total.image_scores()
        return Evaluation(
            scores=self.total.scores(),
            curves=self.total.curves(),
            images=tuple(ImageResult(pair, **value) for pair, value in zip(self.scored, values, strict=True)),
            failures=tuple(failures),
            normalised=self.normalise,
            resized=self.resized,
            groups={name: self.groups[name].scores() for name in sorted(self.groups)},
        )


def _score_image(pairs: Mapping[str, Pair], load_maps: Mapping[str, LoadMap], tallies: Mapping[str, _Tally]) -> None:
    """Add one image to every tally, or to none where a map or the mask cannot be read."""
    mask = decode_mask(next(iter(pairs.values())).mask)
    maps = {name: load_maps[name](pair) for name, pair in pairs.items()}
    fitted = {name: fit_to(saliency, mask.shape) for name, saliency in maps.items()}
    for name, pair in pairs.items():
        tallies[name].add(pair, fitted[name], mask, resized=maps[name].shape != mask.shape)


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
