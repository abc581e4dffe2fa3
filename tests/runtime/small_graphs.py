"""Small ONNX graphs as text, and their engines."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from salience.runtime.backends import BACKENDS
from salience.runtime.backends.engine import Engine, EngineOptions
from salience.runtime.backends.session import Session
from salience.runtime.manifest import GraphEntry, TensorSpec
from salience.runtime.tables import entry

CPU = EngineOptions(threads=1)
CPU_BACKENDS = [name for name in BACKENDS if not name.startswith("tensorrt")]

GRAPHS = {
    "affine": """
        affine (float[batch, 3] x, int64[1] count) => (float[batch, 3] x_next, int64[1] count_next)
        <float two = {2.0}, float one = {1.0}, int64 step = {1}>
        { doubled = Mul (x, two)  x_next = Add (doubled, one)  count_next = Add (count, step) }
    """,
    "treble": """
        treble (float[batch, 3] x) => (float[batch, 3] y)
        <float three = {3.0}>
        { y = Mul (x, three) }
    """,
    "sums": """
        sums (float[batch, 3] x) => (float[batch] y)
        <int64[1] axis = {1}>
        { y = ReduceSum <keepdims = 0> (x, axis) }
    """,
    "turning": """
        turning (float[batch, 3] x) => (float[batch, 3] x_next)
        <int64[3] places = {1, 2, 0}>
        { x_next = Gather <axis = 1> (x, places) }
    """,
    "types": """
        types (float16[batch, 2] half, uint8[batch] byte, int32[1] word, int64 scalar, bool[batch] bit)
            => (float16[batch, 2] half_next, uint8[batch] byte_next, int32[1] word_next, int64 scalar_next,
                bool[batch] bit_next)
        <int32 three = {3}, int64 one = {1}>
        {
          half_next = Add (half, half)  byte_next = Add (byte, byte)  word_next = Mul (word, three)
          scalar_next = Add (scalar, one)  bit_next = Not (bit)
        }
    """,
    "refusing": """
        refusing (float[batch, 3] x, int64[2] shape) => (float[batch, 3] y)
        { reshaped = Reshape (x, shape)  y = Neg (reshaped) }
    """,
}


def open_small(name: str, backend: str, folder: Path, options: EngineOptions = CPU, **changes: Any) -> Engine:
    """An engine of one of GRAPHS; `changes` of the interface that it is told to have."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnx.parser")
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {GRAPHS[name]}')
    path = folder / f"{name}.onnx"
    onnx.save(model, path)
    inputs, outputs = (
        tuple(
            TensorSpec(
                name=value.name,
                dtype=np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)).name,
                shape=tuple(side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim),
            )
            for value in values
        )
        for values in (model.graph.input, model.graph.output)
    )
    interface = GraphEntry(inputs=inputs, outputs=outputs, files={"fp32": path.name}).model_copy(update=changes)
    engine: Engine = entry(BACKENDS, backend, what="backend").open_graph(path, interface, options)
    return engine


def start(batch: int = 2, seed: int = 0) -> dict[str, NDArray[Any]]:
    """What `affine` is fed first."""
    x = np.random.default_rng(seed).standard_normal((batch, 3), dtype=np.float32)
    return {"x": x, "count": np.array([seed])}


def of_every_type() -> dict[str, NDArray[Any]]:
    """What `types` is fed, in a batch of 3."""
    return {
        "half": np.ones((3, 2), np.float16), "byte": np.ones(3, np.uint8), "word": np.ones(1, np.int32),
        "scalar": np.array(7), "bit": np.ones(3, np.bool_),
    }  # fmt: skip


def looped(engine: Engine, batch: int = 2, seed: int = 0) -> Session[Any]:
    """A session of `affine` that feeds its outputs back, ready to run."""
    session = engine.session(batch)
    session.link("x_next", "x")
    session.link("count_next", "count")
    for name, array in start(batch, seed).items():
        session.feed(name, array)
    return session
