"""Multi-scale network with predicted scale weights and maxout fusion (Liang, Ma, Liu: MultiS).

Equation and table numbers are the paper's, "Deep Learning Based Salient Region Detection".
"""

import functools
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from ..backbone import BackboneName, build_backbone, steps_up

Fusion = Literal["maxout", "mean", "product", "s2", "s3", "s4"]


_LAST_STD = 0.01


class MultiScaleSettings(BaseModel):
    """What `MultiScale` is made of; the defaults are the paper's.

    `width` is the channel count of every deconvolution and lateral convolution, `head_width` that of the map heads'
    deconvolutions (None: `width`), `hidden` that of the weight head. `norm` puts batch norm behind the
    deconvolutions and laterals and a ReLU behind each top-down sum (not in the paper; it folds away at inference).
    `dropout` acts in the weight head, `decoder_dropout` behind each lateral convolution and each deconvolution but
    the last of a map head (the paper has .5 "behind every layer"). For ablations: without `scale_weights` all maps
    weigh alike; `fusion` "mean" takes the weighted mean and "product" the product in place of the maximum, "s2",
    "s3" and "s4" one map alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: BackboneName = "vgg16"
    width: int = Field(default=20, ge=1)
    head_width: int | None = Field(default=None, ge=1)
    hidden: int = Field(default=256, ge=1)
    norm: bool = False
    dropout: float = Field(default=0.5, ge=0, lt=1)
    decoder_dropout: float = Field(default=0.0, ge=0, lt=1)
    scale_weights: bool = True
    fusion: Fusion = "maxout"


class MultiScaleOutput(NamedTuple):
    """Logits of the maps S2, S3, S4, each (N, 1, H, W), and of their weights (N, 3), if there are any; how to fuse."""

    maps: tuple[Tensor, Tensor, Tensor]
    weights: Tensor | None
    fusion: Fusion = "maxout"

    @property
    def shares(self) -> Tensor:
        """The maps' weights (N, 3) in [0, 1]."""
        if self.weights is None:
            return self.maps[0].new_ones(len(self.maps[0]), len(self.maps))
        return self.weights.sigmoid()

    @property
    def saliency(self) -> Tensor:
        """The fused map S, (N, 1, H, W) in [0, 1] (eq. 2)."""
        return FUSIONS[self.fusion](self.maps, self.shares)


def maxout_fusion(maps: Sequence[Tensor], weights: Tensor) -> Tensor:
    """The largest of the weighted maps at each pixel (eq. 2).

    Args:
        maps: K logit tensors (N, 1, H, W).
        weights: (N, K) in [0, 1].

    Returns:
        (N, 1, H, W) in [0, 1].
    """
    scaled = [m.sigmoid() * w[:, None, None, None] for m, w in zip(maps, weights.unbind(dim=1), strict=True)]
    return functools.reduce(torch.maximum, scaled)


def mean_fusion(maps: Sequence[Tensor], weights: Tensor) -> Tensor:
    """The mean of the maps at each pixel, by their weights; shapes as in `maxout_fusion`."""
    shares = (weights / weights.sum(dim=1, keepdim=True))[:, :, None, None]
    mean: Tensor = (torch.cat([m.sigmoid() for m in maps], dim=1) * shares).sum(dim=1, keepdim=True)
    return mean


def product_fusion(maps: Sequence[Tensor], weights: Tensor) -> Tensor:
    """The product of the weighted maps at each pixel; shapes as in `maxout_fusion`."""
    scaled = [m.sigmoid() * w[:, None, None, None] for m, w in zip(maps, weights.unbind(dim=1), strict=True)]
    return functools.reduce(torch.mul, scaled)


def _single(index: int) -> Callable[[Sequence[Tensor], Tensor], Tensor]:
    def fuse(maps: Sequence[Tensor], weights: Tensor) -> Tensor:
        return maps[index].sigmoid()

    return fuse


