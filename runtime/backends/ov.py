"""OpenVINO on the CPU."""

import functools
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError
from ..manifest import GraphEntry
from .device_arrays import Shared, View
from .engine import Engine, EngineOptions, Feeds
from .failures import failure
from .session import Session

# On CPUs with bf16 units OpenVINO would compute in bf16 unless told which type is meant.
CONFIG: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
_CORE_LOCK = threading.Lock()


def openvino_core() -> Any:
    """The process's only `openvino.Core`, kept until it ends.

    A Core's CPU plugin gives the calling thread a signal stack and, when the Core goes, puts back the one before. Of
    two Cores the second puts back the first's, which is unmapped by then, and the next signal with a handler ends
    the process.
    """
    with _CORE_LOCK:
        return _core()


@functools.cache
def _core() -> Any:
    import openvino

    return openvino.Core()


class OpenVinoEngine(Engine):
    """A compiled OpenVINO model; each thread has an infer request of its own.

    OpenVINO reads no model-local functions, so their bodies are put in place of the calls first
    (`onnx.inliner`), which needs the package `onnx`.
    """

    name = "openvino"

    def __init__(self, compiled: Any, interface: GraphEntry, label: str) -> None:
        super().__init__(interface, label)
        self._compiled = compiled
        self._local = threading.local()

    @classmethod
    def unavailable(cls, options: EngineOptions) -> str | None:
        """See `Engine.unavailable`."""
        if options.on_gpu:
            return f"openvino: device {options.device} is not served by this backend; ask for device cpu"
        missing = [package for package in ("openvino", "onnx") if find_spec(package) is None]
        if missing:
            return f"openvino: {' and '.join(missing)} not installed; run: pip install 'salience[openvino]'"
        return None

    @classmethod
    def open_graph(cls, path: Path, interface: GraphEntry, options: EngineOptions) -> Self:
        """See `Engine.open_graph`."""
        cls.require(options)
        import onnx.inliner

        config = dict(CONFIG)
        if options.threads is not None:
            config["INFERENCE_NUM_THREADS"] = options.threads
        try:
            flat = onnx.inliner.inline_local_functions(onnx.load(path))
            core = openvino_core()
            compiled = core.compile_model(core.read_model(flat.SerializeToString()), "CPU", config)
        except Exception as error:
            raise failure(f"openvino: cannot load {path.name}", error, line=-1) from error
        return cls(compiled, interface, f"openvino CPU {path.name}")

    def session(self, batch: int = 1) -> "OpenVinoSession":
        """See `Engine.session`."""
        return OpenVinoSession(self, self._compiled.create_infer_request(), batch)

    def _run(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._compiled.create_infer_request()
        try:
            found = request.infer(dict(feeds), share_inputs=True)
            return {name: np.array(found[name]) for name in self.outputs}
        except (RuntimeError, KeyError) as error:
            raise failure(f"{self.label}: failed while running", error, line=-1) from error


class OpenVinoSession(Session[Any]):
    """An infer request on tensors of ours."""

    def __init__(self, engine: Engine, request: Any, batch: int) -> None:
        self._request = request
        super().__init__(engine.inputs, engine.outputs, batch=batch, label=engine.label)

    def _allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        import openvino

        try:
            return openvino.Tensor(openvino.Type(dtype), openvino.Shape(shape))
        except (RuntimeError, TypeError) as error:
            raise failure(f"{self.label}: no buffer of {dtype} {shape}", error, line=-1) from error

    def _bind(self, name: str, buffer: Any, *, is_input: bool) -> None:
        try:
            self._request.set_tensor(name, buffer)
        except RuntimeError as error:
            raise failure(f"{self.label}: {name} cannot be bound", error, line=-1) from error

    def _adopt(self, shared: Shared) -> Any:
        import openvino

        try:
            return openvino.Tensor(shared.array, shared_memory=True)
        except ValueError as error:
            raise EngineError(f"{self.label}: the tensor cannot be shared ({error}); share a copy of it.") from error

    def _expose(self, buffer: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> View:
        return View(buffer.data.ctypes.data, shape, dtype, self.device, buffer)

    def _upload(self, buffer: Any, array: NDArray[Any]) -> None:
        buffer.data[...] = array

    def _download(self, buffer: Any) -> NDArray[Any]:
        return np.array(buffer.data)

    def _execute(self) -> None:
        try:
            # `infer` would copy every output to a new array.
            self._request.start_async()
            self._request.wait()
        except RuntimeError as error:
            raise failure(f"{self.label}: failed while running", error, line=-1) from error
