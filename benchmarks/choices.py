"""What choices of the exporter and of the sessions gain: each beside what it was chosen over, in one process.

    python -m benchmarks.choices --json choices.json

Rewrites are timed by their graph alone, settings of sessions by the whole way from a picture to its map, which takes
several sessions. Networks are vgg16 of the papers' sizes with random weights; forms take turns.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import onnxruntime
from rich.console import Console
from rich.table import Table

from benchmarks.evidence import Evidence
from benchmarks.forms import Call, Workload
from benchmarks.networks import write_bundle, write_calibration, write_checkpoint
from benchmarks.run_record import Row, Run
from benchmarks.turns import take_turns
from salience.export.graphs import GRAPHS
from salience.export.quantization import calibrate, layers, quantize
from salience.export.rewrites import join_products, sum_by_product
from salience.export.tracing import trace
from salience.runtime import load
from salience.runtime.backends import BACKENDS, onnxrt, ov
from salience.runtime.backends.engine import EngineOptions
from salience.runtime.tables import entry
from salience.training.checkpoint import load_checkpoint

_REWRITES = {"sum_by_product": ("lps", "embed", sum_by_product), "join_products": ("gicd", "embed", join_products)}
_SIZES = {"lps": (256, 256)}
_ORT: dict[str, dict[str, Any]] = {
    "threads go on spinning": {"CONFIG": {}},
    "threads never spin": {"CONFIG": {"session.intra_op.allow_spinning": "0"}},
    "smaller blocks of work": {"CONFIG": {**onnxrt.CONFIG, "session.dynamic_block_base": "4"}},
    "no memory pattern": {"enable_mem_pattern": False},
    "no memory arena": {"enable_cpu_mem_arena": False},
}
_OPENVINO: dict[str, dict[str, Any]] = {
    "hint THROUGHPUT": {"CONFIG": {**ov.CONFIG, "PERFORMANCE_HINT": "THROUGHPUT"}},
    "threads not pinned": {"CONFIG": {**ov.CONFIG, "ENABLE_CPU_PINNING": False}},
    "denormals are zero": {"CONFIG": {**ov.CONFIG, "CPU_DENORMALS_OPTIMIZATION": True}},
}


class Gain(Row):
    """`ratio` is the time of the choice that was made over that of the other one; below 1 it gains."""

    choice: str
    what: str
    backend: str
    precision: str
    milliseconds: float
    other_milliseconds: float
    ratio: float


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="What choices of the exporter and of the sessions gain.")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    evidence = Evidence.gather()
    with tempfile.TemporaryDirectory() as folder:
        rows = [*rewrite_rows(Path(folder), options.rounds), *session_rows(Path(folder), options.rounds)]
    record = Run[Gain](rounds=options.rounds, evidence=evidence, rows=tuple(rows))
    table = Table("choice", "what", "backend", "precision", "ms", "the other's ms", "ratio")
    for row in rows:
        times = f"{row.milliseconds:.1f}", f"{row.other_milliseconds:.1f}", f"{row.ratio:.2f}"
        table.add_row(row.choice, row.what, row.backend, row.precision, *times)
    Console().print(table)
    if options.json:
        record.write(options.json)


def workload_of(method: str, folder: Path) -> Workload:
    """With its checkpoint written."""
    workload = Workload(method, "vgg16", _SIZES.get(method, (224, 224)), folder / method)
    if not workload.folder.exists():
        workload.folder.mkdir()
        write_checkpoint(workload)
    return workload


def rewrite_rows(folder: Path, rounds: int) -> Iterator[Gain]:
    """Each rewrite on the graph that it was made for."""
    for name, (method, graph_name, rewrite) in _REWRITES.items():
        workload = workload_of(method, folder)
        _, network = load_checkpoint(workload.checkpoint)
        graphs = entry(GRAPHS, method, what="method")().graphs(network, workload.size)
        (graph,) = (found for found in graphs if found.name == graph_name)
        interface = graph.entry({"fp32": f"{graph_name}.onnx"})
        feeds = {"input": workload.inputs(1)[0][:1]}
        plain = trace(graph, "fp32", rewrites=())
        changed = onnx.ModelProto()
        changed.CopyFrom(plain)
        rewrite(changed)
        for precision in ("fp32", "int8"):
            models = {"made": changed, "other": plain}
            if precision == "int8":
                models = {key: in_int8(model, feeds) for key, model in models.items()}
            for backend in ("onnxruntime", "openvino"):
                calls = {key: opened(model, interface, backend, feeds, folder) for key, model in models.items()}
                yield row(name, f"{method} {graph_name}", backend, precision, take_turns(calls, rounds=rounds, seed=0))


def in_int8(model: onnx.ModelProto, feeds: dict[str, Any]) -> onnx.ModelProto:
    """All layers, with ranges of these feeds."""
    return quantize(model, calibrate(model, [feeds]), layers(model))


def opened(model: onnx.ModelProto, interface: Any, backend: str, feeds: dict[str, Any], folder: Path) -> Call:
    """The graph as an engine runs it."""
    path = folder / "graph.onnx"
    onnx.save(model, path)
    engine = entry(BACKENDS, backend, what="backend").open_graph(path, interface, EngineOptions())
    return lambda: engine.run(feeds)


def session_rows(folder: Path, rounds: int) -> Iterator[Gain]:
    """Each setting on three methods, whose pictures go through three to five sessions."""
    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    calibration = write_calibration(folder / "calibration")
    for method in ("multis", "gicd", "lps"):
        workload = workload_of(method, folder)
        write_bundle(workload, "int8", calibration)
        for backend, settings in (("onnxruntime", _ORT), ("openvino", _OPENVINO)):
            calls: dict[str, Call] = {"made": whole(workload, backend, image)}
            for name, values in settings.items():
                with sessions_with(backend, values):
                    calls[name] = whole(workload, backend, image)
            times = take_turns(calls, rounds=rounds, seed=0)
            for name in settings:
                found = {"made": times["made"], "other": times[name]}
                yield row(f"not: {name}", f"{method}, a picture", backend, "int8", found)


def whole(workload: Workload, backend: Any, image: Any) -> Callable[[], object]:
    """From a picture to its map."""
    detector = load(workload.bundle("int8"), backend=backend, device="cpu")
    return lambda: detector.try_out(image)


@contextmanager
def sessions_with(backend: str, values: dict[str, Any]) -> Iterator[None]:
    """Sessions that are made meanwhile have other settings: `CONFIG`, or attributes of ONNX Runtime's options."""
    module = onnxrt if backend == "onnxruntime" else ov
    attributes = {name: value for name, value in values.items() if name != "CONFIG"}

    class Options(onnxruntime.SessionOptions):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            for name, value in attributes.items():
                setattr(self, name, value)

    with patch.object(module, "CONFIG", values.get("CONFIG", module.CONFIG)), \
            patch.object(onnxruntime, "SessionOptions", Options):  # fmt: skip
        yield


def row(choice: str, what: str, backend: str, precision: str, seconds: dict[str, list[float]]) -> Gain:
    """Of both forms' seconds."""
    made, other = (1e3 * statistics.median(seconds[form]) for form in ("made", "other"))
    return Gain(
        choice=choice, what=what, backend=backend, precision=precision, milliseconds=made, other_milliseconds=other,
        ratio=made / other,
    )  # fmt: skip


if __name__ == "__main__":
    main()
