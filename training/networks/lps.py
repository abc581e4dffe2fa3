"""Pixels classified by the nearer of two anchors (Zeng et al.: Learning to Promote Saliency Detectors).

Equation, table and section numbers are the paper's. The default form is the authors' released one; what the
paper's text says instead is an option.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from torch import Tensor, nn

from ..backbone import BackboneName, Level, build_backbone


class PromoterSettings(BaseModel):
    """What `Promoter` is made of.

    `stride` is the coarsest of the backbone, later layers are dilated: 4 as released, 8 as in the text.
    `head` "linear" (released) has a 1x1 subpixel convolution and one 1x1 convolution behind the concatenation,
    "nonlinear" (text) 3x3 ones with ReLU, and two behind it. `region` "conv" averages the embeddings of a region's
    pixels, "fc" averages their features and embeds the mean (table 1). `weighting` "soft" weighs pixels by the
    prior, "hard" takes those where it exceeds .5, and a prior that does so nowhere stays as it is. `sharpness`
    multiplies the distances before the sigmoid (1 in the paper); like `weighting` it may be chosen after training.
    `width` and `embedding` are C and D of section 3.3. `stage` "backbone" is the first stage of training: the
    backbone under a small pyramid head, and no embedding.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: BackboneName = "vgg16"
    stride: Annotated[Literal[4, 8], BeforeValidator(int)] = 4  # the command line gives text
    head: Literal["linear", "nonlinear"] = "linear"
    region: Literal["conv", "fc"] = "conv"
    weighting: Literal["soft", "hard"] = "soft"
    sharpness: float = Field(default=1.0, gt=0)
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


class PyramidHead(nn.Module):
    """The head of the first training stage: laterals to one width, summed from the top down, one logit a pixel."""

    def __init__(self, levels: tuple[Level, ...], width: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(level.channels, width, 1) for level in levels)
        self.smooth = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.classifier = nn.Conv2d(width, 1, 1)

    def forward(self, features: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """`features` (N, C, h, w), finest first -> (N, 1, *size)."""
        merged = self.laterals[-1](features[-1])
        for lateral, feature in zip(reversed(self.laterals[:-1]), reversed(features[:-1]), strict=True):
            merged = F.interpolate(merged, size=feature.shape[2:], mode="bilinear") + lateral(feature)
        return F.interpolate(self.classifier(self.smooth(merged)), size=tuple(size), mode="bilinear")


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
            self.pyramid = PyramidHead(levels, width)
            return
        linear = settings.head == "linear"
        self.subpixel = nn.ModuleList(SubpixelConv(level, width, linear=linear) for level in levels)
        joined = width * len(levels)
        if linear:
            self.project: nn.Module = nn.Conv2d(joined, depth, 1)
        else:
            self.project = nn.Sequential(*_conv3x3(joined, depth), *_conv3x3(depth, depth))
        if settings.region == "fc":
            self.region = nn.Linear(joined, depth)
        for part in (self.subpixel, self.project):
            part.apply(_initialise)

    def forward(self, image: Tensor, prior: Tensor, *, samples: int | None = None) -> PromoterOutput:
        """One iteration's classification of all pixels, or of `samples` random ones per image.

        In the first training stage the logits are the pyramid head's, of all pixels.
        """
        if self.settings.stage == "backbone":
            return PromoterOutput(self.pyramid(self.backbone(image), image.shape[2:]).flatten(1))
        logits, pixels = self.classify(self.features(image), prior, samples=samples)
        return PromoterOutput(logits, pixels)

    def classify(self, features: Tensor, prior: Tensor, *, samples: int | None = None) -> tuple[Tensor, Tensor | None]:
        """Logits of all or of `samples` pixels, and which these are, from `features` (N, 5 C, H, W)."""
        weights = region_weights(prior, self.settings.weighting)
        if self.settings.head == "linear":
            # The mean of linear embeddings is the embedding of the mean, and only some pixels need their own.
            rows = _rows(features)
            anchors = self.anchors(weighted_means(rows, weights), weights)
            rows, pixels = _choose(rows, samples)
            embedding = self.linear(rows)
        else:
            rows = _rows(self.project(features))
            anchors = self.anchors(weighted_means(_rows(features), weights), weighted_means(rows, weights))
            embedding, pixels = _choose(rows, samples)
        with torch.autocast(features.device.type, enabled=False):
            return self.settings.sharpness * nearest_anchor(embedding.float(), anchors.float()), pixels

    def promote(self, image: Tensor, prior: Tensor, iterations: int) -> Tensor:
        """The prior (N, 1, H, W) after `iterations` rounds of algorithm 2; one that leaves a region empty stays."""
        features = self.features(image)
        for t in range(iterations):
            found = self.classify(features, prior)[0].sigmoid().view_as(prior)
            usable = (region_weights(prior, self.settings.weighting).sum(dim=2) > 0).all(dim=1)
            prior = torch.where(usable[:, None, None, None], (t * prior + found) / (t + 1), prior)
        return prior

    def features(self, image: Tensor) -> Tensor:
        """The five subpixel maps of `image`, concatenated: (N, 5 C, H, W)."""
        return shuffle(self.maps(image), self.strides)

    def maps(self, image: Tensor) -> list[Tensor]:
        """The subpixel maps before they are shuffled: (N, C * r^2, H / r, W / r), finest first."""
        return [layer(x) for layer, x in zip(self.subpixel, self.backbone(image), strict=True)]

    def anchors(self, features: Tensor, embedding: Tensor) -> Tensor:
        """The anchors (N, 2, D) of two regions from their mean features (N, 2, 5 C) and mean embeddings (N, 2, D).

        Each region embedding needs one of the two; with a linear head the embedding of the mean features is taken.
        """
        if self.settings.region == "fc":
            return cast("Tensor", self.region(features))
        return self.linear(features) if self.settings.head == "linear" else embedding

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


def _initialise(module: nn.Module) -> None:
    """He normal with zero biases."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
