"""What leaves export for `arn`: attention in blocks, never the whole matrix of scores."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from salience.export.graph import Graph
from salience.export.graphs import arn
from salience.export.tracing import trace
from salience.runtime.manifest import TensorSpec
from salience.training.networks.arn import SelfAttention, fused_attention


@pytest.mark.parametrize("positions", [5, 36, 100])
def test_blocks_give_the_attention_of_the_whole(positions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Blocks of 7 queries, the last one smaller.
    monkeypatch.setattr(arn, "BLOCK_SCORES", 7 * positions + 3)
    query, key, value = torch.randn(2, 4, positions), torch.randn(2, 4, positions), torch.randn(2, 32, positions)
    found = arn.blocked_attention(query, key, value)
    # Sums of another order.
    torch.testing.assert_close(found, fused_attention(query, key, value), rtol=1e-5, atol=1e-5)


def test_no_tensor_of_the_graph_holds_all_scores() -> None:
    """At 112 x 112, level 2 of vgg16, all scores would be 157 million numbers."""
    attention = SelfAttention(16)
    attention.attend = arn.blocked_attention
    side = 112
    spec = TensorSpec(name="x", dtype="float32", shape=("batch", 16, side, side))
    graph = Graph("attention", attention, attention, (spec,), (spec.model_copy(update={"name": "y"}),))
    model = onnx.shape_inference.infer_shapes(trace(graph, "fp32"), strict_mode=True, data_prop=True)
    shapes = [[d.dim_value for d in v.type.tensor_type.shape.dim if d.dim_value] for v in model.graph.value_info]
    largest = max(torch.Size(shape).numel() for shape in shapes)
    assert arn.BLOCK_SCORES // 2 < largest <= arn.BLOCK_SCORES
    products = [node for node in model.graph.node if node.op_type == "MatMul"]
    assert len(products) == 2 * -(-(side**2) // (arn.BLOCK_SCORES // side**2))


def test_the_network_keeps_its_own_attention(checkpoints: dict[str, Path]) -> None:
    """The exporter changes a copy: the reference must be the network as it was trained."""
    from salience.training.checkpoint import load_checkpoint

    _, network = load_checkpoint(checkpoints["arn"])
    (graph,) = arn.AttentionRecurrentExport().graphs(network, (64, 96))  # type: ignore[arg-type]
    forms: Callable[[nn.Module], set[object]] = lambda module: {  # noqa: E731
        m.attend for m in module.modules() if isinstance(m, SelfAttention)
    }
    assert forms(network) == {fused_attention}
    assert forms(graph.module) == {arn.blocked_attention}
    assert isinstance(graph.reference, nn.Module)
    assert forms(graph.reference) == {fused_attention}
