"""The gradient of convolutions as convolutions, and the padding and interleaving that pooling shares with them."""

import itertools
import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from salience.runtime.errors import ExportError

aten = torch.ops.aten


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
    first, last = min(phases), max(phases)
    planes = [phases[p] if p in phases else torch.zeros_like(phases[first]) for p in range(first, last + 1)]
    if axis < planes[0].dim() - 1:
        parts = torch.stack(planes, dim=axis + 1)
    else:  # runtimes are slow at joining single elements
        parts = torch.cat(planes, dim=axis).unflatten(axis, (len(planes), -1)).transpose(axis, axis + 1)
    parts = fit(parts, {axis + 1: (first, stride - 1 - last)})
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
