"""Rewrites keep what random graphs compute and change what they say they change; nothing else is left to simplify."""

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from salience.export.opset import OPSET
from salience.export.rewrites import REWRITES, join_products, sum_by_product
from salience.runtime.bundle import Bundle
from salience.runtime.manifest import HOST_GRAPHS

METHODS = ("multis", "arn", "lps", "gicd", "cgd")


def model_of(text: str, **weights: Any) -> ModelProto:
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": {OPSET}]> {text}')
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items())
    for number, node in enumerate(model.graph.node):
        node.name = f"n{number}"
    onnx.checker.check_model(model)
    return model


def assert_same(before: ModelProto, after: ModelProto, **feeds: Any) -> None:
    wanted, found = (ReferenceEvaluator(model).run(None, feeds) for model in (before, after))
    assert all(np.abs(values).max() > 0 for values in wanted)
    for one, other in zip(wanted, found, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5)


def rewrite(model: ModelProto) -> None:
    for change in REWRITES:
        change(model)
    onnx.checker.check_model(model)


def copy_of(model: ModelProto) -> ModelProto:
    copied = ModelProto()
    copied.CopyFrom(model)
    return copied


def kinds(model: ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


@settings(max_examples=20, deadline=None)
@given(batch=st.integers(1, 4), channels=st.integers(32, 70), pixels=st.integers(1, 9), axis=st.sampled_from([1, -2]))
def test_a_sum_over_channels_is_a_product_with_ones(batch: int, channels: int, pixels: int, axis: int) -> None:
    text = f"g (float[batch, {channels}, p] x) => (float[batch, 1, p] y) {{ z = Mul (x, x)\n y = ReduceSum (z, axes) }}"
    model = model_of(text, axes=np.array([axis]))
    found = copy_of(model)
    sum_by_product(found)
    assert kinds(found) == {"Mul": 1, "MatMul": 1}
    x = np.random.default_rng(channels).standard_normal((batch, channels, pixels), dtype=np.float32)
    assert_same(model, found, x=x)


@pytest.mark.parametrize(
    "text",
    [
        "g (float[b, 40, 9] x) => (float[b, 40, 1] y) { y = ReduceSum (x, pixels) }",
        "g (float[b, 40, 9] x) => (float[b, 9] y) { y = ReduceSum <keepdims = 0> (x, axes) }",
        "g (float[b, 31, 9] x) => (float[b, 1, 9] y) { y = ReduceSum (x, axes) }",
        "g (float[b, c, 9] x) => (float[b, 1, 9] y) { y = ReduceSum (x, axes) }",
        "g (float16[b, 40, 9] x) => (float16[b, 1, 9] y) { y = ReduceSum (x, axes) }",
        "g (float[b, 40, 9, 9] x) => (float[b, 1, 9, 9] y) { y = ReduceSum (x, axes) }",
        "g (float[b, 40, 9] x, int64[1] given) => (float[b, 1, 9] y) { y = ReduceSum (x, given) }",
        "g (float[b, 40, 9] x) => (float[1, 1, 1] y) { y = ReduceSum (x) }",
    ],
)
def test_other_sums_stay_as_they_are(text: str) -> None:
    model = model_of(text, axes=np.array([1]), pixels=np.array([2]))
    found = copy_of(model)
    rewrite(found)
    assert list(found.graph.node) == list(model.graph.node)


@settings(max_examples=20, deadline=None)
@given(
    rows=st.integers(1, 3),
    count=st.integers(2, 4),
    transposed=st.booleans(),
    bias=st.booleans(),
)
def test_products_with_one_matrix_become_one(rows: int, count: int, transposed: bool, bias: bool) -> None:
    rng = np.random.default_rng(count)
    weights = {"w": rng.standard_normal((6, 5) if transposed else (5, 6), dtype=np.float32)}
    if bias:
        weights["b"] = rng.standard_normal(6, dtype=np.float32)
    lines = [f"h{n} = Gemm <transB = {int(transposed)}> (x{n}, {', '.join(weights)})" for n in range(count)]
    lines += [f"y{n} = Relu (h{n})" for n in range(count)]
    inputs = ", ".join(f"float[batch, 5] x{n}" for n in range(count))
    outputs = ", ".join(f"float[batch, 6] y{n}" for n in range(count))
    body = "\n".join(lines)
    model = model_of(f"g ({inputs}) => ({outputs}) {{ {body} }}", **weights)
    found = copy_of(model)
    join_products(found)
    assert kinds(found) == {"Concat": 1, "Gemm": 1, "Split": 1, "Relu": count}
    onnx.checker.check_model(found, full_check=True)
    assert_same(model, found, **{f"x{n}": rng.standard_normal((rows, 5), dtype=np.float32) for n in range(count)})


def test_a_product_of_a_product_is_not_joined_with_it() -> None:
    text = "g (float[batch, 5] x) => (float[batch, 5] y) { h = Gemm (x, w)\n r = Relu (h)\n y = Gemm (r, w) }"
    model = model_of(text, w=np.eye(5, dtype=np.float32))
    found = copy_of(model)
    join_products(found)
    assert found == model


def test_two_layers_of_a_classifier_are_joined_each() -> None:
    """As `gicd` runs it on two poolings, one of which is there after the other's first layer."""
    rng = np.random.default_rng(0)
    text = """g (float[batch, 5] x) => (float[batch, 4] left, float[batch, 4] right) {
        a = Gemm (x, w)
        b = Relu (a)
        left = Gemm (b, v)
        other = Neg (x)
        c = Gemm (other, w)
        d = Relu (c)
        right = Gemm (d, v)
    }"""
    model = model_of(
        text, w=rng.standard_normal((5, 6), dtype=np.float32), v=rng.standard_normal((6, 4), dtype=np.float32)
    )
    found = copy_of(model)
    rewrite(found)
    assert kinds(found) == {"Concat": 2, "Gemm": 2, "Split": 2, "Relu": 2, "Neg": 1}
    assert_same(model, found, x=rng.standard_normal((3, 5), dtype=np.float32))


def test_products_that_differ_in_the_bias_stay_apart() -> None:
    text = (
        "g (float[n, 2] x, float[n, 2] z) => (float[n, 2] y, float[n, 2] o) { y = Gemm (x, w, b)\n o = Gemm (z, w, c) }"
    )
    model = model_of(text, **{name: np.ones((2, 2) if name == "w" else 2, np.float32) for name in "wbc"})
    found = copy_of(model)
    join_products(found)
    assert found == model


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_left_to_fold_or_to_drop(bundle_of: Callable[[str], Path], method: str) -> None:
    bundle = Bundle(bundle_of(method))
    for name, entry in bundle.manifest.graphs.items():
        if name not in HOST_GRAPHS:
            assert waste(onnx.load(bundle.path / entry.files["fp32"])) == {}, name


def waste(model: ModelProto) -> dict[str, list[str]]:
    """Batch norms, unread weights and nodes, weights and nodes that are there twice, and nodes of constants.

    A transposed weight counts as none: another node reads the weight as it is, and runtimes turn it when they load.
    """
    graph = model.graph
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    constants = {tensor.name for tensor in graph.initializer} | {""}
    found = {
        "norms": [node.name for node in graph.node if node.op_type == "BatchNormalization"],
        "unread weights": [tensor.name for tensor in graph.initializer if tensor.name not in read],
        "unread nodes": [node.name for node in graph.node if read.isdisjoint(node.output)],
        "constant": [n.name for n in graph.node if n.op_type != "Transpose" and constants.issuperset(n.input)],
        "weights twice": doubles((t.SerializeToString() for t in map(nameless, graph.initializer)), graph.initializer),
        "nodes twice": doubles(
            (f"{n.op_type} {n.input} {sorted(a.SerializeToString() for a in n.attribute)}" for n in graph.node),
            graph.node,
        ),
    }
    return {what: names for what, names in found.items() if names}


def nameless(tensor: onnx.TensorProto) -> onnx.TensorProto:
    return numpy_helper.from_array(numpy_helper.to_array(tensor))


def doubles(keys: Iterable[Any], things: Iterable[Any]) -> list[str]:
    keys = list(keys)
    return [thing.name for key, thing in zip(keys, things, strict=True) if keys.count(key) > 1]


def test_waste_is_found() -> None:
    """The check above can fail."""
    model = model_of(
        """g (float[2] x) => (float[2] y) {
            a = Relu (x)
            b = Relu (x)
            c = Add (w, v)
            d = Add (a, c)
            y = Add (d, b)
        }""",
        w=np.ones(2, np.float32), v=np.ones(2, np.float32), u=np.zeros(2, np.float32),
    )  # fmt: skip
    assert waste(model) == {
        "unread weights": ["u"], "constant": ["n2"], "weights twice": ["w", "v"], "nodes twice": ["n0", "n1"],
    }  # fmt: skip
