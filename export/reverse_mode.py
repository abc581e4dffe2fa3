"""Modules whose forward takes gradients, as one ordinary graph that every exporter and runtime reads.

    step = value_and_gradient(network.eval(), inputs=(0,))
    captured = capture(step, (torch.zeros(1, 3, 224, 224),))
    torch.onnx.export(captured, ..., dynamo=True)

See REVERSE_MODE.md for what it can and cannot do.
"""

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._dispatch.python import no_python_dispatcher
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from salience.runtime.errors import ExportError, SalienceError

from .reverse_rules import RULES, channel_scale

aten = torch.ops.aten

# Of the free dimension while tracing; a number that no other dimension is likely to have.
_TRACED_BATCH = 23
_VIEWS = {
    aten.t.default, aten.transpose.int, aten.permute.default, aten.view.default, aten._unsafe_view.default,
    aten.expand.default, aten.unsqueeze.default,
}  # fmt: skip
_SAME = {aten.detach.default, aten.detach_.default, aten.alias.default, aten.lift_fresh_copy.default}
_PRODUCTS = {aten.mm.default, aten.addmm.default, aten.bmm.default}
_BLANKS = {aten.zeros.default, aten.ones.default, aten.full.default}
# Elements up to which a view or blank is stored rather than made by the runtime.
_SMALL = 1 << 16


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

        value, pull_back, others = torch.func.vjp(objective, *(tensors[i] for i in self.inputs), has_aux=True)
        return (value, *others, *pull_back(torch.ones_like(value)))


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
        return [found] if single[-1] else [*found]

    shapes = ShapeEnv()
    mode = FakeTensorMode(shape_env=shapes, allow_non_fake_inputs=True)
    fakes = [mode.from_tensor(weight.detach(), static_shapes=True) for weight in weights.values()]
    fakes += [_fake(mode, example, index in free) for index, example in enumerate(examples)]
    with _explained(type(module).__name__, shapes), torch.no_grad(), sdpa_kernel(SDPBackend.MATH), _WholeResizes():
        traced = make_fx(torch.func.functionalize(body, remove="mutations"), tracing_mode="symbolic")(*fakes)
        _merge_duplicates(traced.graph)
        _mask_before_unpooling(traced.graph)
        _scale_reversed_kernels(traced.graph)
        traced.recompile()
        lowered = make_fx(traced, decomposition_table=RULES, tracing_mode="symbolic")(*fakes)
    _take_in(lowered, weights)
    _merge_duplicates(lowered.graph)
    _sink_expansions(lowered.graph)
    _simplify(lowered.graph)
    _fold(lowered)
    _merge_duplicates(lowered.graph)
    _check(lowered.graph, type(module).__name__)
    lowered.recompile()
    return Captured(lowered, single[-1])


