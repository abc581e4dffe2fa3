"""`gicd` is three graphs: `embed` and `segment` run once a picture, `consensus` once a group, between the two.

The gradient that guides `segment` is a product of matrices (`networks.gicd.channel_weights`): no autograd, and no
convolution run backwards. What of it a group shares is computed in `consensus`.
"""

import copy
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from salience.runtime.manifest import TensorSpec
from salience.training.backbone import check_size
from salience.training.networks.gicd import GradientInduced, channel_weights, decode, resize, sharpen

from ..graph import Graph, MethodExport

# The guide is this much larger while it goes through the matrices, which is exact, and brings what would be lost
# in fp16 (steps of 6e-8) into its range.
GUIDE_SCALE = 1024.0


class Embed(nn.Module):
    """Network input (N, 3, H, W) -> F1 to F5, logits (N, K), and the gates (N, D) of VGG16's classifier."""

    def __init__(self, network: GradientInduced) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """See above."""
        found = self.network.embed(image)
        return *found.features, found.logits, *found.gates


class Consensus(nn.Module):
    """A group's summed logits (N, K), less their largest -> the guide of its gradients (N, D)."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)

    def forward(self, total: Tensor) -> Tensor:
        """The softmax, in fp32, times the classifier's last matrix."""
        share = total.float().softmax(dim=1)
        scaled = (share * GUIDE_SCALE).to(self.weight.dtype) @ self.weight
        return scaled.float() / GUIDE_SCALE


class Segment(nn.Module):
    """Outputs of `Embed` but for the logits, and the guide (N, D) -> the map (N, 1, H, W) in [0, 1]."""

    def __init__(self, network: GradientInduced, size: tuple[int, int]) -> None:
        super().__init__()
        self.induction, self.sharpness = network.settings.induction, network.settings.sharpness
        self.reduce, self.blocks, self.size = network.reduce, network.blocks, size
        self.levels = len(network.backbone.levels)
        self.matrices = nn.ParameterList(
            nn.Parameter(matrix.detach(), requires_grad=False) for matrix in network.matrices()
        )

    def forward(self, *given: Tensor) -> Tensor:
        """See above."""
        # What stays between graphs is fp32 where the weights are bfloat16.
        stored = next(self.reduce.parameters()).dtype
        *state, guide = (*(kept.to(stored) for kept in given[:-1]), given[-1])
        features, gates = state[: self.levels], state[self.levels :]
        matrices = tuple(self.matrices)
        kind = matrices[0].dtype if matrices else guide.dtype
        scaled = (guide * GUIDE_SCALE).to(kind)
        weights = channel_weights(scaled, gates, matrices, features[-1].shape[2:], self.induction).float()
        if self.induction == "paper":  # the other forms do not depend on the guide's scale
            weights = weights / GUIDE_SCALE
        maps = decode(self.reduce, self.blocks, features, weights)
        return sharpen(resize(maps[0], self.size).float(), self.sharpness)


class Definition(nn.Module):
    """The network's own map of every picture as a group of its own: network input -> (N, 1, H, W)."""

    def __init__(self, network: GradientInduced) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """See above."""
        saliency: Tensor = self.network(image, torch.arange(len(image))).saliency
        return saliency


class GradientInducedExport(MethodExport):
    """`induction` and `sharpness` stand in for the network's own, see `GradientInducedSettings`; they need no training.

    Induction "off" shows what the group adds.
    """

    induction: Literal["paper", "released", "off"] | None = None
    sharpness: float | None = Field(default=None, gt=0, le=20)

    def graphs(self, network: GradientInduced, size: tuple[int, int]) -> list[Graph]:
        """`embed`, `consensus` and `segment`."""
        check_size(network.backbone.levels, size)
        network = self._chosen(network)
        embed = Embed(network)
        consensus = Consensus(network.classes.weight)
        given = TensorSpec(name="input", dtype="float32", shape=("batch", 3, *size))
        state = _state_specs(network, size)
        (logits,) = (spec for spec in state if spec.name == "logits")
        kept = tuple(spec for spec in state if spec.name != "logits")
        total = logits.model_copy(update={"name": "total"})
        guide = TensorSpec(name="guide", dtype="float32", shape=("batch", consensus.weight.shape[1]))

        def summed(images: Tensor) -> tuple[Tensor]:
            found = network.embed(images).logits
            return (found - found.amax(dim=1, keepdim=True),)

        def embedded(images: Tensor) -> tuple[Tensor, ...]:
            found = network.embed(images)
            return *found.features, *found.gates, consensus(*summed(images))

        return [
            Graph(name="embed", module=embed, reference=embed, inputs=(given,), outputs=state, half=_names(kept)),
            Graph(
                name="consensus",
                module=consensus,
                reference=lambda images: network.guide(summed(images)[0].softmax(dim=1)),
                inputs=(total,),
                outputs=(guide,),
                feeds=summed,
                minds_types=True,
                int8_outputs=(),  # once a group, and its range grows with the group
            ),
            Graph(
                name="segment",
                module=Segment(network, size),
                reference=Definition(network),
                inputs=(*kept, guide),
                outputs=(TensorSpec(name="saliency", dtype="float32", shape=("batch", 1, *size)),),
                feeds=embedded,
                half=_names(kept),
                minds_types=True,
            ),
        ]

    def predict(self, network: GradientInduced, tensor: Tensor, image: NDArray[np.uint8]) -> Tensor:
        """The map of a picture that is a group of its own."""
        return super().predict(self._chosen(network), tensor, image)

    def _chosen(self, network: GradientInduced) -> GradientInduced:
        """The network with the options in place of its settings; its weights are shared."""
        chosen = copy.copy(network)
        chosen.settings = network.settings.model_copy(update=self.model_dump(exclude_none=True))
        return chosen


def _state_specs(network: GradientInduced, size: tuple[int, int]) -> tuple[TensorSpec, ...]:
    """The outputs of `Embed`."""
    levels = network.backbone.levels
    shapes: dict[str, tuple[int, ...]] = {
        f"f{index}": (level.channels, size[0] // level.stride, size[1] // level.stride)
        for index, level in enumerate(levels, start=1)
    }
    shapes["logits"] = (network.classes.out_features,)
    for index, matrix in enumerate(network.matrices(), start=1):
        shapes[f"gate{index}"] = (matrix.shape[0],)
    return tuple(TensorSpec(name=name, dtype="float32", shape=("batch", *shape)) for name, shape in shapes.items())


def _names(specs: Sequence[TensorSpec]) -> tuple[str, ...]:
    return tuple(spec.name for spec in specs)
