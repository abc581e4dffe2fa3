"""Which layers of a bundle may be int8: each is tried alone; what changes the maps most for its cost stays fp32."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from salience.runtime.backends.engine import EngineOptions
from salience.runtime.detector import Detector
from salience.runtime.errors import ExportError
from salience.runtime.evaluation.metrics import MetricAccumulator
from salience.runtime.manifest import LayerChange, Quantization, Trial
from salience.training.data.folders import Sample, spread

from .bias_correction import BiasCorrection
from .operations import multiply_adds
from .quantization import Ranges, layers, quantize
from .verify import METRIC_TOLERANCE, measure_maps

# Pictures on which each layer is tried alone.
TRIED = 8
# int8 holds where its change is within the tolerance, at a level of 5 %: two one-sided tests (Schuirmann, 1987), which
# add as many standard errors to it.
LIMIT = METRIC_TOLERANCE["int8"]
STANDARD_ERRORS = 1.645
RESAMPLED = 500
# Of all multiply-adds: a layer in fp32 costs that much at least, since its neighbours go to and fro between the types.
LEAST_COST = 0.01

Serve = Callable[[Detector, NDArray[np.uint8]], NDArray[np.float32]]


class Layer(NamedTuple):
    """A layer of one of the bundle's graphs."""

    graph: str
    name: str


@dataclass
class Chooser:
    """Finds the layers of a bundle that may be int8.

    Attributes:
        detectors: serve the bundle in fp32, one an engine that int8 must hold on.
        serve: the map (H, W) of a picture by a detector.
        models: the fp32 graphs that have layers, by name.
        ranges: of their tensors.
        corrections: of their biases.
        outputs: of each graph: the outputs before which layers may be int8; None for all.
        calibrated: the number of pictures that gave the ranges.
        corrected: the number of pictures that gave the biases.
        worse_only: scores may become better by any amount, see `MethodExport.follows_gradients`.
    """

    detectors: Sequence[Detector]
    serve: Serve
    models: Mapping[str, ModelProto]
    ranges: Mapping[str, Ranges]
    corrections: Mapping[str, BiasCorrection]
    outputs: Mapping[str, Sequence[str] | None]
    calibrated: int
    corrected: int
    worse_only: bool = False
    trials: list[Trial] = field(default_factory=list)

    def candidates(self) -> list[Layer]:
        """All layers that may be int8."""
        return [
            Layer(graph, name) for graph, model in self.models.items() for name in layers(model, self.outputs[graph])
        ]

    def quantized(self, chosen: Sequence[Layer]) -> dict[str, ModelProto]:
        """Every graph with its `chosen` layers in int8."""
        return {
            graph: self._quantized(graph, [layer.name for layer in chosen if layer.graph == graph])
            for graph in self.models
        }

    def _quantized(self, graph: str, chosen: Sequence[str]) -> ModelProto:
        model = quantize(self.models[graph], self.ranges[graph], chosen)
        self.corrections[graph].apply(model)
        return model

    def choose(self, samples: Sequence[Sample]) -> Quantization:
        """All layers if the scores on `samples` allow it; else as few stay fp32 as they allow, in order of worth.

        Raises:
            ExportError: no layer may be int8.
        """
        expected = measure_maps(samples, partial(self.serve, self.detectors[0]))
        counts = {graph: multiply_adds(model) for graph, model in self.models.items()}
        costs = {layer: counts[layer.graph].get(layer.name, 0) for layer in self.candidates()}
        changes: dict[Layer, float] = {}
        kept: set[Layer] = set()
        if not self._holds(self.candidates(), 0, samples, expected):
            changes = self.rank([sample.load()[0] for sample in spread(samples, TRIED)])
            order = _by_worth(changes, costs)
            kept = set(order[: self._fewest(order, samples, expected)])
        return Quantization(
            calibrated=self.calibrated,
            corrected=self.corrected,
            tuned=len(samples),
            limit=LIMIT,
            layers=tuple(
                LayerChange(
                    graph=layer.graph, layer=layer.name, relative=changes.get(layer), kept=layer in kept,
                    multiply_adds=cost,
                )
                for layer, cost in costs.items()
            ),
            trials=tuple(self.trials),
        )  # fmt: skip

    def rank(self, images: Sequence[NDArray[np.uint8]]) -> dict[Layer, float]:
        """The relative change of the maps of `images` by each layer alone, on the engine where it is largest."""
        expected = [self.serve(self.detectors[0], image) for image in images]
        size = max(_norm(expected), 1e-12)
        changes = {}
        for layer in self.candidates():
            alone = {layer.graph: self._quantized(layer.graph, [layer.name])}
            found = []
            for detector in self.detectors:
                changed = with_graphs(detector, alone)
                found.append([self.serve(changed, image) - want for image, want in zip(images, expected, strict=True)])
            changes[layer] = max(map(_norm, found)) / size
        return changes

    def _fewest(self, order: Sequence[Layer], samples: Sequence[Sample], expected: MetricAccumulator) -> int:
        """How many of `order` must stay fp32, where some must: doubled until the scores hold, then halved back."""
        low, high = 0, 1
        while high < len(order) and not self._holds(order, high, samples, expected):
            low, high = high, 2 * high
        if high >= len(order):
            raise ExportError(
                f"int8: with {low} of {len(order)} layers in fp32 max F or MAE may still change by more than {LIMIT}, "
                f"as far as {len(samples)} pictures tell; leave int8 out, or calibrate with more or other pictures."
            )
        while high - low > 1:
            middle = (low + high) // 2
            if self._holds(order, middle, samples, expected):
                high = middle
            else:
                low = middle
        return high

    def _holds(self, order: Sequence[Layer], kept: int, samples: Sequence[Sample], expected: MetricAccumulator) -> bool:
        models = self.quantized(order[kept:])
        holds = True
        for detector in self.detectors:
            found = measure_maps(samples, partial(self.serve, with_graphs(detector, models)))
            backend = next(iter(detector.engines.values())).name
            trial = Trial(kept=kept, backend=backend, **paired_changes(expected, found))
            self.trials.append(trial)
            holds = holds and self._within_limit(trial)
        return holds

    def _within_limit(self, trial: Trial) -> bool:
        worse = (-trial.f_change, trial.mae_change)
        errors = (trial.f_error, trial.mae_error)
        return all(
            (change if self.worse_only else abs(change)) + STANDARD_ERRORS * error <= LIMIT
            for change, error in zip(worse, errors, strict=True)
        )


