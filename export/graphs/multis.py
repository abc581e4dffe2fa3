"""`multis` is one graph: network input -> fused saliency map."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from salience.runtime.manifest import TensorSpec
from salience.training.backbone import check_size
from salience.training.networks.multis import MultiScale, maxout_fusion

from ..graph import Graph, MethodExport
from ..operators import maxout_fusion_node

Fusion = Callable[[Sequence[Tensor], Tensor], Tensor]


class FusedMap(nn.Module):
    """The network with `fusion` behind it: (N, 3, H, W) -> (N, 1, H, W) in [0, 1]."""

    def __init__(self, network: MultiScale, fusion: Fusion) -> None:
        super().__init__()
        self.network = network
        self.fusion = fusion

    def forward(self, image: Tensor) -> Tensor:
        """The fused map."""
        output = self.network(image)
        return self.fusion(output.maps, output.weights.sigmoid())


class MultiScaleExport(MethodExport):
    """`multis` has no options."""

    def graphs(self, network: MultiScale, size: tuple[int, int]) -> list[Graph]:
        """The graph `saliency`, its maxout fusion a node of the `salience` domain."""
        check_size(network.backbone.levels, size)
        return [
            Graph(
                name="saliency",
                module=FusedMap(network, maxout_fusion_node),
                reference=FusedMap(network, maxout_fusion),
                inputs=(TensorSpec(name="input", dtype="float32", shape=("batch", 3, *size)),),
                outputs=(TensorSpec(name="saliency", dtype="float32", shape=("batch", 1, *size)),),
            )
        ]
