"""Derivatives written with ordinary operators: what `reverse_mode` puts in the place of `aten.*_backward`.

Layouts are PyTorch's: images (N, C, H, W), of which N is free and the rest is known. Only what ONNX Runtime, OpenVINO
and TensorRT all have comes out: no scatter, no transposed convolution, no index of a maximum. Where there is a
choice, the form is the one that ONNX Runtime is fast at: joining along the last axis instead of DepthToSpace,
Resize to the nearest neighbour instead of Expand.
"""

import itertools
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._decomp import decomposition_table
from torch._ops import OpOverload

from salience.runtime.errors import ExportError

aten = torch.ops.aten
Rule = Callable[..., Any]


def fit(tensor: Tensor, sides: Mapping[int, tuple[int, int]], *, fill: float = 0.0) -> Tensor:
    """Pad axes with `fill` by `sides[axis]` places, before and after; a negative number crops."""
    padding = [0] * (2 * tensor.dim())
    for axis, (before, after) in sides.items():
        if before < 0 or after < 0:
            start = max(-before, 0)
            tensor = tensor.narrow(axis, start, tensor.shape[axis] - max(-after, 0) - start)
        padding[-2 * axis - 2 : len(padding) - 2 * axis] = max(before, 0), max(after, 0)
    while padding and padding[-1] == padding[-2] == 0:
        del padding[-2:]
    return F.pad(tensor, padding, value=fill) if padding else tensor


def sized(tensor: Tensor, sizes: Mapping[int, int], *, fill: float = 0.0) -> Tensor:
    """Pad or crop the end of each axis in `sizes` to its size."""
    return fit(tensor, {axis: (0, size - tensor.shape[axis]) for axis, size in sizes.items()}, fill=fill)


def interleave(phases: Mapping[int, Tensor], axis: int, stride: int, size: int) -> Tensor:
    """The tensor of `size` along `axis` whose places r, r + stride, ... are `phases[r]`, or 0 where there is none."""
    if stride == 1:
        return sized(phases[0], {axis: size})
    if len(phases) == 1:
        ((phase, plane),) = phases.items()
        parts = fit(plane.unsqueeze(axis + 1), {axis + 1: (phase, stride - 1 - phase)})
    else:
        empty = torch.zeros_like(next(iter(phases.values())))
        parts = torch.stack([phases.get(phase, empty) for phase in range(stride)], dim=axis + 1)
    return sized(parts.flatten(axis, axis + 1), {axis: size})


