"""From the change of a picture to its map: the formulas, what each parameter does, and pictures that have little."""

import sys
from dataclasses import fields, replace
from itertools import product
from math import dist, exp
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from salience.runtime import SalienceError
from salience.runtime.errors import BackendUnavailableError
from salience.runtime.low_level import (
    PRESETS,
    Descent,
    Preset,
    PresetName,
    Refinement,
    Superpixels,
    low_level,
    raw_map,
    refine_map,
    saliency_map,
    segment,
    similarities,
    spread,
    unit,
    weights,
)

Pixels = NDArray[np.uint8]
Planes = NDArray[np.float32]

# Sums of a few dozen float64 in another order.
ROUNDING = 1e-9
# The map is float32 where the formula is float64.
SINGLE = 1e-6
# Every step that may be left out is, so that what is tested stands alone.
PLAIN = Refinement(theta=0, smooth=False, refine=False, gain=1, prune=0)

COLOURS = npst.arrays(np.float64, st.tuples(st.integers(1, 9), st.just(3)), elements=st.floats(-100, 100))
DIFFERENCES = npst.arrays(
    np.float32, st.tuples(st.just(3), st.integers(1, 6), st.integers(1, 6)), elements=st.floats(0, 200, width=32)
)


def picture(height: int = 60, width: int = 80) -> Pixels:
    """A red object on blue ground, with a little texture."""
    image = np.full((height, width, 3), (30, 60, 170), dtype=np.uint8)
    image[object_of(image)] = (220, 40, 30)
    return image + np.random.default_rng(0).integers(0, 12, image.shape, dtype=np.uint8)


def object_of(image: NDArray[Any]) -> NDArray[np.bool_]:
    """Where `picture` has its object, (h, w)."""
    height, width = image.shape[:2]
    inside = np.zeros((height, width), dtype=np.bool_)
    inside[height // 4 : height // 2, width // 4 : width // 2] = True
    return inside


def planes(image: Pixels) -> Planes:
    return image.transpose(2, 0, 1).astype(np.float32)


def descended(image: Pixels) -> Planes:
    """The picture with a speckled part of its object taken away, and a trace of the rest."""
    noise = np.random.default_rng(1).random(image.shape[:2], dtype=np.float32)
    taken = np.where(object_of(image) & (noise > 0.5), 20, 1) * noise
    return planes(image) - taken.astype(np.float32)


def floats(values: list[Any]) -> Planes:
    return np.array(values, dtype=np.float32)


def superpixels(colours: NDArray[np.float64]) -> Superpixels:
    """One pixel each, in a row that zigzags."""
    count = len(colours)
    positions = np.stack([np.arange(count) % 3, np.arange(count)], axis=1).astype(np.float64)
    return Superpixels(np.arange(count)[None], colours, positions)


def loop_unit(values: list[float]) -> list[float]:
    span = max(values) - min(values)
    return [(value - min(values)) / span if span > 1e-6 else 0.0 for value in values]


def loop_low_level(regions: Superpixels, sigma: float) -> tuple[list[float], list[float]]:
    """Contrast and spread of every superpixel as the formulas say it, one number at a time."""
    colours, places = regions.colours.tolist(), regions.positions.tolist()
    every = range(len(colours))
    contrast = [sum(dist(colours[i], colours[j]) for j in every) for i in every]
    smoothed, spreads = [], []
    for i in every:
        row = [exp(-(dist(colours[i], colours[j]) ** 2) / (2 * sigma**2)) for j in every]
        row = [weight / sum(row) for weight in row]
        smoothed.append(sum(row[j] * contrast[j] for j in every))
        centre = [sum(row[j] * places[j][axis] for j in every) for axis in range(2)]
        spreads.append(sum(row[j] * dist(places[j], centre) ** 2 for j in every))
    return smoothed, spreads


@given(COLOURS, st.floats(1, 60))
def test_low_level_map_is_the_formula(colours: NDArray[np.float64], sigma: float) -> None:
    regions = superpixels(colours)
    contrast, spreads = loop_low_level(regions, sigma)
    # Where all are alike but for rounding, stretching is undefined, and the two need not agree on it.
    if any(1e-9 < np.ptp(values) < 1e-3 for values in (contrast, spreads)):
        return
    expected = [c * exp(-3 * v) for c, v in zip(loop_unit(contrast), loop_unit(spreads), strict=True)]
    # A span of 1e-3 in contrasts of up to 1e3 leaves 9 digits.
    np.testing.assert_allclose(low_level(regions, sigma=sigma), expected, atol=1e-6)


@given(COLOURS, st.floats(1, 60))
def test_similarity_rows_sum_to_one_and_prefer_the_own_colour(colours: NDArray[np.float64], sigma: float) -> None:
    distances = np.linalg.norm(colours[:, None] - colours[None], axis=2)
    found = similarities(distances, sigma=sigma)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=ROUNDING)
    assert (np.diag(found)[:, None] >= found).all()


