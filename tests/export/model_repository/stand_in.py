"""A stand-in for Triton Inference Server, which was not run: it reads a model repository as strictly as the server.

Every request is held to `config.pbtxt`: known names, types, sizes, and one batch of at most `max_batch_size`. Networks
run in ONNX Runtime on the CPU. What a model on a GPU gives, `as_numpy` refuses, as the server's tensors do.
"""

import importlib.util
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest
from google.protobuf import json_format, text_format
from numpy.typing import NDArray

TYPES: dict[str, Any] = {
    "TYPE_FP32": np.float32,
    "TYPE_FP16": np.float16,
    "TYPE_INT64": np.int64,
    "TYPE_INT32": np.int32,
    "TYPE_UINT8": np.uint8,
    "TYPE_BOOL": np.bool_,
    "TYPE_STRING": np.object_,
}


def model_config_type() -> Any:
    """Triton's protobuf message; read apart from `tritonclient.grpc`, which cannot be loaded beside kserve."""
    pytest.importorskip("tritonclient")
    package = importlib.util.find_spec("tritonclient")
    assert package is not None
    [folder] = list(package.submodule_search_locations or [])
    return load_file("triton_model_config_pb2", Path(folder) / "grpc" / "model_config_pb2.py").ModelConfig


def load_file(name: str, path: Path) -> Any:
    """The module in a file."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parse_config(model: Path) -> Any:
    """The `config.pbtxt` of a model's folder; an unknown field is an error."""
    return text_format.Parse((model / "config.pbtxt").read_text(), model_config_type()())


class TritonModelException(Exception):  # noqa: N818
    """Raised by the server, and by models for the server."""


class TritonError:
    """What a response says instead of tensors."""

    INTERNAL, INVALID_ARG = "INTERNAL", "INVALID_ARG"

    def __init__(self, message: str, code: str = INTERNAL) -> None:
        self._message, self._code = message, code

    def message(self) -> str:
        return self._message

    def code(self) -> str:
        return self._code


class Tensor:
    """A named array, on the host or out of its reach."""

    def __init__(self, name: str, array: NDArray[Any], *, on_device: bool = False) -> None:
        assert isinstance(array, np.ndarray)
        self._name, self.array, self.on_device = name, array, on_device

    @staticmethod
    def from_dlpack(name: str, other: "Tensor") -> "Tensor":
        assert other.array.dtype.kind in "fiu"  # what DLPack knows
        return Tensor(name, other.array, on_device=other.on_device)

    def name(self) -> str:
        return self._name

    def is_cpu(self) -> bool:
        return not self.on_device

    def as_numpy(self) -> NDArray[Any]:
        if self.on_device:
            raise TritonModelException("Tensor is stored in GPU and cannot be converted to NumPy.")
        return self.array


@dataclass
class Response:
    """`pb_utils.InferenceResponse`."""

    tensors: Sequence[Tensor]
    failure: TritonError | None

    def output_tensors(self) -> Sequence[Tensor]:
        return self.tensors

    def has_error(self) -> bool:
        return self.failure is not None

    def error(self) -> TritonError | None:
        return self.failure

    def array(self, name: str) -> NDArray[Any]:
        """The output of that name."""
        assert self.failure is None, self.failure.message()
        (found,) = (tensor for tensor in self.tensors if tensor.name() == name)
        return found.as_numpy()


@dataclass
class ClientRequest:
    """What a client has sent to the public model."""

    tensors: Sequence[Tensor]
    sent: Mapping[str, Any]

    def parameters(self) -> str:
        return json.dumps(self.sent) if self.sent else ""


