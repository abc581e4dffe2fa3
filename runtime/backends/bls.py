"""Graphs that Triton Inference Server serves as models, called from a Python model inside it ("BLS").

Works in the server's Python backend alone, which gives its processes the module `triton_python_backend_utils`. What a
session links, takes or puts stays the server's tensor, on the device where a model left it, and is handed to the next
call by DLPack. Only what is read comes to the host; from a GPU that takes `cupy`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendUnavailableError, EngineError
from ..manifest import GraphEntry
from .engine import Engine, EngineOptions, Feeds
from .session import Session

_UTILITIES = "triton_python_backend_utils"


class BlsEngine(Engine):
    """A model of the server."""

    name = "triton"

    def __init__(self, utilities: Any, interface: GraphEntry, options: EngineOptions, model: str) -> None:
        super().__init__(interface, f"triton model {model}")
        self.on_gpu = options.on_gpu
        self._utilities = utilities
        self._model = model

    @classmethod
    def unavailable(cls, options: EngineOptions) -> str | None:
        """See `Engine.unavailable`."""
        try:
            import_utilities()
        except BackendUnavailableError as error:
            return str(error)
        if options.on_gpu and find_spec("cupy") is None:
            return (
                "triton: cupy is not installed, which reads results from the GPU; in the server's container run: "
                "pip install cupy-cuda12x (or -cuda13x, by the server's CUDA)"
            )
        return None

    @classmethod
    def open_graph(cls, path: Path, interface: GraphEntry, options: EngineOptions) -> Self:
        """The model whose folder in the server's repository is `path`; the server has loaded it, or will."""
        cls.require(options)
        return cls(import_utilities(), interface, options, path.name)

    def session(self, batch: int = 1) -> "BlsSession":
        """See `Engine.session`."""
        return BlsSession(self, batch)

    def call(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """One request: the server's tensors or arrays by input -> the server's tensors by output.

        Raises:
            EngineError: the server refuses it, or the model fails.
        """
        request = self._utilities.InferenceRequest(
            model_name=self._model,
            requested_output_names=list(self.outputs),
            inputs=[self._named(name, value) for name, value in inputs.items()],
        )
        try:
            response = request.exec()
        except Exception as error:
            raise EngineError(f"{self.label}: cannot be called ({error}).") from error
        if response.has_error():
            raise EngineError(f"{self.label}: failed while running ({response.error().message()}).")
        found = {tensor.name(): tensor for tensor in response.output_tensors()}
        missing = [name for name in self.outputs if name not in found]
        if missing:
            raise EngineError(f"{self.label}: gave no {', '.join(missing)}; write the model repository again.")
        return found

    def _named(self, name: str, value: Any) -> Any:
        tensor = self._utilities.Tensor
        return tensor(name, value) if isinstance(value, np.ndarray) else tensor.from_dlpack(name, value)

    def _run(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        return {name: to_host(tensor) for name, tensor in self.call(feeds).items()}


@dataclass
class Slot:
    """Where a session keeps a tensor: an array that was fed, or the server's own; None before it has a value."""

    value: Any = None


class BlsSession(Session[Slot]):
    """Requests that hand the tensors of one to the next.

    The server allocates what a model returns, so a slot gets another tensor in every run.
    """

    def __init__(self, engine: BlsEngine, batch: int) -> None:
        self._engine = engine
        super().__init__(engine.inputs, engine.outputs, batch=batch, label=engine.label)

    def _allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Slot:
        return Slot()

    def _bind(self, name: str, buffer: Slot, *, is_input: bool) -> None:
        """Nothing to do: a request names its tensors anew."""

    def _upload(self, buffer: Slot, array: NDArray[Any]) -> None:
        buffer.value = np.array(array)

    def _download(self, buffer: Slot) -> NDArray[Any]:
        return to_host(buffer.value)

    def _execute(self) -> None:
        found = self._engine.call({name: self._buffers[name].value for name in self._inputs})
        for name in self._outputs:
            self._buffers[name].value = found[name]


def import_utilities() -> Any:
    """The server's own module.

    Raises:
        BackendUnavailableError: this process is not one of the server's Python backend.
    """
    try:
        return import_module(_UTILITIES)
    except ImportError as error:
        raise BackendUnavailableError(
            f"triton: {_UTILITIES} is not here, which only a Python model inside Triton Inference Server has; "
            "elsewhere choose another backend."
        ) from error


def to_host(tensor: Any) -> NDArray[Any]:
    """A new array with the content of a tensor of the server."""
    if tensor.is_cpu():
        return np.array(tensor.as_numpy())
    cupy = import_module("cupy")
    found: NDArray[Any] = cupy.asnumpy(cupy.from_dlpack(tensor))
    return found