def test_spread_of_one_place_is_none_and_grows_with_distance() -> None:
    similarity = np.full((2, 2), 0.5)
    near, far = (spread(np.array([[0.0, 0.0], [0.0, length]]), similarity) for length in (2, 6))
    # Half of the weight at either end, each half of the length from the centre.
    assert near.tolist() == [1, 1]
    assert far.tolist() == [9, 9]
    assert spread(np.zeros((2, 2)), similarity).tolist() == [0, 0]


def test_rare_compact_colour_stands_out() -> None:
    colours = np.array([[50.0, 0, 0]] * 8 + [[50.0, 60, 40]])
    found = low_level(superpixels(colours), sigma=20)
    assert found.argmax() == 8
    assert found.max() <= 1


@given(npst.arrays(np.float64, st.integers(1, 9), elements=st.floats(0, 1)), st.floats(0, 1))
def test_weights_run_from_alpha_to_one_more(low: NDArray[np.float64], alpha: float) -> None:
    found = weights(low, alpha=alpha)
    if np.ptp(low) > 1e-3:
        assert (found.min(), found.max()) == pytest.approx((alpha, 1 + alpha))
        assert (np.diff(found[np.argsort(low)]) >= 0).all()
    if np.ptp(low) == 0:
        assert (found == 1 + alpha).all()


def test_unit_stretches_and_leaves_rounding_alone() -> None:
    assert unit(np.array([2.0, 3.0, 6.0])).tolist() == [0, 0.25, 1]
    assert unit(np.array([5.0, 5.0 + 1e-13])).tolist() == [0, 0]


@given(DIFFERENCES)
def test_raw_map_is_the_mean_over_colours_of_unit_norm(difference: Planes) -> None:
    _, height, width = difference.shape
    start = np.full_like(difference, 200)
    found = raw_map(start, start - difference, refinement=PLAIN)
    # Formed after the subtraction: 200 - 1e-20 is 200 in float32.
    left = (start.astype(np.float64) - (start - difference)).tolist()
    sums = {(y, x): sum(left[c][y][x] for c in range(3)) / 3 for y, x in product(range(height), range(width))}
    norm = sum(value**2 for value in sums.values()) ** 0.5
    for place, value in sums.items():
        assert found[place] == pytest.approx(value / norm if norm else 0, abs=SINGLE)


@given(DIFFERENCES, st.floats(0.125, 8, width=16), st.floats(0, 2))
def test_theta_means_the_same_for_any_length_of_step(difference: Planes, length: float, theta: float) -> None:
    refinement = replace(PLAIN, theta=theta)
    short, long = (
        raw_map(np.zeros_like(end), -end, refinement=refinement)
        for end in (difference, difference * np.float32(length))
    )
    # Rounding of the mean decides about a map that theta empties but for a trace.
    if np.linalg.norm(difference.mean(axis=0) - theta * difference.mean()) > 1e-3:
        np.testing.assert_allclose(short, long, atol=1e-3)


def test_theta_lowers_or_cuts() -> None:
    end = -np.broadcast_to(floats([0, 1, 2, 5]), (3, 1, 4))
    start = np.zeros_like(end)
    lowered, cut = (raw_map(start, end, refinement=replace(PLAIN, theta=1, cut=cut))[0] for cut in (False, True))
    np.testing.assert_allclose(lowered, [0, 0, 0, 1])
    np.testing.assert_allclose(cut, np.array([0, 0, 2, 5]) / 29**0.5, rtol=SINGLE)


def test_otsu_separates_strong_from_weak() -> None:
    pytest.importorskip("skimage")
    change = np.broadcast_to(floats([1] * 8 + [2] + [9, 10, 11]), (3, 1, 12))
    found = raw_map(change, 0 * change, refinement=replace(PLAIN, theta=1.3, theta_unit="otsu", cut=True))
    assert (found > 0).tolist() == [[False] * 9 + [True] * 3]


def test_the_released_cut_is_a_share_of_the_maximum() -> None:
    """The channels peak at different pixels: the map's maximum is 1 / 3 and its Otsu threshold .15."""
    pytest.importorskip("skimage")
    change = np.zeros((3, 3, 3), np.float32)
    change[:, 1, 2], change[(0, 1, 2), 2, (0, 1, 2)] = 15, 100
    found = raw_map(change, 0 * change, refinement=of("released"))
    np.testing.assert_allclose(found[2] / found[1, 2], 100 / 45, rtol=SINGLE)
    assert np.count_nonzero(found) == 4
    cut = raw_map(change, 0 * change, refinement=replace(of("released"), theta_unit="otsu"))
    assert np.count_nonzero(cut) == 3


