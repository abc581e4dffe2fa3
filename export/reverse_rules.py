"""Derivatives written with ordinary operators: what `reverse_mode` puts in the place of `aten.*_backward`.

Layouts are PyTorch's: images (N, C, H, W), of which N is free and the rest is known. Only what ONNX Runtime, OpenVINO
and TensorRT all have comes out: no scatter, no transposed convolution, no index of a maximum. Where there is a
choice, the form is the one that ONNX Runtime and OpenVINO are fast at: joining rows instead of DepthToSpace, Resize to
the nearest neighbour instead of Expand.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch._ops import OpOverload

from .reverse_convolution import convolution_backward, fit, interleave
from .reverse_pooling import (
    adaptive_avg_pool2d,
    adaptive_avg_pool2d_backward,
    adaptive_max_pool2d,
    adaptive_max_pool2d_backward,
    avg_pool2d,
    avg_pool2d_backward,
    max_pool2d_backward,
    pad_backward,
    resize_backward,
)

aten = torch.ops.aten
Rule = Callable[..., Any]


def batch_norm_backward(
    grad: Tensor,
    image: Tensor,
    weight: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    saved_mean: Tensor | None,
    saved_scale: Tensor | None,
    train: bool,
    epsilon: float,
    output_mask: Sequence[bool],
) -> Any:
    """A scale of each channel, since the statistics are constants."""
    if train or variance is None:
        plain = decomposition_table[aten.native_batch_norm_backward.default]
        return plain(grad, image, weight, mean, variance, saved_mean, saved_scale, train, epsilon, output_mask)
    return grad * channel_scale(weight, variance, epsilon).view(1, -1, *[1] * (grad.dim() - 2)), None, None


def channel_scale(weight: Tensor | None, variance: Tensor, epsilon: float) -> Tensor:
    """What batch norm with constant statistics multiplies each channel by, (C,)."""
    scale = (variance + epsilon).rsqrt()
    return scale if weight is None else scale * weight


def hardtanh_backward(grad: Tensor, image: Tensor, low: float, high: float) -> Tensor:
    """From the forward result, which is there anyway, so that runtimes can join the clipping to a convolution."""
    clipped = aten.hardtanh.default(image, low, high)
    return torch.where((clipped > low) & (clipped < high), grad, 0.0)


def select_backward(grad: Tensor, sizes: Sequence[int], axis: int, index: int) -> Tensor:
    """By padding, which every runtime has, unlike scattering into zeros."""
    axis, size = axis % len(sizes), sizes[axis]
    return fit(grad.unsqueeze(axis), {axis: (index % size, size - 1 - index % size)})


def slice_backward(grad: Tensor, sizes: Sequence[int], axis: int, start: int, end: int, step: int) -> Tensor:
    """Likewise."""
    axis = axis % len(sizes)
    if step == 1 and start == 0 and end >= sys.maxsize:
        return grad
    size = sizes[axis]
    start = min(start + size if start < 0 else start, size)
    spread = interleave({0: grad}, axis, step, grad.shape[axis] * step)
    return fit(spread, {axis: (start, size - start - spread.shape[axis])})


def constant_pad_nd(tensor: Tensor, padding: Sequence[int], fill: float = 0.0) -> Any:
    """Cropping is left to slices, since not every runtime has negative padding."""
    if min(padding) >= 0:
        return NotImplemented
    axes = range(tensor.dim() - 1, -1, -1)
    return fit(tensor, dict(zip(axes, zip(padding[::2], padding[1::2], strict=True), strict=False)), fill=fill)


def scatter(tensor: Tensor, axis: int, index: Tensor, source: Tensor, *, add: bool = False) -> Any:
    """Into one place along `axis`, as the gradients of `max` and `gather` need it: by comparison."""
    wanted = [1 if place == axis % tensor.dim() else size for place, size in enumerate(tensor.shape)]
    if list(index.shape) != wanted or list(source.shape) != wanted:
        return NotImplemented
    places = torch.arange(tensor.shape[axis]).view(-1, *[1] * (tensor.dim() - 1 - axis % tensor.dim()))
    return torch.where(places == index, tensor + source if add else source, tensor)


# By the mode and axes of `F.interpolate`.
RESIZES: dict[str, OpOverload] = {
    "nearest1d": aten.upsample_nearest1d.default,
    "nearest2d": aten.upsample_nearest2d.default,
    "linear1d": aten.upsample_linear1d.default,
    "bilinear2d": aten.upsample_bilinear2d.default,
    "bicubic2d": aten.upsample_bicubic2d.default,
    "bilinear2d_aa": aten._upsample_bilinear2d_aa.default,
    "bicubic2d_aa": aten._upsample_bicubic2d_aa.default,
}
# Those that PyTorch itself cannot trace with a symbolic batch.
EARLY_RULES: dict[OpOverload, Rule] = {
    getattr(aten, f"{forward._schema.name.removeprefix('aten::')}_backward").default: partial(resize_backward, forward)
    for forward in RESIZES.values()
}
RULES: dict[OpOverload, Rule] = {
    # Elementwise ones and normalisation are torch's own.
    **{
        operator: rule
        for operator, rule in decomposition_table.items()
        if isinstance(operator, OpOverload) and operator._schema.name.endswith(("_backward", "_backward_data"))
    },
    # They give the backward what ONNX's operators would not.
    **{
        operator: decomposition_table[operator]
        for operator in (
            aten.native_layer_norm.default,
            aten.native_group_norm.default,
            aten._native_batch_norm_legit.no_stats,
        )
    },
    **{
        getattr(aten, f"{name}_pad{axes}d_backward").default: partial(pad_backward, mode)
        for mode, name in (("reflect", "reflection"), ("replicate", "replication"))
        for axes in (1, 2)
    },
    aten.convolution_backward.default: convolution_backward,
    aten.max_pool2d_with_indices_backward.default: max_pool2d_backward,
    aten.avg_pool2d.default: avg_pool2d,
    aten.avg_pool2d_backward.default: avg_pool2d_backward,
    aten._adaptive_avg_pool2d.default: adaptive_avg_pool2d,
    aten._adaptive_avg_pool2d_backward.default: adaptive_avg_pool2d_backward,
    aten.adaptive_max_pool2d.default: adaptive_max_pool2d,
    aten.adaptive_max_pool2d_backward.default: adaptive_max_pool2d_backward,
    aten.native_batch_norm_backward.default: batch_norm_backward,
    aten.hardtanh_backward.default: hardtanh_backward,
    aten.select_backward.default: select_backward,
    aten.slice_backward.default: slice_backward,
    aten.constant_pad_nd.default: constant_pad_nd,
    aten.scatter.src: scatter,
    aten.scatter_add.default: partial(scatter, add=True),
}
