"""Masks of a backward pass become nodes of the domain `salience`, for which fused kernels exist.

A mask in standard operators is two to ten nodes, each of which reads and writes whole images; a kernel does it in one
pass. What is recognised is what `reverse_rules` and `reverse_pooling` write, in fp32.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from .operators import DOMAIN, attach_functions
from .rewrites import TensorTypes, drop_unused, tensor_types

_EVEN_WINDOWS = {"kernel_shape": [2, 2], "strides": [2, 2]}


def name_masks(model: ModelProto) -> None:
    """Put `ReluBackward`, `ClipBackward` and `PoolReluBackward` in the place of what computes the same."""
    types = tensor_types(model)
    for find in (_relu_backward, _clip_backward, _pool_relu_backward):
        view = _View(model, types)
        for old, new in [(node, found) for node in model.graph.node if (found := find(view, node))]:
            old.CopyFrom(new)
    drop_unused(model)
    attach_functions(model)


class _View:
    """A graph by what makes each tensor."""

    def __init__(self, model: ModelProto, types: TensorTypes) -> None:
        self.makers = {name: node for node in model.graph.node for name in node.output}
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.types = types

    def maker(self, name: str, kind: str) -> NodeProto | None:
        """The node that makes tensor `name`, if it is of this kind."""
        node = self.makers.get(name)
        return node if node is not None and node.op_type == kind else None

    def number(self, name: str) -> float | None:
        """The value of a constant single number."""
        values = self.array(name)
        return float(values.item()) if values is not None and values.size == 1 else None

    def array(self, name: str) -> NDArray[Any] | None:
        """The value of a constant."""
        found = self.constants.get(name)
        return None if found is None else numpy_helper.to_array(found)

    def alike(self, *names: str) -> bool:
        """Whether these are fp32 tensors of one known shape."""
        kinds = {self.types.get(name) for name in names}
        kind = kinds.pop()
        return not kinds and kind is not None and kind[0] == TensorProto.FLOAT


def _node(old: NodeProto, kind: str, inputs: list[str], **attributes: Any) -> NodeProto:
    return onnx.helper.make_node(kind, inputs, old.output, name=old.name, domain=DOMAIN, **attributes)


def _relu_backward(view: _View, node: NodeProto) -> NodeProto | None:
    """Where (LessOrEqual (activation, 0), 0, grad)."""
    if node.op_type != "Where" or view.number(node.input[1]) != 0:
        return None
    closed, grad = view.maker(node.input[0], "LessOrEqual"), node.input[2]
    if closed is None or view.number(closed.input[1]) != 0 or not view.alike(closed.input[0], grad):
        return None
    return _node(node, "ReluBackward", [grad, closed.input[0]])


def _clip_backward(view: _View, node: NodeProto) -> NodeProto | None:
    """Where (And (Greater (activation, low), Less (activation, high)), grad, 0)."""
    if node.op_type != "Where" or view.number(node.input[2]) != 0:
        return None
    both, grad = view.maker(node.input[0], "And"), node.input[1]
    if both is None:
        return None
    above, below = view.maker(both.input[0], "Greater"), view.maker(both.input[1], "Less")
    if above is None or below is None or above.input[0] != below.input[0]:
        return None
    low, high = view.number(above.input[1]), view.number(below.input[1])
    if low is None or high is None or not view.alike(above.input[0], grad):
        return None
    return _node(node, "ClipBackward", [grad, above.input[0]], low=low, high=high)


def _pool_relu_backward(view: _View, node: NodeProto) -> NodeProto | None:
    """A gradient that goes back through ReLU and on to the first largest element of each 2 x 2 window.

    Where (Equal (c, twice (MaxPool (c))), twice (ReluBackward (grad, largest)), 0), with c = Where (Equal (activation,
    twice (largest)), order, 0) and largest = MaxPool (activation).
    """
    chosen = _Spread.find(view, node)
    candidates = _Spread.find(view, view.maker(chosen.whole, "Where")) if chosen else None
    if not chosen or not candidates:
        return None
    order, masked = view.array(candidates.chosen), view.makers.get(_enlarged(view, chosen.chosen) or "")
    if masked is None or (masked.domain, masked.op_type) != (DOMAIN, "ReluBackward"):
        return None
    grad, largest = masked.input
    if largest != candidates.pooled or order is None or not _counts_down(order):
        return None
    if not view.alike(candidates.whole, chosen.chosen):
        return None
    return _node(node, "PoolReluBackward", [grad, candidates.whole, largest])


@dataclass(frozen=True)
class _Spread:
    """Where (Equal (whole, twice (pooled)), chosen, 0), with pooled = MaxPool (whole) in windows of 2 x 2."""

    whole: str
    pooled: str
    chosen: str

    @classmethod
    def find(cls, view: _View, node: NodeProto | None) -> "_Spread | None":
        if node is None or node.op_type != "Where" or view.number(node.input[2]) != 0:
            return None
        equal = view.maker(node.input[0], "Equal")
        pooled = _enlarged(view, equal.input[1]) if equal is not None else None
        pool = view.maker(pooled, "MaxPool") if pooled else None
        if equal is None or pooled is None or pool is None or pool.input[0] != equal.input[0]:
            return None
        return cls(equal.input[0], pooled, node.input[1]) if _attributes(pool) == _EVEN_WINDOWS else None


def _enlarged(view: _View, name: str) -> str | None:
    """What tensor `name` is, twice as high and wide."""
    node = view.maker(name, "Resize")
    if node is None or _attributes(node).get("mode") != b"nearest" or len(node.input) != 3:
        return None
    scales = view.array(node.input[2])
    return node.input[0] if scales is not None and scales.tolist() == [1, 1, 2, 2] else None


def _counts_down(order: NDArray[Any]) -> bool:
    """Whether the four places of each window are in falling order, row by row."""
    places = [order[..., row::2, column::2] for row in (0, 1) for column in (0, 1)]
    return order.shape[-1] % 2 == order.shape[-2] % 2 == 0 and bool(np.all(np.diff(places, axis=0) < 0))


def _attributes(node: NodeProto) -> dict[str, Any]:
    neutral = {"auto_pad": b"NOTSET", "ceil_mode": 0, "storage_order": 0, "dilations": [1, 1], "pads": [0, 0, 0, 0]}
    found = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    return {name: value for name, value in found.items() if neutral.get(name) != value}
