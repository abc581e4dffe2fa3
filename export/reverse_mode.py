"""Modules whose forward takes gradients, as one ordinary graph that every exporter and runtime reads.

    step = value_and_gradient(network.eval(), inputs=(0,))
    captured = capture(step, (torch.zeros(1, 3, 224, 224),))
    torch.onnx.export(captured, ..., dynamo=True)

See REVERSE_MODE.md for what it can and cannot do.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch._dispatch.python import no_python_dispatcher
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from salience.runtime.errors import ExportError, SalienceError

from .reverse_passes import finish, prepare
from .reverse_rules import EARLY_RULES, RESIZES, RULES

aten = torch.ops.aten

# Of the free dimension while tracing; a number that no other dimension is likely to have.
_TRACED_BATCH = 23


class ValueAndGradient(nn.Module):
    """See `value_and_gradient`."""

    def __init__(self, function: Callable[..., Any], inputs: Sequence[int]) -> None:
        super().__init__()
        self.function = function
        self.inputs = tuple(inputs)
        self.training = bool(getattr(function, "training", False))

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The objective, what else the function gives, and the gradients in the order of `inputs`."""
        wrong = [index for index in self.inputs if not 0 <= index < len(tensors)]
        if wrong:
            raise ExportError(
                f"value_and_gradient: got inputs {wrong} to differentiate, expected numbers below {len(tensors)}, as "
                "many tensors as were given; name inputs by position, and no weights."
            )

        def objective(*chosen: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
            given = list(tensors)
            for index, tensor in zip(self.inputs, chosen, strict=True):
                given[index] = tensor
            found = self.function(*given)
            return (found, ()) if isinstance(found, Tensor) else (found[0], tuple(found[1:]))

        chosen = [tensors[index] for index in self.inputs]
        value, pull_back, *others = torch.func.vjp(objective, *chosen, has_aux=True)
        return (value, *others[0], *pull_back(torch.ones_like(value)))


def value_and_gradient(function: Callable[..., Any], *, inputs: Sequence[int] = (0,)) -> nn.Module:
    """The module that gives a function's value and its gradients with respect to some of its inputs.

    Args:
        function: tensors -> objective, or (objective, *others). The objective has one number per sample, (N,), or
            any shape: its sum is differentiated, and rows of a batch do not depend on each other.
        inputs: positions of the inputs to differentiate by.

    Returns:
        A module: tensors -> (objective, *others, *gradients). It runs as it is; `capture` makes it exportable.
    """
    return ValueAndGradient(function, inputs)


class Captured(nn.Module):
    """A graph of `aten` operators; takes the tensors of the module that it was made of, and gives what that gave.

    Its parameters and buffers are those of that module, whose memory they share, and what was computed from them alone,
    such as rotated kernels: a later change of a weight reaches only the former, so capture again after one.
    """

    def __init__(self, traced: fx.GraphModule, single: bool) -> None:
        super().__init__()
        self.traced = traced
        self.single = single
        self.eval()

    def forward(self, *inputs: Tensor) -> Any:
        """As the module."""
        found = tuple(self.traced(*inputs))
        return found[0] if self.single else found


def capture(module: nn.Module, examples: tuple[Tensor, ...], *, batched: Sequence[int] | None = None) -> nn.Module:
    """Turn `module`, which may take gradients on its way, into a graph without any.

    Args:
        module: tensors -> tensor or tensors. In evaluation mode, of fixed height and width.
        examples: inputs of the shapes and types to serve; their values do not matter.
        batched: positions of the inputs whose dimension 0 is the batch, which stays free; all if None.

    Raises:
        ExportError: the module cannot be traced, fixes the batch, trains, wants a gradient with respect to a weight,
            or takes a gradient that has no rule.
    """
    _check_mode(module)
    weights = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    free = range(len(examples)) if batched is None else batched
    single = []

    def body(*tensors: Tensor) -> list[Tensor]:
        named = dict(zip(weights, tensors, strict=False))
        found = torch.func.functional_call(module, named, tensors[len(weights) :])
        single.append(isinstance(found, Tensor))
        return _results(found)

    shapes = ShapeEnv()
    mode = FakeTensorMode(shape_env=shapes, allow_non_fake_inputs=True)
    fakes: list[Tensor] = [mode.from_tensor(weight.detach(), static_shapes=True) for weight in weights.values()]
    fakes += [_fake(mode, example, index in free) for index, example in enumerate(examples)]
    with _explained(type(module).__name__, shapes), torch.no_grad(), sdpa_kernel(SDPBackend.MATH), _WholeResizes():
        pure = torch.func.functionalize(body, remove="mutations")
        traced = make_fx(pure, decomposition_table=EARLY_RULES, tracing_mode="symbolic")(*fakes)
        prepare(traced)
        lowered = make_fx(traced, decomposition_table=RULES, tracing_mode="symbolic")(*fakes)
    finish(lowered, weights, type(module).__name__)
    return Captured(lowered, single[-1])


class _WholeResizes(TorchFunctionMode):
    """Keeps resizing one operator, which tracing with a symbolic batch would take apart into gathers."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.interpolate:
            chosen = _resize_operator(*args, **(kwargs or {}))
            func, args, kwargs = (*chosen, {}) if chosen else (func, args, kwargs)
        with no_python_dispatcher() if "upsample_" in getattr(func, "__name__", "") else nullcontext():
            return func(*args, **(kwargs or {}))


def _resize_operator(
    image: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> tuple[OpOverload, tuple[Any, ...]] | None:
    """The operator that `F.interpolate` comes to, and its arguments; None where it is none of RESIZES."""
    sides = image.shape[2:]
    found = RESIZES.get(f"{mode}{len(sides)}d" + ("_aa" if antialias else ""))
    if found is None:
        return None
    factors = scale_factor if isinstance(scale_factor, Sequence) else [scale_factor] * len(sides)
    if size is None:
        size = [int(side * factor) for side, factor in zip(sides, factors, strict=True)]
    size = size if isinstance(size, Sequence) else [size] * len(sides)
    corners = [] if mode == "nearest" else [bool(align_corners)]
    scales = [None] * len(sides) if recompute_scale_factor else factors
    return found, (image, size, *corners, *scales)


def _fake(mode: FakeTensorMode, example: Tensor, free: bool) -> Tensor:
    """A tensor without memory, of a symbolic first size if `free`."""
    from torch._dynamo.source import ConstantSource  # loads the whole compiler

    sizes = [_TRACED_BATCH, *example.shape[1:]] if free else example.shape
    kinds = [DimDynamic.DUCK if free and axis == 0 else DimDynamic.STATIC for axis in range(example.dim())]
    context: Any = StatelessSymbolicContext(dynamic_sizes=kinds)
    return mode.from_tensor(example.new_empty(sizes), symbolic_context=context, source=ConstantSource("batch"))


@contextmanager
def _explained(name: str, shapes: ShapeEnv) -> Iterator[None]:
    try:
        yield
    except SalienceError:
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ExportError(
            f"{name}: cannot be traced ({type(error).__name__}: {reason}), expected a forward that is made of tensor "
            "operators and does not depend on their values; change the forward."
        ) from error
    if shapes.replacements:
        raise ExportError(
            f"{name}: its forward fixes the batch to the size it was traced with ({shapes.replacements}), expected "
            "one that serves any; see what it does with x.shape[0]."
        )


def _results(found: Any) -> list[Tensor]:
    results = [found] if isinstance(found, Tensor) else found
    if not isinstance(results, list | tuple) or not all(isinstance(result, Tensor) for result in results):
        raise ExportError(
            f"forward: got {type(found).__name__} as its result, expected a tensor or a tuple of tensors; return these."
        )
    return list(results)


def _check_mode(module: nn.Module) -> None:
    kinds = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    training = [name for name, part in module.named_modules() if part.training and isinstance(part, kinds)]
    if training:
        raise ExportError(
            f"{type(module).__name__}: got {', '.join(training)} in training mode, expected evaluation mode; call "
            "eval() on it."
        )
