"""How much a form computes, and how much this machine can compute: a share of the peak says what is left to gain."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import torch

from benchmarks.forms import Call, Workload
from benchmarks.latency_record import Peak
from salience.export.operations import multiply_adds, traffic
from salience.runtime.backends import BACKENDS
from salience.runtime.backends.engine import Engine, EngineOptions
from salience.runtime.bundle import Bundle
from salience.runtime.manifest import HOST_GRAPHS, GraphEntry, TensorSpec
from salience.runtime.tables import entry

# A product large enough that nothing else counts: a matrix, and convolutions in a row as in the middle of VGG16.
SIDE, CHANNELS, POSITIONS, LAYERS = 2048, 256, 56, 4
_REPEATS = 12


def operations(workload: Workload, precision: Any, batch: int) -> int:
    """Multiplications and additions of one picture: two for each multiply-add of convolutions and matrix products.

    Args:
        workload: its bundle of `precision` is looked at.
        precision: see above.
        batch: says how many pictures share the consensus of `gicd`.
    """
    total = 0.0
    for graph, model, times in _network_graphs(workload, precision):
        count = sum(multiply_adds(model).values())
        total += count * times / (workload.pictures(batch) if graph == "consensus" else 1)
    return 2 * round(total)


def traffic_of(workload: Workload, precision: Any, batch: int) -> int:
    """Bytes that the convolutions and matrix products of a call with this batch read and write."""
    calls = {"embed": workload.pictures(batch) / batch, "segment": workload.pictures(batch) / batch}
    return round(
        sum(
            traffic(model, 1 if graph == "consensus" else batch) * times * calls.get(graph, 1)
            for graph, model, times in _network_graphs(workload, precision)
        )
    )


def _network_graphs(workload: Workload, precision: Any) -> Iterator[tuple[str, onnx.ModelProto, int]]:
    """Name, file and runs of the graphs between those of the host."""
    bundle = Bundle(workload.bundle(precision))
    times = {"refine": workload.iterations, "descend": workload.iterations}
    for graph in bundle.manifest.graphs:
        if graph not in HOST_GRAPHS:
            yield graph, onnx.load(bundle.graph_file(graph, precision)), times.get(graph, 1)


def measure_peak(threads: int, *, channels: int = CHANNELS, positions: int = POSITIONS, side: int = SIDE) -> Peak:
    """The best of several libraries and repeats; sizes smaller than the defaults give less than the peak."""
    count = 2 * LAYERS * channels**2 * 9 * positions**2
    with tempfile.TemporaryDirectory() as folder:
        by = {f"fp32 torch {side}^3": 2 * side**3 / _best(_product(threads, side)) / 1e9}
        for kind in ("fp32", "int8", "uint8"):
            file = Path(folder) / f"{kind}.onnx"
            onnx.save(convolutions(kind, channels, positions), file)
            for backend in ("onnxruntime", "openvino"):
                call = _convolve(file, backend, threads, (1, channels, positions, positions))
                by[f"{kind} {backend} convolution"] = count / _best(call) / 1e9
    fp32 = max(value for name, value in by.items() if name.startswith("fp32"))
    int8 = max(value for name, value in by.items() if not name.startswith("fp32"))
    return Peak(threads=threads, fp32=fp32, int8=int8, by=by)


def convolutions(kind: str, channels: int, positions: int) -> onnx.ModelProto:
    """3x3 convolutions in a row, of floats or between quantised tensors of type `kind`; weights are int8 then."""
    shape = f"float[1, {channels}, {positions}, {positions}]"
    lines, value = [], "x"
    for layer in range(LAYERS):
        if kind == "fp32":
            lines.append(f"y{layer} = Conv <pads = [1, 1, 1, 1]> ({value}, weight)")
            value = f"y{layer}"
            continue
        lines += [
            f"q{layer} = QuantizeLinear ({value}, scale, zero)",
            f"d{layer} = DequantizeLinear (q{layer}, scale, zero)",
            f"w{layer} = DequantizeLinear (weight, scale, weight_zero)",
            f"y{layer} = Conv <pads = [1, 1, 1, 1]> (d{layer}, w{layer})",
        ]
        value = f"y{layer}"
    if kind != "fp32":
        lines += [f"q = QuantizeLinear ({value}, scale, zero)", "y = DequantizeLinear (q, scale, zero)"]
    else:
        lines += [f"y = Identity ({value})"]
    body = "\n".join(lines)
    text = f'<ir_version: 10, opset_import: ["": 20]> peak ({shape} x) => ({shape} y) {{ {body} }}'
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    small = (channels, channels, 3, 3)
    constants: dict[str, Any] = {"weight": rng.standard_normal(small, dtype=np.float32) / (3 * channels**0.5)}
    if kind != "fp32":
        constants = {
            "weight": rng.integers(-127, 128, small, dtype=np.int8),
            "scale": np.float32(0.01), "zero": np.zeros((), kind), "weight_zero": np.zeros((), np.int8),
        }  # fmt: skip
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items())
    return model


def _product(threads: int, side: int) -> Call:
    left, right, out = (torch.randn(side, side) for _ in range(3))

    def call() -> None:
        torch.set_num_threads(threads)
        torch.mm(left, right, out=out)

    return call


def _convolve(file: Path, backend: str, threads: int, shape: tuple[int, ...]) -> Call:
    specs = {name: (TensorSpec(name=name, dtype="float32", shape=shape),) for name in ("x", "y")}
    interface = GraphEntry(inputs=specs["x"], outputs=specs["y"], files={"fp32": file.name})
    engine: Engine = entry(BACKENDS, backend, what="backend").open_graph(
        file, interface, EngineOptions(threads=threads)
    )
    feeds = {"x": np.random.default_rng(0).standard_normal(shape, dtype=np.float32)}
    return lambda: engine.run(feeds)


def _best(call: Call) -> float:
    """Seconds of the fastest of several calls."""
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)
