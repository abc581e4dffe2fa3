"""Operators of the ONNX domain `salience`: one node in the file, with a body of standard operators beside it.

A runtime that has a fused kernel puts it in the node's place; any other runs the body. The body is an
ONNX function, so one file serves both.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import onnx.parser
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import Tensor

from .opset import IR_VERSION, OPSET

DOMAIN = "salience"
DOMAIN_VERSION = 1

_BODIES = {
    # The largest of three weighted maps at each pixel (MultiS, eq. 2). Maps are logits (N, 1, H, W),
    # weights (N, 3) in [0, 1]; the result (N, 1, H, W) is in [0, 1].
    "MaxoutFusion": """
        MaxoutFusion (map2, map3, map4, weights) => (fused) {
            axes = Constant <value = int64[2] {2, 3}> ()
            planes = Unsqueeze (weights, axes)
            weight2, weight3, weight4 = Split <axis = 1, num_outputs = 3> (planes)
            saliency2 = Sigmoid (map2)
            saliency3 = Sigmoid (map3)
            saliency4 = Sigmoid (map4)
            weighted2 = Mul (saliency2, weight2)
            weighted3 = Mul (saliency3, weight3)
            weighted4 = Mul (saliency4, weight4)
            fused = Max (weighted2, weighted3, weighted4)
        }""",
    # Five maps (N, C * r^2, H / r, W / r), each pixel-shuffled by its own r, and concatenated: (N, 5 C, H, W)
    # (Learning to Promote Saliency Detectors, section 3.3).
    "SubpixelConcat": """
        SubpixelConcat <stride1, stride2, stride3, stride4, stride5> (map1, map2, map3, map4, map5) => (joined) {
            full1 = DepthToSpace <blocksize: int = @stride1, mode = "CRD"> (map1)
            full2 = DepthToSpace <blocksize: int = @stride2, mode = "CRD"> (map2)
            full3 = DepthToSpace <blocksize: int = @stride3, mode = "CRD"> (map3)
            full4 = DepthToSpace <blocksize: int = @stride4, mode = "CRD"> (map4)
            full5 = DepthToSpace <blocksize: int = @stride5, mode = "CRD"> (map5)
            joined = Concat <axis = 1> (full1, full2, full3, full4, full5)
        }""",
    # The gradient before ReLU: `grad` where `activation`, ReLU's result of the same shape, is above 0.
    "ReluBackward": """
        ReluBackward (grad, activation) => (result) {
            zero = Constant <value = float {0.0}> ()
            closed = LessOrEqual (activation, zero)
            result = Where (closed, zero, grad)
        }""",
    # The gradient before a clipping to [low, high]: `grad` where `activation`, its result, is between the two.
    "ClipBackward": """
        ClipBackward <low, high> (grad, activation) => (result) {
            zero = Constant <value = float {0.0}> ()
            least = Constant <value_float: float = @low> ()
            most = Constant <value_float: float = @high> ()
            above = Greater (activation, least)
            below = Less (activation, most)
            open = And (above, below)
            result = Where (open, grad, zero)
        }""",
    # The gradient before ReLU and max pooling by 2 x 2, stride 2: `grad` (N, C, H, W) goes to the first of a window's
    # largest elements, and nowhere where that is not above 0; `activation` (N, C, 2 H, 2 W) is ReLU's result and
    # `largest` (N, C, H, W) the pooling's.
    "PoolReluBackward": """
        PoolReluBackward (grad, activation, largest) => (result) {
            zero = Constant <value = float {0.0}> ()
            closed = LessOrEqual (largest, zero)
            passed = Where (closed, zero, grad)
            twice = Constant <value = float[4] {1.0, 1.0, 2.0, 2.0}> ()
            tile = Constant <value = float[1, 1, 2, 2] {4.0, 3.0, 2.0, 1.0}> ()
            size = Shape <start = 2> (grad)
            single = Constant <value = int64[2] {1, 1}> ()
            repeats = Concat <axis = 0> (single, size)
            order = Tile (tile, repeats)
            spread = Resize <mode = "nearest", nearest_mode = "floor",
                             coordinate_transformation_mode = "asymmetric"> (largest, , twice)
            is_largest = Equal (activation, spread)
            candidates = Where (is_largest, order, zero)
            first = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (candidates)
            spread_first = Resize <mode = "nearest", nearest_mode = "floor",
                                   coordinate_transformation_mode = "asymmetric"> (first, , twice)
            is_first = Equal (candidates, spread_first)
            spread_grad = Resize <mode = "nearest", nearest_mode = "floor",
                                  coordinate_transformation_mode = "asymmetric"> (passed, , twice)
            result = Where (is_first, spread_grad, zero)
        }""",
    # Rows (N, C, P) less their mean, and the sum of their squares over the channels (N, 1, P), see `graphs.lps.Embed`.
    "CentredNorm": """
        CentredNorm (rows) => (centred, norm) {
            last = Constant <value = int64[1] {2}> ()
            mean = ReduceMean (rows, last)
            centred = Sub (rows, mean)
            squares = Mul (centred, centred)
            single = Constant <value = int64[1] {1}> ()
            channels = Shape <start = 1, end = 2> (rows)
            size = Concat <axis = 0> (single, channels)
            ones = ConstantOfShape <value = float[1] {1.0}> (size)
            norm = MatMul (ones, squares)
        }""",
    # One iteration of Learning to Promote Saliency Detectors (eq. 3, 5), see `graphs.lps.Refine`: centred embeddings
    # (N, C, P), their squares' sum, what is salient, and the prior, each (N, 1, P), and t (1,) -> the next prior.
    "AnchorDistance": """
        AnchorDistance <sharpness> (embedding, norm, salient, prior, iteration) => (next) {
            zero = Constant <value = float {0.0}> ()
            one = Constant <value = float {1.0}> ()
            two = Constant <value = float {2.0}> ()
            least = Constant <value = float {1e-6}> ()
            tiny = Constant <value = float {1e-12}> ()
            steepness = Constant <value_float: float = @sharpness> ()
            last = Constant <value = int64[1] {2}> ()
            background = Sub (one, salient)
            weight = ReduceSum (salient, last)
            other = ReduceSum (background, last)
            some = Greater (weight, zero)
            rest = Greater (other, zero)
            usable = And (some, rest)
            mostly = Greater (weight, other)
            smaller = Where (mostly, background, salient)
            column = Transpose <perm = [0, 2, 1]> (smaller)
            summed = MatMul (embedding, column)
            row = Transpose <perm = [0, 2, 1]> (summed)
            negative = Neg (row)
            total = Where (mostly, negative, row)
            some_weight = Max (weight, least)
            rest_weight = Max (other, least)
            first = Div (total, some_weight)
            ratio = Div (weight, rest_weight)
            first_squares = Mul (first, first)
            first_square = ReduceSum (first_squares, last)
            square_ratio = Mul (ratio, ratio)
            second_square = Mul (first_square, square_ratio)
            product = MatMul (first, embedding)
            span = Add (one, ratio)
            span2 = Mul (two, span)
            spanned = Mul (product, span2)
            gap = Sub (second_square, first_square)
            difference = Add (spanned, gap)
            product2 = Mul (product, two)
            apart = Sub (norm, product2)
            squared = Add (apart, first_square)
            squared_other = Add (squared, difference)
            squared_first = Max (squared, zero)
            squared_second = Max (squared_other, zero)
            distance_first = Sqrt (squared_first)
            distance_second = Sqrt (squared_second)
            distances = Add (distance_first, distance_second)
            distances_safe = Max (distances, tiny)
            steep = Mul (difference, steepness)
            logit = Div (steep, distances_safe)
            likely = Sigmoid (logit)
            found = Where (usable, likely, prior)
            before = Mul (iteration, prior)
            both = Add (before, found)
            count = Add (iteration, one)
            next = Div (both, count)
        }""",
}


def maxout_fusion_node(maps: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Stands for `networks.multis.maxout_fusion` while a graph is traced; it computes nothing itself."""
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::MaxoutFusion",
        (*maps, weights),
        dtype=maps[0].dtype,
        shape=maps[0].shape,
        version=DOMAIN_VERSION,
    )


