"""Faster bfloat16 training on CPUs: convolutions whose backward pass runs in float32.

oneDNN has no fast bfloat16 form of the backward pass of depthwise convolutions with a stride or a 5x5 kernel, and of
transposed convolutions; its float32 form is two to ten times as fast.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn


class _WideBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, options: tuple[Any, ...]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.options = options
        ctx.bias_sizes = None if bias is None else list(bias.shape)
        return cast("Tensor", torch.ops.aten.convolution(x, weight, bias, *options))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        x, weight = ctx.saved_tensors
        wanted = [*ctx.needs_input_grad[:2], ctx.bias_sizes is not None]
        found = torch.ops.aten.convolution_backward(
            gradients[0].float(), x.float(), weight.float(), ctx.bias_sizes, *ctx.options, wanted
        )
        kinds = (x.dtype, weight.dtype, weight.dtype)
        return *(None if g is None else g.to(kind) for g, kind in zip(found, kinds, strict=True)), None


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, options: tuple[Any, ...]) -> Tensor:
    """Convolve in the type of autocast, with a float32 backward pass; `options` as of `aten.convolution`."""
    kind = torch.get_autocast_dtype("cpu")
    given = None if bias is None else bias.to(kind)
    with torch.autocast("cpu", enabled=False):
        found: Tensor = _WideBackward.apply(x.to(kind), weight.to(kind), given, options)
    return found


def widen_backward(network: nn.Module) -> int:
    """Give the slow convolutions of `network` a float32 backward pass under autocast on the CPU.

    Returns:
        How many convolutions changed. Parameters and their names stay as they are.
    """
    slow = [module for module in network.modules() if _is_slow(module)]
    for module in slow:
        _replace(module)
    return len(slow)


def _is_slow(module: nn.Module) -> bool:
    if isinstance(module, nn.ConvTranspose2d):
        return True
    if not isinstance(module, nn.Conv2d) or module.groups == 1 or isinstance(module.padding, str):
        return False
    return module.groups == module.in_channels and (max(module.kernel_size) > 3 or max(module.stride) > 1)


def _replace(module: Any) -> None:
    """Set the method that convolves; a module that pads its input first goes on doing so."""
    transposed = isinstance(module, nn.ConvTranspose2d)
    options = (
        [*module.stride], [*module.padding], [*module.dilation], transposed, [*module.output_padding], module.groups
    )  # fmt: skip
    name = "forward" if transposed else "_conv_forward"
    plain = getattr(module, name)

    def convolved(x: Tensor, *rest: Any) -> Tensor:
        if not (module.training and torch.is_autocast_enabled("cpu")):
            found: Tensor = plain(x, *rest)
            return found
        return convolve(x, module.weight, module.bias, options)

    setattr(module, name, convolved)
