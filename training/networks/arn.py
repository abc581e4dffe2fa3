"""Attention recurrent network (Sun, Li, Guan: arXiv 1808.01634); equation and section numbers are the paper's."""

from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..backbone import BackboneName, build_backbone

# Either never holds the matrix of all positions by all positions; PyTorch's plain form, which does, is left out.
_FUSED = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]


class AttentionRecurrentSettings(BaseModel):
    """What `AttentionRecurrent` is made of.

    `width` is the channel count at level 4, halved at level 3 and again at level 2 (the paper names none).
    `steps`, `alpha` and `beta` are those of the recurrent layers. `norm` puts batch norm behind the
    deconvolutions and the convolutions after each concatenation (not in the paper; it folds away at inference).
    To see what the paper's parts are worth: without `attention` the self-attention is left out, and with 0 `steps`
    a recurrent layer is its feed-forward convolution.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: BackboneName = "vgg16"
    width: int = Field(default=256, ge=32, multiple_of=32)
    steps: int = Field(default=3, ge=0, le=32)
    alpha: float = Field(default=1e-3, ge=0)
    beta: float = Field(default=0.75, ge=0)
    norm: bool = False
    attention: bool = True


class AttentionRecurrentOutput(NamedTuple):
    """Logits of the saliency map, (N, 1, H, W)."""

    logits: Tensor

    @property
    def saliency(self) -> Tensor:
        """(N, 1, H, W) in [0, 1]."""
        return self.logits.sigmoid()


def fused_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """`query` and `key` (N, C / 8, P), `value` (N, C, P) -> (N, C, P) for P positions (eq. 2, 3).

    The matrix of P x P scores is never held: PyTorch's fused attention computes it in blocks, and computes it
    again for the gradient. It wants queries and keys as wide as the values, so they are padded with zeros,
    which changes no score.
    """
    padding = value.shape[1] - key.shape[1]
    queries, keys, values = (
        F.pad(tensor.transpose(1, 2), (0, width)).contiguous()[:, None]
        for tensor, width in ((query, padding), (key, padding), (value, 0))
    )
    with sdpa_kernel(_FUSED):
        attended: Tensor = F.scaled_dot_product_attention(queries, keys, values, scale=1.0)
    return attended[:, 0].transpose(1, 2)


class SelfAttention(nn.Module):
    """Every position of a map attends to all others (eq. 1 to 4): (N, C, h, w) -> the same shape.

    `attend` may be replaced by another form of the same function, as the exporter does.
    """

    attend: Callable[[Tensor, Tensor, Tensor], Tensor]

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.key = nn.Conv2d(channels, channels // 8, 1)  # f of eq. 1: the softmax runs over its positions
        self.query = nn.Conv2d(channels, channels // 8, 1)  # g of eq. 1
        self.value = nn.Conv2d(channels, channels, 1)  # h of eq. 3
        self.scale = nn.Parameter(torch.zeros(1))  # gamma of eq. 4
        self.attend = fused_attention

    def forward(self, x: Tensor) -> Tensor:
        """`x` (N, C, h, w) and what its positions attend to."""
        query, key, value = (layer(x).flatten(2) for layer in (self.query, self.key, self.value))
        attended: Tensor = self.attend(query, key, value).unflatten(2, x.shape[2:])
        return self.scale * attended + x


class ResponseNorm(nn.Module):
    """Local response normalisation across channels (eq. 8): (N, C, h, w) -> the same shape.

    The sum over neighbouring channels is a 1x1 convolution with a band of ones: it parses everywhere and
    costs a ninth of a 3x3 convolution. (TensorRT's own layer takes windows up to 15, PyTorch's exports as a
    three-dimensional pooling.)
    """

    band: Tensor

    def __init__(self, channels: int, *, alpha: float, beta: float) -> None:
        super().__init__()
        size = channels // 8 + 1
        index = torch.arange(channels)
        # Equation 8 reaches size / 2 to both sides, also where the size is even.
        near = (index[None, :] - index[:, None]).abs() <= size // 2
        self.register_buffer("band", near.float()[:, :, None, None], persistent=False)
        self.root = (alpha / size) ** 0.5
        self.beta = beta

    def forward(self, x: Tensor) -> Tensor:
        """`x` over (1 + alpha / size * the sum of its neighbours' squares) to the power of beta."""
        # Scaled before the square, which would overflow in fp16.
        scale = 1 + F.conv2d((x * self.root) ** 2, self.band.to(x.dtype))
        if self.beta == 0.75:  # two square roots cost a fraction of a power
            root = scale.sqrt()
            return x / (root * root.sqrt())
        return x / scale**self.beta


class RecurrentConv(nn.Module):
    """Recurrent convolutional layer (eq. 5 to 7): (N, C, h, w) -> (N, width, h, w).

    The first state is the feed-forward input alone; `steps` steps with one set of weights follow.
    """

    def __init__(self, channels: int, width: int, settings: AttentionRecurrentSettings) -> None:
        super().__init__()
        self.forwards = nn.Conv2d(channels, width, 3, padding=1)
        if settings.steps:
            self.recurrent = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = ResponseNorm(width, alpha=settings.alpha, beta=settings.beta)
        self.steps = settings.steps

    def forward(self, x: Tensor) -> Tensor:
        """The last state."""
        incoming = self.forwards(x)
        state: Tensor = self.norm(incoming.relu())
        for _ in range(self.steps):
            state = self.norm((incoming + self.recurrent(state)).relu())
        return state


class Stage(nn.Module):
    """One step down the pyramid: deconvolution, concatenation with the side output, attention."""

    def __init__(self, inputs: int, side: int, width: int, settings: AttentionRecurrentSettings) -> None:
        super().__init__()
        self.up = _conv(nn.ConvTranspose2d(inputs, width, 4, stride=2, padding=1), settings)
        self.side = RecurrentConv(side, width, settings)
        self.merge = nn.Sequential(
            _conv(nn.Conv2d(2 * width, width, 3, padding=1), settings),
            _conv(nn.Conv2d(width, width, 3, padding=1), settings),
        )
        self.attention = _attention(width, settings)

    def forward(self, x: Tensor, side: Tensor) -> Tensor:
        """`x` (N, inputs, h, w) and `side` (N, side, 2 h, 2 w) -> (N, width, 2 h, 2 w)."""
        found: Tensor = self.attention(self.merge(torch.cat([self.up(x), self.side(side)], dim=1)))
        return found


class AttentionRecurrent(nn.Module):
    """A top-down pyramid of recurrent side outputs with self-attention at every level.

    Input (N, 3, H, W) normalised, sides multiples of the coarsest stride; output `AttentionRecurrentOutput`.
    """

    settings_type: ClassVar = AttentionRecurrentSettings
    maps_single_images: ClassVar = True

    def __init__(self, settings: AttentionRecurrentSettings) -> None:
        super().__init__()
        self.settings = settings
        self.backbone = build_backbone(settings.backbone)
        _, f2, f3, f4, f5 = self.backbone.levels
        widths = [settings.width, settings.width // 2, settings.width // 4]
        self.top = _attention(f5.channels, settings)
        self.stages = nn.ModuleList(
            Stage(inputs, level.channels, width, settings)
            for inputs, level, width in zip((f5.channels, *widths), (f4, f3, f2), widths, strict=False)
        )
        self.classifier = nn.Conv2d(widths[-1], 1, 1)
        for part in (self.top, self.stages, self.classifier):
            part.apply(_initialise)

    def forward(self, image: Tensor) -> AttentionRecurrentOutput:
        """Logits of `image` (N, 3, H, W)."""
        _, f2, f3, f4, f5 = self.backbone(image)
        x = self.top(f5)
        for stage, side in zip(self.stages, (f4, f3, f2), strict=True):
            x = stage(x, side)
        # A 1x1 convolution and a bilinear resize may change places; this way round it is cheaper.
        logits = F.interpolate(self.classifier(x), size=image.shape[2:], mode="bilinear", align_corners=False)
        return AttentionRecurrentOutput(logits)


def _attention(channels: int, settings: AttentionRecurrentSettings) -> nn.Module:
    return SelfAttention(channels) if settings.attention else nn.Identity()


def _conv(layer: nn.Conv2d | nn.ConvTranspose2d, settings: AttentionRecurrentSettings) -> nn.Sequential:
    return nn.Sequential(layer, *([nn.BatchNorm2d(layer.out_channels)] if settings.norm else []), nn.ReLU())


def _initialise(module: nn.Module) -> None:
    """He normal with zero biases (section 4.3)."""
    if isinstance(module, nn.ConvTranspose2d):
        # Each output of a stride-2 4x4 deconvolution sums over 2 x 2 inputs of every channel.
        nn.init.normal_(module.weight, std=(2 / (4 * module.in_channels)) ** 0.5)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    if isinstance(module, nn.ConvTranspose2d | nn.Conv2d) and module.bias is not None:
        nn.init.zeros_(module.bias)
