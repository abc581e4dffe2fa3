"""How much a graph computes."""

import math
from collections.abc import Iterable

import onnx
import onnx.inliner
from onnx import ModelProto, NodeProto

_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def multiply_adds(model: ModelProto, batch: int = 1) -> dict[str, int]:
    """Multiply-adds of every convolution and matrix product of `model`, by the node's name."""
    inferred = _inferred(model, batch)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in inferred.graph.initializer}
    for value in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output):
        shapes[value.name] = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
    return {node.name: count for node in inferred.graph.node if (count := _count(node, shapes))}


def traffic(model: ModelProto, batch: int = 1) -> int:
    """Bytes that convolutions and matrix products read and write: all there is if other nodes are fused into them."""
    inferred = _inferred(model, batch)
    sizes = {tensor.name: _size(tensor.data_type, tensor.dims) for tensor in inferred.graph.initializer}
    for value in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output):
        held = value.type.tensor_type
        sizes[value.name] = _size(held.elem_type, [dim.dim_value for dim in held.shape.dim])
    return sum(
        sizes.get(name, 0)
        for node in inferred.graph.node
        if node.op_type in _PRODUCTS
        for name in (*node.input, *node.output)
    )


def _inferred(model: ModelProto, batch: int) -> ModelProto:
    """The model without functions, its free dimensions `batch`, with the shapes of all tensors."""
    flat = onnx.inliner.inline_local_functions(model)
    for value in (*flat.graph.input, *flat.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_value = batch
    del flat.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(flat, data_prop=True)


def _size(kind: int, sides: Iterable[int]) -> int:
    return onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize * math.prod(sides)


def _count(node: NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    if node.op_type == "Conv":  # each output is a sum over one kernel (I / groups, h, w)
        return math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
    if node.op_type == "ConvTranspose":  # each input goes into one kernel (O / groups, h, w)
        return math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])
    if node.op_type in ("Gemm", "MatMul"):
        turned = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-2 if turned else -1]
    return 0
