"""What the GPU check computes on: small networks, synthetic scenes, and what the CPU makes of them."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu_torch import TorchEngine
from benchmarks.networks import write_calibration
from salience.export.cli import PRETRAINED
from salience.export.graph import MethodExport
from salience.export.graphs import GRAPHS
from salience.export.pipeline import BuildSettings, EngineName, build_network_bundle
from salience.runtime import Bundle, ClampedDescentDetector, GroupDetector, PromoterDetector, load
from salience.runtime.backends import BACKENDS
from salience.runtime.backends.engine import Engine, EngineOptions
from salience.runtime.detector import Detector, Prepared
from salience.runtime.evaluation.metrics import MetricAccumulator, Scores
from salience.runtime.low_level import Descent
from salience.runtime.manifest import Precision
from salience.runtime.methods import METHODS
from salience.runtime.methods.gicd import GroupPass
from salience.runtime.methods.lps import PreparedPair
from salience.runtime.tables import entry
from salience.training.backbone import load_weights
from salience.training.checkpoint import CheckpointHeader, load_checkpoint, save_checkpoint
from salience.training.data.scenes import scenes
from salience.training.networks.cgd import Classifier, ClassifierSettings
from salience.training.preprocessing import Preprocessing

Maps = NDArray[np.float32]

PICTURES, QUICK_PICTURES = 24, 2
_CLASSIFIER_SIZE = (224, 224)


@dataclass(frozen=True)
class Material:
    """Networks, bundles and pictures, made when they are first asked for and kept in `folder`.

    Attributes:
        folder: parts of one check share it.
        quick: few pictures.
    """

    folder: Path
    quick: bool = False

    def checkpoint(self, method: str) -> Path:
        """The packaged network; of `cgd`, which has none, the classifier that the one of `gicd` holds."""
        own = self.folder / f"{method}.safetensors"
        if not own.exists() and method == "cgd":
            write_classifier(own, PRETRAINED / "gicd-mobilenet_v2.safetensors")
        return own if own.exists() else PRETRAINED / f"{method}-mobilenet_v2.safetensors"

    def bundle(
        self,
        method: str,
        precision: Precision = "fp32",
        *,
        engine: EngineName = "onnxruntime",
        targets: tuple[str, ...] = (),
    ) -> Path:
        """The bundle of one precision; see `build_bundle`."""
        output = self.folder / f"{method}-{precision}-{engine}"
        return build_bundle(self.checkpoint(method), output, precision, engine=engine, targets=targets)

    def torch_detector(self, method: str, precision: Precision, device: str, *, replayed: bool = False) -> Detector:
        """See `torch_detector`."""
        return torch_detector(self.checkpoint(method), self.bundle(method), precision, device, replayed=replayed)

    def reference(self, method: str) -> Detector:
        """On the CPU, in fp32, by ONNX Runtime."""
        return load(self.bundle(method), backend="onnxruntime", device="cpu", precision="fp32", kernels="none")

    @property
    def pictures(self) -> int:
        """How many are compared."""
        return QUICK_PICTURES if self.quick else PICTURES


def write_classifier(path: Path, source: Path) -> None:
    """A checkpoint of `cgd` with the MobileNetV2 of another one."""
    settings = ClassifierSettings(backbone="mobilenet_v2")
    network = Classifier(settings).eval()
    load_weights(network.backbone, source, architecture=settings.backbone)
    scale: dict[str, Any] = Classifier.input_scale
    header = CheckpointHeader(
        method="cgd", network=settings.model_dump(), preprocessing=Preprocessing(size=_CLASSIFIER_SIZE, **scale)
    )
    save_checkpoint(path, network, header)


def build_bundle(
    checkpoint: Path, output: Path, precision: Precision, *, engine: EngineName, targets: tuple[str, ...] = ()
) -> Path:
    """The bundle of one precision, compared with nothing, unless it is there; int8 is calibrated with scenes.

    Raises:
        SalienceError: it cannot be built here.
    """
    if not output.exists():
        settings = BuildSettings(
            output=output,
            precisions=(precision,),
            engines=(engine,),
            verify=False,
            calibration=write_calibration(output.parent / "calibration") if precision == "int8" else None,
            profile=(1, 8, 32),
            targets=targets,
        )
        header, network = load_checkpoint(checkpoint)
        export: MethodExport = entry(GRAPHS, header.method, what="method")()
        build_network_bundle(header, network, export, settings, step=lambda name: nullcontext(), source={})
    return output


def torch_detector(
    checkpoint: Path, bundle: Path, precision: Precision, device: str, *, replayed: bool = False
) -> Detector:
    """A detector on PyTorch's engines; what comes before and after the network is `bundle`'s."""
    header, network = load_checkpoint(checkpoint)
    export: MethodExport = entry(GRAPHS, header.method, what="method")()
    graphs = export.graphs(network, header.preprocessing.size)
    engines = {graph.name: TorchEngine(graph, precision, device, replayed=replayed) for graph in graphs}
    detector: Detector = entry(METHODS, header.method, what="method")(Bundle(bundle), engines, precision, None)
    return detector


def works(backend: str, device: str) -> bool:
    """Whether a backend can run on the device here."""
    engine: type[Engine] = entry(BACKENDS, backend, what="backend")
    return engine.unavailable(EngineOptions(device=device)) is None


def prepare_scenes(detector: Detector, count: int) -> tuple[list[Prepared], list[NDArray[np.bool_]]]:
    """`count` scenes as the network takes them, for `lps` each with a poor prior, and their masks."""
    prepared: list[Prepared] = []
    masks = []
    for scene in scenes(count, seed=3):
        image, mask = scene.load()
        if isinstance(detector, PromoterDetector):
            prepared.append(detector.prepare_pair(image, _poor(mask)))
        else:
            prepared.append(detector.prepare(image))
        masks.append(mask)
    return prepared, masks


def maps_of(detector: Detector, prepared: Sequence[Prepared], *, iterations: int = 3, batch: int = 8) -> Maps:
    """Maps (N, 1, h, w) at the network's size, by `batch` pictures in a call; the scenes are one group of `gicd`.

    Of `cgd` how far one step moves each pixel, over the farthest: later steps multiply what rounding does to a ReLU.
    """
    if isinstance(detector, GroupDetector):
        group = GroupPass(detector, prepared.__getitem__, len(prepared), batch=batch)
        found = {index: values for index, _, values in group.maps()}
        return np.stack([found[index] for index in range(len(prepared))])
    chunks = [prepared[start : start + batch] for start in range(0, len(prepared), batch)]
    return np.concatenate([_chunk(detector, chunk, iterations) for chunk in chunks])


def _chunk(detector: Detector, chunk: Sequence[Prepared], iterations: int) -> Maps:
    if isinstance(detector, PromoterDetector):
        pairs = [pair for pair in chunk if isinstance(pair, PreparedPair)]
        return detector.refine(pairs, iterations)[:, -1]
    if isinstance(detector, ClampedDescentDetector):
        found = detector.descend(chunk, [None] * len(chunk), Descent(iterations=1))
        moved = np.stack([np.abs(f.image - p.tensor[0]).max(axis=0) for f, p in zip(found, chunk, strict=True)])
        farthest = np.maximum(moved.max(axis=(1, 2), keepdims=True), np.finfo(np.float32).tiny)
        return np.asarray((moved / farthest)[:, None], dtype=np.float32)
    return detector.infer(chunk)


def scores(detector: Detector, prepared: Sequence[Prepared], maps: Maps, masks: Sequence[NDArray[np.bool_]]) -> Scores:
    """Of maps at their pictures' sizes."""
    found = MetricAccumulator(full=False)
    for member, values, mask in zip(prepared, maps, masks, strict=True):
        found.add(detector.finish(member, values).grey(), mask)
    return found.scores()


def relative_error(found: Maps, expected: Maps) -> float:
    """Norm of the difference over that of what is expected."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def _poor(mask: NDArray[np.bool_]) -> Maps:
    """A prior: the mask beside its place, and not sure of itself."""
    moved: Any = np.roll(mask, mask.shape[1] // 12, axis=1)
    return np.where(moved, 0.75, 0.25).astype(np.float32)