class _WholeResizes(TorchFunctionMode):
    """Keeps resizing one operator, which tracing with symbols would take apart into gathers."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "").partition(".")[0]
        if "upsample_" not in name or name.endswith("_backward"):
            return func(*args, **(kwargs or {}))
        if not isinstance(func, OpOverload):
            image, size, *corners, factors = args
            if size is None:
                size = [int(side * factor) for side, factor in zip(image.shape[2:], factors, strict=True)]
            args = (image, size, *corners, *(factors or [None] * len(size)))
            func = getattr(aten, name).default
        with no_python_dispatcher():
            return func(*args, **(kwargs or {}))


def _fake(mode: FakeTensorMode, example: Tensor, free: bool) -> Tensor:
    """A tensor without memory, of a symbolic first size if `free`."""
    from torch._dynamo.source import ConstantSource  # loads the whole compiler

    sizes = [_TRACED_BATCH, *example.shape[1:]] if free else example.shape
    kinds = [DimDynamic.DUCK if free and axis == 0 else DimDynamic.STATIC for axis in range(example.dim())]
    context = StatelessSymbolicContext(dynamic_sizes=kinds)
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


def _merge_duplicates(graph: fx.Graph) -> None:
    """Compute nothing twice and nothing in vain."""
    seen: dict[str, fx.Node] = {}
    for node in graph.nodes:
        if node.op == "call_function" and not _is_random(node):
            same = seen.setdefault(f"{node.target} {node.args} {node.kwargs}", node)
            if same is not node:
                node.replace_all_uses_with(same)
    graph.eliminate_dead_code()


def _mask_before_unpooling(graph: fx.Graph) -> None:
    """Let the gradient of ReLU go before that of the max pool after it, where it has fewer elements.

    What a window's gradient reaches is its maximum, so the maximum tells whether the ReLU lets it through.
    """
    for node in graph.find_nodes(op="call_function", target=aten.threshold_backward.default):
        pool = node.args[0]
        if pool.target != aten.max_pool2d_with_indices_backward.default or len(pool.users) > 1:
            continue
        grad, image, *options, indices = pool.args
        if image is not node.args[1]:
            continue
        with graph.inserting_before(pool):
            largest = graph.call_function(operator.getitem, (indices.args[0], 0))
            grad = graph.call_function(node.target, (grad, largest, node.args[2]))
            pool.args = (grad, image, *options, indices)
        node.replace_all_uses_with(pool)
    graph.eliminate_dead_code()


def _scale_reversed_kernels(graph: fx.Graph) -> None:
    """Move the scale of a batch norm's gradient into the kernel of the convolution before it."""
    for node in graph.find_nodes(op="call_function", target=aten.convolution_backward.default):
        norm = node.args[0].args[0] if node.args[0].target is operator.getitem else None
        if norm is None or norm.target != aten.native_batch_norm_backward.default or node.args[7]:
            continue
        grad, _, weight, _, variance, _, _, train, epsilon, _ = norm.args
        if train or variance is None or len(node.args[0].users) > 1:
            continue
        with graph.inserting_before(node):
            kernel = graph.call_function(_scaled, (node.args[2], weight, variance, epsilon))
        node.args = (grad, node.args[1], kernel, *node.args[3:])
    graph.eliminate_dead_code()


def _scaled(kernel: Tensor, weight: Tensor | None, variance: Tensor, epsilon: float) -> Tensor:
    scale = channel_scale(weight, variance, epsilon).to(kernel.dtype)
    return kernel * scale.view(-1, *[1] * (kernel.dim() - 1))


def _take_in(traced: fx.GraphModule, weights: dict[str, Tensor]) -> None:
    """Turn the first inputs into the parameters and buffers that were given for them."""
    for placeholder, (name, weight) in zip(traced.graph.find_nodes(op="placeholder"), weights.items(), strict=False):
        owner: nn.Module = traced
        *path, leaf = name.split(".")
        for part in path:
            if part not in owner._modules:
                owner.add_module(part, nn.Module())
            owner = owner.get_submodule(part)
        if isinstance(weight, nn.Parameter):
            owner.register_parameter(leaf, nn.Parameter(weight.detach(), requires_grad=False))
        else:
            owner.register_buffer(leaf, weight.detach())
        with traced.graph.inserting_before(placeholder):
            inside = traced.graph.get_attr(name)
        inside.meta = placeholder.meta
        placeholder.replace_all_uses_with(inside)
        traced.graph.erase_node(placeholder)


def _sink_expansions(graph: fx.Graph) -> None:
    """Let elementwise operators broadcast, or go before the expansion, which runtimes are slow at."""
    for node in graph.find_nodes(op="call_function", target=aten.expand.default):
        _sink(graph, node)
    graph.eliminate_dead_code()


def _sink(graph: fx.Graph, expansion: fx.Node) -> None:
    small = expansion.args[0]

    def swap(node: fx.Node) -> fx.Node:
        return small if node is expansion else node

    for user in list(expansion.users):
        if torch.Tag.pointwise not in getattr(user.target, "tags", ()):
            continue
        others = [node for node in user.all_input_nodes if node is not expansion and "val" in node.meta]
        others = [node for node in others if isinstance(node.meta["val"], Tensor)]
        shapes = [node.meta["val"].shape for node in (small, *others)]
        if others and str(torch.broadcast_shapes(*shapes)) == str(user.meta["val"].shape):
            user.replace_input_with(expansion, small)
        elif not others:
            with graph.inserting_before(user):
                early = graph.call_function(user.target, *fx.node.map_arg((user.args, user.kwargs), swap))
                late = graph.call_function(aten.expand.default, (early, expansion.args[1]))
            early.meta["val"], late.meta["val"] = small.meta["val"], user.meta["val"]
            user.replace_all_uses_with(late)
            _sink(graph, late)


