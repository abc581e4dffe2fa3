"""Tensors of other libraries (PyTorch, CuPy, NumPy, ...) as a session reads them, and its own as they read them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError

# Numbers of devices in DLPack.
_CPU, _CUDA = 1, 2


class Device(NamedTuple):
    """Where memory is: "cpu" or "cuda", and the number of the GPU."""

    kind: str = "cpu"
    number: int = 0

    def __str__(self) -> str:
        return "cpu" if self.kind == "cpu" else f"cuda:{self.number}"


@dataclass(frozen=True, eq=False)
class Shared:
    """Memory of another library; whoever holds this keeps it from being freed.

    `device` has no number where the library names none, and `array` is the memory as an array where it is the host's.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    contiguous: bool
    kind: str
    number: int | None
    owner: Any
    array: NDArray[Any] | None = None

    def mismatch(self, shape: tuple[int, ...], dtype: np.dtype[Any], device: Device) -> str | None:
        """What keeps it from being a C-contiguous tensor of these, as a clause with the remedy; or None."""
        if self.kind != device.kind or self.number not in (None, device.number):
            found = Device(self.kind, self.number or 0)
            return f"got a tensor on {found}, expected one on {device}; bring it there, such as by .to('{device}')"
        if (self.shape, self.dtype) != (shape, dtype):
            return f"got {self.dtype} {self.shape}, expected {dtype} {shape}, what the session was opened for"
        if not self.contiguous:
            return "got a tensor that is not contiguous, expected C order; share .contiguous() of it"
        return None


@dataclass(frozen=True, eq=False)
class View:
    """An output of a session in the session's own memory, for other libraries to read without a copy.

    NumPy, PyTorch, CuPy and others take it by `from_dlpack`; on a GPU `torch.as_tensor(view, device="cuda")` and
    `cupy.asarray(view)` work too. It is valid until the session, or one that is linked to it, runs or is fed again:
    later the memory holds other values. It is to be read, not written.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    device: Device
    # Keeps the memory.
    owner: Any
    # The library's own `__dlpack__`, where it has one.
    export: Callable[..., object] | None = None

    def __dlpack_device__(self) -> tuple[int, int]:
        return (_CPU, 0) if self.device.kind == "cpu" else (_CUDA, self.device.number)

    def __dlpack__(self, **asked: Any) -> Any:
        if self.device.kind == "cpu":
            return np.asarray(self).__dlpack__(**asked)
        if self.export is None:
            raise BufferError(
                f"view on {self.device}: has no DLPack form; take it by torch.as_tensor(view, device='{self.device}') "
                "or cupy.asarray(view)."
            )
        # Nothing is left to wait for: a run ends with its work on the GPU.
        return self.export(stream=asked.get("stream"))

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """NumPy's own; on the host alone."""
        return self._interface("cpu")

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Its counterpart on a GPU, and there alone."""
        return self._interface("cuda")

    def _interface(self, kind: str) -> dict[str, Any]:
        if self.device.kind != kind:
            raise AttributeError(f"the memory is on {self.device}")
        return {"data": (self.address, False), "shape": self.shape, "typestr": self.dtype.str, "version": 3}


def read_shared(tensor: Any, subject: str) -> Shared:
    """What a tensor of another library says of its memory.

    Args:
        tensor: a NumPy array, or anything with `__dlpack__` on the host or `__cuda_array_interface__` on a GPU.
        subject: for messages.

    Raises:
        EngineError: it is neither, or its library does not give it away.
    """
    try:
        interface = getattr(tensor, "__cuda_array_interface__", None)
        if interface is not None:
            return _on_gpu(tensor, interface)
        if isinstance(tensor, np.ndarray):
            return _on_host(tensor, tensor)
        if not hasattr(tensor, "__dlpack_device__"):
            raise EngineError(
                f"{subject}: got {type(tensor).__name__}, expected a tensor with DLPack or __cuda_array_interface__; "
                "arrays of other kinds are copied by feed()."
            )
        kind = int(tensor.__dlpack_device__()[0])
        if kind != _CPU:
            raise EngineError(
                f"{subject}: got a tensor on a device (number {kind} of DLPack) and without __cuda_array_interface__; "
                "share torch.from_dlpack(tensor), or bring it to the host."
            )
        return _on_host(np.from_dlpack(tensor), tensor)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise EngineError(f"{subject}: its library does not give its memory away ({error}).") from error


def _on_host(array: NDArray[Any], owner: Any) -> Shared:
    return Shared(
        array.ctypes.data, array.shape, array.dtype, array.flags.c_contiguous, "cpu", None, (owner, array), array
    )


def _on_gpu(tensor: Any, interface: dict[str, Any]) -> Shared:
    shape, dtype = tuple(interface["shape"]), np.dtype(interface["typestr"])
    strides = interface.get("strides")
    number = tensor.__dlpack_device__()[1] if hasattr(tensor, "__dlpack_device__") else None
    contiguous = strides is None or _is_contiguous(shape, tuple(strides), dtype.itemsize)
    return Shared(interface["data"][0], shape, dtype, contiguous, "cuda", number, tensor)


def _is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> bool:
    """Whether these strides, in bytes, are those of C order; that of a single element is of no account."""
    return all(
        size == 1 or stride == itemsize * math.prod(shape[axis + 1 :])
        for axis, (size, stride) in enumerate(zip(shape, strides, strict=True))
    )
