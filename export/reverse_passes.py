"""Simplifications of traced graphs, before and after `reverse_mode` puts operators in the place of gradients."""

import operator
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload

from salience.runtime.errors import ExportError

from .reverse_rules import RESIZES, channel_scale

aten = torch.ops.aten

_VIEWS = {
    aten.t.default, aten.transpose.int, aten.permute.default, aten.reshape.default,
    aten.expand.default, aten.unsqueeze.default,
}  # fmt: skip
_RESHAPES = {aten.view.default, aten._unsafe_view.default}
_SAME = {aten.detach.default, aten.detach_.default, aten.alias.default, aten.lift_fresh_copy.default}
_PRODUCTS = {aten.mm.default, aten.addmm.default, aten.bmm.default}
_BLANKS = {aten.zeros.default, aten.ones.default, aten.full.default}
# Elements up to which a view or blank is stored rather than made by the runtime.
_SMALL = 1 << 16


def prepare(traced: fx.GraphModule) -> None:
    """Rewrite what is easier to see while gradients are still operators of their own."""
    _merge_duplicates(traced.graph)
    _mask_before_unpooling(traced.graph)
    _scale_reversed_kernels(traced.graph)
    traced.recompile()


def finish(traced: fx.GraphModule, weights: dict[str, Tensor], name: str) -> None:
    """Take in the weights, which are the first inputs, and simplify.

    Raises:
        ExportError: a gradient was left, or random numbers.
    """
    _take_in(traced, weights)
    _merge_duplicates(traced.graph)
    _sink_expansions(traced.graph)
    _simplify(traced.graph)
    _fold(traced)
    _merge_duplicates(traced.graph)
    _check(traced.graph, name)
    traced.recompile()


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
    small: Any = expansion.args[0]
    for user in list(expansion.users):
        others = [node for node in user.all_input_nodes if node is not expansion]
        others = [node for node in others if isinstance(node.meta.get("val"), Tensor)]
        if torch.Tag.pointwise in getattr(user.target, "tags", ()) and others:
            shapes = [node.meta["val"].shape for node in (small, *others)]
            if str(torch.broadcast_shapes(*shapes)) == str(user.meta["val"].shape):
                user.replace_input_with(expansion, small)
        else:
            _expand_later(graph, expansion, user)


def _expand_later(graph: fx.Graph, expansion: fx.Node, user: fx.Node) -> None:
    """Put `user` before the expansion if it works element by element, or reshapes what has one element a sample."""
    small: Any = expansion.args[0]
    value, args, target = small.meta["val"], user.args, cast("OpOverload", user.target)
    sizes: Any = expansion.args[1]
    if user.target in _RESHAPES:
        batch, sizes = sizes[0], user.args[1]
        if list(value.shape[1:]) != [1] * (value.dim() - 1) or str(sizes[0]) != str(batch):
            return
        args, value = (small, [sizes[0], *[1] * (len(sizes) - 1)]), value.reshape(-1, *[1] * (len(sizes) - 1))
    elif torch.Tag.pointwise not in getattr(user.target, "tags", ()):
        return
    with graph.inserting_before(user):
        args, more = fx.node.map_arg((args, user.kwargs), lambda node: small if node is expansion else node)
        early = graph.call_function(target, args, more)
        late = graph.call_function(aten.expand.default, (early, sizes))
    early.meta["val"], late.meta["val"] = value, user.meta["val"]
    user.replace_all_uses_with(late)
    _sink(graph, late)


def _simplify(graph: fx.Graph) -> None:
    """No index of a maximum where none is used, and no size of the batch where a shape can leave one place open."""
    for node in graph.nodes:
        if node.target in _SAME:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif node.target in _RESHAPES:
            # A view may by now be one of an expansion, which has no memory to look at.
            node.target = aten.reshape.default
            if sum(isinstance(size, fx.Node) for size in node.args[1]) == 1:
                node.args = (node.args[0], [-1 if isinstance(size, fx.Node) else size for size in node.args[1]])
        elif node.target in RESIZES.values():
            _name_by_scale(node)
        elif node.target == aten.max_pool2d_with_indices.default and all(u.args[1] == 0 for u in node.users):
            with graph.inserting_before(node):
                plain = graph.call_function(aten.max_pool2d.default, node.args)
            for user in list(node.users):
                user.replace_all_uses_with(plain)
    graph.eliminate_dead_code()


def _name_by_scale(node: fx.Node) -> None:
    """Call the form of a resize that PyTorch's exporter knows as one operator."""
    arguments: Any = node.args
    image, size, *options = arguments
    corners = options[: "nearest" not in str(node.target)]
    scales = options[len(corners) :]
    if len(size) == 2 and len(scales) in (0, 2):
        node.target = cast("OpOverload", node.target).overloadpacket.vec
        node.args = (image, None, *corners, scales) if scales else (image, size, *corners, None)


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
                operation = cast("OpOverload", node.target)
                values[node] = operation(*fx.node.map_arg(node.args, value), **fx.node.map_arg(node.kwargs, value))
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
    return (node.target in _VIEWS and (large or kinds <= _PRODUCTS | _VIEWS)) or (node.target in _BLANKS and large)


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