FUSIONS: dict[str, Callable[[Sequence[Tensor], Tensor], Tensor]] = {
    "maxout": maxout_fusion, "mean": mean_fusion, "product": product_fusion,
    "s2": _single(0), "s3": _single(1), "s4": _single(2),
}  # fmt: skip


class MultiScale(nn.Module):
    """Maps at three scales of a top-down pyramid, and the weight of each, from one backbone pass.

    Input (N, 3, H, W) normalised, sides multiples of the coarsest stride; output `MultiScaleOutput`.
    """

    settings_type: ClassVar = MultiScaleSettings
    maps_single_images: ClassVar = True

    def __init__(self, settings: MultiScaleSettings) -> None:
        super().__init__()
        self.settings = settings
        self.backbone = build_backbone(settings.backbone)
        _, f2, f3, f4, f5 = self.backbone.levels
        width, norm = settings.width, settings.norm
        self.top_down = nn.ModuleList(_deconv(c, width, norm=norm) for c in (f5.channels, width, width))
        self.laterals = nn.ModuleList(_lateral(level.channels, width, norm=norm) for level in (f4, f3, f2))
        self.dropout = nn.Dropout2d(settings.decoder_dropout)
        self.merge = nn.ReLU() if norm else nn.Identity()
        self.heads = nn.ModuleList(_map_head(settings, steps_up(level)) for level in (f4, f3, f2))
        for part in (self.top_down, self.laterals, self.heads):
            part.apply(_initialise)
        if settings.scale_weights:
            self.scale_weights = nn.Sequential(
                nn.Linear(f5.channels, settings.hidden),
                nn.ReLU(),
                nn.Dropout(settings.dropout),
                nn.Linear(settings.hidden, 3),
            )
            self.scale_weights.apply(_initialise)

    def forward(self, image: Tensor) -> MultiScaleOutput:
        """Map and weight logits of `image` (N, 3, H, W)."""
        _, f2, f3, f4, f5 = self.backbone(image)
        merged, maps = f5, []
        for up, lateral, head, feature in zip(self.top_down, self.laterals, self.heads, (f4, f3, f2), strict=True):
            merged = self.merge(self.dropout(up(merged)) + self.dropout(lateral(feature)))
            maps.append(head(merged))
        weights = self.scale_weights(f5.mean(dim=(2, 3))) if self.settings.scale_weights else None
        return MultiScaleOutput((maps[2], maps[1], maps[0]), weights, self.settings.fusion)


def _deconv(inputs: int, outputs: int, *, norm: bool) -> nn.Module:
    layer = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=not norm)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs)) if norm else layer


def _lateral(inputs: int, outputs: int, *, norm: bool) -> nn.Module:
    layer = nn.Conv2d(inputs, outputs, 1, bias=not norm)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs)) if norm else layer


def _map_head(settings: MultiScaleSettings, steps: int) -> nn.Sequential:
    """`steps` deconvolutions, ReLU between, the last to one channel."""
    inputs, width = settings.width, settings.head_width or settings.width
    layers: list[nn.Module] = []
    for _ in range(steps - 1):
        layers += [_deconv(inputs, width, norm=settings.norm), nn.ReLU()]
        if settings.decoder_dropout:
            layers.append(nn.Dropout2d(settings.decoder_dropout))
        inputs = width
    return nn.Sequential(*layers, _deconv(inputs, 1, norm=False))


def _initialise(module: nn.Module) -> None:
    """He normal for every convolution and linear layer (the paper names no initial values)."""
    if isinstance(module, nn.Conv2d | nn.Linear | nn.ConvTranspose2d):
        if isinstance(module, nn.ConvTranspose2d):
            # Each output of a stride-2 4x4 deconvolution sums over 2 x 2 inputs of every channel. A map's logits
            # start small: large ones on wrong pixels would be slow to mend (the paper names no initial values).
            std = _LAST_STD if module.out_channels == 1 else (2 / (4 * module.in_channels)) ** 0.5
            nn.init.normal_(module.weight, std=std)
        else:
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
