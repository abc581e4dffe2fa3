"""Bias correction: the means of int8 layers are those of fp32 again, and nothing else changes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx.parser
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from salience.export.bias_correction import BiasCorrection
from salience.export.quantization import calibrate, check_int8, layers, quantize

from .test_quantization import LAYERS, pictures, relative, run, small_model

onnxruntime = pytest.importorskip("onnxruntime")

_SHARED = """
<ir_version: 10, opset_import: ["": 20]>
shared (float[batch, 3, 16, 16] x) => (float[batch, 3, 16, 16] y)
{
  a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, weight, bias)
  b = Relu (a)
  y = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (b, weight, bias)
}
"""


def quantized(model: ModelProto, chosen: list[str]) -> ModelProto:
    return quantize(model, calibrate(model, pictures()), chosen)


def constants(model: ModelProto) -> dict[str, NDArray[np.float32]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def channel_means(model: ModelProto, name: str, feeds: Sequence[dict[str, Any]]) -> NDArray[np.float32]:
    """Of one tensor of the graph."""
    cut = ModelProto()
    cut.CopyFrom(model)
    del cut.graph.output[:]
    cut.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    (values,) = run(cut, feeds)
    mean: NDArray[np.float32] = values.mean(axis=(0, 2, 3))
    return mean


def shared_model() -> ModelProto:
    """Two layers with one weight and one bias, as a recurrent convolution has."""
    model = onnx.parser.parse_model(_SHARED)
    rng = np.random.default_rng(3)
    for name, shape in {"weight": (3, 3, 3, 3), "bias": (3,)}.items():
        model.graph.initializer.append(numpy_helper.from_array(rng.standard_normal(shape, dtype=np.float32), name))
    for node, name in zip(model.graph.node, ["first", "between", "second"], strict=True):
        node.name = name
    return model


@pytest.mark.parametrize(
    ("model", "tensor"), [(small_model(), "c"), (shared_model(), "y")], ids=["chain", "shared bias"]
)
def test_the_means_of_layers_with_a_bias_are_those_of_fp32(model: ModelProto, tensor: str) -> None:
    plain, changed = (quantized(model, layers(model)) for _ in range(2))
    BiasCorrection(model, pictures()).apply(changed)
    before, after, expected = (channel_means(graph, tensor, pictures()) for graph in (plain, changed, model))
    shift = np.abs(before - expected).max()
    assert shift > 1e-2
    # ONNX Runtime rounds biases to the scale of input times weight, so not all of it goes.
    assert np.abs(after - expected).max() < 0.2 * shift


def test_layers_that_share_a_bias_get_one_each() -> None:
    model = shared_model()
    changed = quantized(model, ["first", "second"])
    BiasCorrection(model, pictures()).apply(changed)
    biases = [constants(changed)[node.input[2]] for node in changed.graph.node if node.op_type == "Conv"]
    assert np.abs(biases[0] - biases[1]).max() > 1e-6


@pytest.mark.parametrize(
    ("chosen", "biased"), [(["first", "second", "last"], {"first"}), (LAYERS, {"first", "third"})], ids=["some", "all"]
)
def test_only_biases_of_int8_layers_change(chosen: list[str], biased: set[str]) -> None:
    model = small_model()
    before, changed = (quantized(model, chosen) for _ in range(2))
    BiasCorrection(model, pictures()).apply(changed)
    check_int8(changed, chosen)
    plain, found = constants(before), constants(changed)
    assert set(found) - set(plain) == {f"{name}.bias" for name in biased}
    assert set(plain) - set(found) == {f"{name}_bias" for name in biased}
    assert all(np.array_equal(plain[name], found[name]) for name in set(plain) & set(found))
    for old, new in zip(before.graph.node, changed.graph.node, strict=True):
        differs = [place for place, name in enumerate(new.input) if name != old.input[place]]
        assert differs == ([2] if new.name in biased else [])


def test_what_is_all_fp32_stays_as_it_is() -> None:
    model = small_model()
    BiasCorrection(model, pictures()).apply(model)
    assert model.SerializeToString() == small_model().SerializeToString()


def test_a_graph_without_biases_stays_as_it_is() -> None:
    model = shared_model()
    for node in model.graph.node:
        del node.input[2:]
    plain, changed = (quantized(model, ["first", "second"]) for _ in range(2))
    BiasCorrection(model, pictures()).apply(changed)
    assert changed.SerializeToString() == plain.SerializeToString()


def deep_model(depth: int = 12) -> ModelProto:
    """Layers one after another, whose shifts add up."""
    rng = np.random.default_rng(5)
    nodes, weights = [], []
    for index in range(depth):
        channels = 3 if index == 0 else 8
        scale = np.sqrt(2 / (9 * channels))
        weights.append((f"w{index}", rng.standard_normal((8, channels, 3, 3)) * scale))
        weights.append((f"b{index}", 0.1 * rng.standard_normal(8)))
        nodes.append(f"c{index} = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (r{index}, w{index}, b{index})")
        nodes.append(f"r{index + 1} = Relu (c{index})")
    text = f'<ir_version: 10, opset_import: ["": 20]> deep (float[batch, 3, 16, 16] r0) => (float r{depth})'
    model = onnx.parser.parse_model(text + "{" + "\n".join(nodes) + "}")
    model.graph.output[0].type.tensor_type.ClearField("shape")
    for name, values in weights:
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    for node in model.graph.node:
        node.name = node.output[0]
    return model


def test_the_means_of_other_pictures_come_nearer_to_fp32_too() -> None:
    model = deep_model()
    feeds = [{"r0": feed["x"]} for feed in pictures(12)]
    others = [{"r0": feed["x"]} for feed in pictures(12, seed=9)]
    plain = quantize(model, calibrate(model, feeds), layers(model))
    corrected = ModelProto()
    corrected.CopyFrom(plain)
    BiasCorrection(model, feeds).apply(corrected)
    expected, before, after = (channel_means(graph, "r12", others) for graph in (model, plain, corrected))
    assert relative(after, expected) < 0.25 * relative(before, expected)
