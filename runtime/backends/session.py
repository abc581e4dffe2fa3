"""A graph with its tensors bound once to buffers that stay on the device: what iterative methods loop over."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError
from ..manifest import TensorSpec
from .device_arrays import Device, Shared, View, read_shared

BufferT = TypeVar("BufferT")


@dataclass
class Copies:
    """How many tensors a session has copied between host and device."""

    to_device: int = 0
    to_host: int = 0


@dataclass(frozen=True, eq=False)
class Held(Generic[BufferT]):
    """A tensor on the device that no session writes to: what `Session.take` leaves and `Session.put` accepts."""

    buffer: BufferT
    spec: TensorSpec
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Its size."""
        return math.prod(self.shape) * np.dtype(self.spec.dtype).itemsize


class Session(ABC, Generic[BufferT]):
    """Runs one graph again and again on its own buffers; for one thread at a time.

    `feed` and `read` copy between host and device and are counted in `copies`; `run` copies nothing, and neither do
    `share` and `view`, for tensors of other libraries on the same device. An output that is linked to an input of its
    own session trades buffers with it after every run; one that is linked to an input of another session shares its
    buffer.

    Args:
        inputs: the graph's inputs by name.
        outputs: likewise.
        batch: the size of their free first dimension.
        label: the engine, for messages.
    """

    # Where its buffers are.
    device = Device()

    def __init__(
        self, inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec], *, batch: int, label: str
    ) -> None:
        if batch < 1:
            raise EngineError(f"{label}: a session for a batch of {batch} was asked for, expected at least 1.")
        self.copies = Copies()
        self.batch = batch
        self.label = label
        self._inputs, self._outputs = dict(inputs), dict(outputs)
        self._links: dict[str, str] = {}
        self._linked: set[str] = set()
        self._missing = set(inputs)
        # What was shared or put, by input: kept while it is bound, and never written to.
        self._borrowed: dict[str, Shared | Held[BufferT]] = {}
        self._ran = False
        self._buffers: dict[str, BufferT] = {}
        for name, spec in {**inputs, **outputs}.items():
            self._place(name, self._allocate(self._shape(spec), np.dtype(spec.dtype)))

    def feed(self, name: str, array: NDArray[Any]) -> None:
        """Copy `array` into the buffer of input `name`.

        Raises:
            EngineError: no such input, or another type or shape than the session's.
        """
        spec = self._spec(name, self._inputs, "input")
        if array.shape != self._shape(spec) or array.dtype != np.dtype(spec.dtype):
            raise EngineError(
                f"{self.label}: {name}: got {array.dtype} {array.shape}, expected {spec.dtype} {self._shape(spec)}, "
                "what the session was opened for."
            )
        self._ran = False
        if name in self._borrowed:
            self._place(name, self._allocate(self._shape(spec), np.dtype(spec.dtype)))
            del self._borrowed[name]
        self.copies.to_device += 1
        self._upload(self._buffers[name], np.ascontiguousarray(array))
        self._missing.discard(name)

    def read(self, name: str) -> NDArray[Any]:
        """A copy of output `name` of the last run.

        Raises:
            EngineError: no such output, or no run since an input was fed.
        """
        self._spec(name, self._outputs, "output")
        if not self._ran:
            raise EngineError(f"{self.label}: {name} was read with no run since the inputs were fed; call run() first.")
        self.copies.to_host += 1
        # After a run a linked output's values are in its input's buffer.
        return self._download(self._buffers[self._links.get(name, name)])

    def link(self, output: str, name: str, *, to: Self | None = None) -> None:
        """Let input `name` of the next run be what `output` is: of this session, or of session `to`.

        To be called before the inputs are fed; a tensor can be linked once.

        Raises:
            EngineError: no such tensors, of different types or shapes, linked already, or the input was shared or put.
        """
        target = self if to is None else to
        source = self._spec(output, self._outputs, "output")
        goal = target._spec(name, target._inputs, "input")
        if (self._shape(source), source.dtype) != (target._shape(goal), goal.dtype):
            raise EngineError(
                f"{self.label}: {output} ({source.dtype} {self._shape(source)}) cannot become {name} "
                f"({goal.dtype} {target._shape(goal)}); link tensors of one type and shape."
            )
        if type(target) is not type(self):
            raise EngineError(f"{self.label}: {output} cannot be linked to a session of {target.label}.")
        if output in self._linked or name in target._linked:
            raise EngineError(f"{self.label}: {output} or {name} is linked already; open another session.")
        if name in target._borrowed:
            raise EngineError(f"{self.label}: {name} holds a tensor that is not the session's; link before you put it.")
        self._ran = target._ran = False
        self._linked.add(output)
        target._linked.add(name)
        if target is self:
            self._links[output] = name
        else:
            target._place(name, self._buffers[output])
            target._missing.discard(name)

    def take(self, name: str) -> Held[BufferT]:
        """Output `name` of the last run, on the device; the session writes the next one elsewhere.

        Raises:
            EngineError: no such output, it is linked, or no run since an input was fed.
        """
        spec = self._spec(name, self._outputs, "output")
        if name in self._linked:
            raise EngineError(f"{self.label}: {name} is linked, so it cannot be taken.")
        if not self._ran:
            raise EngineError(f"{self.label}: {name} was taken with no run since the inputs were fed; run first.")
        held = Held(self._buffers[name], spec, self._shape(spec))
        self._place(name, self._allocate(held.shape, np.dtype(spec.dtype)))
        return held

    def put(self, name: str, held: Held[BufferT]) -> None:
        """Let input `name` be what a session of the same backend held; nothing is copied.

        Raises:
            EngineError: no such input, it is linked, or it is of another type or shape.
        """
        spec = self._spec(name, self._inputs, "input")
        if name in self._linked:
            raise EngineError(f"{self.label}: {name} is linked, so nothing else can be put there.")
        if (held.shape, held.spec.dtype) != (self._shape(spec), spec.dtype):
            raise EngineError(
                f"{self.label}: {name}: got {held.spec.dtype} {held.shape}, expected {spec.dtype} {self._shape(spec)}."
            )
        self._borrow(name, held.buffer, held)

    def share(self, name: str, tensor: Any) -> None:
        """Let input `name` be a tensor of another library, where it is; nothing is copied.

        Every run from now on reads what the tensor holds then, until the input is shared, put or fed again. The
        session keeps it as long and never writes to it. On a GPU runs have a stream of their own: what fills the tensor
        must be done before `run`, such as by `torch.cuda.current_stream().synchronize()`.

        Args:
            name: of an input that is not linked.
            tensor: C-contiguous, on the session's device; see `device_arrays.read_shared`.

        Raises:
            EngineError: no such input, it is linked, the tensor is elsewhere or of another type, shape or order, or the
                backend takes none.
        """
        spec = self._spec(name, self._inputs, "input")
        if name in self._linked:
            raise EngineError(
                f"{self.label}: {name} is linked, so nothing can be shared with it; open another session."
            )
        shared = read_shared(tensor, f"{self.label}: {name}")
        wrong = shared.mismatch(self._shape(spec), np.dtype(spec.dtype), self.device)
        if wrong:
            raise EngineError(f"{self.label}: {name}: {wrong}.")
        self._borrow(name, self._adopt(shared), shared)

    def view(self, name: str) -> View:
        """Output `name` of the last run, where it is, for other libraries to read; nothing is copied.

        Raises:
            EngineError: no such output, no run since an input was fed, or the backend gives none away.
        """
        spec = self._spec(name, self._outputs, "output")
        if not self._ran:
            raise EngineError(f"{self.label}: {name} was viewed with no run since the inputs were fed; run first.")
        return self._expose(self._buffers[self._links.get(name, name)], self._shape(spec), np.dtype(spec.dtype))

    def run(self) -> None:
        """Run the graph on what its buffers hold.

        Raises:
            EngineError: an input was never fed, or the engine failed.
        """
        if self._missing:
            missing = ", ".join(name for name in self._inputs if name in self._missing)
            raise EngineError(f"{self.label}: run() was called before {missing} had values; feed or link every input.")
        # A run that fails leaves nothing to read.
        self._ran = False
        self._execute()
        for output, name in self._links.items():
            fresh, stale = self._buffers[output], self._buffers[name]
            self._place(name, fresh)
            self._place(output, stale)
        self._ran = True

    def _borrow(self, name: str, buffer: BufferT, owner: Shared | Held[BufferT]) -> None:
        self._ran = False
        self._place(name, buffer)
        self._borrowed[name] = owner
        self._missing.discard(name)

    def _place(self, name: str, buffer: BufferT) -> None:
        # The old buffer is let go once nothing reads or writes it any more.
        self._bind(name, buffer, is_input=name in self._inputs)
        self._buffers[name] = buffer

    def _shape(self, spec: TensorSpec) -> tuple[int, ...]:
        return tuple(self.batch if isinstance(side, str) else side for side in spec.shape)

    def _spec(self, name: str, specs: Mapping[str, TensorSpec], kind: str) -> TensorSpec:
        if name not in specs:
            raise EngineError(f"{self.label}: {kind} {name!r} is not known; the graph has {', '.join(specs)}.")
        return specs[name]

    def _adopt(self, shared: Shared) -> BufferT:
        """A buffer that is the memory of a fitting tensor; raises EngineError."""
        raise EngineError(f"{self.label}: shares no tensors of other libraries; use feed().")

    def _expose(self, buffer: BufferT, shape: tuple[int, ...], dtype: np.dtype[Any]) -> View:
        """A buffer for other libraries to read; raises EngineError."""
        raise EngineError(f"{self.label}: gives no memory to other libraries; use read().")

    @abstractmethod
    def _allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> BufferT:
        """A buffer on the device."""

    @abstractmethod
    def _bind(self, name: str, buffer: BufferT, *, is_input: bool) -> None:
        """Let the graph read or write tensor `name` there from the next run on."""

    @abstractmethod
    def _upload(self, buffer: BufferT, array: NDArray[Any]) -> None:
        """Copy a contiguous host array of the buffer's type and shape into it."""

    @abstractmethod
    def _download(self, buffer: BufferT) -> NDArray[Any]:
        """A new host array with the buffer's content."""

    @abstractmethod
    def _execute(self) -> None:
        """Run the graph on the bound buffers; raises EngineError."""
