"""Changes of traced graphs that keep what they compute; benchmarks/README.md says what each gains.

Batch norms, constants, rotated kernels, repeated and unused nodes need none: the exporter and `reverse_passes` leave
nothing of these, which tests/export/test_rewrites.py holds them to.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

Rewrite: TypeAlias = Callable[[ModelProto], None]
TensorTypes: TypeAlias = dict[str, tuple[int, tuple[int | str, ...]]]

# Sums over fewer channels are too small to gain.
_CHANNELS = 32


def sum_by_product(model: ModelProto) -> None:
    """Sums over the channels of fp32 maps (N, C, P) become a product with a row of ones, which runtimes compute by
    their matrix kernels; a sum across the memory's order is slow (ONNX Runtime: 20 times).
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    sums = [node for node in model.graph.node if node.op_type == "ReduceSum" and node.input[1:2]]
    shapes = tensor_types(model) if sums else {}
    for node in sums:
        if node.input[1] not in constants:
            continue
        kind, shape = shapes.get(node.input[0], (0, ()))
        axes = numpy_helper.to_array(constants[node.input[1]]).tolist()
        keeps = all(attribute.i for attribute in node.attribute if attribute.name == "keepdims")
        if kind != TensorProto.FLOAT or len(shape) != 3 or axes not in ([1], [-2]) or not keeps:
            continue
        channels = shape[1]
        if not isinstance(channels, int) or channels < _CHANNELS:
            continue
        ones = f"{node.name}.ones"
        model.graph.initializer.append(numpy_helper.from_array(np.ones((1, channels), np.float32), ones))
        product = onnx.helper.make_node("MatMul", [ones, node.input[0]], node.output, name=node.name)
        node.CopyFrom(product)
    drop_unused(model)


def join_products(model: ModelProto) -> None:
    """Products of several inputs with one matrix become one product, so that the matrix is read once.

    A matrix of a fully connected layer takes longer to read than to multiply with a few rows.
    """
    while group := next(_same_matrix(model), None):
        first = group[0]
        rows, joined = (f"{first.name}.{part}" for part in ("rows", "joined"))
        nodes = [
            onnx.helper.make_node("Concat", [node.input[0] for node in group], [rows], name=rows, axis=0),
            onnx.helper.make_node("Gemm", [rows, *first.input[1:]], [joined], name=first.name),
            onnx.helper.make_node(
                "Split", [joined], [node.output[0] for node in group], name=joined, axis=0, num_outputs=len(group)
            ),
        ]
        nodes[1].attribute.extend(first.attribute)
        others = [node for node in model.graph.node if node not in group]
        ordered = list(_ordered([*others, *nodes], model))
        del model.graph.node[:]
        model.graph.node.extend(ordered)


REWRITES: tuple[Rewrite, ...] = (sum_by_product, join_products)


def _same_matrix(model: ModelProto) -> Iterator[list[NodeProto]]:
    """Groups of products of rows (N, I) with the same matrix and bias, none of which needs another's result."""
    weights = {tensor.name for tensor in model.graph.initializer}
    groups: dict[tuple[object, ...], list[NodeProto]] = {}
    for node in model.graph.node:
        if node.op_type != "Gemm" or node.input[1] not in weights:
            continue
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        if attributes.get("transA") or not all(map(weights.__contains__, node.input[1:])):
            continue
        groups.setdefault((*node.input[1:], *sorted(attributes.items())), []).append(node)
    for group in groups.values():
        needed = [_ancestors(node, model) for node in group]
        if len(group) > 1 and not any(node.output[0] in names for node in group for names in needed):
            yield group


def _ancestors(node: NodeProto, model: ModelProto) -> set[str]:
    """What other nodes make of what `node` needs, near and far."""
    return {name for needed in nodes_for(node.input, model.graph.node) for name in needed.output}


def _ordered(nodes: list[NodeProto], model: ModelProto) -> Iterator[NodeProto]:
    """The nodes, each after those whose results it needs, else in the order given."""
    known = {tensor.name for tensor in (*model.graph.initializer, *model.graph.input)} | {""}
    while nodes:
        place = next(place for place, node in enumerate(nodes) if known.issuperset(node.input))
        node = nodes.pop(place)
        known.update(node.output)
        yield node


def tensor_types(model: ModelProto) -> TensorTypes:
    """Type and shape of every tensor that has them."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    return {value.name: (value.type.tensor_type.elem_type, _sides(value)) for value in values}


def _sides(value: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    return tuple(side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim)


def drop_unused(model: ModelProto) -> None:
    """Remove nodes and constants that nothing reads."""
    outputs = {value.name for value in model.graph.output}
    kept = nodes_for(outputs, model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    read = outputs.union(*(node.input for node in kept))
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in read]:
        model.graph.initializer.remove(tensor)


def nodes_for(wanted: Iterable[str], nodes: Sequence[NodeProto]) -> list[NodeProto]:
    """Those of `nodes`, in the same order, that the tensors `wanted` come of; `nodes` stand in a graph's order."""
    names = set(wanted)
    found = []
    for node in reversed(nodes):
        if not names.isdisjoint(node.output):
            names.update(node.input)
            found.append(node)
    return found[::-1]
