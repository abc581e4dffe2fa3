"""Multiply-adds against a count by hand."""

import math

import onnx.parser
import pytest
from onnx import ModelProto

from salience.export.operations import multiply_adds, traffic

_TEXT = """
<ir_version: 10, opset_import: ["": 20, "salience": 1]>
counted (float[batch, 4, 10, 12] x) => (float[batch, 7] y, float[batch, 3, 20, 24] large)
<
  float[6, 2, 3, 3] grouped = {0.0}, float[4, 3, 2, 2] turned = {0.0}, float[6, 5] product = {0.0},
  float[7, 5] last = {0.0}, int64[2] axes = {2, 3}
>
{
  [grouped] a = Conv <group = 2, strides = [2, 2], pads = [1, 1, 1, 1]> (x, grouped)
  [turned] large = ConvTranspose <strides = [2, 2]> (x, turned)
  mean = ReduceMean <keepdims = 0> (a, axes)
  [product] b = MatMul (mean, product)
  doubled = salience.Double (b)
  [last] y = Gemm <transB = 1> (doubled, last)
}
<domain: "salience", opset_import: ["": 20]>
Double (v) => (w)
{
  w = Add (v, v)
}
"""


@pytest.fixture
def model() -> ModelProto:
    found = onnx.parser.parse_model(_TEXT)
    for tensor in found.graph.initializer:
        if tensor.name != "axes":
            del tensor.float_data[:]
            tensor.raw_data = bytes(4 * math.prod(tensor.dims))
    return found


def test_counts_are_those_by_hand(model: ModelProto) -> None:
    expected = {
        "grouped": 6 * 5 * 6 * (2 * 9),  # outputs times a kernel over two of the four channels
        "turned": 4 * 10 * 12 * (3 * 4),  # inputs times what each is spread over
        "product": 6 * 5,
        "last": 5 * 7,
    }
    assert multiply_adds(model) == expected
    assert multiply_adds(model, batch=3) == {name: 3 * count for name, count in expected.items()}


def test_traffic_is_what_products_read_and_write(model: ModelProto) -> None:
    weights = 6 * 2 * 9 + 4 * 3 * 4 + 6 * 5 + 7 * 5
    passed = 2 * (4 * 10 * 12) + 6 * 5 * 6 + 3 * 20 * 24 + (6 + 5) + (5 + 7)  # x twice, then what comes of it
    assert traffic(model) == 4 * (weights + passed)
    assert traffic(model, batch=3) == 4 * (weights + 3 * passed)
