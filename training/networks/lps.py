"""Pixels classified by the nearer of two anchors (Zeng et al.: Learning to Promote Saliency Detectors).

Equation, table and section numbers are the paper's. The default form is the authors' released one; what the
paper's text says instead is an option.
"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from torch import Tensor, nn

from ..backbone import BackboneName, Level, build_backbone

_REDUCED = 32  # channels of a level in the released head of stage one


class PromoterSettings(BaseModel):
    """What `Promoter` is made of.

    `stride` is the coarsest of the backbone, later layers are dilated: 4 as released, 8 as in the text.
    `head` "linear" (released) has a 1x1 subpixel convolution and one 1x1 convolution behind the concatenation, which
    embeds pixels and regions. "nonlinear" (text) has 3x3 ones with ReLU, two behind the concatenation for pixels, and
    separate layers for regions (section 3.4): two more such convolutions, or one linear layer. `region` "conv"
    averages the embeddings of a region's pixels, "fc" averages their features and embeds the mean (table 1).
    `weighting` "soft" weighs pixels by the prior; "hard" takes those where it exceeds .5, and a prior that does so
    nowhere is returned unchanged. `sharpness` multiplies the distances before the sigmoid (1 in the paper).
    `prior_votes` is the weight of the prior in the running mean of algorithm 2, counted in iterations: 0 in the
    paper, where the first iteration replaces the prior. `weighting`, `sharpness` and `prior_votes` may be chosen
    after training. `width` and `embedding` are C and D of section 3.3. `stage` "backbone" is the first stage of
    training: the backbone under a small head that predicts the map, and no embedding.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: BackboneName = "vgg16"
    stride: Annotated[Literal[4, 8], BeforeValidator(int)] = 4  # the command line gives text
    head: Literal["linear", "nonlinear"] = "linear"
    region: Literal["conv", "fc"] = "conv"
    weighting: Literal["soft", "hard"] = "soft"
    sharpness: float = Field(default=1.0, gt=0)
    prior_votes: float = Field(default=0.0, ge=0)
    width: int = Field(default=64, ge=1)
    embedding: int = Field(default=512, ge=1)
    stage: Literal["backbone", "embedding"] = "embedding"


class PromoterOutput(NamedTuple):
    """Logits d2 - d1 (eq. 3), times the sharpness: of all pixels, (N, H * W), or of `pixels` (N, P), flat indices."""

    logits: Tensor
    pixels: Tensor | None = None


