"""Every graph is compared with PyTorch before it may enter a bundle: by tensor error and by metric."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from salience.runtime.backends.engine import Engine
from salience.runtime.evaluation.metrics import MetricAccumulator, Scores
from salience.runtime.manifest import MetricCheck, Precision, TensorCheck
from salience.training.data.folders import Sample, find_pairs
from salience.training.data.scenes import scenes
from salience.training.preprocessing import Preprocessing

from .graph import Graph

BATCHES = (1, 2, 5)

# Norm of the error over norm of the expected values. fp32: rounding of some 60 layers in another order,
# measured 2e-6 to 2e-5. fp16: a step of 5e-4 in every weight, and for "fp16" in every activation too, through
# some 60 layers, measured 5e-3 to 2e-2; a conversion that goes wrong (a lost layer, a swapped axis) is off by .3
# or more.
TENSOR_TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "fp16-weights": 5e-2, "fp16": 5e-2}

# Largest change of max F and of MAE on real images; what a table of three digits would show.
METRIC_TOLERANCE: dict[Precision, float] = {"fp32": 2e-4, "fp16-weights": 1e-3, "fp16": 1e-3}

# One grey level: ONNX Runtime and torchvision round the antialiased resize of uint8 differently.
GREY_LEVEL = 1.001 / 255
_SEED = 20_000


class Reference:
    """PyTorch's side of every comparison with `graph`, computed once."""

    def __init__(self, graph: Graph, preprocessing: Preprocessing, images: Path | None) -> None:
        self.graph = graph
        self.preprocessing = preprocessing
        self.samples = find_pairs(images) if images else []

    def run(self, feed: NDArray[np.float32]) -> NDArray[np.float32]:
        """`graph.reference` on (N, 3, H, W) float32."""
        with torch.no_grad():
            found: NDArray[np.float32] = self.graph.reference.eval()(torch.from_numpy(feed)).numpy()
        return found

    @cached_property
    def feed(self) -> NDArray[np.float32]:
        """Ten scenes, half of them with sensor noise, as network input. (On plain noise a trained network
        finds nothing, and the relative error of an empty map means nothing.)
        """
        images = [self.preprocessing(_channels_first(s.load()[0])) for s in scenes(10, seed=_SEED)]
        clean: NDArray[np.float32] = torch.stack(images).numpy()
        noise = np.random.default_rng(_SEED).standard_normal(clean[5:].shape, dtype=np.float32)
        return np.concatenate([clean[:5], clean[5:] + np.float32(0.1) * noise])

    @cached_property
    def expected(self) -> NDArray[np.float32]:
        """What PyTorch in fp32 makes of `feed`."""
        return self.run(self.feed)

    @cached_property
    def scores(self) -> Scores:
        """Scores of PyTorch's maps, with the resize used in training, on the real images."""

        def predict(image: NDArray[np.uint8]) -> NDArray[np.float32]:
            feed = self.preprocessing(_channels_first(image))[None].numpy()
            return _resize(torch.from_numpy(self.run(feed)), image.shape[:2])

        return _score(self.samples, predict)


def check_graph(reference: Reference, precision: Precision, engine: Engine) -> Iterator[TensorCheck]:
    """Compare `engine` with PyTorch in fp32 on `reference.feed`, cut into batches of each size."""
    graph = reference.graph
    for size in BATCHES:
        parts = [reference.feed[start : start + size] for start in range(0, len(reference.feed), size)]
        found = np.concatenate([engine.run({graph.inputs[0].name: part})[graph.outputs[0].name] for part in parts])
        yield TensorCheck(
            graph=graph.name,
            precision=precision,
            backend=engine.name,
            batch=size,
            inputs="10 scenes",
            max_abs=_largest(found, reference.expected),
            relative=_relative(found, reference.expected),
            tolerance=TENSOR_TOLERANCE[precision],
        )


def check_processing(preprocess: Engine, postprocess: Engine, preprocessing: Preprocessing) -> Iterator[TensorCheck]:
    """Compare the graphs before and after the network with the resize used in training, on scenes."""
    for scene in scenes(2, seed=_SEED):
        image, _ = scene.load()
        # Back to grey levels, where the tolerance is one.
        found = preprocess.run({"image": image})["input"]
        mean, std = (np.array(v, dtype=np.float32)[:, None, None] for v in (preprocessing.mean, preprocessing.std))
        expected = preprocessing.resize(_channels_first(image))[None].float().div(255).numpy()
        yield _processing_check("preprocess", scene.name, (found * std + mean).astype(np.float32), expected, GREY_LEVEL)
        small = np.random.default_rng(scene.seed).random((1, 1, *preprocessing.size), dtype=np.float32)
        size = np.array(image.shape[:2], dtype=np.int64)
        values = postprocess.run({"saliency": small, "size": size})["map"]
        wanted = _resize(torch.from_numpy(small), image.shape[:2])
        yield _processing_check("postprocess", scene.name, values, wanted, TENSOR_TOLERANCE["fp32"])


def check_metric(
    reference: Reference, precision: Precision, engine: Engine, processing: tuple[Engine, Engine]
) -> MetricCheck:
    """Compare max F and MAE of PyTorch's maps and of the bundle's on the real images."""
    graph = reference.graph

    def served(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        feed = processing[0].run({"image": image})["input"]
        small = engine.run({graph.inputs[0].name: feed})[graph.outputs[0].name]
        return processing[1].run({"saliency": small, "size": np.array(image.shape[:2], dtype=np.int64)})["map"]

    expected, found = reference.scores, _score(reference.samples, served)
    return MetricCheck(
        precision=precision,
        backend=engine.name,
        images=found.images,
        f_max_reference=expected.f_max,
        f_max=found.f_max,
        mae_reference=expected.mae,
        mae=found.mae,
        tolerance=METRIC_TOLERANCE[precision],
    )


def _score(samples: Sequence[Sample], predict: Callable[[NDArray[np.uint8]], NDArray[np.float32]]) -> Scores:
    metrics = MetricAccumulator(full=False)
    for sample in samples:
        image, mask = sample.load()
        metrics.add(np.rint(predict(image) * 255).astype(np.uint8), mask)
    return metrics.scores()


def _processing_check(
    name: str, scene: str, found: NDArray[np.float32], expected: NDArray[np.float32], tolerance: float
) -> TensorCheck:
    """Values are in [0, 1], so the largest error is the relative one."""
    error = _largest(found, expected)
    return TensorCheck(
        graph=name, precision="fp32", backend="onnxruntime", batch=1, inputs=scene, max_abs=error, relative=error,
        tolerance=tolerance,
    )  # fmt: skip


def _largest(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.abs(found - expected).max()) if found.shape == expected.shape else float("inf")


def _relative(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    if found.shape != expected.shape:
        return float("inf")
    return float(np.linalg.norm(found - expected) / max(float(np.linalg.norm(expected)), 1e-12))


def _channels_first(image: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1).copy())


def _resize(saliency: torch.Tensor, size: tuple[int, ...]) -> NDArray[np.float32]:
    """(1, 1, h, w) -> (H, W) as training resizes."""
    full = F.interpolate(saliency, size=size[:2], mode="bilinear", antialias=True, align_corners=False)
    found: NDArray[np.float32] = full[0, 0].clamp(0, 1).numpy()
    return found
