"""`lps` as its authors released it, step by step: what the shorter forms of ours are compared with."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from salience.training.networks.lps import Promoter, SubpixelConv


class ReleasedForm(nn.Module):
    """`network`'s function in plain steps, all of them but the backbone anew in every iteration.

    As in the release, the concatenation of the subpixel maps goes into the embedding twice; the doubled layer's
    weights are halves of the network's, so that it computes the same.

    Args:
        network: with a linear head, convolutional regions and soft weighting, the released settings.
        iterations: T of algorithm 2, unless the call gives another.
    """

    def __init__(self, network: Promoter, *, iterations: int = 1) -> None:
        super().__init__()
        settings = network.settings
        released = ("linear", "conv", "soft", "embedding")
        if (got := (settings.head, settings.region, settings.weighting, settings.stage)) != released:
            raise ValueError(f"released form: got {', '.join(got)}; expected {', '.join(released)}.")
        self.backbone = network.backbone
        self.subpixel = network.subpixel
        self.embed = _doubled(network.project)
        self.iterations = iterations
        self.train(network.training)

    def forward(self, image: Tensor, prior: Tensor, iterations: int | None = None) -> Tensor:
        """`image` (N, 3, H, W) normalised and `prior` (N, 1, H, W) in [0, 1] -> the promoted prior."""
        taps = self.backbone(image)
        for t in range(self.iterations if iterations is None else iterations):
            prior = self.step(taps, prior, t)
        return prior

    def step(self, taps: Sequence[Tensor], prior: Tensor, t: int) -> Tensor:
        """Iteration `t`, counted from 0, from the backbone's five levels: the next prior (eq. 5)."""
        maps = [self._upsample(layer, tap) for layer, tap in zip(self.subpixel, taps, strict=True)]
        joined = torch.cat(maps, dim=1)
        embedding = self.embed(torch.cat([joined, joined], dim=1))
        salient, background = (_distance(embedding, _mean(embedding, weight)) for weight in (prior, 1 - prior))
        found = torch.sigmoid(background - salient)
        return t / (t + 1) * prior + 1 / (t + 1) * found

    def _upsample(self, layer: nn.Module, tap: Tensor) -> Tensor:
        """One subpixel head: (N, C, H / r, W / r) -> (N, width, H, W)."""
        assert isinstance(layer, SubpixelConv)
        return F.pixel_shuffle(layer.norm(layer.conv(tap)), layer.stride)


def _doubled(project: nn.Module) -> nn.Conv2d:
    """The 1x1 convolution `project` for its input concatenated with itself."""
    assert isinstance(project, nn.Conv2d)
    doubled = nn.Conv2d(2 * project.in_channels, project.out_channels, 1, device=project.weight.device)
    with torch.no_grad():
        doubled.weight.copy_(torch.cat([project.weight, project.weight], dim=1) / 2)
        assert project.bias is not None
        assert doubled.bias is not None
        doubled.bias.copy_(project.bias)
    return doubled


def _mean(embedding: Tensor, weight: Tensor) -> Tensor:
    """Anchor of a region: `embedding` (N, D, H, W) averaged by `weight` (N, 1, H, W) -> (N, D, 1, 1)."""
    return (embedding * weight).sum(dim=(2, 3), keepdim=True) / weight.sum(dim=(2, 3), keepdim=True)


def _distance(embedding: Tensor, anchor: Tensor) -> Tensor:
    """Euclidean distance of every pixel: (N, 1, H, W)."""
    return (embedding - anchor).square().sum(dim=1, keepdim=True).sqrt()
