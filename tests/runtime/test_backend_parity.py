"""Every backend that runs here gives the maps of ONNX Runtime on the CPU, in every precision and batch size."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from salience.runtime import Bundle, load
from salience.runtime.backends import BACKENDS
from salience.runtime.backends.engine import Engine, EngineOptions
from salience.runtime.backends.onnxrt import OnnxRuntimeEngine
from salience.runtime.manifest import Precision
from salience.runtime.tables import entry

# Largest difference of maps in [0, 1] from the reference of the same precision. fp32 and fp16-weights compute in
# fp32: sums of another order, measured 2e-5. fp16: roundings between operators, which engines place differently,
# measured 4e-4; 5e-3 is a grey level. The maps of two photos of these tests differ by 0.3 or more.
TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "fp16-weights": 1e-4, "fp16": 5e-3}
OTHERS = [name for name in BACKENDS if name != OnnxRuntimeEngine.name]


def open_engine(bundle: Path, backend: str, precision: Precision) -> Engine:
    engine_type = entry(BACKENDS, backend, what="backend")
    options = EngineOptions(device="cuda" if backend.startswith("tensorrt") else "cpu")
    if reason := engine_type.unavailable(options):
        pytest.skip(reason)
    if backend.startswith("tensorrt") and not any(e.builder == backend for e in Bundle(bundle).manifest.engines):
        pytest.skip(f"the bundle of these tests holds no engine for {backend}")
    engine: Engine = engine_type.open(Bundle(bundle), "saliency", precision, options)
    return engine


def feed(bundle: Path, photos: dict[str, NDArray[np.uint8]], batch: int) -> NDArray[np.float32]:
    prepare = load(bundle, threads=1).prepare
    images = [image[start:] for start in (0, 60) for image in photos.values()]
    return np.concatenate([prepare(image).tensor for image in images[:batch]])


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("precision", get_args(Precision))
@pytest.mark.parametrize("backend", OTHERS)
def test_backends_agree(
    bundle: Path, photos: dict[str, NDArray[np.uint8]], backend: str, precision: Precision, batch: int
) -> None:
    engine = open_engine(bundle, backend, precision)
    values = feed(bundle, photos, batch)
    expected = open_engine(bundle, "onnxruntime", precision).run({"input": values})["saliency"]
    found = engine.run({"input": values})["saliency"]
    assert found.dtype == expected.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE[precision])
    # The pictures differ by far more than the backends.
    assert batch == 1 or np.abs(expected[0] - expected[1]).max() > 0.1


@pytest.mark.parametrize("precision", get_args(Precision))
@pytest.mark.parametrize("backend", BACKENDS)
def test_batch_is_each_by_itself(
    bundle: Path, photos: dict[str, NDArray[np.uint8]], backend: str, precision: Precision
) -> None:
    engine = open_engine(bundle, backend, precision)
    values = feed(bundle, photos, 5)
    together = engine.run({"input": values})["saliency"]
    alone = np.concatenate([engine.run({"input": one[None]})["saliency"] for one in values])
    np.testing.assert_allclose(together, alone, rtol=0, atol=TOLERANCE[precision])


@pytest.mark.parametrize("backend", BACKENDS)
def test_result_is_no_buffer_that_the_next_call_overwrites(
    bundle: Path, photos: dict[str, NDArray[np.uint8]], backend: str
) -> None:
    engine = open_engine(bundle, backend, "fp32")
    values = feed(bundle, photos, 2)
    first = engine.run({"input": values[:1]})["saliency"]
    kept = first.copy()
    engine.run({"input": values[1:]})
    np.testing.assert_array_equal(first, kept)
