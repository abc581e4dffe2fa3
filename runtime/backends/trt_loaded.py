"""A loaded engine of TensorRT or TensorRT-RTX: the two libraries' objects, and what they say of its tensors."""

import contextlib
from collections.abc import Iterator
from typing import Any

from ..errors import EngineError
from ..manifest import GraphEntry
from .failures import failure
from .trt_library import current, message_log

_DATA_TYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}


class LoadedEngine:
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
            with current(self.primary):
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


def _listed(tensors: dict[str, str]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in sorted(tensors.items()))