def _simplify(graph: fx.Graph) -> None:
    """No index of a maximum where none is used, and no size of the batch where a shape can leave one place open."""
    views = (aten.view.default, aten._unsafe_view.default)
    for node in graph.nodes:
        if node.target in _SAME:
            node.replace_all_uses_with(node.args[0])
        elif node.target in views and sum(isinstance(size, fx.Node) for size in node.args[1]) == 1:
            node.args = (node.args[0], [-1 if isinstance(size, fx.Node) else size for size in node.args[1]])
        elif node.target == aten.max_pool2d_with_indices.default and all(u.args[1] == 0 for u in node.users):
            with graph.inserting_before(node):
                plain = graph.call_function(aten.max_pool2d.default, node.args)
            for user in list(node.users):
                user.replace_all_uses_with(plain)
    graph.eliminate_dead_code()


def _fold(traced: fx.GraphModule) -> None:
    """Compute what depends on weights alone; large views stay, which runtimes see through and which need no copy."""
    graph = traced.graph
    values: dict[fx.Node, Any] = {}
    constant: set[fx.Node] = set()
    for node in graph.nodes:
        weighed = node.op == "call_function" and not _is_random(node) and set(node.all_input_nodes) <= constant
        if node.op == "get_attr" or weighed:
            constant.add(node)

    def value(node: fx.Node) -> Any:
        if node not in values:
            if node.op == "get_attr":
                values[node] = operator.attrgetter(str(node.target))(traced)
            else:
                values[node] = node.target(*fx.node.map_arg(node.args, value), **fx.node.map_arg(node.kwargs, value))
        return values[node]

    wanted = {node for node in graph.nodes if node not in constant}
    for node in reversed(graph.nodes):
        users = [user for user in node.users if user in wanted]
        if node not in constant or node.op == "get_attr" or not users:
            continue
        if _stays(node, users):
            wanted.add(node)
            continue
        name = f"folded_{node.name}"
        with torch.no_grad():
            traced.register_buffer(name, value(node).detach().clone(memory_format=torch.contiguous_format))
        with graph.inserting_before(node):
            folded = graph.get_attr(name)
        for user in users:
            user.replace_input_with(node, folded)
    graph.eliminate_dead_code()


def _stays(node: fx.Node, users: Sequence[fx.Node]) -> bool:
    """Left as it is: a view that goes into a product or is large, and a large blank; convolutions need all whole."""
    kinds = {user.target for user in users}
    large = node.meta["val"].numel() > _SMALL and aten.convolution.default not in kinds
    return (node.target in _VIEWS and (large or kinds <= _PRODUCTS)) or (node.target in _BLANKS and large)


def _check_mode(module: nn.Module) -> None:
    kinds = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    training = [name for name, part in module.named_modules() if part.training and isinstance(part, kinds)]
    if training:
        raise ExportError(
            f"{type(module).__name__}: got {', '.join(training)} in training mode, expected evaluation mode; call "
            "eval() on it."
        )


def _is_random(node: fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _check(graph: fx.Graph, name: str) -> None:
    """Raise ExportError if a gradient was left, or a result depends on more than the inputs."""
    targets = {str(node.target).removesuffix(".default") for node in graph.nodes}
    left = sorted(target for target in targets if "_backward" in target)
    if left:
        raise ExportError(
            f"{name}: got the gradient of an operator that has none here ({', '.join(left)}), expected operators of "
            "RULES in export/reverse_rules.py; add a rule, or write the forward with other operators."
        )
    random = sorted({str(node.target) for node in graph.nodes if _is_random(node)})
    if random:
        raise ExportError(
            f"{name}: got random numbers ({', '.join(random)}), expected a result of the inputs alone; call eval() on "
            "the module, or make the numbers an input."
        )
