"""ONNX Runtime: CPU, CUDA, and the TensorRT and TensorRT-RTX execution providers."""

from importlib import metadata
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendUnavailableError, EngineError
from ..manifest import GraphEntry
from .engine import Engine, EngineOptions, Feeds
from .session import Session

INSTALL_HINT = "run: pip install 'salience[cpu]' (CPU) or pip install 'salience[gpu]' (NVIDIA GPU), never both"
_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "tensorrt-rtx": "NvTensorRTRTXExecutionProvider",
}


# Without it threads go on waiting in a loop after a call and take the cores from the next session's: a picture through
# three sessions took two to three times as long. What else was tried gained nothing (benchmarks/choices.py).
CONFIG = {"session.force_spinning_stop": "1"}


class OnnxRuntimeEngine(Engine):
    """A session of ONNX Runtime; inputs and outputs are bound, so a GPU's copies are explicit."""

    name = "onnxruntime"

    def __init__(self, session: Any, runtime: Any, interface: GraphEntry, options: EngineOptions, label: str) -> None:
        super().__init__(interface, label)
        self._session = session
        self._runtime = runtime
        self._options = options
        self.on_gpu = options.on_gpu

    @classmethod
    def unavailable(cls, options: EngineOptions) -> str | None:
        """See `Engine.unavailable`."""
        try:
            runtime = _runtime()
        except BackendUnavailableError as error:
            return str(error)
        provider = _provider(options)
        if provider in runtime.get_available_providers():
            return None
        both = _installed("onnxruntime") and _installed("onnxruntime-gpu")
        remedy = (
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other; uninstall both, then "
            "pip install 'salience[gpu]'"
            if both
            else "run: pip uninstall onnxruntime; pip install 'salience[gpu]'"
        )
        return f"onnxruntime {runtime.__version__}: no {provider} for device {options.device} in this build; {remedy}"

    @classmethod
    def open_graph(cls, path: Path, interface: GraphEntry, options: EngineOptions) -> Self:
        """See `Engine.open_graph`."""
        cls.require(options)
        runtime = _runtime()
        if options.on_gpu and hasattr(runtime, "preload_dlls"):
            runtime.preload_dlls()
        settings = runtime.SessionOptions()
        settings.log_severity_level = 3
        for name, value in CONFIG.items():
            settings.add_session_config_entry(name, value)
        if options.threads is not None:
            settings.intra_op_num_threads = options.threads
        provider = _provider(options)
        if options.kernels is not None:
            _register(settings, options.kernels)
        wanted: list[Any] = [(provider, {"device_id": options.device_index})] if options.on_gpu else [provider]
        try:
            session = runtime.InferenceSession(str(path), settings, providers=wanted)
        except Exception as error:
            raise EngineError(f"onnxruntime: cannot load {path.name} ({_first_line(error)}).") from error
        # ONNX Runtime falls back to the CPU in silence when a provider fails to start.
        if session.get_providers()[0] != provider:
            raise BackendUnavailableError(
                f"onnxruntime: {provider} failed to start for {path.name} (got {session.get_providers()[0]}); "
                "check the driver and CUDA libraries, or ask for device cpu"
            )
        fused = " with fused kernels" if options.kernels is not None else ""
        return cls(session, runtime, interface, options, f"onnxruntime {provider} {path.name}{fused}")

    def session(self, batch: int = 1) -> "OnnxRuntimeSession":
        """See `Engine.session`."""
        return OnnxRuntimeSession(self, self._session, self._runtime, self._options, batch)

    def run_small(self, feeds: Feeds) -> None:
        """Run, and give back the memory that the session holds since its largest run (of the CPU)."""
        options = self._runtime.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._session.run(None, dict(feeds), options)

    def _run(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        binding = self._session.io_binding()
        try:
            for name, array in feeds.items():
                binding.bind_cpu_input(name, array)
            for name in self.outputs:
                binding.bind_output(name)
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise EngineError(f"{self.label}: failed while running ({_first_line(error)}).") from error
        return dict(zip(self.outputs, binding.copy_outputs_to_cpu(), strict=True))


def _register(settings: Any, kernels: Path) -> None:
    try:
        settings.register_custom_ops_library(str(kernels))
    except Exception as error:
        raise BackendUnavailableError(
            f"kernels {kernels}: cannot be loaded ({_first_line(error)}); build them again: make native."
        ) from error


class OnnxRuntimeSession(Session[Any]):
    """I/O binding to OrtValues on the engine's device."""

    def __init__(self, engine: Engine, session: Any, runtime: Any, options: EngineOptions, batch: int) -> None:
        self._session = session
        self._runtime = runtime
        self._device = ("cuda" if options.on_gpu else "cpu", options.device_index)
        self._binding = session.io_binding()
        super().__init__(engine.inputs, engine.outputs, batch=batch, label=engine.label)

    def _allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        try:
            return self._runtime.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype.type, *self._device)
        except Exception as error:
            raise EngineError(f"{self.label}: no buffer of {dtype} {shape} ({_first_line(error)}).") from error

    def _bind(self, name: str, buffer: Any, *, is_input: bool) -> None:
        bind = self._binding.bind_ortvalue_input if is_input else self._binding.bind_ortvalue_output
        try:
            bind(name, buffer)
        except Exception as error:
            raise EngineError(f"{self.label}: {name} cannot be bound ({_first_line(error)}).") from error

    def _upload(self, buffer: Any, array: NDArray[Any]) -> None:
        buffer.update_inplace(array)

    def _download(self, buffer: Any) -> NDArray[Any]:
        return np.array(buffer.numpy())

    def _execute(self) -> None:
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:
            raise EngineError(f"{self.label}: failed while running ({_first_line(error)}).") from error


def _provider(options: EngineOptions) -> str:
    return _PROVIDERS[options.provider or ("cuda" if options.on_gpu else "cpu")]


def _runtime() -> Any:
    try:
        import onnxruntime

        # Removing one of the two wheels beside the other leaves a folder that can be imported and holds nothing.
        onnxruntime.InferenceSession  # noqa: B018
    except (ImportError, AttributeError) as error:
        raise BackendUnavailableError(f"onnxruntime is not installed: {INSTALL_HINT}") from error
    return onnxruntime


def _installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
