"""Layers in int8 shift the means of their outputs, more from layer to layer; their biases take the shift back.

Empirical bias correction, Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction",
ICCV 2019, section 4.2 and appendix D: layer by layer, each with the layers before it as they are served.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from .rewrites import drop_unused

Feeds: TypeAlias = Mapping[str, NDArray[Any]]
Floats: TypeAlias = NDArray[np.float64]


class BiasCorrection:
    """Corrects int8 forms of one fp32 graph.

    Args:
        model: the fp32 graph.
        feeds: its inputs by name, one item a run.
    """

    def __init__(self, model: ModelProto, feeds: Sequence[Feeds]) -> None:
        self._feeds = feeds
        self._expected = dict(zip(*_means(model, _biased(model), feeds), strict=True))

    def apply(self, quantized: ModelProto) -> None:
        """Correct, in place, the bias of every layer of `quantized` that is int8 and has one.

        A bias that several layers share becomes one a layer.
        """
        constants = {tensor.name: tensor for tensor in quantized.graph.initializer}
        for node in _biased(quantized):
            if node.input[1] in constants:
                continue  # it is fp32
            _, (found,) = _means(quantized, [node], self._feeds)
            bias = numpy_helper.to_array(constants[node.input[2]])
            corrected = (bias + self._expected[node.name] - found).astype(np.float32)
            node.input[2] = f"{node.name}.bias"
            quantized.graph.initializer.append(numpy_helper.from_array(corrected, node.input[2]))
        drop_unused(quantized)


def _biased(model: ModelProto) -> list[NodeProto]:
    """The layers with one bias a channel."""
    sides = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    return [
        node
        for node in model.graph.node
        if node.op_type in ("Conv", "Gemm") and len(sides.get((*node.input, "", "")[2], ())) == 1
    ]


def _means(model: ModelProto, nodes: Sequence[NodeProto], feeds: Sequence[Feeds]) -> tuple[list[str], list[Floats]]:
    """The names of `nodes`, and the mean of each channel of what they give over `feeds`."""
    import onnxruntime

    cut = ModelProto()
    cut.CopyFrom(model)
    names = [node.output[0] for node in nodes]
    del cut.graph.output[:]
    cut.graph.output.extend(onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(cut.SerializeToString(), options, providers=["CPUExecutionProvider"])
    runs = [[_channel_mean(values) for values in session.run(names, dict(feed))] for feed in feeds]
    return [node.name for node in nodes], [np.mean(found, axis=0) for found in zip(*runs, strict=True)]


def _channel_mean(values: NDArray[np.float32]) -> Floats:
    """(N, C, ...) -> (C,)"""
    mean: Floats = values.mean(axis=(0, *range(2, values.ndim)), dtype=np.float64)
    return mean
