"""`multis` is one graph: network input -> fused saliency map."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from salience.runtime.manifest import TensorSpec
from salience.training.backbone import check_size
from salience.training.networks.multis import FUSIONS, MultiScale, maxout_fusion

from ..graph import Graph
from ..operators import maxout_fusion_node
from .mirror import MirrorExport

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
        return self.fusion(output.maps, output.shares)


class MultiScaleExport(MirrorExport):
    """`multis` has the option `mirror`."""

    def graphs(self, network: MultiScale, size: tuple[int, int]) -> list[Graph]:
        """The graph `saliency`, its maxout fusion a node of the `salience` domain."""
        check_size(network.backbone.levels, size)
        plain = FUSIONS[network.settings.fusion]
        return [
            Graph(
                name="saliency",
                module=self.whole(FusedMap(network, maxout_fusion_node if plain is maxout_fusion else plain)),
                reference=self.whole(FusedMap(network, plain)),
                inputs=(TensorSpec(name="input", dtype="float32", shape=("batch", 3, *size)),),
                outputs=(TensorSpec(name="saliency", dtype="float32", shape=("batch", 1, *size)),),
            )
        ]
