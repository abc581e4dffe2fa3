"""How `lps` is trained (Zeng et al., section 4.3 and algorithm 1; the released code's two stages).

The first stage is a run of its own with `--network stage=backbone`; its checkpoint is the second's `--weights`.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..data.dataset import Augmentation
from ..networks.lps import PromoterOutput
from ..optim import OptimiserSettings
from ..recipe import Recipe


class PromoterRecipe(Recipe):
    """Binary cross entropy of each pixel's class, with anchors from a spoilt mask.

    `flip` is the part of the pixels whose label is flipped for the anchors. `samples` is how many pixels of
    an image enter the loss (all of them enter the anchors); 0 for all. Not in the paper, and off by default:
    `rough` is the part of the masks that are spoilt as a weak detector would, see `rough_prior`.
    """

    flip: float = Field(default=0.05, ge=0, le=0.5)
    samples: int = Field(default=4096, ge=0)
    rough: float = Field(default=0.0, ge=0, le=1)

    augmentation: ClassVar[Augmentation] = "flip+crop0.9"
    learns_maps: ClassVar[bool] = True

    def defaults(self) -> OptimiserSettings:
        """Adam at 1e-3, a tenth of it for the backbone, 36 epochs; the same for both stages."""
        return OptimiserSettings(optimiser="adam", rate=1e-3, backbone_rate=0.1, epochs=36, batch=8)

    def labels(self, mask: Tensor) -> dict[str, Tensor]:
        """The prior that stands for a detector's map; `mask` and it (1, H, W) float32."""
        if self.rough and float(torch.rand(())) < self.rough:
            return {"prior": rough_prior(mask)}
        flipped = torch.rand(mask.shape) < self.flip
        return {"prior": torch.where(flipped, 1 - mask, mask)}

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Loss and saliency map of a batch with `image`, `mask` and `prior`.

        While training with `samples` the map is that of the sampled pixels alone, (N, samples).
        """
        samples = self.samples if network.training and self.samples else None
        output: PromoterOutput = network(batch["image"], batch["prior"], samples=samples)
        truth = batch["mask"].flatten(1)
        if output.pixels is not None:
            truth = truth.gather(1, output.pixels)
        logits = output.logits.float()
        saliency = logits.sigmoid()
        total = F.binary_cross_entropy_with_logits(logits, truth)
        return total, saliency if output.pixels is not None else saliency.view_as(batch["mask"])


def rough_prior(mask: Tensor) -> Tensor:
    """`mask` (1, H, W) as a weak detector might see it: blurred, with parts missing and others too many."""
    size = mask.shape[1:]
    grain, gain, noise = (float(low + (high - low) * torch.rand(())) for low, high in ((8, 40), (1, 5), (0.3, 3)))
    blurred = F.interpolate(F.adaptive_avg_pool2d(mask[None], int(grain)), size=size, mode="bilinear")
    spots = int(torch.randint(3, 12, ()))
    field = F.interpolate(torch.randn(1, 1, spots, spots), size=size, mode="bicubic")
    return (gain * (2 * blurred - 1) + noise * field)[0].sigmoid()