@dataclass
class Server:
    """A repository that is served.

    Attributes:
        repository: a folder of models.
        calls: the model and the batch or first size of every call from the public model.
        device_reads: how many tensors were copied from the device.
        broken: models that fail.
    """

    repository: Path
    calls: list[tuple[str, int]] = field(default_factory=list)
    device_reads: int = 0
    broken: set[str] = field(default_factory=set)
    sessions: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.configs = {model.name: parse_config(model) for model in sorted(self.repository.iterdir())}
        for name, config in self.configs.items():
            assert config.name == name
            assert config.version_policy.latest.num_versions == 1

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Give this process the module that the server gives to its own."""
        monkeypatch.setitem(sys.modules, "triton_python_backend_utils", self.utilities())
        cupy: Any = ModuleType("cupy")
        cupy.__spec__ = ModuleSpec("cupy", None)
        cupy.from_dlpack, cupy.asnumpy = lambda tensor: tensor, self._read_device
        monkeypatch.setitem(sys.modules, "cupy", cupy)

    def utilities(self) -> ModuleType:
        """`triton_python_backend_utils`."""
        server = self

        class InferenceRequest:
            def __init__(self, *, model_name: str, requested_output_names: list[str], inputs: list[Tensor]) -> None:
                self.model, self.outputs, self.inputs = model_name, requested_output_names, inputs

            def exec(self) -> Response:
                return server.infer(self.model, self.outputs, self.inputs)

        module: Any = ModuleType("triton_python_backend_utils")
        module.InferenceRequest, module.Tensor = InferenceRequest, Tensor
        module.TritonError, module.TritonModelException = TritonError, TritonModelException
        module.InferenceResponse = lambda *, output_tensors, error=None: Response(output_tensors, error)
        module.get_input_tensor_by_name = lambda request, name: next(
            (tensor for tensor in request.tensors if tensor.name() == name), None
        )
        return module  # type: ignore[no-any-return]

    def open(self, name: str) -> Any:
        """The public model, as the server opens it."""
        folder = self.repository / name
        model = load_file("served_model", folder / "1" / "model.py").TritonPythonModel()
        config = json_format.MessageToDict(self.configs[name], preserving_proto_field_name=True)
        strings = {"model_config": json.dumps(config), "model_repository": str(folder), "model_version": "1"}
        model.initialize({**strings, "model_name": name, "model_instance_kind": "CPU"})
        return model

    def request(self, name: str, inputs: Mapping[str, Any], **parameters: Any) -> ClientRequest:
        """A client's request, as far as the server lets it pass."""
        tensors = [Tensor(key, np.asarray(value)) for key, value in inputs.items()]
        problem = self.refusal(name, [], tensors)
        assert problem is None, problem
        return ClientRequest(tensors, parameters)

    def execute(self, name: str, model: Any, requests: Sequence[ClientRequest]) -> list[Response]:
        """The responses of the public model, held to its configuration."""
        responses: list[Response] = model.execute(requests)
        assert len(responses) == len(requests)
        declared = {spec.name: spec for spec in self.configs[name].output}
        for response in responses:
            for tensor in response.output_tensors():
                assert misfit(tensor, declared[tensor.name()], batch=None) is None
        return responses

    def infer(self, name: str, outputs: Sequence[str], inputs: Sequence[Tensor]) -> Response:
        """What a model answers to another one of the server."""
        if name not in self.configs:
            raise TritonModelException(f"Model {name} is not ready.")
        problem = self.refusal(name, outputs, inputs)
        if problem or name in self.broken:
            return Response([], TritonError(problem or "out of memory"))
        config = self.configs[name]
        self.calls.append((name, inputs[0].array.shape[0]))
        found = self._session(name).run(list(outputs), {tensor.name(): tensor.array for tensor in inputs})
        on_device = config.instance_group[0].kind == config.instance_group[0].KIND_GPU
        tensors = [Tensor(key, array, on_device=on_device) for key, array in zip(outputs, found, strict=True)]
        declared = {spec.name: spec for spec in config.output}
        batch = inputs[0].array.shape[0] if config.max_batch_size else None
        problems = [text for t in tensors if (text := misfit(t, declared[t.name()], batch=batch))]
        return Response([], TritonError("; ".join(problems))) if problems else Response(tensors, None)

    def refusal(self, name: str, outputs: Sequence[str], inputs: Sequence[Tensor]) -> str | None:
        """Why the server would not run a request."""
        config = self.configs[name]
        declared = {spec.name: spec for spec in config.input}
        given = [tensor.name() for tensor in inputs]
        needed = {key for key, spec in declared.items() if not spec.optional}
        if len(set(given)) < len(given) or not needed <= set(given) <= set(declared):
            return f"{name}: inputs {given}, expected {list(declared)}"
        unknown = set(outputs) - {spec.name for spec in config.output}
        if unknown:
            return f"{name}: unexpected inference outputs {unknown}"
        batch = inputs[0].array.shape[0] if config.max_batch_size else None
        if batch is not None and not 1 <= batch <= config.max_batch_size:
            return f"{name}: batch-size must be <= {config.max_batch_size}, got {batch}"
        problems = (misfit(tensor, declared[tensor.name()], batch=batch) for tensor in inputs)
        return next((text for text in problems if text), None)

    def _session(self, name: str) -> Any:
        if name not in self.sessions:
            assert self.configs[name].platform == "onnxruntime_onnx"
            path = self.repository / name / "1" / "model.onnx"
            self.sessions[name] = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return self.sessions[name]

    def _read_device(self, tensor: Tensor) -> NDArray[Any]:
        assert tensor.on_device
        self.device_reads += 1
        return tensor.array.copy()


def misfit(tensor: Tensor, spec: Any, *, batch: int | None) -> str | None:
    """How a tensor differs from what the configuration declares."""
    kind = spec.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[spec.data_type].name
    wanted = [*([] if batch is None else [batch]), *spec.dims]
    shape = tensor.array.shape
    fits = len(shape) == len(wanted) and all(want in (-1, got) for want, got in zip(wanted, shape, strict=True))
    if fits and tensor.array.dtype == TYPES[kind]:
        return None
    return f"{tensor.name()}: got {tensor.array.dtype} {shape}, expected {kind} {wanted}"
