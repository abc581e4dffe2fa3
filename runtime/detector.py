"""What every method's detector shares: pictures in, saliency maps out, through the bundle's own graphs."""

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from .backends import BACKENDS
from .backends.engine import Engine, EngineOptions, available_cores
from .backends.onnxrt import OnnxRuntimeEngine
from .bundle import DEFAULT_BUNDLE, Bundle
from .errors import BackendUnavailableError, BundleError, EngineError, SalienceError
from .images import MAX_PIXELS, ImageSource, decode
from .load_options import BackendName, LoadOptions, ProviderName
from .manifest import Precision, Tuning
from .methods import METHODS
from .native import Kernels, check_backend, kernel_library
from .saliency import SaliencyMap
from .tables import entry

log = logging.getLogger("salience")


@dataclass(frozen=True, eq=False)
class Prepared:
    """A decoded picture, (H, W, 3) uint8 RGB, and the network input (1, 3, h, w) float32 made of it."""

    image: NDArray[np.uint8]
    tensor: NDArray[np.float32]


class Detector(ABC):
    """Serves one bundle; safe to call from many threads at once.

    `predict` is `prepare`, `infer` and `finish` in a row; a pipeline may overlap the three.

    Attributes:
        bundle: what is served.
        precision: of the graphs that run.
        backend: the engine that runs them, in words.
        host: how the graphs before and after the network run.
    """

    graphs: ClassVar[tuple[str, ...]]
    # Whether a picture alone is enough for `predict`.
    standalone: ClassVar[bool] = True

    def __init__(self, bundle: Bundle, engines: dict[str, Engine], precision: Precision, threads: int | None) -> None:
        self.bundle = bundle
        self.engines = engines
        self.precision = precision
        self.backend = next(iter(engines.values())).label
        self.host = EngineOptions(threads=threads)
        self._preprocess = OnnxRuntimeEngine.open(bundle, "preprocess", "fp32", self.host)
        self._postprocess = OnnxRuntimeEngine.open(bundle, "postprocess", "fp32", self.host)

    @property
    def on_gpu(self) -> bool:
        """Whether the network runs on a GPU."""
        return next(iter(self.engines.values())).on_gpu

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.bundle.path)!r}, {self.precision}, {self.backend})"

    def predict(self, image: ImageSource) -> SaliencyMap:
        """The saliency map of one picture.

        Args:
            image: a path, encoded bytes, a binary file, a PIL image, or an array; see `images.decode`.

        Raises:
            ImageError: the picture cannot be read.
            EngineError: the engine failed.
        """
        return self.predict_batch([image])[0]

    def predict_batch(self, images: Sequence[ImageSource]) -> list[SaliencyMap]:
        """The saliency maps of several pictures of any sizes, in one engine call."""
        prepared = [self.prepare(image) for image in images]
        return [self.finish(p, values) for p, values in zip(prepared, self.infer(prepared), strict=True)]

    def prepare(self, image: ImageSource, *, max_pixels: int = MAX_PIXELS) -> Prepared:
        """Decode one picture and bring it to the network's input."""
        pixels = decode(image, max_pixels=max_pixels)
        return Prepared(pixels, self._preprocess.run({"image": pixels})["input"])

    @abstractmethod
    def infer(self, prepared: Sequence[Prepared]) -> NDArray[np.float32]:
        """Maps (N, 1, h, w) float32 in [0, 1] at the network's size, of N prepared pictures.

        Raises:
            EngineError: the engine failed.
            SalienceError: the method needs more than a picture, see `standalone`.
        """

    def finish(self, prepared: Prepared, values: NDArray[np.float32]) -> SaliencyMap:
        """Bring one map (1, h, w) of `infer` to its picture's size."""
        if not np.isfinite(values).all():
            raise SalienceError(f"{self.backend}: the map holds NaN or infinity; use another precision or backend.")
        size = np.array(prepared.image.shape[:2], dtype=np.int64)
        found = self._postprocess.run({"saliency": values[None], "size": size})["map"]
        return SaliencyMap(found, prepared.image)

    def try_out(self, image: NDArray[np.uint8]) -> SaliencyMap:
        """The map of any picture (H, W, 3) RGB, by all graphs: to warm up, or to measure."""
        return self.predict(image)

    def release_memory(self) -> None:
        """Give back what was kept of the largest pictures so far, to serve the next such one faster."""
        height, width = self.bundle.manifest.input_size
        self._preprocess.run_small({"image": np.zeros((32, 32, 3), dtype=np.uint8)})
        saliency = np.zeros((1, 1, height, width), dtype=np.float32)
        self._postprocess.run_small({"saliency": saliency, "size": np.array([32, 32], dtype=np.int64)})

    def require_standalone(self) -> None:
        """Raise SalienceError where a picture alone is not enough, see `standalone`."""
        if not self.standalone:
            raise SalienceError(
                f"bundle {self.bundle.path}: holds {self.bundle.manifest.method}, which promotes a prior; "
                "use promote(image, prior), or on the command line: salience promote."
            )


