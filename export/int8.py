"""The int8 files of a bundle: calibrated, their layers chosen, verified, compiled."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import torch
from onnx import ModelProto

from salience.runtime.detector import Detector, load
from salience.runtime.errors import ExportError
from salience.runtime.images import decode
from salience.runtime.manifest import HOST_GRAPHS, Precision
from salience.training.data.folders import Sample, split_by_seed, spread
from salience.training.data.layouts import read_set
from salience.training.preprocessing import Preprocessing

from .bias_correction import BiasCorrection
from .bundle import file_entries, file_sha256, write_manifest
from .graph import Graph
from .quantization import Feeds, Ranges, calibrate, check_int8, layers, with_types
from .sensitivity import Chooser, Layer
from .tracing import trace
from .verify import channels_first

if TYPE_CHECKING:
    from .pipeline import Build, BuildSettings

# Pictures that give the ranges, at most half of all; those of them that give the biases; and at most so many of the
# others that choose the layers: what gave ranges and biases looks better than other pictures do.
CALIBRATED = 32
CORRECTED = 16
TUNED = 200
# What judges int8 is held out of the calibration folder where no other pictures are given.
HELD_OUT = 1 / 3


@dataclass(frozen=True)
class Pictures:
    """What int8 is made with, and what judges it; none is in both."""

    calibration: list[Sample]
    judged: list[Sample]


def find_pictures(settings: "BuildSettings") -> Pictures:
    """The pictures that int8 needs.

    Raises:
        ExportError: none are given, or some would both calibrate and judge.
        DataError: a folder does not hold pictures and masks.
    """
    if settings.calibration is None:
        raise ExportError("precision int8: needs pictures to calibrate with; pass --calibration DIR.")
    calibration = read_set(settings.calibration)
    if not settings.verify:
        return Pictures(calibration, [])
    if settings.images is None:
        return Pictures(*split_by_seed(calibration, fraction=HELD_OUT, seed=0))
    judged = read_set(settings.images)
    known = {file_sha256(sample.image) for sample in calibration}
    both = [sample.name for sample in judged if file_sha256(sample.image) in known]
    if both:
        raise ExportError(
            f"images {settings.images}: {len(both)} of {len(judged)} are in --calibration too, such as {both[0]}; "
            "what judges int8 must be other pictures."
        )
    return Pictures(calibration, judged)


def add_int8(build: "Build", graphs: Sequence[Graph], pictures: Pictures) -> None:
    """Write the int8 file of every graph that has layers; the others' is that of fp32."""
    models = {graph.name: _fp32(build, graph) for graph in graphs}
    deep = [graph for graph in graphs if layers(models[graph.name], graph.int8_outputs)]
    calibration, others = _split(pictures.calibration)
    correcting = spread(calibration, CORRECTED)
    ranges: dict[str, Ranges] = {}
    corrections: dict[str, BiasCorrection] = {}
    for graph in deep:
        model = models[graph.name]
        with build.step(f"calibrate {graph.name}"):
            ranges[graph.name] = calibrate(model, _feeds(graph, calibration, build.preprocessing))
            corrections[graph.name] = BiasCorrection(model, list(_feeds(graph, correcting, build.preprocessing)))
    with _serving(build, models) as detectors:
        chooser = Chooser(
            detectors=detectors,
            serve=build.export.serve,
            models={graph.name: with_types(models[graph.name]) for graph in deep},
            ranges=ranges,
            corrections=corrections,
            outputs={graph.name: graph.int8_outputs for graph in deep},
            calibrated=len(calibration),
            corrected=len(correcting),
            worse_only=build.export.follows_gradients,
        )
        chosen = chooser.candidates()
        if build.settings.verify:
            with build.step("choose the int8 layers"):
                found = chooser.choose(spread(others, TUNED))
            build.record = build.record.model_copy(update={"quantization": found})
            chosen = [Layer(change.graph, change.layer) for change in found.layers if not change.kept]
        with build.step("correct the biases"):
            quantized = chooser.quantized(chosen)
    for graph in graphs:
        files = dict(build.entries[graph.name].files)
        if graph.name in quantized:
            check_int8(quantized[graph.name], [layer.name for layer in chosen if layer.graph == graph.name])
        else:
            files["int8"] = f"{graph.name}.onnx"
        onnx.save(quantized.get(graph.name, models[graph.name]), build.folder / files["int8"])
        build.entries[graph.name] = graph.entry(files)
        build.verify_graph(graph, ["int8"])


def _fp32(build: "Build", graph: Graph) -> ModelProto:
    files = build.entries[graph.name].files
    if "fp32" in files:
        return onnx.load(build.folder / files["fp32"])
    with build.step(f"trace {graph.name} fp32"):
        return trace(graph, "fp32")


def _feeds(graph: Graph, samples: Sequence[Sample], preprocessing: Preprocessing) -> Iterator[Feeds]:
    """The graph's inputs of each picture, one by one: those of a later graph may be large."""
    for sample in samples:
        tensor = preprocessing(channels_first(decode(sample.image)))[None]
        with torch.no_grad():
            found = graph.feeds(tensor) if graph.feeds else (tensor,)
        yield {spec.name: values.numpy() for spec, values in zip(graph.inputs, found, strict=True)}


@contextmanager
def _serving(build: "Build", models: dict[str, ModelProto]) -> Iterator[list[Detector]]:
    """The bundle as it serves in fp32 on the CPU, by every engine that it is verified on."""
    fp32: Precision = "fp32"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for graph in (graph for graph in build.entries if graph in HOST_GRAPHS):
            shutil.copy(build.folder / f"{graph}.onnx", folder)
        entries = dict(build.entries)
        for graph, model in models.items():
            onnx.save(model, folder / f"{graph}.onnx")
            entries[graph] = entries[graph].model_copy(update={"files": {fp32: f"{graph}.onnx"}})
        manifest = build.manifest().model_copy(
            update={"graphs": entries, "engines": (), "default_precision": fp32, "files": file_entries(folder)}
        )
        write_manifest(folder, manifest)
        yield [load(folder, backend=engine, device="cpu") for engine in build.runnable()]


def _split(samples: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    """What gives ranges, and the others; of one picture, that one twice."""
    first = spread(samples, min(CALIBRATED, -(-len(samples) // 2)))
    names = {sample.name for sample in first}
    return first, [sample for sample in samples if sample.name not in names] or first
