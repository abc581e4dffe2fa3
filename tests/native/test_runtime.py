"""The C++ library and the Python package make the same maps of the same bundles."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from salience.runtime import SaliencyMap, load
from salience.runtime.bundle import DEFAULT_BUNDLE
from salience.runtime.low_level import PRESETS
from salience.runtime.methods import METHODS
from salience.runtime.objects import choose_preset

from .library import Library, NativeDetector, NativeMap

Image = NDArray[np.uint8]
BundleOf = Callable[[str], Path]


@pytest.fixture(scope="module")
def images(photos: dict[str, Image]) -> list[Image]:
    """Two photographs, one of them cut out of a larger one, and the smallest picture."""
    return [photos["chelsea"], photos["astronaut"][50:250, 100:401], photos["coffee"][:1, :1].copy()]


def both(library: Library, bundle: Path, precision: Any = "fp32") -> tuple[NativeDetector, Any]:
    """Two detectors of one bundle."""
    python = load(bundle, backend="onnxruntime", device="cpu", precision=precision)
    return library.load(bundle, precision=precision), python


def prior_of(image: Image) -> NDArray[np.float32]:
    """The picture's own brightness at another size."""
    return np.asarray(image.mean(axis=2, dtype=np.float32) / 255)[::2, ::3].copy()


def assert_alike(found: Sequence[NativeMap], expected: Sequence[SaliencyMap]) -> None:
    assert len(found) == len(expected)
    for mine, other in zip(found, expected, strict=True):
        assert mine.values.shape == other.values.shape
        # The same graphs on the same engine; the fused kernels' exponentials differ in the last digits.
        assert mine.values == pytest.approx(other.values, abs=1e-5)
        # What is half way between two levels may be rounded to either.
        assert np.abs(mine.grey.astype(int) - other.grey()).max() <= 1
        assert mine.threshold == pytest.approx(other.threshold(), abs=1e-5)
        # Values within rounding of the threshold may fall on either side.
        clear = np.abs(other.values - other.threshold()) > 1e-4
        assert (mine.masks[None] == other.mask())[clear].all()
        assert_same_masks(mine, SaliencyMap(mine.values, other.image))


def assert_same_masks(found: NativeMap, expected: SaliencyMap) -> None:
    """Of the very same values, masks and boxes are equal in C++ and in Python."""
    assert found.threshold == expected.threshold()
    for limit, mask in found.masks.items():
        assert np.array_equal(mask, expected.mask(limit)), limit
        assert found.boxes[limit] == expected.box(limit), limit


@pytest.mark.parametrize("method", METHODS)
def test_a_map(method: str, library: Library, bundle_of: BundleOf, images: list[Image]) -> None:
    native, python = both(library, bundle_of(method))
    for image in images:
        if method == "lps":
            prior = prior_of(image)
            assert_alike([native.promote(image, prior, 2)], [python.promote(image, prior, 2)])
        else:
            assert_alike([native.predict(image)], [python.predict(image)])
    assert native.text("method") == method
    assert native.text("backend").startswith(python.backend)


@pytest.mark.parametrize("precision", ["fp16", "fp16-weights"])
def test_half_precision(precision: str, library: Library, bundle_of: BundleOf, images: list[Image]) -> None:
    native, python = both(library, bundle_of("lps"), precision)
    prior = prior_of(images[0])
    assert native.text("precision") == precision
    assert_alike([native.promote(images[0], prior)], [python.promote(images[0], prior)])


def test_the_bundle_of_the_package(library: Library, images: list[Image]) -> None:
    native, python = both(library, DEFAULT_BUNDLE, "auto")
    assert_alike(native.predict_batch(images), python.predict_batch(images))


def test_without_fused_kernels_the_maps_are_equal(library: Library, bundle_of: BundleOf, images: list[Image]) -> None:
    native = library.load(bundle_of("multis"), precision="fp32", fused=False)
    python = load(bundle_of("multis"), backend="onnxruntime", device="cpu", precision="fp32")
    assert np.array_equal(native.predict(images[0]).values, python.predict(images[0]).values)


