"""The gradients of pooling, resizing and padding.

Maxima are found again by comparison, since TensorRT gives no index of them. Everything linear is a product with a
constant matrix for each axis, but where a cheaper form is the same.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from salience.runtime.errors import ExportError

from .reverse_convolution import fit, interleave, sized

aten = torch.ops.aten


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
    # Runtimes without half-precision kernels leave out the rounding between two nodes, so an element may differ from
    # the maximum that is itself; in fp32 both are the same numbers.
    image = image.float() if image.dtype in (torch.float16, torch.bfloat16) else image

    def pooled(rows: int, columns: int) -> Tensor:
        """`image` pooled along rows, columns, or both as in the network, which computes that only once."""

        def along(sizes: Sequence[int], neutral: int) -> list[int]:
            return [sizes[0] if rows else neutral, sizes[1] if columns else neutral]

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
    # Half precision cannot count the places of a large window: fp16 up to 2048, bf16 up to 256.
    kind = grad.dtype if math.prod(kernel) <= 2 / torch.finfo(grad.dtype).eps else torch.float32
    order = torch.arange(math.prod(kernel), 0, -1, dtype=kind).view(1, 1, *kernel)
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
    return _product(_product(grad.transpose(2, 3), rows).transpose(2, 3), columns)


def _product(grad: Tensor, matrix: Tensor) -> Tensor:
    """grad @ matrix, as one product of matrices: PyTorch would repeat `matrix` for each of the batch."""
    found: Tensor = (grad.flatten(0, -2) @ matrix.to(grad.dtype)).unflatten(0, grad.shape[:-1])
    return found


def _matrix(resample: Callable[[Tensor], Tensor], size: int) -> Tensor:
    """The matrix (found, size) of what `resample` makes of the rows of an image (1, size, size, 2)."""
    # Two equal columns: PyTorch's antialiased resize is wrong for images of width 1.
    rows = torch.eye(size, dtype=torch.float64)[None, :, :, None].expand(-1, -1, -1, 2)
    return resample(rows.contiguous())[0, :, :, 0].T


Windows = Sequence[tuple[int, int, int]]


def _averages(size: int, windows: Windows) -> Tensor:
    """The matrix (windows, size) of means over windows [start, stop) that count so many elements."""
    rows = [[1 / count if start <= place < stop else 0.0 for place in range(size)] for start, stop, count in windows]
    return torch.tensor(rows, dtype=torch.float64)


def _pool_windows(
    size: int, number: int, kernel: int, stride: int, padding: int, include_pad: bool, divisor: int | None
) -> Windows:
    windows = []
    for start in range(-padding, number * stride - padding, stride):
        stop = min(start + kernel, size + padding)
        counted = stop - start if include_pad else min(stop, size) - max(start, 0)
        windows.append((start, stop, 1 if divisor else counted))
    return windows


def _adaptive_windows(size: int, number: int) -> Windows:
    edges = [(index * size // number, -(-(index + 1) * size // number)) for index in range(number)]
    return [(start, stop, stop - start) for start, stop in edges]


def _averaging(
    sizes: Sequence[int],
    numbers: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    include_pad: bool,
    divisor: int | None,
) -> list[Tensor]:
    """Average pooling as a matrix for rows and one for columns; sums if there is a `divisor`."""
    sides = zip(sizes, numbers, kernel, stride, padding, strict=True)
    return [_averages(side[0], _pool_windows(*side, include_pad, divisor)) for side in sides]


def avg_pool2d(
    image: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """By matrices where there is a divisor, which ONNX does not have and PyTorch's exporter leaves out."""
    if divisor_override is None:
        return NotImplemented
    stride, numbers = stride or kernel, []
    for size, k, s, p in zip(image.shape[2:], kernel, stride, padding, strict=True):
        span = size + 2 * p - k
        number = (-(-span // s) if ceil_mode else span // s) + 1
        numbers.append(number - 1 if (number - 1) * s >= size + p else number)
    rows, columns = _averaging(image.shape[2:], numbers, kernel, stride, padding, True, divisor_override)
    return _separable(image, rows.T, columns.T) / divisor_override


def avg_pool2d_backward(
    grad: Tensor,
    image: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Any:
    """Every element gets its share of each window that it is in."""
    stride, sizes, numbers = stride or kernel, image.shape[2:], grad.shape[2:]
    whole = all(k * number <= size for k, number, size in zip(kernel, numbers, sizes, strict=True))
    if list(kernel) == list(stride) and max(padding) == 0 and whole:
        shares = _enlarged(grad / (divisor_override or math.prod(kernel)), kernel)
        return sized(shares, {2: sizes[0], 3: sizes[1]})
    if divisor_override:
        grad = grad / divisor_override
    return _separable(grad, *_averaging(sizes, numbers, kernel, stride, padding, count_include_pad, divisor_override))


def adaptive_avg_pool2d(image: Tensor, numbers: Sequence[int]) -> Tensor:
    """As average pooling where it divides evenly, else by matrices, which is what ONNX has for it."""
    sizes = image.shape[2:]
    if list(sizes) == list(numbers):
        return image
    kernel = _even_windows(sizes, numbers)
    if kernel:
        return F.avg_pool2d(image, kernel)
    rows, columns = _adaptive_averaging(sizes, numbers)
    return _separable(image, rows.T, columns.T)


def adaptive_avg_pool2d_backward(grad: Tensor, image: Tensor) -> Tensor:
    """The reverse of the above."""
    sizes, numbers = image.shape[2:], grad.shape[2:]
    if list(numbers) == list(sizes):
        return grad
    if math.prod(numbers) == 1:
        return (grad / math.prod(sizes)).expand(image.shape)
    kernel = _even_windows(sizes, numbers)
    if kernel:
        return _enlarged(grad / math.prod(kernel), kernel)
    return _separable(grad, *_adaptive_averaging(sizes, numbers))


def _adaptive_averaging(sizes: Sequence[int], numbers: Sequence[int]) -> list[Tensor]:
    return [_averages(size, _adaptive_windows(size, number)) for size, number in zip(sizes, numbers, strict=True)]


def _even_windows(sizes: Sequence[int], numbers: Sequence[int]) -> list[int] | None:
    """The kernel that makes so many windows of each size, if it divides evenly."""
    sides = list(zip(sizes, numbers, strict=True))
    return None if any(size % number for size, number in sides) else [size // number for size, number in sides]


def adaptive_max_pool2d(image: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """As max pooling, which it is where it divides evenly."""
    kernel = _even_windows(image.shape[2:], sizes)
    if kernel is None:
        raise ExportError(
            f"adaptive max pool: got {tuple(image.shape[-2:])} pooled to {tuple(sizes)}, expected a size that divides "
            "evenly; choose another input size."
        )
    values, indices = aten.max_pool2d_with_indices.default(image, kernel)
    return values, indices


def adaptive_max_pool2d_backward(grad: Tensor, image: Tensor, indices: Tensor) -> Tensor:
    """The reverse of the above."""
    kernel = _even_windows(image.shape[2:], grad.shape[2:]) or []
    return max_pool2d_backward(grad, image, kernel, kernel, [0, 0], [1, 1], False, indices)


def resize_backward(forward: Any, grad: Tensor, found: Sequence[int], given: Sequence[int], *options: Any) -> Tensor:
    """The gradient of `forward` from (N, C, *given) to (N, C, *found).

    `options` are align_corners where `forward` has it, then the scale of each axis or None.
    """
    axes = len(found)
    if forward is aten.upsample_nearest2d.default:
        kernel = _even_windows(found, given[2:])
        if kernel and all(scale in (None, float(k)) for scale, k in zip(options, kernel, strict=False)):
            return F.avg_pool2d(grad, kernel) * math.prod(kernel)
    corners = options[: "nearest" not in str(forward)]
    scales = [*options[len(corners) :], None, None][:axes]

    def along(axis: int, eye: Tensor) -> Tensor:
        resized: Tensor
        if axes == 1:
            resized = forward(eye[..., 0], found, *corners, scales[0])[..., None]
        else:
            resized = forward(eye, [found[axis], 2], *corners, scales[axis], None)
        return resized

    matrices = [_matrix(partial(along, axis), given[axis + 2]) for axis in range(axes)]
    return _product(grad, matrices[0]) if axes == 1 else _separable(grad, *matrices)


def pad_backward(mode: str, grad: Tensor, image: Tensor, padding: Sequence[int]) -> Tensor:
    """The gradient of padding by reflection or repetition."""

    def along(before: int, after: int, eye: Tensor) -> Tensor:
        return F.pad(eye[..., 0], [before, after], mode=mode)[..., None]

    columns = _matrix(partial(along, padding[0], padding[1]), image.shape[-1])
    if len(padding) == 2:
        return _product(grad, columns)
    return _separable(grad, _matrix(partial(along, padding[2], padding[3]), image.shape[-2]), columns)
