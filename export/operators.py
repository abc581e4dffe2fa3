"""Operators of the ONNX domain `salience`: one node in the file, with a body of standard operators beside it.

A runtime that has a fused kernel puts it in the node's place; any other runs the body. The body is an
ONNX function, so one file serves both.
"""

from collections.abc import Sequence

import onnx.parser
import torch
from onnx import ModelProto
from torch import Tensor

from .opset import OPSET

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


def attach_functions(model: ModelProto) -> None:
    """Put the body of every `salience` operator that `model` uses into it."""
    used = sorted({node.op_type for node in model.graph.node if node.domain == DOMAIN})
    del model.functions[:]
    for name in used:
        header = f'<domain: "{DOMAIN}", opset_import: ["": {OPSET}]>'
        model.functions.append(onnx.parser.parse_function(header + _BODIES[name]))