class SaliencyDetector(Detector):
    """Serves any method that is one graph `saliency`, from network input to map."""

    graphs = ("saliency",)

    def infer(self, prepared: Sequence[Prepared]) -> NDArray[np.float32]:
        """See `Detector.infer`."""
        if not prepared:
            height, width = self.bundle.manifest.input_size
            return np.zeros((0, 1, height, width), dtype=np.float32)
        batch = np.concatenate([p.tensor for p in prepared])
        return self.engines["saliency"].run({"input": batch})["saliency"]


def load(
    bundle: str | os.PathLike[str] | None = None,
    *,
    backend: BackendName = "auto",
    precision: Precision | Literal["auto"] = "auto",
    device: str = "auto",
    threads: int | None = None,
    provider: ProviderName | None = None,
    kernels: Kernels = "auto",
    provider_options: Mapping[str, str] | None = None,
    cuda_graph: bool = False,
) -> Detector:
    """Open a bundle for serving.

    Args:
        bundle: a folder made by `export/build_engine.py`; None for the bundle that ships with the package.
        backend: "auto" takes the first that works here, GPU engines before the CPU, and on the CPU the fastest by
            the bundle's own measurement where it has one (`tuning.tune`); any other choice is what runs, or an error.
        precision: "auto" takes the bundle's default.
        device: "auto", "cpu", "cuda" or "cuda:N".
        threads: CPU threads of one engine call; None for as many as were measured to be fastest, where that was on
            so many cores as there are here, else for all cores.
        provider: ONNX Runtime's execution provider: "cpu", "cuda", "tensorrt" or "tensorrt-rtx".
        kernels: fused kernels for ONNX Runtime: a library's path, "none", or "auto", see `native.kernel_library`.
        provider_options: for ONNX Runtime's provider on a GPU, over our defaults, see `EngineOptions`.
        cuda_graph: whether ONNX Runtime captures the steps of the methods that loop into CUDA graphs.

    Returns:
        The method's detector.

    Raises:
        BundleError: the bundle is missing or damaged.
        BackendUnavailableError: what was asked for cannot run here; the message says why.
        EngineError: the options contradict each other, or the engine rejects a graph.
    """
    options = LoadOptions(
        backend, precision, device, threads, provider, dict(provider_options or {}), cuda_graph, kernels
    )  # fmt: skip
    return open_detector(bundle, options)


