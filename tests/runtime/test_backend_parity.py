"""Every backend that runs here gives what ONNX Runtime on the CPU gives: each graph, precision and batch size."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from salience.runtime import Bundle, load
from salience.runtime.backends import BACKENDS
from salience.runtime.backends.engine import Engine, EngineOptions
from salience.runtime.backends.onnxrt import OnnxRuntimeEngine
from salience.runtime.low_level import Descent
from salience.runtime.manifest import Precision
from salience.runtime.methods import METHODS
from salience.runtime.methods.cgd import loop_settings
from salience.runtime.tables import entry
from tests.conftest import FLOAT_PRECISIONS

# Largest difference from the reference of the same precision, in parts of the largest value, which for maps is near 1.
# fp32 and fp16-weights compute in fp32: sums of another order, measured 2e-5. fp16: roundings between operators, which
# engines place differently, measured 4e-4 in maps and 7e-4 in embeddings; 5e-3 is a grey level. The results for two
# photos of these tests differ by 0.1 or more.
TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "fp16-weights": 1e-4, "fp16": 5e-3}
REFERENCE = OnnxRuntimeEngine.name
OTHERS = [name for name in BACKENDS if name != REFERENCE]
GRAPHS = [(method, graph) for method in METHODS for graph in entry(METHODS, method, what="method").graphs]
# A gradient takes another way wherever a ReLU decides otherwise, so no pixel of it can be compared between two engines;
# that of `cgd` is compared with float64 on either when its bundle is built (`verify.GradientReference`).
COMPARED = [pair for pair in GRAPHS if pair != ("cgd", "descend")]
PRECISIONS = FLOAT_PRECISIONS

Feeds = dict[str, NDArray[Any]]
Open = Callable[[str, str, str, Precision], Engine]
Feed = Callable[[str, str, Precision, int], Feeds]


@pytest.fixture(scope="module")
def open_engine(bundle_of: Callable[[str], Path]) -> Open:
    """Method, graph, backend and precision -> the engine."""

    @cache
    def opened(method: str, graph: str, backend: str, precision: Precision) -> Engine:
        engine_type, bundle = entry(BACKENDS, backend, what="backend"), Bundle(bundle_of(method))
        options = EngineOptions(device="cuda" if backend.startswith("tensorrt") else "cpu")
        if reason := engine_type.unavailable(options):
            pytest.skip(reason)
        if backend.startswith("tensorrt") and not any(e.builder == backend for e in bundle.manifest.engines):
            pytest.skip(f"the bundle of these tests holds no engine for {backend}")
        engine: Engine = engine_type.open(bundle, graph, precision, options)
        return engine

    return opened


@pytest.fixture(scope="module")
def feed(bundle_of: Callable[[str], Path], photos: dict[str, NDArray[np.uint8]], open_engine: Open) -> Feed:
    """Method, graph, precision and N -> inputs for N pictures, from the graphs that run before it."""

    @cache
    def fed(method: str, graph: str, precision: Precision, batch: int) -> Feeds:
        prepare = load(bundle_of(method), threads=1).prepare
        images = [image[start:] for start in (0, 60) for image in photos.values()][:batch]
        known = state(np.concatenate([prepare(image).tensor for image in images]))
        for earlier in entry(METHODS, method, what="method").graphs:
            engine = open_engine(method, earlier, REFERENCE, precision)
            feeds = {name: known[name] for name in engine.inputs}
            if earlier == graph:
                return feeds
            known |= engine.run(feeds)
            if "logits" in known:  # each picture a group of its own
                known["total"] = known["logits"] - known["logits"].max(axis=1, keepdims=True)
        raise AssertionError(graph)

    return fed


def state(images: NDArray[np.float32]) -> Feeds:
    """Network input, and where an iterative method may stand after its first step."""
    batch, _, height, width = images.shape
    prior = np.random.default_rng(1).random((batch, 1, height // 8, width // 8), dtype=np.float32)
    classes = np.eye(5, dtype=np.float32)[np.arange(batch) % 5]
    descent = {"image": images, "reference": classes / 10, "target": classes, **loop_settings(Descent())}
    return {"input": images, "prior": prior.repeat(8, 2).repeat(8, 3), "iteration": np.array([1]), **descent}


def assert_close(found: Feeds, expected: Feeds, precision: Precision) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        scale = max(1, float(np.abs(values).max())) if values.dtype.kind == "f" else 0
        np.testing.assert_allclose(found[name], values, rtol=0, atol=TOLERANCE[precision] * scale, err_msg=name)


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("method", "graph"), COMPARED)
@pytest.mark.parametrize("backend", OTHERS)
def test_backends_agree(
    open_engine: Open, feed: Feed, method: str, graph: str, backend: str, precision: Precision, batch: int
) -> None:
    engine, feeds = open_engine(method, graph, backend, precision), feed(method, graph, precision, batch)
    expected = open_engine(method, graph, REFERENCE, precision).run(feeds)
    assert_close(engine.run(feeds), expected, precision)
    # The pictures differ by far more than the backends.
    first = next(iter(expected.values()))
    assert batch == 1 or np.abs(first[0] - first[1]).max() > 0.1


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("method", "graph"), GRAPHS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_batch_is_each_by_itself(
    open_engine: Open, feed: Feed, method: str, graph: str, backend: str, precision: Precision
) -> None:
    engine, feeds = open_engine(method, graph, backend, precision), feed(method, graph, precision, 5)
    batched = {s.name for s in (*engine.inputs.values(), *engine.outputs.values()) if isinstance(s.shape[0], str)}
    together = engine.run(feeds)
    for index in range(5):
        alone = engine.run({n: array[index : index + 1] if n in batched else array for n, array in feeds.items()})
        expected = {n: array[index : index + 1] if n in batched else array for n, array in together.items()}
        assert_close(alone, expected, precision)


@pytest.mark.parametrize(("method", "graph"), GRAPHS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_result_is_no_buffer_that_the_next_call_overwrites(
    open_engine: Open, feed: Feed, method: str, graph: str, backend: str
) -> None:
    engine, feeds = open_engine(method, graph, backend, "fp32"), feed(method, graph, "fp32", 2)
    first = engine.run(feeds)
    kept = {name: array.copy() for name, array in first.items()}
    engine.run({name: array[::-1] for name, array in feeds.items()})
    for name, array in first.items():
        np.testing.assert_array_equal(array, kept[name])
