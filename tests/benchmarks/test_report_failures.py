"""Attributes of drawn masks, kinds of failure of constructed maps, and how scores go with either."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.draw import disk

from benchmarks.report_attributes import (
    attributes_of,
    classes_of,
    relation,
    relation_sentences,
    spearman,
    unusual_words,
)
from benchmarks.report_failures import kinds_of
from benchmarks.report_rules import ATTRIBUTES, MISSED, PART, SOFT, TAKEN

Mask = NDArray[np.bool_]
BY_NAME = {attribute.name: attribute for attribute in ATTRIBUTES}


def boxes(*places: tuple[int, int, int, int], shape: tuple[int, int] = (100, 200)) -> Mask:
    """Filled boxes: top, bottom, left, right."""
    mask = np.zeros(shape, dtype=bool)
    for top, bottom, left, right in places:
        mask[top:bottom, left:right] = True
    return mask


def painted(mask: Mask, inside: Any = 255, outside: Any = 0) -> NDArray[np.uint8]:
    return np.where(mask[..., None], np.array(inside), np.array(outside)).astype(np.uint8).repeat(3, -1)[..., :3]


def attribute(name: str, mask: Mask, image: NDArray[np.uint8] | None = None) -> float:
    return attributes_of(painted(mask) if image is None else image, mask)[name]


CENTRED = boxes((40, 60, 80, 120))


@pytest.mark.parametrize(
    ("name", "mask", "expected"),
    [
        ("area", CENTRED, 0.04),
        ("objects", CENTRED, 1),
        ("objects", boxes((40, 60, 80, 120), (10, 20, 10, 20)), 2),
        ("objects", boxes((40, 60, 80, 120), (0, 1, 0, 1)), 1),  # a speck
        ("objects", boxes((40, 60, 80, 120), (60, 70, 120, 130)), 1),  # joined at a corner
        ("border", CENTRED, 0),
        ("border", boxes((0, 60, 80, 120)), 1),
        ("border", boxes((40, 60, 80, 200)), 1),
        ("distance", CENTRED, 0),
        ("distance", boxes((0, 2, 0, 4)), 0.98),
        ("distance", boxes((0, 100, 0, 100)), 50 / np.hypot(50, 100)),
        ("contrast", CENTRED, 100),  # L of white less that of black
        ("clutter", CENTRED, 0),
    ],
)
def test_attributes_of_boxes(name: str, mask: Mask, expected: float) -> None:
    # LAB's white is 100 to three digits.
    assert attribute(name, mask) == pytest.approx(expected, abs=1e-3)


def test_boundaries_grow_ragged() -> None:
    ball = np.zeros((200, 200), dtype=bool)
    ball[disk((100, 100), 60)] = True
    box = boxes((50, 150, 50, 150), shape=(200, 200))
    comb = box & (np.arange(200) % 10 < 5)
    # Crofton's estimate of an outline is within 1 % for a circle, and 6 % short along the axes.
    assert attribute("complexity", ball) == pytest.approx(4 * np.pi, rel=0.02)
    assert attribute("complexity", box) == pytest.approx(16, rel=0.12)
    assert attribute("complexity", comb) > 10 * attribute("complexity", box)


def test_clutter_is_that_of_the_background() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (100, 200, 3), dtype=np.uint8)
    quiet, busy = np.where(CENTRED[..., None], noise, 90), np.where(CENTRED[..., None], 90, noise)
    assert attribute("clutter", CENTRED, quiet.astype(np.uint8)) == pytest.approx(0, abs=1e-6)
    assert attribute("clutter", CENTRED, busy.astype(np.uint8)) > 0.1


def test_equal_colours_have_no_contrast() -> None:
    assert attribute("contrast", CENTRED, painted(CENTRED, 90, 90)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("mask", "undefined"),
    [
        (np.zeros((9, 9), dtype=bool), {"distance", "contrast", "complexity"}),
        (np.ones((9, 9), dtype=bool), {"contrast", "clutter"}),
    ],
)
def test_masks_without_object_or_background_lack_attributes(mask: Mask, undefined: set[str]) -> None:
    found = attributes_of(painted(mask), mask)
    assert {name for name, value in found.items() if np.isnan(value)} == undefined
    assert kinds_of(mask * np.uint8(255), mask, threshold=128) == ()


def grey(values: NDArray[Any]) -> NDArray[np.uint8]:
    return np.rint(values * 255.0).astype(np.uint8)


TWO = boxes((10, 90, 10, 60), (10, 90, 100, 120))


@pytest.mark.parametrize(
    ("saliency", "mask", "kinds"),
    [
        (grey(CENTRED), CENTRED, ()),
        (grey(CENTRED) // 4, CENTRED, ()),  # stretched before it is scored
        (grey(boxes((0, 10, 0, 10))), CENTRED, (MISSED, TAKEN)),
        (grey(boxes((40, 60, 80, 100))), CENTRED, (PART,)),
        (grey(boxes((10, 90, 10, 60))), TWO, (PART,)),  # a fifth of all, but an object of its own
        (grey(boxes((20, 80, 60, 140))), CENTRED, (TAKEN,)),
        (grey(np.where(CENTRED, 1.0, boxes((0, 100, 0, 80)) * 0.4)), CENTRED, (SOFT,)),
        (grey(np.zeros_like(CENTRED)), CENTRED, (MISSED,)),
        (grey(CENTRED), np.zeros_like(CENTRED), (TAKEN,)),
    ],
)
def test_kinds_of_failure(saliency: NDArray[np.uint8], mask: Mask, kinds: tuple[str, ...]) -> None:
    assert kinds_of(saliency, mask, threshold=128) == kinds


def test_the_threshold_counts_as_in_the_curves() -> None:
    half = np.where(CENTRED, 255, 0).astype(np.uint8)
    half[40:60, 80:100] = 100
    assert kinds_of(half, CENTRED, threshold=100) == ()
    assert kinds_of(half, CENTRED, threshold=101) == (PART,)


def test_rank_correlations() -> None:
    rising = np.array([0.1, 0.4, 0.5, 9.0])
    assert spearman(rising, rising**3) == pytest.approx(1)
    assert spearman(rising, -rising) == pytest.approx(-1)
    assert spearman(np.array([1.0, 2, 2, 3]), np.array([0.0, 1, 2, 3])) == pytest.approx(
        0.9486833
    )  # by hand, with a tie
    assert spearman(np.ones(4), rising) is None
    assert spearman(rising[:2], rising[:2]) is None


def test_terciles_hold_every_known_value_once() -> None:
    values = np.array([*range(9), np.nan], dtype=float)
    found = classes_of(BY_NAME["area"], values)
    assert [int(chosen.sum()) for _, chosen in found] == [3, 3, 3]
    assert found[0][0] == "low, to 2.67"
    yes = classes_of(BY_NAME["border"], np.array([0.0, 1, 1]))
    assert [(title, int(chosen.sum())) for title, chosen in yes] == [("no", 1), ("yes", 2)]
    assert classes_of(BY_NAME["contrast"], np.array([np.nan])) == []


def test_what_errors_go_with_is_told_in_words() -> None:
    area = np.linspace(0, 1, 40)
    contrast = np.random.default_rng(0).permutation(area)
    found = [
        relation(BY_NAME["area"], area, mae=area**2, f=1 - area),
        relation(BY_NAME["contrast"], contrast, mae=area**2, f=1 - area),
    ]
    sentences = "MAE rises with object area (+1.00). F falls with object area (-1.00)."
    assert relation_sentences(found) == sentences
    assert [part.pictures for part in found[0].classes] == [14, 13, 13]
    assert found[0].classes[0].mae == pytest.approx(float((area[:14] ** 2).mean()))
    assert relation_sentences(found[1:]).count("goes clearly with none of the attributes.") == 2


def test_unusual_is_beyond_nine_tenths_on_the_hard_side() -> None:
    values = {attribute.name: np.zeros(20) for attribute in ATTRIBUTES}
    values["area"] = values["contrast"] = np.linspace(0, 1, 20)
    values["border"][5] = 1
    values["distance"] = np.full(20, np.nan)
    words = unusual_words(values)
    assert words[0] == words[1] == ["small object", "little colour contrast"]
    assert words[19] == ["large object"]
    assert words[5] == ["touches the border"]
    assert not any(words[2:5] + words[6:18])
