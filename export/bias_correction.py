"""Layers in int8 shift the means of their outputs, more from layer to layer; their biases take the shift back.

Empirical bias correction, Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction",
ICCV 2019, section 4.2 and appendix D: layer by layer, each with the layers before it as they are served.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, ValueInfoProto, numpy_helper

from .quantization import Feeds
from .rewrites import drop_unused, nodes_for

Means: TypeAlias = NDArray[np.float64]


class BiasCorrection:
    """Corrects int8 forms of one fp32 graph.

    Args:
        model: the fp32 graph.
        feeds: its inputs by name, one item a run.
    """

    def __init__(self, model: ModelProto, feeds: Sequence[Feeds]) -> None:
        self._feeds = feeds
        layers = _biased(model)
        outputs = [node.output[0] for node in layers]
        self._expected: dict[str, Means] = {}
        if not layers:  # the exporter leaves out biases of zeros, which random weights have
            return
        run = _Part(model, nodes_for(outputs, model.graph.node), outputs, feeds[0])
        rows = [[_channel_means(found[node.output[0]]) for node in layers] for found in map(run, feeds)]
        self._expected |= {node.name: np.mean(means, axis=0) for node, *means in zip(layers, *rows, strict=True)}

    def apply(self, quantized: ModelProto) -> None:
        """Correct, in place, the bias of every layer of `quantized` that is int8 and has one.

        A bias that several layers share becomes one a layer.
        """
        constants = {tensor.name: tensor for tensor in quantized.graph.initializer}
        int8 = [node for node in _biased(quantized) if node.input[1] not in constants]
        known = [dict(feed) for feed in self._feeds]
        for layer, part, read in _parts(quantized, int8):
            output = layer.output[0]
            run = _Part(quantized, part, read | {output}, known[0])
            known = [_only(read | {output}, {**before, **run(before)}) for before in known]
            shift = self._expected[layer.name] - np.mean([_channel_means(found[output]) for found in known], axis=0)
            for found in known:
                found[output] = found[output] + shift.astype(np.float32).reshape(-1, *[1] * (found[output].ndim - 2))
            corrected = numpy_helper.to_array(constants[layer.input[2]]) + shift
            layer.input[2] = f"{layer.name}.bias"
            quantized.graph.initializer.append(numpy_helper.from_array(corrected.astype(np.float32), layer.input[2]))
        drop_unused(quantized)


class _Part:
    """Some nodes of a graph as a function of tensors that are known.

    Args:
        model: the graph.
        nodes: of it, in its order.
        wanted: what to return; those that the nodes do not make are left out.
        known: one example of what will be given.
    """

    def __init__(self, model: ModelProto, nodes: Sequence[NodeProto], wanted: Collection[str], known: Feeds) -> None:
        import onnxruntime

        read = {name for node in nodes for name in node.input}
        made = {name for node in nodes for name in node.output}
        part = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
        part.graph.name = model.graph.name
        part.graph.node.extend(nodes)
        part.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in read)
        self._inputs = [name for name in known if name in read]
        self._outputs = [name for name in wanted if name in made]
        for name in self._inputs:
            kind = onnx.helper.np_dtype_to_tensor_dtype(known[name].dtype)
            part.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, None))
        part.graph.output.extend(ValueInfoProto(name=name) for name in self._outputs)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # As the file says it, not as one runtime joins it.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session = onnxruntime.InferenceSession(
            part.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, known: Feeds) -> dict[str, NDArray[Any]]:
        """The tensors that are wanted, by name."""
        found = self._session.run(self._outputs, {name: known[name] for name in self._inputs})
        return dict(zip(self._outputs, found, strict=True))


def _parts(model: ModelProto, layers: Sequence[NodeProto]) -> Iterator[tuple[NodeProto, list[NodeProto], set[str]]]:
    """Each layer, the nodes to run for it after those of the layers before it, and all names that later parts read."""
    remaining = nodes_for([layer.output[0] for layer in layers], model.graph.node)
    for layer in layers:
        part = nodes_for(layer.output, remaining)
        ran = {node.output[0] for node in part}
        remaining = [node for node in remaining if node.output[0] not in ran]
        yield layer, part, {name for node in remaining for name in node.input}


def _biased(model: ModelProto) -> list[NodeProto]:
    """The layers with one bias a channel, in the graph's order."""
    sides = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    return [
        node
        for node in model.graph.node
        if node.op_type in ("Conv", "Gemm") and len(sides.get((*node.input, "", "")[2], ())) == 1
    ]


def _only(names: Collection[str], values: Feeds) -> dict[str, NDArray[Any]]:
    return {name: values[name] for name in names if name in values}


def _channel_means(values: NDArray[np.float32]) -> Means:
    """(N, C, ...) -> (C,)"""
    means: Means = values.mean(axis=(0, *range(2, values.ndim)), dtype=np.float64)
    return means