class _Axis:
    """One axis of a reversed convolution: which taps make which of the `stride` phases of its result.

    Place q * stride + r of the result is the sum over m of taps[r][m] * grad[q + m * dilation - before]. A tap is an
    index into the kernel, or the kernel's size for none. With stride 1 the taps are the reversed kernel.
    """

    def __init__(self, size: int, found: int, kernel: int, stride: int, padding: int, dilation: int) -> None:
        reach = dilation * (kernel - 1)
        first, last = -((stride - 1 + padding) // stride), (reach - padding) // stride
        self.size, self.stride = size, stride
        self.before, self.after = last, -(-size // stride) - found - first
        self.dilation, taps = dilation, [list(range(kernel))[::-1]]
        if stride > 1:
            self.dilation, shifts = 1, range(last, first - 1, -1)
            places = [[divmod(r + padding + stride * shift, dilation) for shift in shifts] for r in range(stride)]
            taps = [[kernel if rest or not 0 <= tap < kernel else tap for tap, rest in row] for row in places]
        self.taps = {phase: row for phase, row in enumerate(taps) if set(row) != {kernel}}

    def kernels(self, weight: Tensor, axis: int) -> Tensor:
        """(..., k, ...) -> (..., phases * taps, ...)."""
        return fit(weight, {axis: (0, 1)}).index_select(axis, torch.tensor(list(itertools.chain(*self.taps.values()))))


def convolution_backward(
    grad: Tensor,
    image: Tensor,
    weight: Tensor,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[Tensor | None, None, None]:
    """The gradient with respect to `image`, by one convolution.

    That of a transposed convolution is the convolution with the same weight. That of a strided one gives all
    stride * stride phases of the result as channels, which are then interleaved.
    """
    if output_mask[1] or output_mask[2]:
        raise ExportError(
            f"convolution with weight {tuple(weight.shape)}: got a gradient with respect to weight or bias, expected "
            "one with respect to its input only; detach the weights."
        )
    if not output_mask[0]:
        return None, None, None
    sizes, zeros = image.shape[2:], [0] * (image.dim() - 2)
    if transposed:
        found = aten.convolution.default(grad, weight, None, stride, padding, dilation, False, zeros, groups)
        return sized(found, dict(enumerate(sizes, start=2))), None, None
    numbers = zip(sizes, grad.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    axes = [_Axis(*each) for each in numbers]
    even = all(axis.before == axis.after >= 0 for axis in axes)
    around = [axis.before if even else 0 for axis in axes]
    if not even:
        grad = fit(grad, {index: (axis.before, axis.after) for index, axis in enumerate(axes, start=2)})
    kernels, gaps = _phase_kernels(weight, axes, groups), [axis.dilation for axis in axes]
    found = aten.convolution.default(grad, kernels, None, [1] * len(axes), around, gaps, False, zeros, groups)
    return _woven(found, axes, groups), None, None


def _phase_kernels(weight: Tensor, axes: Sequence[_Axis], groups: int) -> Tensor:
    """Weight (g * O, I, ...) -> (g * phases * I, O, ...): reversed and transposed in each group."""
    for index, axis in enumerate(axes):
        weight = axis.kernels(weight, index + 2)
    for index, axis in reversed(list(enumerate(axes))):
        weight = weight.unflatten(index + 2, (len(axis.taps), -1))
    weight = weight.unflatten(0, (groups, -1))
    phases, taps = range(3, weight.dim(), 2), range(4, weight.dim(), 2)
    return weight.permute(0, *phases, 2, 1, *taps).flatten(0, len(phases) + 1)


def _woven(found: Tensor, axes: Sequence[_Axis], groups: int) -> Tensor:
    """(N, g * phases * I, ...) -> (N, g * I, ...) with the phases interleaved."""
    count = math.prod(len(axis.taps) for axis in axes)
    planes = [found]
    if count > 1:
        parts = found.unflatten(1, (groups, count, -1))
        planes = [parts.narrow(2, index, 1).flatten(1, 3) for index in range(count)]
    for index, axis in reversed(list(enumerate(axes, start=2))):
        rows = zip(*[iter(planes)] * len(axis.taps), strict=True)
        planes = [interleave(dict(zip(axis.taps, row, strict=True)), index, axis.stride, axis.size) for row in rows]
    return planes[0]


def max_pool2d_backward(
    grad: Tensor,
    image: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    indices: Tensor,
) -> Tensor:
    """The gradient goes to the first of a window's largest elements, row by row, as autograd has it.

    NaN and windows of -inf are not minded.
    """
    stride = stride or kernel
    # Runtimes without half-precision kernels leave out the rounding between two nodes, so in fp16 an element may differ
    # from the maximum that is itself; in fp32 both are the same numbers.
    image = image.float() if image.dtype == torch.float16 else image

    def pooled(rows: int, columns: int) -> Tensor:
        """`image` pooled along rows, columns, or both as in the network, which computes that only once."""
        along = lambda sizes, neutral: [sizes[0] if rows else neutral, sizes[1] if columns else neutral]  # noqa: E731
        sizes = along(kernel, 1), along(stride, 1), along(padding, 0), along(dilation, 1)
        found: Tensor = aten.max_pool2d_with_indices.default(image, *sizes, ceil_mode)[0]
        return found

    if list(kernel) == list(stride) and max(padding) == 0 and max(dilation) == 1:
        return _tiled_max_backward(grad, image, pooled(1, 1), kernel)
    # The first largest element: the first row that holds the maximum, then the first column in it.
    numbers = list(zip(kernel, stride, padding, dilation, strict=True))
    by_row = pooled(0, 1)
    grad = _max_backward(grad, by_row, pooled(1, 1), grad.dim() - 2, *numbers[0])
    return _max_backward(grad, image, by_row, grad.dim() - 1, *numbers[1])


def _tiled_max_backward(grad: Tensor, image: Tensor, largest: Tensor, kernel: Sequence[int]) -> Tensor:
    """Windows that do not overlap: whole images are compared, with no phase taken apart."""
    height, width = image.shape[-2:]
    rows, columns = grad.shape[-2] * kernel[0], grad.shape[-1] * kernel[1]
    image = sized(image, {2: rows, 3: columns}, fill=-math.inf)
    order = torch.arange(math.prod(kernel), 0, -1, dtype=grad.dtype).view(1, 1, *kernel)
    order = order.repeat(1, 1, *grad.shape[-2:])
    candidates = torch.where(image == _enlarged(largest, kernel), order, 0.0)
    first = F.max_pool2d(candidates, list(kernel))
    found = torch.where(candidates == _enlarged(first, kernel), _enlarged(grad, kernel), 0.0)
    return sized(found, {2: height, 3: width})


def _enlarged(image: Tensor, scale: Sequence[int]) -> Tensor:
    """Every element repeated scale[0] times along rows and scale[1] times along columns."""
    sizes = [size * factor for size, factor in zip(image.shape[-2:], scale, strict=True)]
    found: Tensor = aten.upsample_nearest2d.default(image, sizes, *map(float, scale))
    return found


def _max_backward(
    grad: Tensor, image: Tensor, largest: Tensor, axis: int, kernel: int, stride: int, padding: int, dilation: int
) -> Tensor:
    """Pooling along one axis: each tap takes what its windows' gradient has left if it is their maximum."""
    count, size = grad.shape[axis], image.shape[axis]
    span = (count - 1) * stride + 1
    after = span + dilation * (kernel - 1) - padding - size
    image = fit(image, {axis: (padding, after)}, fill=-math.inf)
    phases: dict[int, Tensor] = {}
    for tap in range(kernel):
        part = grad
        if tap < kernel - 1:
            start = tap * dilation
            element = aten.slice.Tensor(image, axis, start, start + span, stride)
            part = torch.where(element == largest, grad, 0.0)
            grad = grad - part
        shift, phase = divmod(tap * dilation - padding, stride)
        part = fit(part, {axis: (shift, -(-size // stride) - shift - count)})
        phases[phase] = phases[phase] + part if phase in phases else part
    return interleave(phases, axis, stride, size)


def _separable(grad: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(N, C, h, w) -> rows^T grad columns: the gradient of an image's resampling by these matrices."""
    down = (grad.transpose(-1, -2) @ rows.to(grad.dtype)).transpose(-1, -2)
    return down @ columns.to(grad.dtype)


def _matrix(resample: Callable[[Tensor], Tensor], size: int) -> Tensor:
    """The matrix (found, size) of what `resample` makes of the rows of an image (1, size, size, 2)."""
    # Two equal columns: PyTorch's antialiased resize is wrong for images of width 1.
    rows = torch.eye(size, dtype=torch.float64)[None, :, :, None].expand(-1, -1, -1, 2)
    return resample(rows.contiguous())[0, :, :, 0].T


def avg_pool2d_backward(
    grad: Tensor,
    image: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    """Every element gets its share of each window that it is in."""
    stride = stride or kernel
    sizes, windows = image.shape[-2:], grad.shape[-2:]
    if list(kernel) == list(stride) and all(k * n == size for k, n, size in zip(kernel, windows, sizes, strict=True)):
        return _enlarged(grad / (divisor_override or math.prod(kernel)), kernel)
    if divisor_override:
        grad = grad / divisor_override
    matrices = []
    for size, *numbers in zip(sizes, kernel, stride, padding, strict=True):
        along = [[number, neutral] for number, neutral in zip(numbers, (1, 1, 0), strict=True)]
        options = (ceil_mode, count_include_pad, 1 if divisor_override else None)
        matrices.append(_matrix(lambda eye, a=along, o=options: aten.avg_pool2d.default(eye, *a, *o), size))
    return _separable(grad, *matrices)


def adaptive_avg_pool2d(image: Tensor, sizes: Sequence[int]) -> Tensor:
    """As such where it divides evenly, else by matrices, which ONNX has no operator for."""
    if tuple(image.shape[-2:]) == tuple(sizes):
        return image
    kernel = _even_windows(image.shape[-2:], sizes)
    if kernel:
        return F.avg_pool2d(image, kernel)
    rows, columns = map(_adaptive_matrix, image.shape[-2:], sizes)
    return _separable(image, rows.T, columns.T)


def adaptive_avg_pool2d_backward(grad: Tensor, image: Tensor) -> Tensor:
    """The reverse of the above."""
    sizes, found = image.shape[-2:], grad.shape[-2:]
    if tuple(found) == tuple(sizes):
        return grad
    if tuple(found) == (1, 1):
        return (grad / math.prod(sizes)).expand(image.shape)
    kernel = _even_windows(sizes, found)
    if kernel:
        return _enlarged(grad / math.prod(kernel), kernel)
    return _separable(grad, *map(_adaptive_matrix, sizes, found))


def _even_windows(sizes: Sequence[int], found: Sequence[int]) -> list[int] | None:
    uneven = any(size % count for size, count in zip(sizes, found, strict=True))
    return None if uneven else [size // count for size, count in zip(sizes, found, strict=True)]


def _adaptive_matrix(size: int, found: int) -> Tensor:
    """(found, size): the windows are from floor(i * size / found) to ceil((i + 1) * size / found)."""
    rows = []
    for index in range(found):
        start, stop = index * size // found, -(-(index + 1) * size // found)
        rows.append([1 / (stop - start) if start <= place < stop else 0.0 for place in range(size)])
    return torch.tensor(rows, dtype=torch.float64)


def adaptive_max_pool2d(image: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """As max pooling, which it is where it divides evenly."""
    kernel = _even_windows(image.shape[-2:], sizes)
    if kernel is None:
        raise ExportError(
            f"adaptive max pool: got {tuple(image.shape[-2:])} pooled to {tuple(sizes)}, expected a size that divides "
            "evenly; choose another input size."
        )
    values, indices = aten.max_pool2d_with_indices.default(image, kernel)
    return values, indices


def adaptive_max_pool2d_backward(grad: Tensor, image: Tensor, indices: Tensor) -> Tensor:
    """The reverse of the above."""
    kernel = _even_windows(image.shape[-2:], grad.shape[-2:]) or []
    return max_pool2d_backward(grad, image, kernel, kernel, [0, 0], [1, 1], False, indices)


def resize_backward(forward: Any, grad: Tensor, found: Sequence[int], given: Sequence[int], *options: Any) -> Tensor:
    """The gradient of `forward` from (N, C, *given) to (N, C, *found).

    `options` are align_corners where `forward` has it, then the scale of each axis or None.
    """
    axes = len(found)
    options = (*options, *[None] * (axes - len(options)))
    corners, scales = options[:-axes], options[-axes:]

    def along(axis: int, eye: Tensor) -> Tensor:
        if axes == 1:
            return forward(eye[..., 0], found, *corners, scales[0])[..., None]
        return forward(eye, [found[axis], 2], *corners, scales[axis], None)

    matrices = [_matrix(partial(along, axis), given[axis + 2]) for axis in range(axes)]
    return grad @ matrices[0].to(grad.dtype) if axes == 1 else _separable(grad, *matrices)


def pad_backward(mode: str, grad: Tensor, image: Tensor, padding: Sequence[int]) -> Tensor:
    """The gradient of padding by reflection or repetition."""

    def along(before: int, after: int, eye: Tensor) -> Tensor:
        return F.pad(eye[..., 0], [before, after], mode=mode)[..., None]

    columns = _matrix(partial(along, *padding[:2]), image.shape[-1])
    if len(padding) == 2:
        return grad @ columns.to(grad.dtype)
    return _separable(grad, _matrix(partial(along, *padding[2:]), image.shape[-2]), columns)


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


def constant_pad_nd(tensor: Tensor, padding: Sequence[int], fill: float = 0.0) -> Tensor:
    """Cropping is left to slices, since not every runtime has negative padding."""
    if min(padding) >= 0:
        return NotImplemented
    axes = range(tensor.dim() - 1, -1, -1)
    return fit(tensor, dict(zip(axes, zip(padding[::2], padding[1::2], strict=True), strict=False)), fill=fill)


def scatter(tensor: Tensor, axis: int, index: Tensor, source: Tensor, *, add: bool = False) -> Tensor:
    """Into one place along `axis`, as the gradients of `max` and `gather` need it: by comparison."""
    wanted = [1 if place == axis % tensor.dim() else size for place, size in enumerate(tensor.shape)]
    if list(index.shape) != wanted or list(source.shape) != wanted:
        return NotImplemented
    places = torch.arange(tensor.shape[axis]).view(-1, *[1] * (tensor.dim() - 1 - axis % tensor.dim()))
    return torch.where(places == index, tensor + source if add else source, tensor)


def _resize_rules() -> Iterator[tuple[OpOverload, Rule]]:
    names = ["nearest1d", "nearest2d", "linear1d", "bilinear2d", "bicubic2d"]
    names = [f"upsample_{name}" for name in names]
    names += ["_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_bilinear2d_aa"]
    for name in [*names, "_upsample_bicubic2d_aa"]:
        forward = getattr(aten, name).default
        yield getattr(aten, f"{name}_backward").default, partial(resize_backward, forward)


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
    **dict(_resize_rules()),
    **{
        getattr(aten, f"{name}_pad{axes}d_backward").default: partial(pad_backward, mode)
        for mode, name in (("reflect", "reflection"), ("replicate", "replication"))
        for axes in (1, 2)
    },
    aten.convolution_backward.default: convolution_backward,
    aten.max_pool2d_with_indices_backward.default: max_pool2d_backward,
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