class SubpixelConv(nn.Module):
    """Convolution to width * r^2 channels, with batch norm; `shuffle` turns it into `width` at r times the size."""

    def __init__(self, level: Level, width: int, *, linear: bool) -> None:
        super().__init__()
        channels, side = width * level.stride**2, 1 if linear else 3
        self.conv = nn.Conv2d(level.channels, channels, side, padding=side // 2, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.activation = nn.Identity() if linear else nn.ReLU()
        self.stride = level.stride

    def forward(self, x: Tensor) -> Tensor:
        """`x` (N, C, h, w) -> (N, width * r^2, h, w)."""
        found: Tensor = self.activation(self.norm(self.conv(x)))
        return found


def shuffle(maps: Sequence[Tensor], strides: Sequence[int]) -> Tensor:
    """Each map (N, C * r^2, H / r, W / r) pixel-shuffled by its stride r, and all concatenated: (N, sum C, H, W)."""
    return torch.cat([F.pixel_shuffle(x, stride) for x, stride in zip(maps, strides, strict=True)], dim=1)


class CascadeHead(nn.Module):
    """The released head of the first training stage, on the three coarsest levels.

    Each level is reduced to 32 channels. From the coarsest on, a 1x1 convolution predicts one logit per position from
    these and the prediction of the level before.
    """

    def __init__(self, levels: tuple[Level, ...]) -> None:
        super().__init__()
        coarse = levels[:-4:-1]
        self.reduce = nn.ModuleList(nn.Conv2d(level.channels, _REDUCED, 1) for level in coarse)
        self.predict = nn.ModuleList(nn.Conv2d(_REDUCED + (index > 0), 1, 1) for index in range(len(coarse)))
        self.apply(_initialise_head)

    def forward(self, features: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """`features` (N, C, h, w), finest first -> logits (N, 1, *size)."""
        reduced = [layer(feature) for layer, feature in zip(self.reduce, features[:-4:-1], strict=True)]
        logits: Tensor = self.predict[0](reduced[0])
        for layer, feature in zip(self.predict[1:], reduced[1:], strict=True):
            logits = F.interpolate(logits, size=feature.shape[2:], mode="bilinear")
            logits = layer(torch.cat([feature, logits], dim=1))
        return F.interpolate(logits, size=tuple(size), mode="bilinear")


class Promoter(nn.Module):
    """Embeds pixels and regions; a pixel is as salient as it is nearer to the salient region's anchor.

    Input (N, 3, H, W) normalised, sides multiples of the coarsest stride, and a prior (N, 1, H, W) in [0, 1].
    """

    settings_type: ClassVar = PromoterSettings

    def __init__(self, settings: PromoterSettings) -> None:
        super().__init__()
        self.settings = settings
        self.backbone = build_backbone(settings.backbone, coarsest=settings.stride)
        levels, width, depth = self.backbone.levels, settings.width, settings.embedding
        self.strides = tuple(level.stride for level in levels)
        if settings.stage == "backbone":
            self.cascade = CascadeHead(levels)
            return
        linear = settings.head == "linear"
        self.subpixel = nn.ModuleList(SubpixelConv(level, width, linear=linear) for level in levels)
        joined = width * len(levels)
        if linear:
            self.project: nn.Module = nn.Conv2d(joined, depth, 1)
        else:
            self.project = nn.Sequential(*_conv3x3(joined, depth), *_conv3x3(depth, depth))
        parts: list[nn.Module] = [self.subpixel, self.project]
        if settings.region == "fc":
            self.region: Any = nn.Linear(joined, depth)
        elif not linear:
            self.region = nn.Sequential(*_conv3x3(joined, depth), *_conv3x3(depth, depth))
            parts.append(self.region)
        for part in parts:
            part.apply(_initialise)

    def forward(self, image: Tensor, prior: Tensor, *, samples: int | None = None) -> PromoterOutput:
        """One iteration's classification of all pixels, or of `samples` random ones per image.

        In the first training stage the logits are those of `CascadeHead`, of all pixels.
        """
        if self.settings.stage == "backbone":
            return PromoterOutput(self.cascade(self.backbone(image), image.shape[2:]).flatten(1))
        logits, pixels = self.classify(self.features(image), prior, samples=samples)
        return PromoterOutput(logits, pixels)

    def classify(self, features: Tensor, prior: Tensor, *, samples: int | None = None) -> tuple[Tensor, Tensor | None]:
        """Logits of all or of `samples` pixels, and which these are, from `features` (N, 5 C, H, W)."""
        weights = region_weights(prior, self.settings.weighting)
        anchors = self.anchors(features, weights)
        if self.settings.head == "linear":
            rows, pixels = _choose(_rows(features), samples)
            embedding = self.linear(rows)
        else:
            embedding, pixels = _choose(_rows(self.project(features)), samples)
        with torch.autocast(features.device.type, enabled=False):
            return self.settings.sharpness * nearest_anchor(embedding.float(), anchors.float()), pixels

    def promote(self, image: Tensor, prior: Tensor, iterations: int) -> Tensor:
        """The prior (N, 1, H, W) after `iterations` of algorithm 2; one that leaves a region empty is unchanged."""
        features, votes = self.features(image), self.settings.prior_votes
        for t in range(iterations):
            found = self.classify(features, prior)[0].sigmoid().view_as(prior)
            usable = (region_weights(prior, self.settings.weighting).sum(dim=2) > 0).all(dim=1)
            mean = ((t + votes) * prior + found) / (t + votes + 1)
            prior = torch.where(usable[:, None, None, None], mean, prior)
        return prior

    def features(self, image: Tensor) -> Tensor:
        """The five subpixel maps of `image`, concatenated: (N, 5 C, H, W)."""
        return shuffle(self.maps(image), self.strides)

    def maps(self, image: Tensor) -> list[Tensor]:
        """The subpixel maps before they are shuffled: (N, C * r^2, H / r, W / r), finest first."""
        return [layer(x) for layer, x in zip(self.subpixel, self.backbone(image), strict=True)]

    def anchors(self, features: Tensor, weights: Tensor) -> Tensor:
        """The anchors (N, 2, D) of two regions from `features` (N, 5 C, H, W) and pixel weights (N, 2, H * W)."""
        if self.settings.head == "nonlinear" and self.settings.region == "conv":
            return weighted_means(_rows(self.region(features)), weights)
        # The mean of linear embeddings is the embedding of the mean.
        means = weighted_means(_rows(features), weights)
        return cast("Tensor", self.region(means)) if self.settings.region == "fc" else self.linear(means)

    def linear(self, rows: Tensor) -> Tensor:
        """The linear head on (..., 5 C) -> (..., D)."""
        project = cast("nn.Conv2d", self.project)
        return F.linear(rows, project.weight.flatten(1), project.bias)


def region_weights(prior: Tensor, weighting: str) -> Tensor:
    """`prior` (N, 1, H, W) in [0, 1] -> the weight of each pixel in the two regions, (N, 2, H * W)."""
    salient = prior.flatten(2)
    if weighting == "hard":
        salient = (salient > 0.5).to(prior.dtype)
    return torch.cat([salient, 1 - salient], dim=1)


def weighted_means(rows: Tensor, weights: Tensor) -> Tensor:
    """`rows` (N, P, C) averaged by `weights` (N, 2, P) -> (N, 2, C); 0 where a region has no weight."""
    share = weights / weights.sum(dim=2, keepdim=True).clamp(min=1e-6)
    return share.to(rows.dtype) @ rows


def nearest_anchor(rows: Tensor, anchors: Tensor) -> Tensor:
    """d2 - d1 of every pixel (eq. 3): embeddings `rows` (N, P, D), `anchors` (N, 2, D) -> (N, P)."""
    distance = torch.cdist(rows, anchors, compute_mode="donot_use_mm_for_euclid_dist")
    return distance[..., 1] - distance[..., 0]


def _rows(maps: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H * W, C), pixel by pixel; a view where the channels are last in memory."""
    return maps.permute(0, 2, 3, 1).flatten(1, 2)


def _choose(rows: Tensor, samples: int | None) -> tuple[Tensor, Tensor | None]:
    """`samples` random pixels of (N, P, C), the same places in every image, and their indices (N, samples)."""
    if samples is None or samples >= rows.shape[1]:
        return rows, None
    pixels = torch.randperm(rows.shape[1], device=rows.device)[:samples]
    return rows[:, pixels], pixels.expand(len(rows), -1)


def _conv3x3(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


def _initialise_head(module: nn.Module) -> None:
    """Xavier normal with zero biases, as released."""
    if isinstance(module, nn.Conv2d):
        nn.init.xavier_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _initialise(module: nn.Module) -> None:
    """He normal with zero biases."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
