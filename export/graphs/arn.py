"""`arn` is one graph: network input -> saliency map."""

import copy

import torch
from torch import Tensor, nn

from salience.runtime.manifest import TensorSpec
from salience.training.backbone import check_size
from salience.training.networks.arn import AttentionRecurrent, SelfAttention

from ..graph import Graph
from .mirror import MirrorExport

# Scores that one block of queries may hold: 2^21 fp32 numbers are 8 MB, twice while the softmax runs.
BLOCK_SCORES = 1 << 21


def blocked_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """`networks.arn.fused_attention` in operators that every runtime has: block after block of queries.

    Exact, since the softmax of a query needs the scores of that query alone; and the scores of one block are
    all that is held. The products stand in the form softmax(Q K^T) V with one head, which OpenVINO knows and fuses;
    it would hold the blocks of any other form all at once.
    """
    queries, keys, values = (tensor.transpose(1, 2)[:, None] for tensor in (query, key, value))
    blocks = queries.split(max(1, BLOCK_SCORES // query.shape[2]), dim=2)
    # Over so many positions the softmax is taken in fp32.
    attended = [
        torch.softmax((block @ keys.transpose(2, 3)).float(), dim=3).to(value.dtype) @ values for block in blocks
    ]
    return torch.cat(attended, dim=2)[:, 0].transpose(1, 2)


class SaliencyMap(nn.Module):
    """The network as one function: (N, 3, H, W) -> (N, 1, H, W) in [0, 1]."""

    def __init__(self, network: AttentionRecurrent) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """The map."""
        saliency: Tensor = self.network(image).saliency
        return saliency


class AttentionRecurrentExport(MirrorExport):
    """`arn` has the option `mirror`."""

    def graphs(self, network: AttentionRecurrent, size: tuple[int, int]) -> list[Graph]:
        """The graph `saliency`, its attention in blocks, its recurrent layers unrolled."""
        check_size(network.backbone.levels, size)
        blocked = copy.deepcopy(network)
        for module in blocked.modules():
            if isinstance(module, SelfAttention):
                module.attend = blocked_attention
        return [
            Graph(
                name="saliency",
                module=self.whole(SaliencyMap(blocked)),
                reference=self.whole(SaliencyMap(network)),
                inputs=(TensorSpec(name="input", dtype="float32", shape=("batch", 3, *size)),),
                outputs=(TensorSpec(name="saliency", dtype="float32", shape=("batch", 1, *size)),),
            )
        ]
