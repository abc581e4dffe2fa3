"""Image and mask pairs from folders, and their splits."""

import hashlib
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from salience.runtime.errors import DataError
from salience.runtime.images import decode, decode_mask, image_size
from salience.runtime.splits import Part, listed_sets, read_part

ItemT = TypeVar("ItemT")


@dataclass(frozen=True)
class Sample:
    """One picture and its masks; several masks mean that the salient object is their union.

    `name` is `<set>/<path below images, without suffix>`.
    """

    name: str
    image: Path
    masks: tuple[Path, ...]

    def load(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Image (H, W, 3) uint8 RGB and mask (H, W) bool of the same size.

        Raises:
            DataError: image and mask differ in size.
        """
        image = decode(self.image)
        mask: NDArray[np.bool_] = np.zeros(image.shape[:2], dtype=np.bool_)
        for path in self.masks:
            part = decode_mask(path)
            if part.shape != mask.shape:
                raise DataError(
                    f"mask {path}: {part.shape[0]} x {part.shape[1]} pixels, its image has "
                    f"{mask.shape[0]} x {mask.shape[1]}; both must have the same size."
                )
            mask |= part
        return image, mask


def check_sizes(samples: Iterable[object]) -> None:
    """Compare the sizes that the headers of images and masks state, before hours of training.

    Raises:
        DataError: masks of other sizes than their images; the message counts and names them.
    """
    wrong = []
    for sample in samples:
        if isinstance(sample, Sample):
            size = image_size(sample.image)
            wrong += [path for path in sample.masks if image_size(path) != size]
    if wrong:
        raise DataError(
            f"masks: {len(wrong)} differ in size from their images ({', '.join(map(str, wrong[:3]))}"
            f"{', ...' if len(wrong) > 3 else ''}); expected the same height and width, after EXIF orientation."
        )


def merge_identical(samples: Iterable[Sample]) -> list[Sample]:
    """One sample for files of the same bytes, its mask the union of theirs, under the first name."""
    merged: dict[str, Sample] = {}
    for sample in samples:
        key = hashlib.sha256(sample.image.read_bytes()).hexdigest()
        first = merged.get(key)
        merged[key] = Sample(first.name, first.image, first.masks + sample.masks) if first else sample
    return list(merged.values())


def split_by_file(samples: Sequence[Sample], splits: Path, part: Part) -> list[Sample]:
    """Return the samples that a split file (`runtime.splits`) puts into `part`; sets that it does not list all train.

    Raises:
        DataError: the file cannot be read, lists none of the sets, or lacks a part or image that is needed.
    """
    sets = {sample.name.split("/")[0] for sample in samples}
    listed = sets & listed_sets(splits) or sets
    wanted = {f"{name}/{stem}" for name in listed for stem in read_part(splits, part, set_name=name)}
    missing = sorted(wanted - {sample.name for sample in samples})
    if missing:
        raise DataError(f"splits {splits}: {len(missing)} images of {part!r} are not there, such as {missing[0]}.")
    free = sets - listed if part == "train" else set()
    return [sample for sample in samples if sample.name in wanted or sample.name.split("/")[0] in free]


def split_by_seed(samples: Sequence[Sample], *, fraction: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Training and validation samples; `fraction` of them, at least one, validate."""
    if len(samples) < 2:
        raise DataError(f"data: {len(samples)} pairs in all, at least 2 are needed to train and validate.")
    shuffled = random.Random(seed).sample(list(samples), len(samples))  # noqa: S311
    count = min(max(1, round(fraction * len(samples))), len(samples) - 1)
    return shuffled[count:], shuffled[:count]


def spread(items: Sequence[ItemT], count: int) -> list[ItemT]:
    """At most `count`, evenly spread, since neighbours in a folder are often alike."""
    step = max(1, len(items) / count)
    return [items[int(index * step)] for index in range(min(count, len(items)))]