@pytest.mark.parametrize("method", [method for method in METHODS if method != "lps"])
def test_a_batch(method: str, library: Library, bundle_of: BundleOf, images: list[Image]) -> None:
    native, python = both(library, bundle_of(method))
    assert_alike(native.predict_batch(images), python.predict_batch(images))


@pytest.mark.parametrize("settings", [{}, {"memory_bytes": 0, "batch": 2}, {"batch": 100}])
def test_a_group(settings: dict[str, int], library: Library, bundle_of: BundleOf, images: list[Image]) -> None:
    native, python = both(library, bundle_of("gicd"))
    group = [*images, images[0], images[1]]
    # Batches of other sizes sum in another order, so all are compared with the plain way.
    assert_alike(native.predict_group(group, **settings), python.predict_group(group))


def test_every_step_of_a_promotion(library: Library, bundle_of: BundleOf, images: list[Image]) -> None:
    native, python = both(library, bundle_of("lps"))
    prior = prior_of(images[1])
    assert_alike(native.promote_steps(images[1], prior, 3), python.promote_steps(images[1], prior, 3))


@pytest.mark.parametrize("value", [0.0, 0.25, 1.0])
def test_a_constant_prior_that_is_kept(
    value: float, library: Library, bundle_of: BundleOf, images: list[Image]
) -> None:
    native, python = both(library, bundle_of("lps"))
    prior = np.full((5, 7), value, dtype=np.float32)
    expected = python.promote(images[1], prior, empty="keep")
    assert_alike([native.promote(images[1], prior, keep_empty=True)], [expected])


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("target", [None, "Dog", "3"])
def test_an_object(preset: Any, target: str | None, library: Library, bundle_of: BundleOf, images: list[Image]) -> None:
    native, python = both(library, bundle_of("cgd"))
    found, expected = (
        native.locate(images[0], target, preset=preset),
        python.locate(images[0], target, preset=PRESETS[preset]),
    )
    assert_alike([found], [expected])
    assert found.label == expected.label
    assert [name for name, _ in found.classes] == [name for name, _ in expected.classes(3)]
    assert [share for _, share in found.classes] == pytest.approx([share for _, share in expected.classes(3)])


def test_an_object_with_other_parameters(library: Library, bundle_of: BundleOf, images: list[Image]) -> None:
    changes = {
        "iterations": "3",
        "clip": "TRUE",
        "scale": "plain",
        "superpixels": "20",
        "theta_unit": "otsu",
        "gain": "2.5",
    }
    native, python = both(library, bundle_of("cgd"))
    expected = python.locate(images[0], preset=choose_preset("paper", changes))
    assert_alike([native.locate(images[0], preset="paper", changes=changes)], [expected])


def test_rows_of_a_larger_picture(library: Library, bundle_of: BundleOf, photos: dict[str, Image]) -> None:
    native = library.load(bundle_of("multis"))
    part = photos["coffee"][20:120, 30:180]
    assert not part.flags.c_contiguous
    assert np.array_equal(native.predict(part).values, native.predict(part.copy()).values)


@pytest.mark.parametrize("method", METHODS)
def test_threads_get_the_same_maps(method: str, library: Library, bundle_of: BundleOf, images: list[Image]) -> None:
    native = library.load(bundle_of(method), precision="fp32", threads=1)

    def serve(index: int) -> NDArray[np.float32]:
        image = images[index % 2]
        return (native.promote(image, prior_of(image)) if method == "lps" else native.predict(image)).values

    expected = [serve(index) for index in range(2)]
    with ThreadPoolExecutor(4) as pool:
        for index, values in enumerate(pool.map(serve, range(12))):
            assert np.array_equal(values, expected[index % 2])
