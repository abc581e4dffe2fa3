"""The `config.pbtxt` of every model of a repository."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from salience.runtime.manifest import HOST_GRAPHS, DataType, EngineEntry, GraphEntry, Precision, TensorSpec
from salience.runtime.triton_interface import (
    DEVICE_PARAMETER,
    PRECISION_PARAMETER,
    Device,
    Port,
    graph_model,
    inputs_of,
    outputs_of,
)

from .text_format import Message, Word

Backend = Literal["onnxruntime", "tensorrt"]

_DATA_TYPES: dict[DataType, Word] = {
    "float32": Word("TYPE_FP32"),
    "float16": Word("TYPE_FP16"),
    "uint8": Word("TYPE_UINT8"),
    "int32": Word("TYPE_INT32"),
    "int64": Word("TYPE_INT64"),
    "bool": Word("TYPE_BOOL"),
}
_PLATFORMS: dict[Backend, str] = {"onnxruntime": "onnxruntime_onnx", "tensorrt": "tensorrt_plan"}
_NEWEST: Message = {"latest": {"num_versions": 1}}


@dataclass(frozen=True)
class Serving:
    """How a bundle is to be served.

    Attributes:
        name: of the public model, and the beginning of the others' names.
        precision: of the method's graphs.
        backend: what runs them.
        device: likewise.
        instances: of the public model, each a process with one picture at a time; and of graphs that make no batches.
        max_batch: requests that a graph takes in one call, at most.
        max_delay_us: how long a request may wait for others to share its call, in microseconds.
    """

    name: str
    precision: Precision
    backend: Backend = "onnxruntime"
    device: Device = "gpu"
    instances: int = 2
    max_batch: int = 8
    max_delay_us: int = 500


def graph_config(graph: str, interface: GraphEntry, serving: Serving, engine: EngineEntry | None = None) -> Message:
    """The configuration of one graph.

    Args:
        graph: its name in the bundle.
        interface: at the precision that is served.
        serving: how.
        engine: what runs it instead of the ONNX file.
    """
    batched = makes_batches(interface)
    on_host = graph in HOST_GRAPHS
    config: dict[str, str | int | Message | Sequence[Message]] = {
        "name": graph_model(serving.name, graph),
        "platform": _PLATFORMS["onnxruntime" if engine is None else "tensorrt"],
        "max_batch_size": serving.max_batch if batched else 0,
        "input": [_tensor(spec, batched=batched) for spec in interface.inputs],
        "output": [_tensor(spec, batched=batched) for spec in interface.outputs],
        # One instance takes what the public model's instances send as one batch; several would part it.
        "instance_group": _instances(1 if batched else serving.instances, "cpu" if on_host else serving.device),
        "version_policy": _NEWEST,
    }
    if batched and serving.max_batch > 1:
        config["dynamic_batching"] = {
            "preferred_batch_size": _preferred(serving, engine),
            "max_queue_delay_microseconds": serving.max_delay_us,
        }
    return config


def public_config(method: str, serving: Serving) -> Message:
    """The configuration of the Python model that clients call."""
    return {
        "name": serving.name,
        "backend": "python",
        "max_batch_size": 0,
        "input": [{**_port(port), "optional": True} for port in inputs_of(method)],
        "output": [_port(port) for port in outputs_of(method)],
        "instance_group": _instances(serving.instances, "cpu"),
        "version_policy": _NEWEST,
        "parameters": [
            _parameter(PRECISION_PARAMETER, serving.precision),
            _parameter(DEVICE_PARAMETER, serving.device),
            # Pictures are decoded on the CPU.
            _parameter("FORCE_CPU_ONLY_INPUT_TENSORS", "yes"),
        ],
    }


def makes_batches(interface: GraphEntry) -> bool:
    """Whether every tensor has one and the same free first dimension, as Triton's batches need it."""
    specs = [*interface.inputs, *interface.outputs]
    first = {spec.shape[:1] for spec in specs}
    return len(first) == 1 and all(len(spec.shape) > 1 and isinstance(spec.shape[0], str) for spec in specs)


def _preferred(serving: Serving, engine: EngineEntry | None) -> list[int]:
    """Batches that wait no longer: one of every instance, beyond which no more come; the engine's best; the largest."""
    sizes = {serving.instances, serving.max_batch} | ({engine.profile[1]} if engine else set())
    return sorted(size for size in sizes if size <= serving.max_batch)


def _tensor(spec: TensorSpec, *, batched: bool) -> Message:
    dims = [side if isinstance(side, int) else -1 for side in spec.shape]
    return {"name": spec.name, "data_type": _DATA_TYPES[spec.dtype], "dims": dims[1:] if batched else dims}


def _port(port: Port) -> Message:
    return {"name": port.name, "data_type": Word(port.data_type), "dims": port.dims}


def _instances(count: int, device: Device) -> Message:
    return {"count": count, "kind": Word(f"KIND_{device.upper()}")}


def _parameter(key: str, text: str) -> Message:
    return {"key": key, "value": {"string_value": text}}
