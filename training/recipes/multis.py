"""How `multis` is trained (MultiS, section 2.2)."""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from skimage.measure import label
from torch import Tensor, nn

from ..losses import map_loss, soft_iou_loss, structure_loss
from ..networks.multis import MultiScaleOutput
from ..optim import OptimiserSettings
from ..recipe import Recipe

# Table 1: a salient region of area ratio r calls for scale k where lower < r <= upper.
SCALE_BOUNDS = {2: (0.0, 0.25), 3: (0.25, 0.5), 4: (0.5, 1.0)}


def scale_labels(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Which scales the salient regions of one mask call for (eq. 4).

    Regions are 8-connected; each counts by its share of the image's area.

    Args:
        mask: (H, W) bool.

    Returns:
        (3,) float32 of zeros and ones, for scales 2, 3, 4.
    """
    regions = label(mask, connectivity=2)
    ratios = np.bincount(regions.ravel())[1:] / mask.size
    return np.array(
        [bool(((ratios > low) & (ratios <= high)).any()) for low, high in SCALE_BOUNDS.values()],
        dtype=np.float32,
    )


class MultiScaleRecipe(Recipe):
    """Loss of MultiS, eq. 3, 5, 6; the defaults are the paper's.

    `alpha` weighs the scale-weight loss. Beyond the paper, and off by default: `iou` adds that much
    soft IoU loss on the fused map, `structure` that much of the structure loss on it, `side` that much cross entropy on
    each of the three maps by itself.
    """

    alpha: float = Field(default=0.1, ge=0)
    iou: float = Field(default=0.0, ge=0)
    structure: float = Field(default=0.0, ge=0)
    side: float = Field(default=0.0, ge=0)

    def defaults(self) -> OptimiserSettings:
        """Optimiser and schedule of section 3.1."""
        return OptimiserSettings(
            optimiser="sgd", rate=0.01, momentum=0.9, decay=5e-4, schedule="plateau", epochs=80, batch=256
        )

    def labels(self, mask: Tensor) -> dict[str, Tensor]:
        """Extra targets of one sample; `mask` (1, H, W) float32 of zeros and ones."""
        return {"scales": torch.from_numpy(scale_labels(mask[0].numpy() > 0.5))}

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Loss and saliency map (N, 1, H, W) of a batch with `image`, `mask` and `scales`."""
        output: MultiScaleOutput = network(batch["image"])
        saliency, mask = output.saliency, batch["mask"]
        total = map_loss(saliency, mask)
        if output.weights is not None:
            weights = F.binary_cross_entropy_with_logits(output.weights.float(), batch["scales"])
            total = total + self.alpha * weights
        if self.iou:
            total = total + self.iou * soft_iou_loss(saliency, mask)
        if self.structure:
            total = total + self.structure * structure_loss(saliency, mask)
        if self.side:
            sides = [F.binary_cross_entropy_with_logits(m.float(), mask) for m in output.maps]
            total = total + self.side * torch.stack(sides).mean()
        return total, saliency
