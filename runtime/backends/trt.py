"""TensorRT and TensorRT-RTX: engine files made by `salience.export.compilers`, run on an NVIDIA GPU.

Running needs a GPU, its driver, and the packages `pycuda` and `tensorrt` or `tensorrt_rtx`; importing this
module needs none of them. The two libraries share one API, so one class serves both. Device memory and the
stream are pycuda's, in the device's primary context: the one that PyTorch and ONNX Runtime use too.
"""

import contextlib
import functools
import importlib
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from ..errors import BackendUnavailableError, EngineError
from ..manifest import EngineEntry, GraphEntry, Precision
from .engine import Engine, EngineOptions, Feeds
from .failures import failure
from .trt_session import TensorRtSession

Builder: TypeAlias = Literal["tensorrt", "tensorrt-rtx"]

MODULES: dict[Builder, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_DATA_TYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}
_OPENING = threading.Lock()


class _TensorRt(Engine):
    """An engine with one execution context and stream; calls from several threads take turns, and sessions do not."""

    builder: ClassVar[Builder]
    extra: ClassVar[str]
    on_gpu = True

    def __init__(self, parts: "Parts", interface: GraphEntry, label: str) -> None:
        super().__init__(interface, label)
        self._lock = threading.Lock()
        self._buffers: dict[str, Any] = {}
        self._capacity: dict[str, int] = {}
        self._parts: Parts | None = parts
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
            _device(_cuda_driver(cls.name, cls.extra), options, cls.name)
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
        device = _device(_cuda_driver(cls.name, cls.extra), options, cls.name)
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
        cuda = _cuda_driver(cls.name, cls.extra)
        try:
            with _OPENING:
                primary = _primary_context(cuda, options.device_index)
            with _current(primary):
                parts = Parts(tensorrt, cuda, primary, path.read_bytes(), label, options.device_index)
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

    def _opened(self) -> "Parts":
        if self._parts is None:
            raise EngineError(f"{self.label}: got a call after close(), expected an open engine; load it again.")
        return self._parts

    def _execute(self, parts: "Parts", feeds: Feeds) -> dict[str, NDArray[Any]]:
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
            with _current(parts.primary):
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