def subpixel_concat_node(maps: Sequence[Tensor], strides: Sequence[int]) -> Tensor:
    """Stands for `networks.lps.shuffle` of five maps while a graph is traced; it computes nothing itself."""
    batch, channels, height, width = maps[0].shape
    per_map = channels // strides[0] ** 2
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::SubpixelConcat",
        tuple(maps),
        attrs={f"stride{number}": stride for number, stride in enumerate(strides, start=1)},
        dtype=maps[0].dtype,
        shape=(batch, per_map * len(maps), height * strides[0], width * strides[0]),
        version=DOMAIN_VERSION,
    )


def anchor_distance_node(
    embedding: Tensor, norm: Tensor, salient: Tensor, prior: Tensor, iteration: Tensor, sharpness: float
) -> Tensor:
    """Stands for an iteration of `graphs.lps.Refine` while a graph is traced; it computes nothing itself."""
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::AnchorDistance",
        (embedding, norm, salient, prior, iteration),
        attrs={"sharpness": sharpness},
        dtype=prior.dtype,
        shape=prior.shape,
        version=DOMAIN_VERSION,
    )


def centred_norm_node(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Stands for the end of `graphs.lps.Embed` while a graph is traced; it computes nothing itself."""
    batch, _, pixels = rows.shape
    centred, norm = torch.onnx.ops.symbolic_multi_out(
        f"{DOMAIN}::CentredNorm",
        (rows,),
        dtypes=(rows.dtype, rows.dtype),
        shapes=(rows.shape, (batch, 1, pixels)),
        version=DOMAIN_VERSION,
    )
    return centred, norm


def model_of_node(
    operator: str, inputs: Mapping[str, NDArray[Any]], attributes: Mapping[str, Any], *, outputs: int = 1
) -> ModelProto:
    """One node with its body as a model that takes `inputs` and gives `out0`, `out1`, ..., all of one type."""
    names = [f"out{number}" for number in range(outputs)]
    node = onnx.helper.make_node(operator, list(inputs), names, domain=DOMAIN, **attributes)
    kinds = {name: onnx.helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in inputs.items()}
    given = [onnx.helper.make_tensor_value_info(name, kinds[name], array.shape) for name, array in inputs.items()]
    found = [onnx.helper.make_tensor_value_info(name, next(iter(kinds.values())), None) for name in names]
    graph = onnx.helper.make_graph([node], operator, given, found)
    model = onnx.helper.make_model(graph, ir_version=IR_VERSION, opset_imports=[onnx.helper.make_opsetid("", OPSET)])
    attach_functions(model)
    return model


def attach_functions(model: ModelProto) -> None:
    """Put the body of every `salience` operator that `model` uses into it, in its own version of the operators."""
    used = sorted({node.op_type for node in model.graph.node if node.domain == DOMAIN})
    del model.functions[:]
    if used and DOMAIN not in {entry.domain for entry in model.opset_import}:
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, DOMAIN_VERSION))
    opset = next(entry.version for entry in model.opset_import if not entry.domain)
    for name in used:
        header = f'<domain: "{DOMAIN}", opset_import: ["": {opset}]>'
        model.functions.append(onnx.parser.parse_function(header + _BODIES[name]))