def open_detector(bundle: str | os.PathLike[str] | None, options: LoadOptions) -> Detector:
    """Open a bundle; see `load` for the bundle, the options and the errors."""
    opened = Bundle(DEFAULT_BUNDLE if bundle is None else bundle)
    detector_type = entry(METHODS, opened.manifest.method, what="method")
    precision = options.precision
    if precision not in ("auto", *get_args(Precision)):
        known = ", ".join(("auto", *get_args(Precision)))
        raise SalienceError(f"precision {precision!r} is not known: choose one of {known}.")
    chosen: Precision = opened.manifest.default_precision if precision == "auto" else precision
    if chosen not in opened.precisions():
        opened.graph_file(detector_type.graphs[0], chosen)
    # ONNX Runtime is always needed, for the graphs before and after the network.
    OnnxRuntimeEngine.require(EngineOptions())
    check_backend(options.kernels, options.backend)
    candidates = _with_kernels(_candidates(options), options.kernels)
    engines = _open_engines(opened, detector_type.graphs, chosen, candidates)
    detector: Detector = detector_type(opened, engines, chosen, options.threads)
    return detector


def _open_engines(
    bundle: Bundle,
    graphs: Sequence[str],
    precision: Precision,
    candidates: Sequence[tuple[str, EngineOptions]],
) -> dict[str, Engine]:
    if bundle.manifest.tuning is not None:
        candidates = _fastest_first(candidates, bundle.manifest.tuning, precision)
    reasons = []
    for name, options in candidates:
        engine_type: Any = entry(BACKENDS, name, what="backend")
        reason = engine_type.unavailable(options)
        if reason is None:
            try:
                return {graph: engine_type.open(bundle, graph, precision, options) for graph in graphs}
            except (EngineError, BundleError) as error:
                if len(candidates) == 1:
                    raise
                reason = str(error)
                log.warning("%s is passed over: %s", name, reason)
        reasons.append(reason)
    raise BackendUnavailableError("; ".join(dict.fromkeys(reasons)))


def _candidates(options: LoadOptions) -> list[tuple[str, EngineOptions]]:
    """What to try, in order; a choice that was made by name stands alone."""
    backend: str = options.backend
    device = options.device
    gpu, cpu = ("cuda" if device == "auto" else device), "cpu"
    if backend not in ("auto", *BACKENDS):
        entry(BACKENDS, backend, what="backend")
    if options.only_onnxruntime and backend == "auto":
        backend = "onnxruntime"
    if device == "auto" and options.only_onnxruntime:
        device = "cpu" if options.provider == "cpu" else "cuda"
    order = [
        ("tensorrt-rtx", gpu),
        ("tensorrt", gpu),
        ("onnxruntime", gpu),
        ("onnxruntime", cpu),
        ("openvino", cpu),
    ]
    found = [
        (name, (options if name == "onnxruntime" else replace(options, provider=None)).engine(where))
        for name, where in dict.fromkeys(order)
        if backend in ("auto", name) and device in ("auto", where)
    ]
    return found or [(backend, options.engine(device))]


def _with_kernels(candidates: Sequence[tuple[str, EngineOptions]], kernels: Kernels) -> list[tuple[str, EngineOptions]]:
    """The candidates, those of ONNX Runtime with the library of kernels."""

    def added(options: EngineOptions) -> EngineOptions:
        return replace(options, kernels=kernel_library(kernels, on_gpu=options.on_gpu))

    return [(name, added(options) if name == "onnxruntime" else options) for name, options in candidates]


def _fastest_first(
    candidates: Sequence[tuple[str, EngineOptions]], tuning: Tuning, precision: Precision
) -> list[tuple[str, EngineOptions]]:
    """GPU engines as they are, those of the CPU in the measured order and with its threads."""
    best = tuning.best(precision)
    rank = {name: place for place, name in enumerate(best)}
    found = [candidate for candidate in candidates if candidate[1].on_gpu]
    on_cpu = [candidate for candidate in candidates if not candidate[1].on_gpu]
    for name, options in sorted(on_cpu, key=lambda candidate: rank.get(candidate[0], len(rank))):
        counted = name in best and options.threads is None and tuning.cores == available_cores()
        found.append((name, replace(options, threads=best[name]) if counted else options))
    return found
