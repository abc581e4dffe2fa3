"""int8 graphs: which layers are int8 in the file, and that ONNX Runtime runs those and no others so."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper

from salience.export.quantization import calibrate, check_int8, layers, quantize
from salience.runtime.backends.ov import openvino_core
from salience.runtime.errors import ExportError

onnxruntime = pytest.importorskip("onnxruntime")

# first -> ReLU, whose output two convolutions and a transposed one read; what comes of the two goes on to a product.
_TEXT = """
<ir_version: 10, opset_import: ["": 20]>
small (float[batch, 3, 16, 16] x) => (float[batch, 5] y, float[batch, 4, 32, 32] large)
{
  a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, first_weight, first_bias)
  active = Relu (a)
  b = Conv <kernel_shape = [1, 1]> (active, second_weight)
  c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (active, third_weight, third_bias)
  large = ConvTranspose <kernel_shape = [2, 2], strides = [2, 2]> (active, turned_weight)
  between = Relu (c)
  e = Conv <kernel_shape = [1, 1]> (between, next_weight)
  f = Conv <kernel_shape = [1, 1]> (b, linear_weight)
  joined = Add (f, e)
  clipped = Relu (joined)
  pooled = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (clipped)
  d = Conv <kernel_shape = [3, 3]> (pooled, fourth_weight)
  mean = ReduceMean <keepdims = 0> (d, axes)
  y = Gemm (mean, last_weight)
}
"""
_SHAPES = {
    "first_weight": (8, 3, 3, 3), "first_bias": (8,), "second_weight": (8, 8, 1, 1), "linear_weight": (8, 8, 1, 1),
    "third_weight": (8, 8, 3, 3), "third_bias": (8,), "next_weight": (8, 8, 1, 1), "turned_weight": (8, 4, 2, 2),
    "fourth_weight": (6, 8, 3, 3), "last_weight": (6, 5),
}  # fmt: skip
LAYERS = ["first", "second", "third", "next", "linear", "fourth", "last"]


def small_model(seed: int = 0) -> ModelProto:
    """The graph above with random weights; its layers are named after their weights."""
    rng = np.random.default_rng(seed)
    model = onnx.parser.parse_model(_TEXT)
    for name, shape in _SHAPES.items():
        values = (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 3]), "axes"))
    for node in model.graph.node:
        weights = [name for name in node.input if name.endswith("_weight")]
        node.name = weights[0].removesuffix("_weight") if weights else f"node_{node.output[0]}"
    onnx.checker.check_model(model)
    return model


def pictures(count: int = 8, seed: int = 1) -> list[dict[str, NDArray[np.float32]]]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.standard_normal((1, 3, 16, 16), dtype=np.float32)} for _ in range(count)]


def run(model: ModelProto, feeds: Sequence[dict[str, Any]], options: Any = None) -> list[NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.concatenate(column) for column in zip(*(session.run(None, feed) for feed in feeds), strict=True)]


def quantized(chosen: Sequence[str], model: ModelProto | None = None) -> ModelProto:
    model = model or small_model()
    return quantize(model, calibrate(model, pictures()), chosen)


def kernels(model: ModelProto, folder: Path) -> Counter[str]:
    """What ONNX Runtime makes of the graph's nodes."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node)