def _by_worth(changes: Mapping[Layer, float], costs: Mapping[Layer, int]) -> list[Layer]:
    """Layers by what fp32 there gains for what it costs, most first; changes of many layers add up as squares do."""
    least = max(1, LEAST_COST * sum(costs.values()))
    return sorted(changes, key=lambda layer: -(changes[layer] ** 2) / (costs[layer] + least))


def paired_changes(before: MetricAccumulator, after: MetricAccumulator) -> dict[str, float]:
    """The fields of a `Trial`; the standard errors are those of pictures drawn anew from these, with repetition."""
    f_before, mae_before = before.image_curves()
    f_after, mae_after = after.image_curves()
    count = len(mae_before)
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLED) / count
    f_drawn = (drawn @ f_after).max(axis=1) - (drawn @ f_before).max(axis=1)
    return {
        "f_change": float(f_after.mean(axis=0).max() - f_before.mean(axis=0).max()),
        "mae_change": float((mae_after - mae_before).mean()),
        "f_error": float(f_drawn.std()),
        "mae_error": float((drawn @ (mae_after - mae_before)).std()),
    }


def with_graphs(detector: Detector, models: Mapping[str, ModelProto]) -> Detector:
    """`detector` with other graphs in some places."""
    engines = dict(detector.engines)
    with tempfile.TemporaryDirectory() as folder:
        for graph, model in models.items():
            path = Path(folder) / f"{graph}.onnx"
            onnx.save(model, path)
            entry = detector.bundle.manifest.graphs[graph]
            engines[graph] = type(engines[graph]).open_graph(path, entry, EngineOptions())
    return type(detector)(detector.bundle, engines, detector.precision, None)


def _norm(maps: Sequence[NDArray[np.float32]]) -> float:
    """Of all maps together."""
    return float(np.linalg.norm([np.linalg.norm(values) for values in maps]))
