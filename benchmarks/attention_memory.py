"""Peak memory and time of self-attention over 112 x 112 positions, and of `arn` as a whole, in several forms.

    python -m benchmarks.attention_memory

Forms: `blocked`, as exported; `naive`, the matrix of all scores at once; `operator`, the ONNX operator Attention of
opset 23. Peak memory is of one picture, above the loaded model, each in a process of its own; times are medians of
alternating runs in one process.
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.memory import peak_bytes
from salience.export.graph import Graph
from salience.export.graphs.arn import AttentionRecurrentExport, blocked_attention
from salience.export.tracing import trace
from salience.runtime.backends import BACKENDS
from salience.runtime.backends.engine import Engine, EngineOptions
from salience.runtime.errors import SalienceError
from salience.runtime.manifest import GraphEntry, TensorSpec
from salience.runtime.tables import entry
from salience.training.checkpoint import build_network
from salience.training.networks.arn import SelfAttention

SIDE, CHANNELS, INPUT = 112, 64, 224
_OPERATOR = """
<ir_version: 11, opset_import: ["": 23]>
attention (float[batch, {c}, {s}, {s}] x) => (float[batch, {c}, {s}, {s}] y)
<int64[3] flat = {{0, {c}, -1}}, int64[4] full = {{0, {c}, {s}, {s}}}, int64[1] axis = {{1}}>
{{
  key = Conv (x, key_weight, key_bias)
  query = Conv (x, query_weight, query_bias)
  value = Conv (x, value_weight, value_bias)
  small = Constant <value = int64[3] {{0, {k}, -1}}> ()
  keys_flat = Reshape (key, small)
  queries_flat = Reshape (query, small)
  values_flat = Reshape (value, flat)
  keys_rows = Transpose <perm = [0, 2, 1]> (keys_flat)
  queries_rows = Transpose <perm = [0, 2, 1]> (queries_flat)
  values_rows = Transpose <perm = [0, 2, 1]> (values_flat)
  keys = Unsqueeze (keys_rows, axis)
  queries = Unsqueeze (queries_rows, axis)
  values = Unsqueeze (values_rows, axis)
  attended = Attention <scale = 1.0> (queries, keys, values)
  rows = Squeeze (attended, axis)
  columns = Transpose <perm = [0, 2, 1]> (rows)
  maps = Reshape (columns, full)
  scaled = Mul (maps, gamma)
  y = Add (scaled, x)
}}
"""


def main() -> None:
    """Measure and print; `--json FILE` keeps the figures."""
    parser = argparse.ArgumentParser(description="Peak memory and time of arn and of its attention.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export_all(folder)
        cases = [(form, backend) for form in sorted(INTERFACES) for backend in ("onnxruntime", "openvino")]
        memory = {case: in_new_process(folder, *case) for case in cases}
        times = measure(folder, [case for case in cases if memory[case] is not None], options.rounds)
    report(memory, times, options.json)


def naive_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """All scores at once."""
    return value @ torch.softmax(query.transpose(1, 2) @ key, dim=2).transpose(1, 2)


def _interface(shape: tuple[int, ...], result: tuple[int, ...]) -> GraphEntry:
    specs = [
        (TensorSpec(name=name, dtype="float32", shape=("batch", *sides)),)
        for name, sides in (("x", shape), ("y", result))
    ]
    return GraphEntry(inputs=specs[0], outputs=specs[1], files={"fp32": "x"})


_LAYER = _interface((CHANNELS, SIDE, SIDE), (CHANNELS, SIDE, SIDE))
_NETWORK = _interface((3, INPUT, INPUT), (1, INPUT, INPUT))
INTERFACES = {
    "attention-blocked": _LAYER, "attention-naive": _LAYER, "attention-operator": _LAYER,
    "arn-blocked": _NETWORK, "arn-naive": _NETWORK,
}  # fmt: skip


def export_all(folder: Path) -> None:
    """One layer at level 2 of vgg16 in each form, and the whole network."""
    torch.manual_seed(0)
    layer = SelfAttention(CHANNELS)
    torch.nn.init.constant_(layer.scale, 0.5)
    network = build_network("arn", {"backbone": "vgg16"})
    for form, attend in (("blocked", blocked_attention), ("naive", naive_attention)):
        layer.attend = attend
        write(folder, f"attention-{form}", layer)
        (graph,) = AttentionRecurrentExport().graphs(network, (INPUT, INPUT))  # type: ignore[arg-type]
        for module in graph.module.modules():
            if isinstance(module, SelfAttention):
                module.attend = attend
        write(folder, f"arn-{form}", graph.module)
    model = onnx.parser.parse_model(_OPERATOR.format(c=CHANNELS, k=CHANNELS // 8, s=SIDE))
    weights = {"gamma": layer.scale}
    for name in ("key", "query", "value"):
        part = getattr(layer, name)
        weights |= {f"{name}_weight": part.weight, f"{name}_bias": part.bias}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(w.detach().numpy(), n) for n, w in weights.items())
    onnx.save(model, folder / "attention-operator.onnx")


def write(folder: Path, form: str, module: torch.nn.Module) -> None:
    """Trace and save."""
    interface = INTERFACES[form]
    onnx.save(trace(Graph(form, module, module, interface.inputs, interface.outputs), "fp32"), folder / f"{form}.onnx")


def open_engine(folder: Path, form: str, backend: str) -> Engine:
    """The form's graph in a backend."""
    engine_type = entry(BACKENDS, backend, what="backend")
    engine: Engine = engine_type.open_graph(folder / f"{form}.onnx", INTERFACES[form], EngineOptions())
    return engine


def feed(form: str) -> dict[str, np.ndarray]:
    """Noise for one picture."""
    shape = [side for side in INTERFACES[form].inputs[0].shape if isinstance(side, int)]
    return {"x": np.random.default_rng(0).standard_normal((1, *shape), dtype=np.float32)}


def in_new_process(folder: Path, form: str, backend: str) -> int | None:
    """Peak bytes of one picture; None where the backend does not run the form."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak, folder, form, backend).result()


def _peak(folder: Path, form: str, backend: str) -> int | None:
    try:
        engine = open_engine(folder, form, backend)
        values = feed(form)
        return peak_bytes(lambda: engine.run(values))
    except SalienceError:
        return None


def measure(folder: Path, cases: list[tuple[str, str]], rounds: int) -> dict[tuple[str, str], float]:
    """Median seconds, the cases taking turns."""
    engines = {case: open_engine(folder, *case) for case in cases}
    found: dict[tuple[str, str], list[float]] = {case: [] for case in cases}
    for _ in range(rounds):
        for case, engine in engines.items():
            values = feed(case[0])
            start = time.perf_counter()
            engine.run(values)
            found[case].append(time.perf_counter() - start)
    return {case: statistics.median(seconds) for case, seconds in found.items()}


def report(memory: Any, times: Any, path: Path | None) -> None:
    """A table on standard output, and the same figures as JSON."""
    table = Table(title=f"self-attention, {SIDE} x {SIDE} x {CHANNELS}, and arn on vgg16 at {INPUT} x {INPUT}")
    for column in ("form", "backend", "peak MB", "median s"):
        table.add_column(column, justify="right")
    for (form, backend), size in memory.items():
        cells = ("does not run", "") if size is None else (f"{size / 1e6:.0f}", f"{times[form, backend]:.3f}")
        table.add_row(form, backend, *cells)
    Console(width=110).print(table)
    if path:
        rows = [
            {"form": form, "backend": backend, "peak_bytes": size, "median_s": times.get((form, backend))}
            for (form, backend), size in memory.items()
        ]
        path.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