def relative(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_layers_are_those_with_weights_that_every_runtime_has_in_int8() -> None:
    assert layers(small_model()) == LAYERS
    assert layers(small_model(), ["large"]) == ["first"]
    assert layers(small_model(), []) == []


def test_all_layers_in_int8_are_near_fp32() -> None:
    feeds = pictures(6, seed=2)
    for found, expected in zip(run(quantized(LAYERS), feeds), run(small_model(), feeds), strict=True):
        assert 1e-4 < relative(found, expected) < 0.05


def test_activations_are_signed_and_symmetric_and_weights_per_channel() -> None:
    model = quantized(LAYERS)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = tensors[node.input[2]]
            assert zero.data_type == TensorProto.INT8
            assert not numpy_helper.to_array(zero).any()
    scales = [n.input[1] for n in model.graph.node if n.op_type == "DequantizeLinear" and "weight" in n.input[0]]
    assert sorted(numpy_helper.to_array(tensors[name]).size for name in scales) == [5, 6, 8, 8, 8, 8, 8]


def test_biases_stay_floats() -> None:
    """TensorRT reads no quantised ones."""
    kinds = {tensor.name: tensor.data_type for tensor in quantized(LAYERS).graph.initializer}
    assert kinds["first_bias"] == kinds["third_bias"] == TensorProto.FLOAT
    assert TensorProto.INT32 not in kinds.values()


def test_onnxruntime_runs_every_chosen_layer_in_int8(tmp_path: Path) -> None:
    """Two readers of one activation among them, which it does not fuse by itself."""
    found = kernels(quantized(LAYERS), tmp_path)
    assert found["QLinearConv"] == 6
    assert found["QGemm"] == 1
    assert found["Conv"] + found["FusedConv"] == 0


@pytest.mark.parametrize("kept", ["first", "second", "third", "next", "fourth"])
def test_a_layer_that_stays_fp32_keeps_its_weight(tmp_path: Path, kept: str) -> None:
    """ONNX Runtime would take the second for one whose weight was forgotten."""
    model = quantized([name for name in LAYERS if name != kept])
    found = kernels(model, tmp_path)
    assert found["Conv"] + found["FusedConv"] == 1
    assert found["QLinearConv"] == 5
    stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert stored[f"{kept}_weight"] == TensorProto.FLOAT
    plain = onnxruntime.SessionOptions()
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    for optimised, literal in zip(run(model, pictures(3)), run(model, pictures(3), plain), strict=True):
        assert relative(optimised, literal) < 0.02


def test_openvino_gives_the_same() -> None:
    pytest.importorskip("openvino")
    model, feeds = quantized(LAYERS), pictures(4)
    core = openvino_core()
    compiled = core.compile_model(
        core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    found = [np.concatenate([compiled(feed)[name] for feed in feeds]) for name in ("y", "large")]
    for got, want in zip(found, run(model, feeds), strict=True):
        assert relative(got, want) < 0.02


def test_the_batch_stays_free() -> None:
    model = quantized(LAYERS)
    rows = np.concatenate([feed["x"] for feed in pictures(3)])
    together, alone = run(model, [{"x": rows}]), run(model, pictures(3))
    for joined, single in zip(together, alone, strict=True):
        np.testing.assert_allclose(joined, single, rtol=1e-5, atol=1e-6)


def test_no_layer_chosen_is_the_same_graph() -> None:
    assert quantized([]).SerializeToString() == small_model().SerializeToString()


def test_the_given_graph_is_left_as_it_is() -> None:
    model = small_model()
    quantized(LAYERS, model)
    assert model.SerializeToString() == small_model().SerializeToString()


def test_what_is_int8_is_checked() -> None:
    check_int8(quantized(LAYERS), LAYERS)
    check_int8(quantized(["first", "last"]), ["first", "last"])
    with pytest.raises(ExportError, match=r"wrong layers.*second"):
        check_int8(quantized(LAYERS), [name for name in LAYERS if name != "second"])
    with pytest.raises(ExportError, match=r"wrong layers.*first"):
        check_int8(small_model(), ["first"])


def test_an_unknown_layer_is_named() -> None:
    with pytest.raises(ExportError, match="fifth is no layer"):
        quantized(["first", "fifth"])


def _scale_of(model: ModelProto, tensor: str) -> float:
    node = next(n for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == tensor)
    stored = {t.name: t for t in model.graph.initializer}
    return float(numpy_helper.to_array(stored[node.input[1]]))


@pytest.mark.parametrize("change", [lambda x: x, lambda x: -x], ids=["as it is", "mostly cut off"])
def test_what_a_relu_cuts_off_takes_no_levels(change: Callable[[Any], Any]) -> None:
    model = small_model()
    for tensor in model.graph.initializer:
        if tensor.name == "first_bias":
            tensor.CopyFrom(numpy_helper.from_array(change(np.full(8, 2, np.float32)), tensor.name))
    found = quantized(LAYERS, model)
    assert _scale_of(found, "a") == _scale_of(found, "active")
