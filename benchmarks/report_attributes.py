"""What makes a picture hard, measured on the picture and its mask; how scores go with it."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel
from scipy.stats import spearmanr
from skimage.color import rgb2gray, rgb2lab
from skimage.filters import sobel
from skimage.measure import label, perimeter_crofton
from skimage.morphology import dilation

from benchmarks.report_rules import ATTRIBUTES, CLEAR_ERRORS, SPECK, UNUSUAL, Attribute
from salience.runtime.images import decode, decode_mask

Values = NDArray[np.float64]


class Class(BaseModel):
    """The pictures of a class: how many, and their mean scores."""

    title: str
    pictures: int
    mae: float | None
    f: float | None


class Relation(BaseModel):
    """How scores go with an attribute; `mae` and `f` are rank correlations, None where they are undefined."""

    attribute: str
    pictures: int
    mae: float | None
    f: float | None
    classes: list[Class]

    def clear(self, correlation: float | None) -> float:
        """The correlation where it is more than chance makes of so many pictures, else 0."""
        if correlation is None or abs(correlation) * (self.pictures - 1) ** 0.5 <= CLEAR_ERRORS:
            return 0.0
        return correlation


@cache
def stored_attributes(picture: Path, mask: Path) -> dict[str, float]:
    """The attributes of a picture in files, measured once in a run."""
    return attributes_of(decode(picture), decode_mask(mask))


def attributes_of(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> dict[str, float]:
    """`ATTRIBUTES` of a picture.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) bool.

    Returns:
        Values by name; NaN for what an empty mask, or one without background, does not have.
    """
    found = dict.fromkeys((attribute.name for attribute in ATTRIBUTES), np.nan)
    found |= {"area": float(mask.mean()), "objects": float(len(object_masks(mask))), "border": float(_at_border(mask))}
    if mask.any():
        found["distance"] = _distance(mask)
        found["complexity"] = float(perimeter_crofton(mask) ** 2 / mask.sum())
    if mask.any() and not mask.all():
        lab = rgb2lab(image)
        found["contrast"] = float(np.linalg.norm(lab[mask].mean(axis=0) - lab[~mask].mean(axis=0)))
    # The gradient at the outline is the object's, one pixel to either side.
    if (outside := ~dilation(mask, np.ones((3, 3)))).any():
        found["clutter"] = float(sobel(rgb2gray(image))[outside].mean())
    return found


def object_masks(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """The connected pieces of a mask (8 neighbours) that are not specks, each (H, W) bool."""
    labels = label(mask, connectivity=2)
    sizes = np.bincount(labels.ravel())[1:]
    return [labels == index + 1 for index, size in enumerate(sizes) if size >= SPECK * mask.sum()]


def _at_border(mask: NDArray[np.bool_]) -> bool:
    return bool(mask[[0, -1]].any() or mask[:, [0, -1]].any())


def _distance(mask: NDArray[np.bool_]) -> float:
    """Of the mask's centre from the picture's, 1 at a corner."""
    half = np.array(mask.shape) / 2
    centre = np.argwhere(mask).mean(axis=0) + 0.5
    return float(np.linalg.norm(centre - half) / np.linalg.norm(half))


def relation(attribute: Attribute, values: Values, *, mae: Values, f: Values) -> Relation:
    """How the scores (N,) go with the values (N,) of an attribute."""
    known = ~np.isnan(values)
    return Relation(
        attribute=attribute.name,
        pictures=int(known.sum()),
        mae=spearman(values[known], mae[known]),
        f=spearman(values[known], f[known]),
        classes=[
            Class(title=title, pictures=int(chosen.sum()), mae=_mean(mae[chosen]), f=_mean(f[chosen]))
            for title, chosen in classes_of(attribute, values)
        ],
    )


def classes_of(attribute: Attribute, values: Values) -> list[tuple[str, NDArray[np.bool_]]]:
    """The classes of an attribute: title, and which of the values (N,) are of it; NaN is of none."""
    if attribute.classes == "yes or no":
        return [("no", values == 0), ("yes", values == 1)]
    if attribute.classes == "one or more":
        return [("one", values <= 1), ("two or more", values > 1)]
    if np.isnan(values).all():
        return []
    low, high = np.nanquantile(values, [1 / 3, 2 / 3])
    middle = (values > low) & (values <= high)
    return [
        (f"low, to {low:.3g}", values <= low),
        ("middle", middle),
        (f"high, above {high:.3g}", values > high),
    ]


def spearman(first: Values, second: Values) -> float | None:
    """Spearman's rank correlation of (N,) and (N,); None of fewer than 3 values, or where one is constant."""
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(spearmanr(first, second).statistic)


def unusual_words(values: dict[str, Values]) -> list[list[str]]:
    """What is unusual of each picture; `values` (N,) by the attribute's name."""
    words: list[list[str]] = [[] for _ in next(iter(values.values()))]
    for attribute in ATTRIBUTES:
        found = values[attribute.name]
        if np.isnan(found).all():
            continue
        low, high = np.nanquantile(found, [1 - UNUSUAL, UNUSUAL])
        for word, chosen in ((attribute.low, found < low), (attribute.high, found > high)):
            for index in np.flatnonzero(chosen) if word else ():
                words[index].append(word)
    return words


def relation_sentences(relations: Sequence[Relation]) -> str:
    """What MAE and F clearly go with, in words."""
    scores = {
        "MAE": [found.clear(found.mae) for found in relations],
        "F": [found.clear(found.f) for found in relations],
    }
    return " ".join(_sentence(name, relations, found) for name, found in scores.items())


def _sentence(score: str, relations: Sequence[Relation], correlations: Sequence[float]) -> str:
    titles = {attribute.name: attribute.title for attribute in ATTRIBUTES}
    ordered = sorted(zip(correlations, (titles[found.attribute] for found in relations), strict=True), reverse=True)
    rising = [f"{title} ({value:+.2f})" for value, title in ordered if value > 0]
    falling = [f"{title} ({value:+.2f})" for value, title in reversed(ordered) if value < 0]
    parts = [f"{verb} with {', '.join(found)}" for verb, found in (("rises", rising), ("falls", falling)) if found]
    return f"{score} {' and '.join(parts) or 'goes clearly with none of the attributes'}."


def _mean(values: Values) -> float | None:
    return float(values.mean()) if len(values) else None
