"""ONNX Runtime: CPU, CUDA, and the TensorRT and TensorRT-RTX execution providers."""

from importlib import metadata
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendUnavailableError
from ..manifest import GraphEntry, Precision
from .cuda_graphs import GraphStates, graph_numbers, turns, without_graph
from .device_arrays import Device, Shared, View
from .engine import Engine, EngineOptions, Feeds
from .failures import failure, summary
from .onnxrt_options import provider_options
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
    """A session of ONNX Runtime; inputs and outputs are bound, so a GPU's copies are explicit.

    On a GPU every run under way, of the engine or of a session, has a stream of its own, and ends when its work there
    is done; so calls from several threads run at once. With the provider option `user_compute_stream` all run on that
    stream, one after the other. With `cuda_graph` they take turns too, with those of all such engines.
    """

    name = "onnxruntime"

    def __init__(self, session: Any, runtime: Any, interface: GraphEntry, options: EngineOptions, label: str) -> None:
        super().__init__(interface, label)
        self._session = session
        self._runtime = runtime
        self._options = options
        self._graph_numbers = graph_numbers()
        self._turns = turns(options.cuda_graph)
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
    def refuses(cls, precision: Precision, options: EngineOptions) -> str | None:
        """See `Engine.refuses`; TensorRT's providers bring layers of their own."""
        if precision != "bf16" or options.provider in ("tensorrt", "tensorrt-rtx"):
            return None
        return (
            "onnxruntime: has no kernels in bf16 for all layers of these graphs; choose precision fp16, or backend "
            "openvino (CPU), tensorrt or tensorrt-rtx (GPU)"
        )

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
        wanted = [(provider, provider_options(options, path, interface))] if options.on_gpu else [provider]
        try:
            # Its own fallback would print to standard output and hide the reason.
            with turns(options.cuda_graph):
                session = runtime.InferenceSession(str(path), settings, providers=wanted, enable_fallback=0)
        except Exception as error:
            raise failure(f"onnxruntime: cannot load {path.name}", error) from error
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
        graphs = GraphStates(self._runtime, self._graph_numbers) if self._options.cuda_graph else None
        return OnnxRuntimeSession(self, self._session, self._runtime, self._options, batch, graphs)

    def run_small(self, feeds: Feeds) -> None:
        """Run, and give back the memory that the session holds since its largest run (of the CPU)."""
        options = self._runtime.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._session.run(None, dict(feeds), options)

    def _run(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        options = without_graph(self._runtime) if self._options.cuda_graph else None
        try:
            with self._turns:
                binding = self._session.io_binding()
                for name, array in feeds.items():
                    binding.bind_cpu_input(name, array)
                for name in self.outputs:
                    binding.bind_output(name)
                self._session.run_with_iobinding(binding, options)
                return dict(zip(self.outputs, binding.copy_outputs_to_cpu(), strict=True))
        except Exception as error:
            raise failure(f"{self.label}: failed while running", error) from error


def _register(settings: Any, kernels: Path) -> None:
    try:
        settings.register_custom_ops_library(str(kernels))
    except Exception as error:
        raise BackendUnavailableError(
            f"kernels {kernels}: cannot be loaded ({summary(error)}); build them again: make native."
        ) from error


class OnnxRuntimeSession(Session[Any]):
    """I/O binding to OrtValues, or tensors of other libraries, on the engine's device."""

    def __init__(
        self,
        engine: Engine,
        session: Any,
        runtime: Any,
        options: EngineOptions,
        batch: int,
        graphs: GraphStates | None,
    ) -> None:
        self._session = session
        self._runtime = runtime
        self.device = Device("cuda" if options.on_gpu else "cpu", options.device_index)
        self._binding = session.io_binding()
        self._graphs = graphs
        self._turns = turns(options.cuda_graph)
        # Of each tensor, in one order.
        self._addresses: dict[str, int] = {}
        super().__init__(engine.inputs, engine.outputs, batch=batch, label=engine.label)

    def _allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        try:
            with self._turns:
                return self._runtime.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype.type, *self.device)
        except Exception as error:
            raise failure(f"{self.label}: no buffer of {dtype} {shape}", error) from error

    def _bind(self, name: str, buffer: Any, *, is_input: bool) -> None:
        try:
            if isinstance(buffer, Shared):
                self._binding.bind_input(name, *self.device, buffer.dtype.type, list(buffer.shape), buffer.address)
                self._addresses[name] = buffer.address
                return
            bind = self._binding.bind_ortvalue_input if is_input else self._binding.bind_ortvalue_output
            bind(name, buffer)
            self._addresses[name] = buffer.data_ptr()
        except Exception as error:
            raise failure(f"{self.label}: {name} cannot be bound", error) from error

    def _adopt(self, shared: Shared) -> Any:
        return shared

    def _expose(self, buffer: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> View:
        # In older versions the value inside alone has it.
        exporter = buffer if hasattr(buffer, "__dlpack__") else buffer._ortvalue
        return View(buffer.data_ptr(), shape, dtype, self.device, buffer, exporter.__dlpack__)

    def _upload(self, buffer: Any, array: NDArray[Any]) -> None:
        with self._turns:
            buffer.update_inplace(array)

    def _download(self, buffer: Any) -> NDArray[Any]:
        with self._turns:
            return np.array(buffer.numpy())

    def _execute(self) -> None:
        options = self._graphs.run_options(tuple(self._addresses.values())) if self._graphs else None
        try:
            with self._turns:
                self._session.run_with_iobinding(self._binding, options)
        except Exception as error:
            raise failure(f"{self.label}: failed while running", error) from error


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
