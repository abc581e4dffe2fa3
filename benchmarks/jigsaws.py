"""Jigsaws of two images of different classes, with ground truth for one of them, from pairs of image and mask."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.method_maps import Grey, groups_of, pairs_of
from salience.runtime import DataError
from salience.runtime.evaluation.pairs import Pair
from salience.runtime.images import decode, decode_mask
from salience.runtime.splits import Part

GROUPS = "coseg"
# Further classes of distractors; the objects of `MIXED` have no class on record, so each of its images is a class.
OTHERS = ("horses", "ecssd")
MIXED = "ecssd"
LEAST_CLASSES = 5

Classes = dict[str, list[Pair]]


@dataclass(frozen=True)
class Pairing:
    """Two images that make a jigsaw.

    Attributes:
        pair: image of the group.
        partner: image of another class, the distractor.
        label: class of the partner.
        above: one half is above the other; else they are side by side.
        first: the group's image is the left or the upper half.
    """

    pair: Pair
    partner: Pair
    label: str
    above: bool
    first: bool


@dataclass(frozen=True)
class Jigsaw:
    """Two images as one.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        truth: (H, W) bool, the object of the group.
        other_half: (H, W) bool, the pixels of the distractor's image.
        other_object: (H, W) bool, the object of the distractor.
    """

    image: Grey
    truth: NDArray[np.bool_]
    other_half: NDArray[np.bool_]
    other_object: NDArray[np.bool_]


def read_classes(data: Path, *, part: Part, exclude: Collection[str] = ()) -> tuple[Classes, Classes]:
    """Read one part of coseg, by group, and the sets that add distractors, by set.

    Args:
        data: folder of splits.json and the sets.
        part: of the split file.
        exclude: names `<set>/<image>` that are no distractors.
    """
    splits = data / "splits.json"
    groups = groups_of(pairs_of(data / GROUPS, splits=splits, part=part))
    others = {
        name: [pair for pair in pairs_of(data / name, splits=splits, part=part) if f"{name}/{pair.name}" not in exclude]
        for name in OTHERS
    }
    return groups, others


def pair_up(
    groups: Mapping[str, Sequence[Pair]], others: Mapping[str, Sequence[Pair]], *, seed: int
) -> dict[str, list[Pairing]]:
    """Give every image of each group a partner with an object; the other classes take turns.

    Args:
        groups: pairs by group; the other groups are classes of distractors too.
        others: pairs of further classes.
        seed: of partners and places; the pairings of a group depend on it and on the order of the groups.

    Raises:
        DataError: a group gets partners of fewer than five classes, or of fewer than it has images.
    """
    classes = {name: _with_object(members) for name, members in {**groups, **others}.items()}
    found = {}
    for number, (group, members) in enumerate(groups.items()):
        partners = {name: pairs for name, pairs in classes.items() if name != group and pairs}
        found[group] = _pair_group(members, partners, np.random.default_rng([seed, number]))
        count, expected = len(labels_of(found[group])), min(LEAST_CLASSES, len(members))
        if count < expected:
            raise DataError(
                f"group {group}: distractors of {count} other classes, expected {expected} or more; "
                "add groups or sets to the part."
            )
    return found


def compose(pairing: Pairing) -> Jigsaw:
    """Join two images; the partner gets the size of the group's image, (h, w), so both halves are equal."""
    image, truth = decode(pairing.pair.source), decode_mask(pairing.pair.mask)
    other = _resized(decode(pairing.partner.source), truth.shape, Image.Resampling.BILINEAR)
    other_truth = _resized(decode_mask(pairing.partner.mask), truth.shape, Image.Resampling.NEAREST) > 0
    empty, full = np.zeros_like(truth), np.ones_like(truth)
    axis, step = (0 if pairing.above else 1), (1 if pairing.first else -1)

    def join(own: NDArray[np.generic], partner: NDArray[np.generic]) -> NDArray[np.generic]:
        return np.concatenate([own, partner][::step], axis=axis)

    return Jigsaw(
        np.asarray(join(image, other), np.uint8),
        np.asarray(join(truth, empty), np.bool_),
        np.asarray(join(empty, full), np.bool_),
        np.asarray(join(empty, other_truth), np.bool_),
    )


def labels_of(pairings: Sequence[Pairing]) -> dict[str, int]:
    """Count the pairings by class of the partner."""
    return dict(sorted(Counter(pairing.label for pairing in pairings).items()))


def _pair_group(
    members: Sequence[Pair], partners: Mapping[str, Sequence[Pair]], random: np.random.Generator
) -> list[Pairing]:
    """One pairing for each member, in their order; a class repeats an image only after all of its images."""
    if not partners:
        raise DataError("jigsaws: no other class has an image with an object; add groups or sets to the part.")
    queues = {
        name: cycle([pairs[index] for index in random.permutation(len(pairs))]) for name, pairs in partners.items()
    }
    names = cycle(partners)
    found: dict[int, Pairing] = {}
    for index in random.permutation(len(members)).tolist():
        name = next(names)
        partner = next(queues[name])
        label = f"{name}/{partner.name}" if name == MIXED else name
        above, first = (bool(value) for value in random.integers(2, size=2))
        found[index] = Pairing(members[index], partner, label, above, first)
    return [found[index] for index in range(len(members))]


def _with_object(pairs: Sequence[Pair]) -> list[Pair]:
    return [pair for pair in pairs if decode_mask(pair.mask).any()]


def _resized(values: NDArray[np.generic], size: tuple[int, ...], resampling: Image.Resampling) -> Grey:
    """Values (H, W) bool or (H, W, 3) uint8 at another (height, width), uint8; True becomes 255."""
    plain = values.astype(np.uint8) * np.uint8(255) if values.dtype == np.bool_ else values
    return np.asarray(Image.fromarray(plain).resize((size[1], size[0]), resampling))
