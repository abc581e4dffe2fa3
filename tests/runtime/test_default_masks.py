"""Masks and boxes of the network in the package on real images, at the default threshold."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from benchmarks.mask_rules import images_without_object
from benchmarks.method_maps import pairs_of
from benchmarks.sample_photos import group
from salience.runtime import Detector, load
from salience.runtime.images import decode_mask


@pytest.fixture(scope="module")
def packaged() -> Detector:
    return load(threads=1, backend="onnxruntime", device="cpu")


def test_each_photo_of_the_quick_start_has_a_mask_and_a_box(
    packaged: Detector, photos: dict[str, NDArray[np.uint8]]
) -> None:
    pictures = {name: Image.fromarray(photo) for name, photo in photos.items()}
    for name, picture in {**pictures, **group(pictures)}.items():
        found = packaged.predict(picture)
        assert 0.01 < found.mask().mean() < 0.9, name
        box = found.box()
        assert box is not None, name
        assert found.mask()[box[0] : box[2], box[1] : box[3]].any(), name


@pytest.mark.parametrize("level", [0, 64, 128, 255])
@pytest.mark.parametrize("size", [(50, 50), (480, 640)])
def test_a_uniform_image_has_no_box(packaged: Detector, level: int, size: tuple[int, int]) -> None:
    found = packaged.predict(np.full((*size, 3), level, dtype=np.uint8))
    assert found.box() is None
    assert not found.mask().any()


def test_plain_colours_and_gradients_have_no_box(packaged: Detector) -> None:
    images = images_without_object()
    for kind in ("uniform", "gradient"):
        assert [packaged.predict(image).box() for image in images[kind]] == [None] * len(images[kind])


def test_no_validation_image_of_ecssd_has_an_empty_mask(packaged: Detector, data_folder: Path) -> None:
    pairs = pairs_of(data_folder / "ecssd", splits=data_folder / "splits.json", part="val")
    assert len(pairs) >= 50
    for pair in pairs:
        assert decode_mask(pair.mask).any(), pair.name
        found = packaged.predict(pair.source)
        assert found.mask().any(), pair.name
        assert found.box() is not None, pair.name