class Parts:
    """The objects of the two libraries that make up one loaded engine.

    To be made, used and released while `primary` is current (see `working`); raises EngineError if `plan` cannot
    be loaded.
    """

    def __init__(self, tensorrt: Any, cuda: Any, primary: Any, plan: bytes, label: str, device_index: int) -> None:
        self.cuda = cuda
        self.primary = primary
        self.device_index = device_index
        self.label = label
        self.log = message_log(tensorrt)
        self._tensorrt = tensorrt
        self._runtime = tensorrt.Runtime(self.log)
        self.engine = self._runtime.deserialize_cuda_engine(plan)
        self.require(self.engine is not None, "the file was refused; build the engine again")
        self.context = self.new_context()
        self.stream = cuda.Stream()
        self.profile = {name: self._bounds(name) for name in self._names("INPUT")}

    def require(self, done: bool, otherwise: str) -> None:
        """Raise an EngineError that says `otherwise`, with what the library logged, unless `done`."""
        if not done:
            raise failure(f"{self.label}: {otherwise}", self.log.summary())

    def check_interface(self, interface: GraphEntry) -> None:
        """Compare names, types and places of the engine's tensors with the manifest's."""
        wanted = {spec.name: f"input {spec.dtype}" for spec in interface.inputs}
        wanted |= {spec.name: f"output {spec.dtype}" for spec in interface.outputs}
        found = {name: self._describe(name) for name in (*self._names("INPUT"), *self._names("OUTPUT"))}
        if found != wanted:
            raise EngineError(
                f"{self.label}: its tensors are {_listed(found)}, expected {_listed(wanted)}; build the engine again."
            )

    def check_profile(self, name: str, shape: tuple[int, ...]) -> None:
        """Raise an EngineError if input `name` may not have `shape`."""
        low, high = self.profile[name]
        if len(low) != len(shape) or not all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True)):
            raise EngineError(
                f"{self.label}: {name} got {shape}, expected from {low} to {high}, the profile that the "
                "engine was built for; feed a batch within it, or build the engine with a wider profile."
            )

    @contextlib.contextmanager
    def working(self, doing: str) -> Iterator[None]:
        """Make `primary` current; what CUDA refuses becomes an EngineError that names what was being done."""
        try:
            with _current(self.primary):
                yield
        except self.cuda.Error as error:
            raise failure(f"{self.label}: failed while {doing}", error) from error

    def new_context(self) -> Any:
        """An execution context of its own; several of them run at once."""
        context = self.engine.create_execution_context()
        self.require(context is not None, "no execution context; free some memory of the GPU")
        return context

    def output_shape(self, name: str) -> tuple[int, ...]:
        """The shape of an output, once all inputs have theirs."""
        shape = tuple(self.context.get_tensor_shape(name))
        self.require(all(size >= 0 for size in shape), f"the size of {name} depends on the data, which is not served")
        return shape

    def release(self) -> None:
        """Drop the libraries' objects, each before the one that it came from."""
        self.context = self.engine = self._runtime = self.stream = None

    def _names(self, mode: str) -> list[str]:
        wanted = getattr(self._tensorrt.TensorIOMode, mode)
        names = (self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors))
        return [name for name in names if self.engine.get_tensor_mode(name) == wanted]

    def _bounds(self, name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        shape = tuple(self.engine.get_tensor_shape(name))
        if all(size >= 0 for size in shape):
            return shape, shape
        low, _, high = self.engine.get_tensor_profile_shape(name, 0)
        return tuple(low), tuple(high)

    def _describe(self, name: str) -> str:
        is_input = self.engine.get_tensor_mode(name) == self._tensorrt.TensorIOMode.INPUT
        on_device = self.engine.get_tensor_location(name) == self._tensorrt.TensorLocation.DEVICE
        kind = self.engine.get_tensor_dtype(name).name
        dtype = _DATA_TYPES.get(kind, kind)
        return f"{'input' if is_input else 'output'} {dtype}{'' if on_device else ' on the host'}"


def import_tensorrt(builder: Builder, extra: str) -> Any:
    """The Python module of `builder`.

    Raises:
        BackendUnavailableError: it is missing or cannot be loaded; the message names `salience[extra]`.
    """
    module = MODULES[builder]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise BackendUnavailableError(
            f"{builder}: the package {error.name or module} is not installed; run: pip install 'salience[{extra}]'"
        ) from error
    except (ImportError, OSError) as error:
        raise BackendUnavailableError(
            f"{builder}: the package {module} is installed and cannot be loaded ({error}); "
            f"run: pip install --force-reinstall 'salience[{extra}]'"
        ) from error


def message_log(tensorrt: Any) -> Any:
    """A logger for `tensorrt` that prints nothing and keeps the latest warnings and errors.

    `summary()` gives the first errors since the last summary as one line, or the latest warning if there
    was no error.
    """

    class MessageLog(tensorrt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)
            self.warnings: deque[str] = deque(maxlen=20)
            self.errors: deque[str] = deque(maxlen=20)

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= int(tensorrt.ILogger.ERROR):
                self.errors.append(message)
            elif int(severity) <= int(tensorrt.ILogger.WARNING):
                self.warnings.append(message)

        def summary(self) -> str:
            lines = list(self.errors)[:3] or list(self.warnings)[-1:] or ["it gave no reason"]
            self.errors.clear()
            self.warnings.clear()
            return " / ".join(" ".join(line.split()).rstrip(".") for line in lines)

    return MessageLog()


def _cuda_driver(name: str, extra: str) -> Any:
    """`pycuda.driver`, initialised."""
    try:
        cuda: Any = importlib.import_module("pycuda.driver")
    except ModuleNotFoundError as error:
        raise BackendUnavailableError(
            f"{name}: the package {(error.name or 'pycuda').partition('.')[0]} is not installed; "
            f"run: pip install 'salience[{extra}]'"
        ) from error
    except (ImportError, OSError) as error:
        raise BackendUnavailableError(
            f"{name}: pycuda finds no CUDA driver ({error}); install the NVIDIA driver, or ask for device "
            "cpu with another backend"
        ) from error
    try:
        cuda.init()
    except cuda.Error as error:
        raise BackendUnavailableError(
            f"{name}: no CUDA device ({error}); check nvidia-smi, or ask for device cpu with another backend"
        ) from error
    return cuda


def _device(cuda: Any, options: EngineOptions, name: str) -> Any:
    """The GPU that `options` asks for."""
    count = cuda.Device.count()
    if options.device_index >= count:
        raise BackendUnavailableError(
            f"{name}: device {options.device} was asked for, and CUDA shows {count} device(s); "
            "choose one of these, or ask for device cpu with another backend"
        )
    return cuda.Device(options.device_index)


@functools.cache
def _primary_context(cuda: Any, index: int) -> Any:
    """The primary context of a GPU, retained once and for as long as the process lives.

    pycuda pushes a context in order to release it and relies on the release to pop it, which CUDA does not
    do for primary contexts; so a context released per engine would stay current on its thread.
    """
    return cuda.Device(index).retain_primary_context()


@contextlib.contextmanager
def _current(primary: Any) -> Iterator[None]:
    """Make a context current on this thread, whichever that is, and leave the thread as it was."""
    primary.push()
    try:
        yield
    finally:
        primary.pop()


def _listed(tensors: dict[str, str]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in sorted(tensors.items()))
