"""Gradient-induced co-saliency detection (Zhang, Jin, Xu, Cheng: GICD); equation numbers are the paper's."""

from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple, Self, cast

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from ..backbone import BackboneName, build_backbone

# VGG16's classifier takes this many positions a side.
POOLED = 7


class GradientInducedSettings(BaseModel):
    """Settings of `GradientInduced`.

    Attributes:
        backbone: the feature extractor and its classifier.
        width: channels of the decoder.
        induction: how the gradient of a channel becomes its weight. "released" (the authors' code) averages the
            gradient, keeps the positive part, and rescales the weights of an image to [0, 1]. "paper" (eq. 1) averages
            the positive part of the gradient; its weights are near 1e-3 to 1e-6, so the deep features hardly reach the
            decoder. "off" weighs all channels alike and ignores the group.
        pooling: VGG16's pooling before the consensus: "max" as its classifier was trained and as released, "average"
            as in the path of the gradient. Other backbones have one pooling only.
        norm: put batch norm behind the decoder's convolutions; it folds away at inference. Not in the paper.
        dropout: share of the channels of F5 that training leaves out. Not in the paper.
        sharpness: factor on the logits of the finest map at inference. Not in the paper.
        retaining: weigh the features of a finer level by the coarser map (eq. 2).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: BackboneName = "vgg16"
    width: int = Field(default=64, ge=1)
    induction: Literal["paper", "released", "off"] = "released"
    pooling: Literal["max", "average"] = "max"
    norm: bool = False
    dropout: float = Field(default=0.0, ge=0, lt=1)
    sharpness: float = Field(default=1.0, gt=0, le=20)
    retaining: bool = True


class GradientInducedOutput(NamedTuple):
    """The decoder's maps S1 to S4, finest first, each (N, 1, h, w) in [0, 1], the input's size, and the sharpness."""

    maps: tuple[Tensor, ...]
    size: tuple[int, int]
    sharpness: float = 1.0

    @property
    def saliency(self) -> Tensor:
        """S1 at the input's size, (N, 1, H, W) in [0, 1]."""
        return sharpen(resize(self.maps[0], self.size), self.sharpness)


class Embedding(NamedTuple):
    """What one pass over a picture gives.

    Attributes:
        features: F1 to F5, (N, C, h, w).
        logits: e_n, (N, 1000).
        gates: which hidden units of the classifier the gradient passes, each (N, D) of zeros and ones, last layer
            first; none where the classifier is one linear layer.
    """

    features: tuple[Tensor, ...]
    logits: Tensor
    gates: tuple[Tensor, ...]


