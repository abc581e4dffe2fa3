"""The int8 files of a bundle: calibrated, their layers chosen, verified, compiled."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from onnx import ModelProto

from salience.runtime.detector import Detector
from salience.runtime.errors import ExportError
from salience.runtime.images import decode
from salience.runtime.manifest import Quantization
from salience.training.data.folders import Sample, split_by_seed, spread
from salience.training.data.layouts import read_set
from salience.training.preprocessing import Preprocessing

from .bias_correction import BiasCorrection
from .bundle import file_sha256
from .graph import Graph, MethodExport
from .quantization import Feeds, Ranges, calibrate, check_int8, layers, with_types
from .sensitivity import Chooser, Layer
from .verify import channels_first

Step = Callable[[str], AbstractContextManager[None]]

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


def find_pictures(calibration: Path | None, images: Path | None, *, verify: bool) -> Pictures:
    """Return the images that int8 needs.

    Args:
        calibration: folder with images/ and masks/ that int8 is made with.
        images: folder of other images that judge it; None holds some of `calibration` out.
        verify: False needs no images that judge.

    Raises:
        ExportError: none are given, or some would both calibrate and judge.
        DataError: a folder does not hold images and masks.
    """
    if calibration is None:
        raise ExportError("precision int8: needs pictures to calibrate with; pass --calibration DIR.")
    first = read_set(calibration)
    if not verify:
        return Pictures(first, [])
    if images is None:
        return Pictures(*split_by_seed(first, fraction=HELD_OUT, seed=0))
    judged = read_set(images)
    known = {file_sha256(sample.image) for sample in first}
    both = [sample.name for sample in judged if file_sha256(sample.image) in known]
    if both:
        raise ExportError(
            f"images {images}: {len(both)} of {len(judged)} are in --calibration too, such as {both[0]}; "
            "what judges int8 must be other pictures."
        )
    return Pictures(first, judged)


@dataclass(frozen=True)
class Quantized:
    """What became of a method's graphs.

    Attributes:
        models: of the graphs that have layers in int8; the others stay in fp32.
        layers: names of the layers in int8 of each of these graphs.
        record: how the layers were chosen; None where all possible ones were taken.
    """

    models: dict[str, ModelProto]
    layers: dict[str, list[str]]
    record: Quantization | None


def quantize(
    graphs: Sequence[Graph],
    models: Mapping[str, ModelProto],
    export: MethodExport,
    preprocessing: Preprocessing,
    pictures: Pictures,
    *,
    serving: Callable[[], AbstractContextManager[Sequence[Detector]]],
    verify: bool,
    step: Step,
) -> Quantized:
    """Calibrate the fp32 graphs, choose their int8 layers, and correct the biases.

    Args:
        graphs: of the method.
        models: their fp32 files, by name.
        export: of the method.
        preprocessing: of the network's input.
        pictures: see `find_pictures`.
        serving: opens the bundle as it serves in fp32, by every engine that judges the layers.
        verify: False takes all possible layers.
        step: a context for each long step, with its name.
    """
    deep = [graph for graph in graphs if layers(models[graph.name], graph.int8_outputs)]
    calibration, others = _split(pictures.calibration)
    correcting = spread(calibration, CORRECTED)
    ranges: dict[str, Ranges] = {}
    corrections: dict[str, BiasCorrection] = {}
    for graph in deep:
        model = models[graph.name]
        with step(f"calibrate {graph.name}"):
            ranges[graph.name] = calibrate(model, _feeds(graph, calibration, preprocessing))
            corrections[graph.name] = BiasCorrection(model, list(_feeds(graph, correcting, preprocessing)))
    with serving() as detectors:
        chooser = Chooser(
            detectors=detectors,
            serve=export.serve,
            models={graph.name: with_types(models[graph.name]) for graph in deep},
            ranges=ranges,
            corrections=corrections,
            outputs={graph.name: graph.int8_outputs for graph in deep},
            calibrated=len(calibration),
            corrected=len(correcting),
            worse_only=export.follows_gradients,
        )
        chosen, record = chooser.candidates(), None
        if verify:
            with step("choose the int8 layers"):
                record = chooser.choose(spread(others, TUNED))
            chosen = [Layer(change.graph, change.layer) for change in record.layers if not change.kept]
        with step("correct the biases"):
            quantized = chooser.quantized(chosen)
    names = {graph: [layer.name for layer in chosen if layer.graph == graph] for graph in quantized}
    for graph_name, model in quantized.items():
        check_int8(model, names[graph_name])
    return Quantized(quantized, names, record)


def _feeds(graph: Graph, samples: Sequence[Sample], preprocessing: Preprocessing) -> Iterator[Feeds]:
    """The graph's inputs of each picture, one by one: those of a later graph may be large."""
    for sample in samples:
        tensor = preprocessing(channels_first(decode(sample.image)))[None]
        with torch.no_grad():
            found = graph.feeds(tensor) if graph.feeds else (tensor,)
        yield {spec.name: values.numpy() for spec, values in zip(graph.inputs, found, strict=True)}


def _split(samples: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    """What gives ranges, and the others; of one picture, that one twice."""
    first = spread(samples, min(CALIBRATED, -(-len(samples) // 2)))
    names = {sample.name for sample in first}
    return first, [sample for sample in samples if sample.name not in names] or first
