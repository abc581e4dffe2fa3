"""The session of TensorRT and TensorRT-RTX, whose buffers, execution context and stream are its own."""

import contextlib
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError
from .device_arrays import Device, Shared, View
from .engine import Engine
from .session import Session
from .trt_loaded import LoadedEngine


class TensorRtSession(Session[Any]):
    """Runs beside the engine's own calls and other sessions; ends with `close`, or when the engine is closed.

    Every call waits for its work on the GPU. That makes links to other sessions safe: these have streams of
    their own, and no two streams work on a shared buffer at once, if linked sessions keep to one thread. And a
    failure shows in the call that made it.
    """

    def __init__(self, engine: Engine, parts: LoadedEngine, batch: int) -> None:
        # An engine that nobody holds closes, and its sessions with it.
        self._engine = engine
        self._parts = parts
        self.device = Device("cuda", parts.device_index)
        self._lock = threading.Lock()
        self._context: Any = None
        self._stream: Any = None
        self._buffers = {}
        # Here and not only in the base class, which allocates: first the batch must be known to fit.
        self.batch = batch
        try:
            self._set_shapes()
            super().__init__(engine.inputs, engine.outputs, batch=batch, label=engine.label)
        except BaseException:
            self.close()
            raise

    def _set_shapes(self) -> None:
        """Make the execution context, for inputs of the batch; nothing is allocated for one that is refused."""
        parts = self._parts
        inputs = {name: self._shape(spec) for name, spec in self._engine.inputs.items()}
        for name, shape in inputs.items():
            parts.check_profile(name, shape)
        with parts.working("opening a session"):
            self._context = parts.new_context()
            self._stream = parts.cuda.Stream()
            for name, shape in inputs.items():
                parts.require(self._context.set_input_shape(name, shape), f"{name} {shape} was refused")
            for name, spec in self._engine.outputs.items():
                found = tuple(self._context.get_tensor_shape(name))
                if found != self._shape(spec):
                    raise EngineError(
                        f"{parts.label}: {name} is {found} in a session for a batch of {self.batch}, expected "
                        f"{self._shape(spec)}; build the engine again."
                    )

    def link(self, output: str, name: str, *, to: Self | None = None) -> None:
        """See `Session.link`; `to` may be a session of any engine on the same GPU."""
        self._check_open()
        if isinstance(to, TensorRtSession):
            to._check_open()
            if to._parts.primary is not self._parts.primary:
                raise EngineError(
                    f"{self.label}: {output} cannot be linked to a session on another GPU; open both engines on one."
                )
        super().link(output, name, to=to)

    def close(self) -> None:
        """Free what no linked session uses now; the session runs no more. Closing twice does nothing."""
        with self._lock:
            if self._context is None:
                return
            with self._parts.working("closing a session"):
                self._context = self._stream = None
                # The names stay, for calls after this one to find the session closed and not a name missing.
                self._buffers = dict.fromkeys(self._buffers)
                self._borrowed = {}

    def __del__(self) -> None:
        # While the interpreter ends, pycuda or the driver may be gone already, and the memory with them.
        with contextlib.suppress(Exception):
            self.close()

    def _allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> "_DeviceBuffer":
        size_bytes = math.prod(shape) * dtype.itemsize
        with self._working(f"allocating {dtype} {shape}"):
            return _DeviceBuffer(self._parts.cuda.mem_alloc(max(size_bytes, 1)), self._parts, shape, dtype)

    def _bind(self, name: str, buffer: Any, *, is_input: bool) -> None:
        with self._working("binding buffers"):
            done = self._context.set_tensor_address(name, buffer.address)
            self._parts.require(done, f"the address of {name} was refused")

    def _adopt(self, shared: Shared) -> Shared:
        return shared

    def _expose(self, buffer: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> View:
        self._check_open()
        return View(buffer.address, shape, dtype, self.device, buffer)

    def _upload(self, buffer: Any, array: NDArray[Any]) -> None:
        with self._working("copying to the device"):
            self._parts.cuda.memcpy_htod_async(buffer.memory, array, self._stream)
            self._stream.synchronize()

    def _download(self, buffer: Any) -> NDArray[Any]:
        with self._working("copying to the host"):
            array = np.empty(buffer.shape, buffer.dtype)
            self._parts.cuda.memcpy_dtoh_async(array, buffer.memory, self._stream)
            self._stream.synchronize()
            return array

    def _execute(self) -> None:
        with self._working("running"):
            try:
                done = self._context.execute_async_v3(self._stream.handle)
                self._parts.require(done, "execution was refused")
            finally:
                # The host waits, rather than the streams for each other's events: any session of a shared buffer may
                # read it, overwrite it or free it next, and each would have to await the events of all the others.
                self._stream.synchronize()

    @contextlib.contextmanager
    def _working(self, doing: str) -> Iterator[None]:
        """Keep `close`, which may come from any thread, away from a call that is under way."""
        with self._lock:
            self._check_open()
            with self._parts.working(doing):
                yield

    def _check_open(self) -> None:
        if self._context is None:
            raise EngineError(
                f"{self._parts.label}: got a call after close() of the session or its engine, expected an open "
                "session; ask an open engine for a new one."
            )


@dataclass(frozen=True, eq=False)
class _DeviceBuffer:
    """Memory of the GPU; a link shares it between sessions, and it is freed when the last one lets it go."""

    memory: Any
    parts: LoadedEngine
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def address(self) -> int:
        return int(self.memory)

    def __del__(self) -> None:
        # Suppressed as in a session's `__del__`.
        with contextlib.suppress(Exception), self.parts.working("freeing memory"):
            self.memory.free()
