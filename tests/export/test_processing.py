from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from salience.export.processing import postprocess_graph, preprocess_graph
from salience.training.preprocessing import CONVENTIONS, Preprocessing

onnxruntime = pytest.importorskip("onnxruntime")
PREPROCESSING = Preprocessing(size=(224, 224))


def session(model: onnx.ModelProto) -> object:
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def preprocess() -> object:
    return session(preprocess_graph(PREPROCESSING))


@pytest.fixture(scope="module")
def postprocess() -> object:
    return session(postprocess_graph(PREPROCESSING.size))


def grey_levels(preprocess: object, image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The network input of `image`, back in 0..255."""
    (tensor,) = preprocess.run(None, {"image": image})  # type: ignore[attr-defined]
    mean, std = (np.array(v)[:, None, None] for v in (PREPROCESSING.mean, PREPROCESSING.std))
    found: NDArray[np.float64] = (tensor[0] * std + mean) * 255
    return found


def trained_on(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """What the resize used in training makes of `image`, in 0..255."""
    found: NDArray[np.float64] = PREPROCESSING.resize(torch.from_numpy(image).permute(2, 0, 1)).numpy().astype(float)
    return found


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "rocket"])
def test_photos_are_within_one_grey_level_of_training(
    preprocess: object, photos: dict[str, NDArray[np.uint8]], name: str
) -> None:
    # The two resizes round differently, hence one level; the allowance beside it is float32 rounding.
    assert np.abs(grey_levels(preprocess, photos[name]) - trained_on(photos[name])).max() <= 1.001


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (3, 2), (224, 224), (223, 225), (1000, 60)])
def test_any_size_is_within_one_grey_level_of_training(preprocess: object, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert np.abs(grey_levels(preprocess, image) - trained_on(image)).max() <= 1.001


def test_channels_stay_red_green_blue(preprocess: object) -> None:
    image = np.zeros((10, 10, 3), dtype=np.uint8)
    image[..., 0] = 255
    levels = grey_levels(preprocess, image)
    assert levels[0] == pytest.approx(255, abs=1e-3)
    assert levels[1:] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("shape", [(1, 1), (30, 500), (224, 224), (700, 333)])
def test_maps_reach_any_size(postprocess: object, shape: tuple[int, int]) -> None:
    small = np.random.default_rng(2).random((1, 1, 224, 224), dtype=np.float32)
    feeds = {"saliency": small, "size": np.array(shape, dtype=np.int64)}
    (found,) = postprocess.run(None, feeds)  # type: ignore[attr-defined]
    expected = F.interpolate(torch.from_numpy(small), size=shape, mode="bilinear", antialias=True)[0, 0].numpy()
    # float32 interpolation in another order of sums
    assert found == pytest.approx(expected, abs=1e-4)
    assert found.dtype == np.float32


def test_values_outside_the_range_are_clipped(postprocess: object) -> None:
    feeds = {"saliency": np.full((1, 1, 224, 224), 1.5, dtype=np.float32), "size": np.array([4, 4])}
    assert postprocess.run(None, feeds)[0].max() == 1  # type: ignore[attr-defined]


def test_the_numbers_come_from_the_checkpoint(tmp_path: Path) -> None:
    other = Preprocessing(size=(32, 64), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    (tensor,) = session(preprocess_graph(other)).run(None, {"image": np.full((5, 5, 3), 51, np.uint8)})  # type: ignore[attr-defined]
    assert tensor.shape == (1, 3, 32, 64)
    assert tensor == pytest.approx(0.2)


def test_blue_comes_first_where_the_weights_want_it_so(photos: dict[str, NDArray[np.uint8]]) -> None:
    """Caffe's VGG16: grey levels minus the mean, in the order blue, green, red."""
    caffe = Preprocessing(size=(32, 48), **CONVENTIONS["caffe"])
    (found,) = session(preprocess_graph(caffe)).run(None, {"image": photos["coffee"]})  # type: ignore[attr-defined]
    expected = caffe(torch.from_numpy(photos["coffee"].transpose(2, 0, 1).copy())).numpy()
    levels = caffe.resize(torch.from_numpy(photos["coffee"].transpose(2, 0, 1).copy())).numpy().astype(np.float32)
    means = np.array([103.939, 116.779, 123.68], dtype=np.float32)[:, None, None]
    assert np.allclose(expected, levels[::-1] - means, atol=1e-3)
    assert np.abs(found[0] - expected).max() <= 1.001
