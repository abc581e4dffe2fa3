"""fp32 -> int8: an ONNX graph with QuantizeLinear and DequantizeLinear, one file for every runtime.

Activations are signed and symmetric, one scale a tensor, weights symmetric, one scale an output channel; biases stay
floats, since TensorRT reads no quantised ones. ONNX Runtime's quantiser finds the ranges and places the nodes; what
this module adds is which layers, and two changes that its own graph optimiser needs to keep to that choice.
"""

import logging
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from salience.runtime.errors import ExportError

from .rewrites import drop_unused, nodes_for

Feeds: TypeAlias = Mapping[str, NDArray[Any]]
Ranges: TypeAlias = Any  # onnxruntime.quantization.calibrate.TensorsData

# Layers: what has a weight and an int8 kernel in every runtime (ONNX Runtime has none for ConvTranspose).
LAYERS = frozenset({"Conv", "Gemm", "MatMul"})
# What runs on int8 between two layers; alone it would gain nothing.
BETWEEN = frozenset({"Add", "Clip", "MaxPool", "Relu"})
# Layers that stay fp32 must read fp32, see `_read_floats`.
_FLOAT_READERS = LAYERS | {"ConvTranspose"}


def layers(model: ModelProto, outputs: Sequence[str] | None = None) -> list[str]:
    """Names of the layers that may become int8, in the graph's order; only those that `outputs` depend on, if given.

    So a graph with a backward pass can have its forward pass alone in int8.
    """
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer if sum(side > 1 for side in tensor.dims) > 1}
    wanted = {value.name for value in graph.output} if outputs is None else set(outputs)
    return [
        node.name
        for node in nodes_for(wanted, graph.node)
        if node.op_type in LAYERS and not node.domain and node.input[1] in weights
    ]


def calibrate(model: ModelProto, feeds: Iterable[Feeds], *, method: str = "MinMax") -> Ranges:
    """The range of every tensor of an fp32 `model` over `feeds`: inputs by name, one item a run.

    By default from the least to the largest value; the methods Percentile and Entropy gave no better maps
    (benchmarks/README.md).
    """
    from onnxruntime.quantization.calibrate import CalibrationDataReader, CalibrationMethod, create_calibrator

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._rows = iter(feeds)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            row = next(self._rows, None)
            return None if row is None else dict(row)

    with tempfile.TemporaryDirectory() as folder, _quiet():
        plain, augmented = Path(folder) / "model.onnx", Path(folder) / "augmented.onnx"
        onnx.save(model, plain)
        calibrator = create_calibrator(
            str(plain), sorted(LAYERS | BETWEEN), augmented_model_path=str(augmented),
            calibrate_method=CalibrationMethod[method], extra_options={"symmetric": True},
        )  # fmt: skip
        calibrator.collect_data(Reader())
        return calibrator.compute_data()


def with_types(model: ModelProto) -> ModelProto:
    """A copy of `model` that says the type of every tensor, which `quantize` would else find out at each call."""
    from onnxruntime.quantization.quant_utils import add_infer_metadata

    copied = onnx.shape_inference.infer_shapes(model)
    add_infer_metadata(copied)
    return copied


def quantize(model: ModelProto, ranges: Ranges, chosen: Iterable[str]) -> ModelProto:
    """A copy of an fp32 `model` with the `chosen` layers, and what lies between two of them, in int8.

    Raises:
        ExportError: a chosen layer is none, or the quantiser fails.
    """
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.quant_utils import QuantType

    names = set(chosen)
    unknown = sorted(names - set(layers(model)))
    if unknown:
        raise ExportError(f"graph {model.graph.name}: {', '.join(unknown)} is no layer that can be int8.")
    copied = ModelProto()
    copied.CopyFrom(model)
    if not names:
        return copied
    if not copied.metadata_props:
        copied = with_types(copied)
    options = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}
    between = _between(model, names)
    try:
        with _quiet():
            quantiser = QDQQuantizer(
                copied, True, False, QuantType.QInt8, QuantType.QInt8, ranges, sorted(names | between), [],
                sorted(LAYERS | BETWEEN), options,
            )  # fmt: skip
            quantiser.quantize_model()
    except Exception as error:
        raise ExportError(f"graph {model.graph.name}: onnxruntime's quantiser failed ({error}).") from error
    return _finish(quantiser.model, model)