def test_per_channel_gives_every_colour_the_same_say() -> None:
    end = -np.stack([floats([[0, 100]]), floats([[1, 0]]), floats([[0, 0]])])
    found = raw_map(np.zeros_like(end), end, refinement=replace(PLAIN, per_channel=True))
    assert found[0, 0] == found[0, 1] > 0


def test_what_grew_is_not_salient() -> None:
    end = np.broadcast_to(floats([[5, -5]]), (3, 1, 2))
    assert raw_map(np.zeros_like(end), end, refinement=PLAIN).tolist() == [[0, 1]]


def test_superpixels_partition_the_picture() -> None:
    pytest.importorskip("skimage")
    image = picture()
    found = segment(image, 20, compactness=10)
    count = len(found.colours)
    # SLIC starts from a grid, which meets the number only about.
    assert 10 <= count <= 40
    assert np.unique(found.labels).tolist() == list(range(count))
    assert found.labels.shape == image.shape[:2]
    grid = np.indices(found.labels.shape)
    for label in range(count):
        inside = found.labels == label
        np.testing.assert_allclose(found.positions[label], grid[:, inside].mean(axis=1), atol=ROUNDING)


def test_superpixel_colours_are_lab_means() -> None:
    color = pytest.importorskip("skimage.color")
    image = picture()
    found = segment(image, 20, compactness=10)
    lab = color.rgb2lab(image)
    for label, colour in enumerate(found.colours):
        np.testing.assert_allclose(colour, lab[found.labels == label].mean(axis=0), rtol=1e-6)


@given(
    npst.arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.floats(-5, 5)),
    st.integers(1, 5),
)
def test_means_are_those_of_each_superpixel(values: NDArray[np.float64], count: int) -> None:
    labels = np.unique(np.arange(values.size) * 7 % count, return_inverse=True)[1].reshape(values.shape)
    size = labels.max() + 1
    found = Superpixels(labels, np.zeros((size, 3)), np.zeros((size, 2)))
    expected = [values[labels == label].mean() for label in range(size)]
    np.testing.assert_allclose(found.means(values), expected, atol=ROUNDING)
    assert (found.paint(np.arange(size) * 1.0) == labels).all()


def test_smoothing_fills_the_object_and_refining_quiets_the_ground() -> None:
    pytest.importorskip("skimage")
    image = picture()
    inside = object_of(image)
    raw = raw_map(planes(image), descended(image), refinement=PLAIN)
    rough = refine_map(raw, image, refinement=PLAIN)
    smooth = refine_map(raw, image, refinement=replace(PLAIN, smooth=True))
    refined = refine_map(raw, image, refinement=replace(PLAIN, smooth=True, refine=True, alpha=0.2))
    assert rough[inside].min() < 0.1 < 0.5 < smooth[inside].min()
    assert refined[~inside].mean() < smooth[~inside].mean()


def test_one_superpixel_one_value() -> None:
    pytest.importorskip("skimage")
    image = picture()
    refinement = replace(PLAIN, smooth=True, superpixels=12)
    found = saliency_map(planes(image), descended(image), refinement=refinement)
    labels = segment(image, 12, compactness=refinement.compactness).labels
    assert all(np.ptp(found[labels == label]) == 0 for label in range(labels.max() + 1))


def test_end_is_amplified_pruned_and_divided_by_its_maximum() -> None:
    raw = floats([[0, 1, 2, 6, 10]])
    image = np.zeros((1, 5, 3), dtype=np.uint8)

    def end(**changes: Any) -> list[float]:
        return [round(float(v), 4) for v in refine_map(raw, image, refinement=replace(PLAIN, **changes))[0]]

    assert end() == [0, 0.1, 0.2, 0.6, 1]
    assert end(gain=2) == [0, 0.2, 0.4, 1, 1]
    assert end(prune=0.2) == [0, 0, 0, 0.5, 1]
    assert end(prune=0.2, cut=True) == [0, 0, 0.2, 0.6, 1]
    assert end(gain=2, prune=0.3, cut=True) == [0, 0, 0.4, 1, 1]