class GradientInduced(nn.Module):
    """Segments what a group of pictures has in common.

    Input (N, 3, H, W) normalised, sides multiples of the coarsest stride; the pictures of one group have the same
    number in `group`. A group may have any size from 1.
    """

    settings_type: ClassVar = GradientInducedSettings

    def __init__(self, settings: GradientInducedSettings) -> None:
        super().__init__()
        self.settings = settings
        self.backbone = build_backbone(settings.backbone, head=True)
        *finer, top = self.backbone.levels
        width = settings.width
        self.reduce = nn.Sequential(
            nn.Dropout2d(settings.dropout), nn.Conv2d(top.channels, width, 1), nn.ReLU(), nn.Conv2d(width, width, 1)
        )
        self.blocks = nn.ModuleList(
            RetainingBlock(level.channels, width, norm=settings.norm, retaining=settings.retaining)
            for level in reversed(finer)
        )
        for part in (self.reduce, self.blocks):
            part.apply(_initialise)

    def train(self, mode: bool = True) -> Self:
        """As usual, but for the backbone: its batch statistics stay those that its classifier was trained with."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(
        self, image: Tensor | Embedding, group: Tensor | None = None, size: tuple[int, int] | None = None
    ) -> GradientInducedOutput:
        """Maps of pictures, which belong to the groups numbered in `group` (N,); None: all to one.

        `image` may be what `embed` made of pictures of `size`.
        """
        if isinstance(image, Tensor):
            size = (image.shape[2], image.shape[3])
            image = self.embed(image)
        if size is None:
            raise ValueError("an embedding does not say the size of its pictures: pass size")
        if group is None:
            group = torch.zeros(len(image.logits), dtype=torch.int64, device=image.logits.device)
        return self.segment(image, group, size)

    def segment(self, embedding: Embedding, group: Tensor, size: tuple[int, int]) -> GradientInducedOutput:
        """The second pass: maps for pictures of `size`, from the groups' consensus."""
        features, induction = embedding.features, self.settings.induction
        with torch.no_grad(), torch.autocast(group.device.type, enabled=False):
            guide = self.guide(consensus(embedding.logits.float(), group)[group])
            weights = channel_weights(guide, embedding.gates, self.matrices(), features[-1].shape[2:], induction)
        maps = decode(self.reduce, self.blocks, features, weights)
        return GradientInducedOutput(maps, size, self.settings.sharpness)

    def embed(self, image: Tensor) -> Embedding:
        """The first pass."""
        features = self.backbone(image)
        head, top = self.backbone.classifier, features[-1]
        if not self._hidden():
            return Embedding(tuple(features), head(top.mean(dim=(2, 3))), ())
        first, second = cast("nn.Linear", head[0]), cast("nn.Linear", head[3])
        averaged = average_pool(top).flatten(1)
        hidden = first(averaged).relu()
        gates = (second(hidden) > 0, hidden > 0)
        pooled = averaged if self.settings.pooling == "average" else average_pool(F.max_pool2d(top, 2)).flatten(1)
        return Embedding(tuple(features), head(pooled), tuple(gate.to(top.dtype) for gate in gates))

    def guide(self, consensus: Tensor) -> Tensor:
        """The part of the gradient of c = e . e_n that all pictures of a group share: (N, 1000) -> (N, D)."""
        return consensus @ cast("nn.Linear", self._head()[-1]).weight.to(consensus.dtype)

    def matrices(self) -> tuple[Tensor, ...]:
        """What `channel_weights` multiplies the guide with, last layer first; none for one linear layer.

        In the released order the average over positions comes before the ReLU, so it is the first layer's matrix
        that can be averaged, (4096, 25088) -> (4096, 512), instead of its product.
        """
        if not self._hidden():
            return ()
        head = self._head()
        first, second = cast("nn.Linear", head[0]).weight, cast("nn.Linear", head[3]).weight
        if self.settings.induction != "paper":
            first = first.unflatten(1, (-1, POOLED**2)).sum(dim=2)
        return second, first

    @property
    def classes(self) -> nn.Linear:
        """The classifier's last layer."""
        return cast("nn.Linear", self._head()[-1])

    def _head(self) -> nn.Sequential:
        return self.backbone.classifier

    def _hidden(self) -> bool:
        """Whether the classifier has hidden layers (VGG16's), not one linear layer behind an average."""
        return sum(isinstance(layer, nn.Linear) for layer in self._head()) > 1


def channel_weights(
    guide: Tensor, gates: Sequence[Tensor], matrices: Sequence[Tensor], size: Sequence[int], induction: str
) -> Tensor:
    """The weights (N, C, 1, 1) of the channels of F5: its gradient of c = e . e_n, averaged (eq. 1).

    In closed form, with no autograd: backwards through a linear layer is a product with its weight, through a ReLU
    the mask of what was positive, through an average an even share.

    Args:
        guide: (N, D), see `GradientInduced.guide`.
        gates: see `Embedding`.
        matrices: see `GradientInduced.matrices`.
        size: (h, w) of F5.
        induction: see `GradientInducedSettings`.
    """
    if induction == "off":
        channels = matrices[-1].shape[1] if matrices else guide.shape[1]
        return torch.ones(guide.shape[0], channels, 1, 1, dtype=guide.dtype, device=guide.device)
    gradient = guide
    for gate, matrix in zip(gates, matrices, strict=True):
        gradient = (gradient * gate.to(guide.dtype)) @ matrix.to(guide.dtype)
    if matrices and induction == "paper":
        rows, columns = (averaging(side, POOLED).to(guide) for side in size)
        pooled = gradient.unflatten(1, (-1, POOLED, POOLED))
        gradient = (rows.T @ pooled @ columns).relu().mean(dim=(2, 3))
    else:
        gradient = gradient.relu() / (size[0] * size[1])
        if induction == "released":
            gradient = stretch(gradient)
    return gradient[:, :, None, None]


