"""What people make of a saliency map: grey levels, masks, boxes, cut-outs, overlays."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray
from PIL import Image

from salience.runtime import SalienceError, SaliencyMap
from salience.runtime.components import Box
from salience.runtime.saliency import KINDS

RAMP = np.array([[0.0, 0.1, 0.2], [0.3, 0.4, 1.0]], dtype=np.float32)
MAPS = npst.arrays(
    np.float32, npst.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.floats(0, 1, width=32)
)


def saliency_map(values: NDArray[np.float32], colour: tuple[int, int, int] = (10, 200, 90)) -> SaliencyMap:
    return SaliencyMap(values, np.full((*values.shape, 3), colour, dtype=np.uint8))


def flat(value: float) -> SaliencyMap:
    return saliency_map(np.full((4, 5), value, dtype=np.float32))


def with_rectangles(*rectangles: Box, value: float = 1.0) -> SaliencyMap:
    """A map of 100 x 100: rectangles of one value on 0."""
    values = np.zeros((100, 100), dtype=np.float32)
    for top, left, bottom, right in rectangles:
        values[top:bottom, left:right] = value
    return saliency_map(values)


def test_threshold_is_half_of_the_maximum_and_at_least_point_3() -> None:
    found = saliency_map(RAMP)
    assert found.threshold() == 0.5
    assert found.mask().tolist() == [[False] * 3, [False, False, True]]
    assert flat(0.75).threshold() == 0.375
    assert flat(0.5).threshold() == 0.3


def test_value_equal_to_the_threshold_is_inside() -> None:
    # 0.1 and 0.2 are no binary fractions: the limit is compared in the type of the map.
    assert saliency_map(RAMP).mask(0.2).tolist() == [[False, False, True], [True, True, True]]


@pytest.mark.parametrize(
    ("value", "threshold", "inside"),
    [
        (0, None, False), (0, 0.0, False), (0.5, 0.0, True), (0.5, 0.6, False), (1, None, True), (1, 1.0, True),
        (0.29, None, False), (0.3, None, True), (0.5, None, True),
    ],
)  # fmt: skip
def test_mask_of_a_flat_map(value: float, threshold: float | None, inside: bool) -> None:
    mask = flat(value).mask(threshold)
    assert mask.dtype == np.bool_
    assert (mask == inside).all()


@pytest.mark.parametrize("threshold", [-0.01, 1.01, float("nan"), float("inf")])
def test_bad_threshold_is_named(threshold: float) -> None:
    found = flat(0.5)
    for use in (found.mask, found.box, lambda limit: found.render("mask", threshold=limit)):
        with pytest.raises(SalienceError, match=f"threshold {threshold}: expected a number from 0 to 1"):
            use(threshold)


def test_box_is_tight_and_exclusive() -> None:
    found = with_rectangles((2, 7, 5, 19), value=0.9)
    assert found.box() == (2, 7, 5, 19)
    assert found.box(0.95) is None
    assert flat(1).box() == (0, 0, 4, 5)
    assert flat(0).box() is None


@pytest.mark.parametrize("value", [0.35, 0.6, 1.0])
def test_an_object_of_60_percent_of_the_image_has_a_mask_and_a_box(value: float) -> None:
    found = with_rectangles((10, 5, 90, 80), value=value)
    assert found.mask().sum() == 80 * 75
    assert found.box() == (10, 5, 90, 80)


def test_specks_are_outside_of_the_box() -> None:
    # 5 % of 400 pixels are 20; the mask keeps the speck.
    assert with_rectangles((10, 5, 30, 25), (50, 50, 54, 54)).box() == (10, 5, 30, 25)
    assert with_rectangles((10, 5, 30, 25), (50, 50, 54, 54)).mask()[50, 50]
    assert with_rectangles((10, 5, 30, 25), (50, 50, 54, 55)).box() == (10, 5, 54, 55)
    # A pixel that touches the object at a corner is a part of it.
    assert with_rectangles((10, 5, 30, 25), (30, 25, 31, 26)).box() == (10, 5, 31, 26)


def test_a_weak_map_has_a_box_at_a_threshold_of_ones_own() -> None:
    found = with_rectangles((10, 5, 30, 25), (50, 50, 54, 54), value=0.01)
    assert found.box() is None
    assert found.box(0.005) == (10, 5, 30, 25)


def test_grey_levels_are_rounded() -> None:
    values = np.array([[0, 0.0019, 0.0020, 0.5, 0.998, 0.9981, 1]], dtype=np.float32)
    assert saliency_map(values).grey().tolist() == [[0, 0, 1, 128, 254, 255, 255]]


def test_cutout_has_the_map_as_its_opacity() -> None:
    found = saliency_map(RAMP)
    assert found.cutout().dtype == np.uint8
    np.testing.assert_array_equal(found.cutout()[..., :3], found.image)
    np.testing.assert_array_equal(found.cutout()[..., 3], found.grey())


def test_overlay_leaves_the_background_and_tints_the_object() -> None:
    overlay = saliency_map(RAMP).overlay()
    assert overlay[0, 0].tolist() == [10, 200, 90]
    assert overlay[1, 2].tolist() == [157, 80, 132]


@given(MAPS, st.sampled_from([0, 1, 127, 254, 255]))
def test_every_map_renders_in_range(values: NDArray[np.float32], level: int) -> None:
    found = saliency_map(values, (level, 255 - level, level))
    for kind in KINDS:
        rendered = found.render(kind)
        assert rendered.dtype == np.uint8
        assert rendered.shape[:2] == values.shape
    assert set(np.unique(found.render("mask"))) <= {0, 255}
    # A tinted pixel lies between the picture and the tint, with no wrap-around at 0 or 255.
    tint = np.array([255, 0, 160])
    low, high = np.minimum(found.image, tint), np.maximum(found.image, tint)
    assert ((low <= found.overlay()) & (found.overlay() <= high)).all()
    assert (found.box() is None) == (not found.mask().any()) == bool(values.max() < np.float32(0.3))


def test_unknown_kind_is_named(tmp_path: Path) -> None:
    kind: Any = "contour"
    with pytest.raises(SalienceError, match="kind 'contour' is not known: choose one of map, mask, cutout, overlay"):
        flat(0.5).save(tmp_path / "a.png", kind=kind)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("kind", "mode"), [("map", "L"), ("mask", "L"), ("cutout", "RGBA"), ("overlay", "RGB")])
def test_saved_file_is_what_was_rendered(tmp_path: Path, kind: Any, mode: str) -> None:
    found, path = saliency_map(RAMP), tmp_path / "new" / "folder" / "a.png"
    path.parent.mkdir(parents=True)
    path.write_text("old")
    found.save(path, kind=kind, threshold=None)
    with Image.open(path) as image:
        assert image.mode == mode
        np.testing.assert_array_equal(np.asarray(image), found.render(kind))
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]


def test_file_is_replaced_not_rewritten(tmp_path: Path) -> None:
    # Whoever is killed in between leaves the old file, and whoever reads it meanwhile reads it to its end.
    path = tmp_path / "a.png"
    path.write_text("old")
    with path.open() as reader:
        saliency_map(RAMP).save(path)
        assert reader.read() == "old"
    assert path.read_bytes().startswith(b"\x89PNG")


def test_repr_shows_size_and_mean() -> None:
    assert repr(saliency_map(RAMP)) == "SaliencyMap(2 x 3, mean 0.333)"
