"""TensorRT and TensorRT-RTX: engine files made by `salience.export.compilers`, run on an NVIDIA GPU.

Running needs a GPU, its driver, and the packages `pycuda` and `tensorrt` or `tensorrt_rtx`; importing this
module needs none of them. The two libraries share one API, so one class serves both. Device memory and the
stream are pycuda's, in the device's primary context: the one that PyTorch and ONNX Runtime use too.
"""

import contextlib
import threading
import weakref
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from ..errors import BackendUnavailableError, EngineError
from ..manifest import EngineEntry, GraphEntry, Precision
from .engine import Engine, EngineOptions, Feeds
from .failures import failure
from .trt_library import Builder, chosen_device, cuda_driver, current, import_tensorrt, primary_context
from .trt_loaded import LoadedEngine
from .trt_session import TensorRtSession

_OPENING = threading.Lock()


class _TensorRt(Engine):
    """An engine with one execution context and stream; calls from several threads take turns, and sessions do not."""

    builder: ClassVar[Builder]
    extra: ClassVar[str]
    on_gpu = True

    def __init__(self, parts: LoadedEngine, interface: GraphEntry, label: str) -> None:
        super().__init__(interface, label)
        self._lock = threading.Lock()
        self._buffers: dict[str, Any] = {}
        self._capacity: dict[str, int] = {}
        self._parts: LoadedEngine | None = parts
        self._sessions = weakref.WeakSet[TensorRtSession]()

    @classmethod
    def unavailable(cls, options: EngineOptions) -> str | None:
        """See `Engine.unavailable`."""
        if not options.on_gpu:
            return f"{cls.name}: device {options.device} is not served by this backend; ask for device cuda"
        if options.cuda_graph:
            return (
                f"{cls.name}: cuda_graph is not served, since pycuda captures no CUDA graphs; leave it out, or ask for "
                "backend onnxruntime"
            )
        if options.provider_options:
            names = ", ".join(options.provider_options)
            return f"{cls.name}: provider options ({names}) are onnxruntime's; leave them out, or ask for that backend"
        try:
            import_tensorrt(cls.builder, cls.extra)
            chosen_device(cuda_driver(cls.name, cls.extra), options, cls.name)
        except BackendUnavailableError as error:
            return str(error)
        return None

    @classmethod
    def open(cls, bundle: Bundle, graph: str, precision: Precision, options: EngineOptions) -> Self:
        """Load the engine of `graph` and `precision` that this builder left in `bundle`.

        Raises:
            BundleError: the bundle lacks the graph or the precision.
            BackendUnavailableError: it cannot run here; or the bundle holds no engine for it, or one of
                another builder version or another GPU.
            EngineError: the library rejects the file, or the file does not fit the graph.
        """
        bundle.graph_file(graph, precision)
        cls.require(options)
        subject = f"{cls.name}: {bundle.manifest.method} {graph} {precision}"
        command = f"python export/build_engine.py {bundle.manifest.method} --engine {cls.builder}"
        key = (graph, precision, cls.builder)
        entry = next((e for e in bundle.manifest.engines if (e.graph, e.precision, e.builder) == key), None)
        if entry is None:
            raise BackendUnavailableError(f"{subject}: the bundle holds no such engine; build it with: {command}")
        unfit = cls._unfit(entry, options)
        if unfit:
            raise BackendUnavailableError(f"{subject}: {unfit}; build it again with: {command}")
        return cls.open_graph(bundle.path / entry.file, bundle.manifest.graphs[graph].at(precision), options)

    @classmethod
    def _unfit(cls, entry: EngineEntry, options: EngineOptions) -> str | None:
        version = str(import_tensorrt(cls.builder, cls.extra).__version__)
        if entry.builder_version != version:
            return (
                f"the engine was built by {cls.name} {entry.builder_version} and {version} is installed, "
                "and an engine is a cache that only its builder's own version reads"
            )
        device = chosen_device(cuda_driver(cls.name, cls.extra), options, cls.name)
        capability = ".".join(map(str, device.compute_capability()))
        if capability not in entry.targets:
            return (
                f"the engine was built for compute capability {', '.join(entry.targets)}, and "
                f"{options.device} ({device.name()}) has {capability}"
            )
        return None

    @classmethod
    def open_graph(cls, path: Path, interface: GraphEntry, options: EngineOptions) -> Self:
        """Load an engine file; see `Engine.open_graph`."""
        cls.require(options)
        label = f"{cls.name} {path.name}"
        tensorrt = import_tensorrt(cls.builder, cls.extra)
        cuda = cuda_driver(cls.name, cls.extra)
        try:
            with _OPENING:
                primary = primary_context(cuda, options.device_index)
            with current(primary):
                parts = LoadedEngine(tensorrt, cuda, primary, path.read_bytes(), label, options.device_index)
                parts.check_interface(interface)
                return cls(parts, interface, label)
        except (OSError, cuda.Error) as error:
            raise failure(f"{label}: cannot load", error) from error

    def session(self, batch: int = 1) -> TensorRtSession:
        """See `Engine.session`; calls of the engine and of its sessions do not wait for each other."""
        with self._lock:
            session = TensorRtSession(self, self._opened(), batch)
            self._sessions.add(session)
            return session

    def _run(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        with self._lock:
            parts = self._opened()
            for name, array in feeds.items():
                parts.check_profile(name, array.shape)
            with parts.working("running"):
                return self._execute(parts, feeds)

    def _opened(self) -> LoadedEngine:
        if self._parts is None:
            raise EngineError(f"{self.label}: got a call after close(), expected an open engine; load it again.")
        return self._parts

    def _execute(self, parts: LoadedEngine, feeds: Feeds) -> dict[str, NDArray[Any]]:
        cuda, context, stream = parts.cuda, parts.context, parts.stream
        for name, array in feeds.items():
            parts.require(context.set_input_shape(name, tuple(array.shape)), f"{name} {array.shape} was refused")
        found = {name: np.empty(parts.output_shape(name), spec.dtype) for name, spec in self.outputs.items()}
        for name, array in {**feeds, **found}.items():
            self._reserve(cuda, name, array.nbytes)
            address = int(self._buffers[name])
            parts.require(context.set_tensor_address(name, address), f"the address of {name} was refused")
        try:
            for name, array in feeds.items():
                cuda.memcpy_htod_async(self._buffers[name], array, stream)
            parts.require(context.execute_async_v3(stream.handle), "execution was refused")
            for name, array in found.items():
                cuda.memcpy_dtoh_async(array, self._buffers[name], stream)
        finally:
            # Also after a failure: copies under way still read and write the host's arrays.
            stream.synchronize()
        return found

    def _reserve(self, cuda: Any, name: str, size_bytes: int) -> None:
        """Make the device buffer of `name` hold `size_bytes`; buffers grow and never shrink."""
        if self._capacity.get(name, -1) >= size_bytes:
            return
        self._capacity.pop(name, None)
        outgrown = self._buffers.pop(name, None)
        if outgrown is not None:
            outgrown.free()
        self._buffers[name] = cuda.mem_alloc(max(size_bytes, 1))
        self._capacity[name] = size_bytes

    def close(self) -> None:
        """Free the device memory now; the engine and its sessions run no more. Closing twice does nothing."""
        with self._lock:
            parts, self._parts = self._parts, None
            if parts is None:
                return
            for session in list(self._sessions):
                session.close()
            with current(parts.primary):
                parts.release()
                for buffer in self._buffers.values():
                    buffer.free()
                self._buffers.clear()
                self._capacity.clear()

    def __del__(self) -> None:
        # While the interpreter ends, pycuda or the driver may be gone already, and the memory with them.
        if getattr(self, "_parts", None) is not None:
            with contextlib.suppress(Exception):
                self.close()


class TensorRtEngine(_TensorRt):
    """An engine of TensorRT, built for the very GPU that it runs on."""

    name = "tensorrt"
    builder = "tensorrt"
    extra = "tensorrt"


class TensorRtRtxEngine(_TensorRt):
    """An engine of TensorRT-RTX, built anywhere for a list of GPUs."""

    name = "tensorrt-rtx"
    builder = "tensorrt-rtx"
    extra = "tensorrt-rtx-run"