def decode(reduce: nn.Module, blocks: nn.ModuleList, features: Sequence[Tensor], weights: Tensor) -> tuple[Tensor, ...]:
    """Maps S1 to S4 (N, 1, h, w) from F1 to F5 and the weights (N, C, 1, 1) of the channels of F5 (eq. 2)."""
    *finer, top = features
    # Weights of the paper's form are small: products with them would be lost in half precision.
    with torch.autocast(top.device.type, enabled=False):
        induced = top.float() * weights
        saliency = stretch(induced.mean(dim=1).relu().flatten(1)).unflatten(1, (1, *top.shape[2:]))
        pyramid = reduce(induced.to(next(reduce.parameters()).dtype))
    found: list[Tensor] = []
    for block, feature in zip(blocks, reversed(finer), strict=True):
        pyramid, saliency = block(pyramid, saliency.to(feature.dtype), feature)
        found.insert(0, saliency)
    return tuple(found)


class RetainingBlock(nn.Module):
    """One step of the attention retaining module (eq. 2)."""

    def __init__(self, channels: int, width: int, *, norm: bool, retaining: bool = True) -> None:
        super().__init__()
        self.retaining = retaining
        self.reduce = nn.Sequential(*_conv(channels, width, norm=norm), nn.ReLU(), *_conv(width, width, norm=norm))
        self.enhance = nn.Sequential(*_conv(width, width, norm=norm), nn.ReLU(), *_conv(width, width, norm=norm))
        self.detect = nn.Sequential(
            *_conv(width, width, norm=norm),
            nn.ReLU(),
            *_conv(width, width, norm=norm),
            nn.ReLU(),
            nn.Conv2d(width, 1, 1),
        )

    def forward(self, pyramid: Tensor, saliency: Tensor, feature: Tensor) -> tuple[Tensor, Tensor]:
        """The coarser P (N, width, ...) and S (N, 1, ...), and this level's feature -> this level's P and S."""
        size = feature.shape[2:]
        retained = self.reduce(resize(saliency, size) * feature if self.retaining else feature)
        pyramid = self.enhance(resize(pyramid, size) + retained)
        return pyramid, self.detect(pyramid).sigmoid()


def consensus(logits: Tensor, group: Tensor) -> Tensor:
    """The softmax of the sum of each group's logits (N, K): (G, K), G the largest number in `group` (N,) plus one."""
    count = int(group.max()) + 1
    total = torch.zeros(count, logits.shape[1], dtype=logits.dtype, device=logits.device)
    return total.index_add(0, group, logits).softmax(dim=1)


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear, corners aligned, as the paper's upsampling: (N, C, h, w) -> (N, C, *size)."""
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=True)


def sharpen(saliency: Tensor, sharpness: float) -> Tensor:
    """sigmoid(sharpness * logit(saliency)), written without a logarithm."""
    if sharpness == 1:
        return saliency
    salient, other = saliency**sharpness, (1 - saliency) ** sharpness
    return salient / (salient + other)


def stretch(rows: Tensor) -> Tensor:
    """Each row (N, D) to [0, 1] by its least and largest value; a constant row becomes 0."""
    low, high = rows.amin(dim=1, keepdim=True), rows.amax(dim=1, keepdim=True)
    # Rows of the paper's form are of the order of 1e-6, so the guard against 0 is smaller still.
    return (rows - low) / (high - low).clamp(min=1e-20)


def average_pool(maps: Tensor) -> Tensor:
    """Adaptive average pooling (N, C, h, w) -> (N, C, 7, 7), also where 7 does not divide the sides."""
    if all(side % POOLED == 0 for side in maps.shape[2:]):
        return F.avg_pool2d(maps, tuple(side // POOLED for side in maps.shape[2:]))
    rows, columns = (averaging(side, POOLED).to(maps) for side in maps.shape[2:])
    return rows @ maps @ columns.T


def averaging(inputs: int, outputs: int) -> Tensor:
    """Adaptive average pooling of one dimension as a matrix (outputs, inputs)."""
    return F.adaptive_avg_pool1d(torch.eye(inputs)[None], outputs)[0].T


def _conv(inputs: int, outputs: int, *, norm: bool) -> list[nn.Module]:
    layer = nn.Conv2d(inputs, outputs, 3, padding=1, bias=not norm)
    return [layer, nn.BatchNorm2d(outputs)] if norm else [layer]


def _initialise(module: nn.Module) -> None:
    """He normal with zero biases."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