@pytest.mark.parametrize("name", PRESETS)
def test_map_has_the_inputs_size_and_its_largest_value_is_one(name: PresetName) -> None:
    pytest.importorskip("skimage")
    image = picture()
    found = saliency_map(planes(image), descended(image), refinement=of(name))
    assert found.shape == image.shape[:2]
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() == 1
    inside = object_of(image)
    assert found[inside].mean() > 0.6 > 0.2 > found[~inside].mean()


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (2, 3), (24, 32)])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("change", ["none", "even", "noise"])
def test_little_to_go_by_is_no_error(name: PresetName, size: tuple[int, int], flat: bool, change: str) -> None:
    pytest.importorskip("skimage")
    noise = np.random.default_rng(2).integers(0, 256, (*size, 3), dtype=np.uint8)
    image = np.full_like(noise, 90) if flat else noise
    taken = {"none": np.zeros_like(noise), "even": np.full_like(noise, 7), "noise": noise[::-1]}[change]
    for smooth, refine in product((False, True), repeat=2):
        refinement = replace(of(name), smooth=smooth, refine=refine)
        found = saliency_map(planes(image), planes(image) - planes(taken), refinement=refinement)
        assert found.shape == size
        assert np.isfinite(found).all()
        assert found.max() in ({0} if change == "none" else {0, 1})


def test_picture_of_one_colour_keeps_its_smoothed_map() -> None:
    pytest.importorskip("skimage")
    image = picture()
    flat = np.full_like(image, 128)
    raw = raw_map(planes(image), descended(image), refinement=PLAIN)
    kept, refined = (refine_map(raw, flat, refinement=replace(PLAIN, smooth=True, refine=r)) for r in (False, True))
    np.testing.assert_allclose(kept, refined, atol=SINGLE)


def test_inputs_are_left_alone() -> None:
    pytest.importorskip("skimage")
    image = picture()
    start, end = planes(image), descended(image)
    before = [values.tobytes() for values in (start, end, image)]
    for preset in PRESETS.values():
        saliency_map(start, end, refinement=preset.refinement)
    assert [values.tobytes() for values in (start, end, image)] == before


def test_missing_library_is_named_and_only_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*(name for name in sys.modules if name.startswith("skimage")), "skimage"]:
        monkeypatch.setitem(sys.modules, name, None)
    image = picture()
    start, end = planes(image), descended(image)
    assert saliency_map(start, end, refinement=PLAIN).max() == 1
    for changes in ({"smooth": True}, {"refine": True}, {"theta": 1.0, "theta_unit": "otsu"}):
        with pytest.raises(BackendUnavailableError, match=r"pip install 'salience\[superpixels\]'"):
            saliency_map(start, end, refinement=replace(PLAIN, **changes))


@pytest.mark.parametrize(
    ("settings", "name", "value", "expected"),
    [
        (Descent, "iterations", 0, "at least 1"),
        (Descent, "gamma", -1.0, "at least 0"),
        (Descent, "step", 0.0, "above 0"),
        (Descent, "decay", 1.5, "above 0 and at most 1"),
        (Refinement, "theta", float("nan"), "at least 0"),
        (Refinement, "superpixels", 0, "at least 1"),
        (Refinement, "sigma", float("inf"), "above 0"),
        (Refinement, "alpha", 1.5, "at least 0 and at most 1"),
        (Refinement, "prune", 1.0, "at least 0 and below 1"),
    ],
)
def test_parameter_out_of_range_is_named(settings: Any, name: str, value: float, expected: str) -> None:
    with pytest.raises(SalienceError, match=f"{name} {value}: expected a number {expected}"):
        settings(**{name: value})


@pytest.mark.parametrize(("settings", "name"), [(Descent, "scale"), (Refinement, "theta_unit")])
def test_unknown_choice_is_named(settings: Any, name: str) -> None:
    with pytest.raises(SalienceError, match=f"{name} 'median' is not known: choose one of"):
        settings(**{name: "median"})


def test_presets_are_those_named_and_default_is_what_the_classes_hold() -> None:
    assert set(PRESETS) == set(get_args(PresetName))
    assert PRESETS["default"] == Preset(Descent(), Refinement())
    assert len(set(PRESETS.values())) == len(PRESETS)


def test_released_preset_has_the_released_codes_numbers() -> None:
    descent, refinement = PRESETS["released"].descent, PRESETS["released"].refinement
    assert descent == Descent(iterations=35, gamma=200, step=20, scale="channel", decay=0.999)
    assert (refinement.theta, refinement.theta_unit, refinement.cut) == (1.3, "otsu_max", True)
    assert (refinement.per_channel, refinement.alpha, refinement.gain, refinement.prune) == (True, 0.2, 1.7, 0.2)


@pytest.mark.parametrize("settings", [Descent, Refinement])
def test_every_parameter_is_documented(settings: Any) -> None:
    assert all(f"\n        {f.name}: " in settings.__doc__ for f in fields(settings))


def of(name: PresetName) -> Refinement:
    return PRESETS[name].refinement
