"""Every graph is compared with PyTorch before it may enter a bundle: by tensor error and by metric."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from salience.runtime.backends.engine import Engine
from salience.runtime.evaluation.metrics import MetricAccumulator, Scores
from salience.runtime.manifest import MetricCheck, Precision, TensorCheck, TensorSpec
from salience.training.data.folders import Sample
from salience.training.data.scenes import scenes
from salience.training.preprocessing import Preprocessing

from .graph import Graph, InPrecision, Outputs

Arrays: TypeAlias = dict[str, NDArray[Any]]

BATCHES = (1, 2, 5)
SCENES = 10

# Norm of the error over norm of the expected values. fp32: rounding of some 60 layers in another order,
# measured 2e-6 to 2e-5. fp16: a step of 5e-4 in every weight, and for "fp16" in every activation too, through
# some 60 layers, measured 5e-3 to 2e-2; a conversion that goes wrong (a lost layer, a swapped axis) is off by .3
# or more. bf16: a step of 4e-3, eight times that of fp16, measured 4e-3 to 1.2e-1, alike with activations in fp32 and
# in bf16. int8: steps of 1 in 127, measured 6e-2 to 4e-1 on scenes, which calibration did not see; a file of which a
# runtime quantised more than was meant was off by .97. What decides in these two is the metric.
TENSOR_TOLERANCE: dict[Precision, float] = {
    "fp32": 1e-4, "fp16-weights": 5e-2, "fp16": 5e-2, "bf16": 0.3, "int8": 0.6,
}  # fmt: skip
# The least that is allowed of graphs with a backward pass, see `GradientReference`. In bf16 little is told by more:
# so many decisions flip that a trained SqueezeNet's gradient is .34 off by PyTorch's own autograd.
GRADIENT_TOLERANCE: dict[Precision, float] = {
    "fp32": 3e-3, "fp16-weights": 5e-2, "fp16": 5e-2, "bf16": 0.3, "int8": 1.0,
}  # fmt: skip

# Largest change of max F and of MAE on real images; what a table of three digits would show. bf16 rounds to as many
# bits as int8 and may change them by as much; measured 1.2e-3 and 2.5e-3 (multis, arn, 60 pictures of ECSSD).
METRIC_TOLERANCE: dict[Precision, float] = {
    "fp32": 2e-4, "fp16-weights": 1e-3, "fp16": 1e-3, "bf16": 5e-3, "int8": 5e-3,
}  # fmt: skip

# Of maps that follow gradients: on one and the same input PyTorch's own autograd in fp32 is 4e-4 from float64 (max F,
# 30 pictures of ECSSD's training part), and three times that is allowed, as in `GradientReference`. Rounded weights or
# activations give other maps, which are bounded as those of int8.
GRADIENT_METRIC_TOLERANCE: dict[Precision, float] = {
    "fp32": 1e-3, "fp16-weights": 5e-3, "fp16": 5e-3, "bf16": 5e-3, "int8": 5e-3,
}  # fmt: skip

# One grey level: ONNX Runtime and torchvision round the antialiased resize of uint8 after each of its two passes, and
# not alike. Each stays within a level of the exact value, so they may be two apart, and are at 1 pixel in 50,000.
GREY_LEVEL = 1.001 / 255
RARE = 1e-4
_SEED = 20_000


class Reference:
    """PyTorch's side of the comparisons with `graph`: what is fed and what should come, computed once.

    Args:
        graph: what is compared.
        pictures: network input (N, 3, h, w).
    """

    def __init__(self, graph: Graph, pictures: torch.Tensor) -> None:
        self.graph = graph
        self.count = len(pictures)
        # One by one: what a picture needs may be large.
        with torch.no_grad():
            feeds = [graph.feeds(picture) if graph.feeds else (picture,) for picture in pictures.split(1)]
            expected = [_tuple(graph.reference(picture)) for picture in pictures.split(1)]
        self.feeds = _joined(graph.inputs, feeds)
        self.expected = _joined(graph.outputs, expected)

    def tolerance(self, precision: Precision) -> float:
        """What the relative error may be."""
        return TENSOR_TOLERANCE[precision]

    def run(self, engine: Engine, batch: int) -> Arrays:
        """What `engine` makes of the feeds, cut into batches."""
        free = {spec.name for spec in self.graph.inputs if isinstance(spec.shape[0], str)}
        found = []
        for start in range(0, self.count, batch):
            part = slice(start, start + batch)
            feed = {name: values[part] if name in free else values for name, values in self.feeds.items()}
            feed = {name: values.astype(engine.inputs[name].dtype, copy=False) for name, values in feed.items()}
            outputs = engine.run(feed)
            found.append(tuple(torch.from_numpy(outputs[spec.name]) for spec in self.graph.outputs))
        return _joined(self.graph.outputs, found)


class GradientReference(Reference):
    """As `Reference`, of a graph with a backward pass: PyTorch computes in float64 what should come.

    A ReLU or a pooling that decides otherwise, because another convolution algorithm rounds otherwise, moves a whole
    part of a gradient. So an engine may be as far from float64 as PyTorch's own autograd in the same precision is,
    times three: the two round alike often, but not on the same places.
    """

    def __init__(self, graph: Graph, pictures: torch.Tensor) -> None:
        super().__init__(graph, pictures)
        self.expected = self._eager(copy.deepcopy(graph.module).double(), torch.float64)

    def tolerance(self, precision: Precision) -> float:
        """See above; at least `GRADIENT_TOLERANCE`."""
        module = self.graph.at(precision)
        if precision == "fp16-weights":
            module = InPrecision(self.graph, torch.float16).float()
        found = self._eager(module, torch.float32)
        own = _worst(_relative(found[name], expected) for name, expected in self.expected.items())
        return max(GRADIENT_TOLERANCE[precision], 3 * own)

    def _eager(self, module: nn.Module, kind: torch.dtype) -> Arrays:
        """What `module` makes of the feeds, floats of them as `kind`."""
        tensors = [torch.from_numpy(values) for values in self.feeds.values()]
        outputs = module.eval()(*(t.to(kind) if t.is_floating_point() else t for t in tensors))
        return {spec.name: y.detach().numpy() for spec, y in zip(self.graph.outputs, outputs, strict=True)}


def reference_type(graph: Graph) -> type[Reference]:
    """What `graph` is compared with."""
    return GradientReference if graph.takes_gradients else Reference


def scene_inputs(preprocessing: Preprocessing) -> torch.Tensor:
    """Ten scenes, half of them with sensor noise, as network input (N, 3, h, w).

    (On plain noise a trained network finds nothing, and the relative error of an empty map means nothing.)
    """
    clean = torch.stack([preprocessing(channels_first(s.load()[0])) for s in scenes(SCENES, seed=_SEED)])
    noise = np.random.default_rng(_SEED).standard_normal(clean[SCENES // 2 :].shape, dtype=np.float32)
    clean[SCENES // 2 :] += 0.1 * torch.from_numpy(noise)
    return clean


def check_graph(reference: Reference, precision: Precision, engine: Engine) -> Iterator[TensorCheck]:
    """Compare `engine` with PyTorch in fp32 on `reference.feeds`, cut into batches of each size.

    A graph of several outputs is as far off as the worst of them.
    """
    tolerance = reference.tolerance(precision)
    for batch in BATCHES:
        found = reference.run(engine, batch)
        pairs = [(found[name], expected) for name, expected in reference.expected.items()]
        yield TensorCheck(
            graph=reference.graph.name,
            precision=precision,
            backend=engine.name,
            batch=batch,
            inputs=f"{reference.count} scenes",
            max_abs=_worst(_largest(*pair) for pair in pairs),
            relative=_worst(_relative(*pair) for pair in pairs),
            tolerance=tolerance,
        )


def check_processing(preprocess: Engine, postprocess: Engine, preprocessing: Preprocessing) -> Iterator[TensorCheck]:
    """Compare the graphs before and after the network with the resize used in training, on scenes."""
    for scene in scenes(2, seed=_SEED):
        image, _ = scene.load()
        # Back to grey levels, where the tolerance is one.
        found = preprocess.run({"image": image})["input"]
        mean, std = (np.array(v, dtype=np.float32)[:, None, None] for v in (preprocessing.mean, preprocessing.std))
        expected = preprocessing.resize(channels_first(image))[None].float().div(255).numpy()
        colours = found[:, ::-1] if preprocessing.order == "bgr" else found
        yield _resize_check(scene.name, (colours * std + mean).astype(np.float32), expected)
        small = np.random.default_rng(scene.seed).random((1, 1, *preprocessing.size), dtype=np.float32)
        size = np.array(image.shape[:2], dtype=np.int64)
        values = postprocess.run({"saliency": small, "size": size})["map"]
        wanted = _resize(torch.from_numpy(small), image.shape[:2])
        yield _processing_check("postprocess", scene.name, values, wanted, TENSOR_TOLERANCE["fp32"])


def reference_scores(
    predict: Callable[[torch.Tensor, NDArray[np.uint8]], torch.Tensor],
    samples: Sequence[Sample],
    prepare: Callable[[NDArray[np.uint8]], torch.Tensor],
) -> Scores:
    """Scores of PyTorch's maps on real images; `prepare` makes network input (1, 3, h, w) of a picture."""

    def full_size(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.no_grad():
            small = predict(prepare(image), image)
        return _resize(small, image.shape[:2])

    return score_maps(samples, full_size)


def check_metric(
    expected: Scores,
    serve: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    samples: Sequence[Sample],
    precision: Precision,
    backend: str,
    *,
    follows_gradients: bool = False,
) -> MetricCheck:
    """Compare max F and MAE of PyTorch's maps with those of the bundle's maps, as `serve` gives them.

    For `follows_gradients` see `MethodExport`.
    """
    tolerances = GRADIENT_METRIC_TOLERANCE if follows_gradients else METRIC_TOLERANCE
    found = score_maps(samples, serve)
    return MetricCheck(
        precision=precision,
        backend=backend,
        images=found.images,
        f_max_reference=expected.f_max,
        f_max=found.f_max,
        mae_reference=expected.mae,
        mae=found.mae,
        tolerance=tolerances[precision],
        worse_only=follows_gradients and precision in ("bf16", "int8"),
    )


def score_maps(samples: Sequence[Sample], predict: Callable[[NDArray[np.uint8]], NDArray[np.float32]]) -> Scores:
    """Max F and MAE of the maps (H, W) in [0, 1] that `predict` makes of (H, W, 3) RGB pictures."""
    return measure_maps(samples, predict).scores()


def measure_maps(
    samples: Sequence[Sample], predict: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
) -> MetricAccumulator:
    """As `score_maps`, with the values of each picture."""
    metrics = MetricAccumulator(full=False)
    for sample in samples:
        image, mask = sample.load()
        metrics.add(np.rint(predict(image) * 255).astype(np.uint8), mask)
    return metrics


def _resize_check(scene: str, found: NDArray[np.float32], expected: NDArray[np.float32]) -> TensorCheck:
    """Within one grey level, but for rare pixels within two."""
    check = _processing_check("preprocess", scene, found, expected, GREY_LEVEL)
    if found.shape != expected.shape:
        return check
    usual = float(np.quantile(np.abs(found - expected), 1 - RARE))
    return check.model_copy(update={"relative": max(usual, check.max_abs / 2)})


def _processing_check(
    name: str, scene: str, found: NDArray[np.float32], expected: NDArray[np.float32], tolerance: float
) -> TensorCheck:
    """Values are in [0, 1], so the largest error is the relative one."""
    error = _largest(found, expected)
    return TensorCheck(
        graph=name, precision="fp32", backend="onnxruntime", batch=1, inputs=scene, max_abs=error, relative=error,
        tolerance=tolerance,
    )  # fmt: skip


def check_prior(prior: Engine, size: tuple[int, int]) -> Iterator[TensorCheck]:
    """Compare the graph that resizes priors with the resize used in training."""
    for shape in ((97, 131), (size[0] * 3, size[1] * 2)):
        values = np.random.default_rng(_SEED).random(shape, dtype=np.float32)
        found = prior.run({"map": values})["prior"][0, 0]
        expected = _resize(torch.from_numpy(values)[None, None], size)
        inputs = f"noise {shape[0]} x {shape[1]}"
        yield _processing_check("prior", inputs, found, expected, TENSOR_TOLERANCE["fp32"])


def _joined(specs: Sequence[TensorSpec], rows: Sequence[tuple[torch.Tensor, ...]]) -> Arrays:
    """Tensors of several runs joined along the batch, by name; one without a batch is taken once."""
    columns = zip(specs, zip(*rows, strict=True), strict=True)
    return {
        spec.name: (torch.cat(column) if isinstance(spec.shape[0], str) else column[0]).numpy()
        for spec, column in columns
    }


def _tuple(found: Outputs) -> tuple[torch.Tensor, ...]:
    return (found,) if isinstance(found, torch.Tensor) else tuple(found)


def _worst(errors: Iterable[float]) -> float:
    """The largest; NaN where there is one, which no tolerance allows."""
    return float(np.max(list(errors)))


def _largest(found: NDArray[Any], expected: NDArray[Any]) -> float:
    if found.shape != expected.shape:
        return float("inf")
    return float(np.abs(found.astype(np.float32) - expected).max())


def _relative(found: NDArray[Any], expected: NDArray[Any]) -> float:
    if found.shape != expected.shape:
        return float("inf")
    error = np.linalg.norm(found.astype(np.float32) - expected)
    return float(error / max(float(np.linalg.norm(expected)), 1e-12))


def channels_first(image: NDArray[np.uint8]) -> torch.Tensor:
    """(H, W, 3) -> (3, H, W), copied."""
    return torch.from_numpy(image.transpose(2, 0, 1).copy())


def _resize(saliency: torch.Tensor, size: tuple[int, ...]) -> NDArray[np.float32]:
    """(1, 1, h, w) -> (H, W) as training resizes."""
    full = F.interpolate(saliency, size=size[:2], mode="bilinear", antialias=True, align_corners=False)
    found: NDArray[np.float32] = full[0, 0].clamp(0, 1).numpy()
    return found
