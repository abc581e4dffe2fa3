"""How `arn` is trained (ARN, section 4.3)."""

from collections.abc import Mapping
from typing import ClassVar

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..losses import soft_iou_loss, structure_loss
from ..networks.arn import AttentionRecurrentOutput
from ..optim import OptimiserSettings
from ..recipe import Recipe


class AttentionRecurrentRecipe(Recipe):
    """Binary cross entropy.

    Beyond the paper, and off by default: `iou` adds that much soft IoU loss, `structure` that much structure loss.
    """

    learns_maps: ClassVar[bool] = True

    iou: float = Field(default=0.0, ge=0)
    structure: float = Field(default=0.0, ge=0)

    def defaults(self) -> OptimiserSettings:
        """Adam as in section 4.3; the paper names neither batch nor length."""
        return OptimiserSettings(optimiser="adam", rate=1e-4, schedule="constant", epochs=30, batch=8)

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Loss and saliency map (N, 1, H, W) of a batch with `image` and `mask`."""
        output: AttentionRecurrentOutput = network(batch["image"])
        total = F.binary_cross_entropy_with_logits(output.logits.float(), batch["mask"])
        saliency = output.saliency
        if self.iou:
            total = total + self.iou * soft_iou_loss(saliency, batch["mask"])
        if self.structure:
            total = total + self.structure * structure_loss(saliency, batch["mask"])
        return total, saliency
