"""What ONNX Runtime's providers are told on a GPU."""

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from ..errors import EngineError
from ..manifest import GraphEntry, TensorSpec
from .engine import EngineOptions

# Smallest, best and largest batch of the engines that the TensorRT providers build. Without them an engine is built
# again for each new batch size.
PROFILE = (1, 8, 32)


def provider_options(options: EngineOptions, path: Path, interface: GraphEntry) -> dict[str, str]:
    """The options of the provider of `options`, which is on a GPU, for the graph at `path`.

    The user's (`options.provider_options`) come over ours.

    Raises:
        EngineError: the folder for built engines cannot be made.
    """
    defaults = _DEFAULTS[options.provider or "cuda"](options, path, interface)
    if options.cuda_graph:
        defaults["enable_cuda_graph"] = "1"
    return {"device_id": str(options.device_index), **defaults, **options.provider_options}


def _cuda(options: EngineOptions, path: Path, interface: GraphEntry) -> dict[str, str]:
    # ONNX Runtime allows TF32 unless told otherwise: 10 bits of mantissa where the bundle says fp32.
    return {"use_tf32": "0"}


def _tensorrt(options: EngineOptions, path: Path, interface: GraphEntry) -> dict[str, str]:
    # Building takes minutes: engines are kept, and so are the timings that they were chosen by.
    found = {"trt_engine_cache_enable": "1", "trt_timing_cache_enable": "1"}
    if not {"trt_engine_cache_path", "trt_timing_cache_path"} <= options.provider_options.keys():
        folder = str(cache_folder("tensorrt", path))
        found |= {"trt_engine_cache_path": folder, "trt_timing_cache_path": folder}
    return found | _profiles("trt", interface)


def _tensorrt_rtx(options: EngineOptions, path: Path, interface: GraphEntry) -> dict[str, str]:
    # What TensorRT-RTX compiles for this GPU when an engine is loaded.
    own = "nv_runtime_cache_path" in options.provider_options
    found = {} if own else {"nv_runtime_cache_path": str(cache_folder("tensorrt-rtx", path))}
    return found | _profiles("nv", interface)


_DEFAULTS: Mapping[str, Callable[[EngineOptions, Path, GraphEntry], dict[str, str]]] = {
    "cuda": _cuda,
    "tensorrt": _tensorrt,
    "tensorrt-rtx": _tensorrt_rtx,
}


def cache_folder(provider: str, path: Path) -> Path:
    """The folder of what `provider` builds of the graph at `path`, made if it is missing.

    In the user's cache, for nobody else to write to: engines are programs. Another place or content of the graph has
    another folder.

    Raises:
        EngineError: it cannot be made.
    """
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    base = configured if configured.is_absolute() else Path.home() / ".cache"
    with path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    key = hashlib.sha256(f"{path.resolve()}\0{content}".encode()).hexdigest()[:32]
    folder = base / "salience" / provider / key
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EngineError(
            f"onnxruntime: no folder {folder} for built engines ({error.strerror}); set XDG_CACHE_HOME to one that can "
            "be written to."
        ) from error
    return folder


def _profiles(prefix: str, interface: GraphEntry) -> dict[str, str]:
    """The batches that an engine is built for; nothing for a graph of fixed shapes."""
    free = [spec for spec in interface.inputs if any(isinstance(side, str) for side in spec.shape)]
    if not free:
        return {}
    return {
        f"{prefix}_profile_{kind}_shapes": ",".join(_shape(spec, batch) for spec in free)
        for kind, batch in zip(("min", "opt", "max"), PROFILE, strict=True)
    }


def _shape(spec: TensorSpec, batch: int) -> str:
    return f"{spec.name}:{'x'.join(str(batch if isinstance(side, str) else side) for side in spec.shape)}"
