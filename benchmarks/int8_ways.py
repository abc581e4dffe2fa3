"""What ways to make all layers of a network int8 do to its maps: how ranges are found, and what corrects biases.

    python -m benchmarks.int8_ways --bundle bundles/multis --calibration DIR --images OTHER --json int8_ways.json

The bundle has one graph beside those of the host (`multis`, `arn`), in fp32. Both folders hold images/ and masks/; what
is scored is OTHER. The ways of NNCF are there where it is installed.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.evidence import Evidence
from benchmarks.run_record import Row, Run
from salience.export.bias_correction import BiasCorrection
from salience.export.quantization import Feeds, calibrate, layers, quantize, with_types
from salience.export.sensitivity import paired_changes, with_graphs
from salience.export.verify import measure_maps
from salience.runtime import Detector, load
from salience.runtime.images import decode
from salience.runtime.manifest import HOST_GRAPHS
from salience.training.data.folders import Sample, spread
from salience.training.data.layouts import read_set

_CALIBRATED, _CORRECTED = 64, 16
_BACKENDS: tuple[Literal["onnxruntime", "openvino"], ...] = ("onnxruntime", "openvino")


class Way(Row):
    """One way on one backend: the mean change of a pixel, and the changes of scores with their standard errors."""

    way: str
    backend: str
    images: int
    map_change: float
    f_change: float
    f_error: float
    mae_change: float
    mae_error: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="What ways to make int8 do to the maps.")
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    detectors = [load(options.bundle, backend=backend, precision="fp32", device="cpu") for backend in _BACKENDS]
    graphs = set(detectors[0].bundle.manifest.graphs).difference(HOST_GRAPHS)
    if len(graphs) != 1:
        parser.error(f"--bundle {options.bundle}: has the graphs {', '.join(sorted(graphs))}, expected one.")
    evidence = Evidence.gather()
    rows = list(measure(detectors, graphs.pop(), read_set(options.calibration), read_set(options.images)))
    table = Table("way", "backend", "change of a pixel", "change of max F", "change of MAE")
    for row in rows:
        changes = f"{row.f_change:+.4f} ± {row.f_error:.4f}", f"{row.mae_change:+.4f} ± {row.mae_error:.4f}"
        table.add_row(row.way, row.backend, f"{row.map_change:.4f}", *changes)
    Console().print(table)
    if options.json:
        Run[Way](rounds=1, evidence=evidence, rows=tuple(rows)).write(options.json)


def measure(
    detectors: Sequence[Detector], graph: str, calibration: Sequence[Sample], samples: Sequence[Sample]
) -> Iterator[Way]:
    """Every way on every backend; the scores of fp32 are those of the first."""
    model = with_types(onnx.load(detectors[0].bundle.graph_file(graph, "fp32")))
    chosen = spread(calibration, _CALIBRATED)
    feeds = [{"input": detectors[0].prepare(decode(sample.image)).tensor} for sample in chosen]
    exact: list[NDArray[np.float32]] = []
    expected = measure_maps(samples, partial(_kept, detectors[0], exact))
    for name, make in track(list(ways(model, feeds)), description="ways"):
        int8 = make()
        for backend, detector in zip(_BACKENDS, detectors, strict=True):
            maps: list[NDArray[np.float32]] = []
            found = measure_maps(samples, partial(_kept, with_graphs(detector, {graph: int8}), maps))
            change = float(np.mean([np.abs(one - other).mean() for one, other in zip(maps, exact, strict=True)]))
            changes = paired_changes(expected, found)
            yield Way(way=name, backend=backend, images=len(samples), map_change=change, **changes)


def ways(model: ModelProto, feeds: Sequence[Feeds]) -> Iterator[tuple[str, Callable[[], ModelProto]]]:
    """Names, and what makes the int8 graph."""
    for method in ("MinMax", "Percentile", "Entropy"):
        for corrected in (False, True):
            name = f"ONNX Runtime, {method}{', biases corrected' if corrected else ''}"
            yield name, partial(_by_onnxruntime, model, feeds, method, corrected)
    if find_spec("nncf"):
        for fast in (True, False):
            yield f"NNCF, {'fast' if fast else 'exact'} bias correction", partial(_by_nncf, model, feeds, fast)


def _by_onnxruntime(model: ModelProto, feeds: Sequence[Feeds], method: str, corrected: bool) -> ModelProto:
    int8 = quantize(model, calibrate(model, feeds, method=method), layers(model))
    if corrected:
        BiasCorrection(model, spread(feeds, _CORRECTED)).apply(int8)
    return int8


def _by_nncf(model: ModelProto, feeds: Sequence[Feeds], fast: bool) -> ModelProto:
    import nncf  # type: ignore[import-not-found]
    import onnx.inliner

    data: Any = nncf.Dataset(feeds)
    plain = onnx.inliner.inline_local_functions(model)
    found: ModelProto = nncf.quantize(plain, data, subset_size=len(feeds), fast_bias_correction=fast)
    return found


def _kept(detector: Detector, maps: list[NDArray[np.float32]], image: NDArray[np.uint8]) -> NDArray[np.float32]:
    values: NDArray[np.float32] = detector.predict(image).values
    maps.append(values)
    return values


if __name__ == "__main__":
    main()
