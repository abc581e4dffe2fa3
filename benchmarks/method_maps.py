"""The maps that methods make of stored pictures, as the benchmarks score them: 8-bit, at the picture's size.

Each function takes pairs of a picture (or a prior) and its mask, and gives for one pair after another its maps by form.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from salience.runtime import ClampedDescentDetector, DataError, Detector, GroupDetector, PromoterDetector
from salience.runtime.detector import Prepared
from salience.runtime.evaluation.metrics import MetricAccumulator, Scores
from salience.runtime.evaluation.pairs import Pair, find_pairs
from salience.runtime.images import decode_grey, decode_mask
from salience.runtime.low_level import PRESETS, low_level, segment
from salience.runtime.splits import Part

Grey: TypeAlias = NDArray[np.uint8]
Forms: TypeAlias = dict[str, Grey]


def pairs_of(
    folder: Path, *, sources: str = "images", splits: Path | None = None, part: Part | None = None
) -> tuple[Pair, ...]:
    """The pictures, or the maps in the folder `sources`, of a set with their masks; all, or `part` of `splits`."""
    pictures, masks = folder / "images", folder / "masks"
    return find_pairs(folder / sources, masks, pictures=pictures, splits=splits, part=part).pairs


def groups_of(pairs: Iterable[Pair]) -> dict[str, list[Pair]]:
    """The pairs of each group, the first folder of their names."""
    return {name: list(members) for name, members in groupby(pairs, key=lambda pair: pair.name.partition("/")[0])}


def single_maps(detector: Detector, pairs: Iterable[Pair]) -> Iterator[Forms]:
    """Every picture by itself; `cgd` with its default preset."""
    for pair in pairs:
        yield {"": detector.predict(pair.source).grey()}


def group_maps(detector: GroupDetector, pairs: Iterable[Pair]) -> Iterator[Forms]:
    """Every picture as a member of its group."""
    for members in groups_of(pairs).values():
        for found in detector.predict_group([pair.source for pair in members]):
            yield {"": found.grey()}


def stored_maps(pairs: Iterable[Pair]) -> Iterator[Forms]:
    """The maps of a folder as they are."""
    for pair in pairs:
        yield {"": decode_grey(pair.source)}


def promoted_maps(
    promoter: PromoterDetector, pairs: Iterable[Pair], *, iterations: Sequence[int] = (1, 10)
) -> Iterator[Forms]:
    """What becomes of a stored prior after each T of `iterations`, by the name `T = ...`; T = 0 is the prior itself."""
    for pair in pairs:
        prior = decode_grey(pair.source)
        if pair.picture is None:
            raise DataError(f"prior {pair.source}: no picture {pair.name} beside it; expected one in images/.")
        prepared = promoter.prepare_pair(pair.picture, prior, empty="keep")
        (maps,) = promoter.refine([prepared], max(iterations), every=True)
        yield {f"T = {t}": promoter.finish(prepared, maps[t - 1]).grey() if t else prior for t in iterations}


def low_level_maps(detector: ClampedDescentDetector, pairs: Iterable[Pair]) -> Iterator[Forms]:
    """The maps that refine those of `cgd`, by themselves."""
    for pair in pairs:
        yield {"": np.rint(low_level_map(detector, detector.prepare(pair.source)) * 255).astype(np.uint8)}


def low_level_map(detector: ClampedDescentDetector, prepared: Prepared) -> NDArray[np.float32]:
    """(H, W) float32 in [0, 1]: the low-level map of one picture, with the paper's parameters."""
    image = np.rint(prepared.tensor[0]).astype(np.uint8).transpose(1, 2, 0)
    refinement = PRESETS["paper"].refinement
    regions = segment(image, refinement.superpixels, compactness=refinement.compactness)
    return detector.finish(prepared, regions.paint(low_level(regions, sigma=refinement.sigma))[None]).values


def score(pairs: Iterable[Pair], maps: Iterable[Forms], *, full: bool = True) -> dict[str, Scores]:
    """The scores of each form, over all pairs."""
    return {name: found.scores() for name, found in accumulate(pairs, maps, full=full).items()}


def accumulate(pairs: Iterable[Pair], maps: Iterable[Forms], *, full: bool = True) -> dict[str, MetricAccumulator]:
    """The metrics of each form, with all pairs counted in."""
    found: dict[str, MetricAccumulator] = {}
    for pair, forms in zip(pairs, maps, strict=True):
        mask = decode_mask(pair.mask)
        for name, values in forms.items():
            found.setdefault(name, MetricAccumulator(full=full)).add(values, mask)
    return found
