"""What is written as PNG comes back, by Pillow and by its strictest check."""

import io
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from salience.runtime.errors import ImageError
from salience.runtime.png_writer import encode_png


def assert_comes_back(image: NDArray[np.uint8]) -> bytes:
    data = encode_png(image)
    with Image.open(io.BytesIO(data)) as checked:
        checked.verify()  # every chunk's checksum
    with Image.open(io.BytesIO(data)) as found:
        assert found.format == "PNG"
        assert found.mode == {2: "L", 3: "RGB", 4: "RGBA"}[image.ndim if image.ndim == 2 else image.shape[2]]
        np.testing.assert_array_equal(np.asarray(found), image)
    return data


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([(), (3,), (4,)]), st.integers(0, 9))
def test_any_picture_comes_back(height: int, width: int, channels: tuple[int, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert_comes_back(rng.integers(0, 256 if seed % 2 else 2, (height, width, *channels), dtype=np.uint8))


@pytest.mark.parametrize("size", [1, 100, 1000])
def test_bands_do_not_show(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr("salience.runtime.bands._BAND_BYTES", size)
    assert_comes_back(np.random.default_rng(0).integers(0, 256, (37, 13, 3), dtype=np.uint8))


def test_views_of_other_arrays_come_back() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 4), dtype=np.uint8)
    for view in (image[::2, ::-3], image[..., :3], image[..., 0], image.transpose(1, 0, 2)):
        assert_comes_back(view)


def test_smooth_maps_become_small() -> None:
    rows, columns = np.mgrid[0:300, 0:400]
    smooth = (255 * np.exp(-((rows - 150) ** 2 + (columns - 200) ** 2) / 5000)).astype(np.uint8)
    stored = len(assert_comes_back(smooth))
    assert stored < smooth.size / 4
    assert stored < 1.2 * len(zlib.compress(smooth.tobytes(), 1))


@pytest.mark.parametrize(
    "image",
    [np.zeros((2, 2), np.float32), np.zeros((2, 2, 2), np.uint8), np.zeros(4, np.uint8), np.zeros((0, 2), np.uint8)],
    ids=lambda image: f"{image.dtype} {image.shape}",
)
def test_what_is_no_picture_is_refused(image: NDArray[np.uint8]) -> None:
    with pytest.raises(ImageError, match=r"expected \(H, W\), \(H, W, 3\) or \(H, W, 4\) uint8, not empty"):
        encode_png(image)