def _finish(quantised: Any, model: ModelProto) -> ModelProto:
    found: ModelProto = quantised.model
    _read_floats(found)
    _own_quantisers(found)
    quantised.topological_sort()
    drop_unused(found)
    for imported in list(found.opset_import):
        if imported.domain not in {entry.domain for entry in model.opset_import}:
            found.opset_import.remove(imported)
    found.producer_name, found.producer_version = model.producer_name, model.producer_version
    del found.metadata_props[:], found.graph.value_info[:]
    found.graph.name = model.graph.name
    onnx.checker.check_model(found)
    return found


def check_int8(model: ModelProto, chosen: Iterable[str]) -> None:
    """Raise ExportError unless exactly the `chosen` layers of `model` read int8 weights and int8 activations."""
    producers = _producers(model)
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}

    def is_int8(name: str) -> bool:
        node = producers.get(name)
        if node is None or node.op_type != "DequantizeLinear":
            return False
        return kinds.get(node.input[2]) == TensorProto.INT8

    found = {n.name for n in model.graph.node if n.op_type in LAYERS and all(is_int8(name) for name in n.input[:2])}
    wrong = sorted(found ^ set(chosen))
    if wrong:
        raise ExportError(f"graph {model.graph.name}: not int8 as it was meant to be; wrong layers: {wrong}.")


def _between(model: ModelProto, chosen: set[str]) -> set[str]:
    """The nodes of `BETWEEN` all of whose values come from int8 and go to some of it."""
    producers, weights = _producers(model), {tensor.name for tensor in model.graph.initializer}
    inside = set(chosen)
    for node in model.graph.node:
        values = [name for name in node.input if name and name not in weights]
        sources = [producers[name].name if name in producers else "" for name in values]
        if node.op_type in BETWEEN and not node.domain and values and all(source in inside for source in sources):
            inside.add(node.name)
    read: set[str] = set()
    for node in reversed(model.graph.node):
        if node.name in inside and node.name not in chosen and read.isdisjoint(node.output):
            inside.discard(node.name)
        if node.name in inside:
            read.update(node.input)
    return inside - chosen


def _read_floats(model: ModelProto) -> None:
    """Let a layer that stays fp32 read what was not quantised.

    Else ONNX Runtime takes it for one whose weight was forgotten, and quantises that too, with one scale a tensor.
    """
    producers = _producers(model)

    def dequantised(name: str) -> NodeProto | None:
        node = producers.get(name)
        return node if node is not None and node.op_type == "DequantizeLinear" else None

    for node in model.graph.node:
        if node.op_type not in _FLOAT_READERS or dequantised(node.input[1]) is not None:
            continue
        source = dequantised(node.input[0])
        if source is not None:
            node.input[0] = producers[source.input[0]].input[0]


def _own_quantisers(model: ModelProto) -> None:
    """Give every further reader of a quantised tensor a quantiser of its own.

    ONNX Runtime fuses a layer with neither of two readers of one, and merges two that are equal; so the scale of each
    is the next larger number than that of the one before.
    """
    producers = _producers(model)
    scales = {tensor.name: tensor for tensor in model.graph.initializer}
    readers: dict[str, list[tuple[NodeProto, int]]] = defaultdict(list)
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            source = producers.get(name)
            if source is not None and source.op_type == "DequantizeLinear" and source.input[0] in producers:
                readers[source.input[0]].append((node, place))
    for quantised, users in readers.items():
        values, scale, zero = producers[quantised].input
        number = numpy_helper.to_array(scales[scale])
        for count, (node, place) in enumerate(users[1:], start=1):
            number = np.nextafter(number, np.float32(np.inf))
            name = f"{quantised}.{count}"
            model.graph.initializer.append(numpy_helper.from_array(number, f"{name}.scale"))
            rest = [f"{name}.scale", zero]
            model.graph.node.extend(
                [
                    onnx.helper.make_node("QuantizeLinear", [values, *rest], [name], name=name),
                    onnx.helper.make_node("DequantizeLinear", [name, *rest], [f"{name}.value"], name=f"{name}.value"),
                ]
            )
            node.input[place] = f"{name}.value"


def _producers(model: ModelProto) -> dict[str, NodeProto]:
    return {name: node for node in model.graph.node for name in node.output}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the quantiser's advice, which goes to the root logger."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
