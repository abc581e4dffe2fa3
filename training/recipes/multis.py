"""How `multis` is trained (MultiS, section 2.2)."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from skimage.measure import label
from torch import Tensor, nn

from ..data.dataset import Augmentation
from ..losses import soft_iou_loss, structure_loss
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


def fused_cross_entropy(output: MultiScaleOutput, mask: Tensor) -> Tensor:
    """Binary cross entropy of the fused map with `mask` (N, 1, H, W), from logits; the mean over pixels.

    With S = max_k w_k S_k: log S = max_k (log w_k + log S_k), log(1 - S) = min_k log((1 - w_k) + w_k (1 - S_k)).
    No value is clamped, so confidently wrong pixels keep their gradient.
    """
    with torch.autocast(mask.device.type, enabled=False):
        maps = torch.cat([m.float() for m in output.maps], dim=1)
        if output.fusion.startswith("s"):
            index = ("s2", "s3", "s4").index(output.fusion)
            return F.binary_cross_entropy_with_logits(maps[:, index : index + 1], mask)
        log_map, log_rest = F.logsigmoid(maps), F.logsigmoid(-maps)
        if output.weights is None:
            log_weight, log_other = torch.zeros_like(maps[:, :, :1, :1]), None
        else:
            logits = output.weights.float()[:, :, None, None]
            log_weight, log_other = F.logsigmoid(logits), F.logsigmoid(-logits)
        salient = log_weight + log_map
        rest = log_weight + log_rest if log_other is None else torch.logaddexp(log_other, log_weight + log_rest)
        match output.fusion:
            case "maxout":
                salient, rest = salient.amax(dim=1, keepdim=True), rest.amin(dim=1, keepdim=True)
            case "mean":
                total = log_weight.logsumexp(dim=1, keepdim=True)
                salient = salient.logsumexp(dim=1, keepdim=True) - total
                rest = (log_weight + log_rest).logsumexp(dim=1, keepdim=True) - total
            case "product":
                salient = salient.sum(dim=1, keepdim=True)
                rest = torch.log(-torch.expm1(salient.clamp(max=-1e-6)))
        return -(mask * salient + (1 - mask) * rest).mean()


class MultiScaleRecipe(Recipe):
    """Loss of MultiS, eq. 3, 5, 6; the defaults are the paper's.

    `alpha` weighs the scale-weight loss. Beyond the paper, and off by default: `iou` adds that much
    soft IoU loss on the fused map, `structure` that much of the structure loss on it, `side` that much cross entropy,
    and `side_iou` that much soft IoU loss, of the three maps by themselves (the mean of the three).
    """

    alpha: float = Field(default=0.1, ge=0)
    iou: float = Field(default=0.0, ge=0)
    structure: float = Field(default=0.0, ge=0)
    side: float = Field(default=0.0, ge=0)
    side_iou: float = Field(default=0.0, ge=0)

    augmentation: ClassVar[Augmentation] = "flip+rescale"

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
        total = fused_cross_entropy(output, mask)
        if output.weights is not None:
            weights = F.binary_cross_entropy_with_logits(output.weights.float(), batch["scales"], reduction="sum")
            total = total + self.alpha * weights / len(mask)  # eq. 5 sums over the scales
        if self.iou:
            total = total + self.iou * soft_iou_loss(saliency, mask)
        if self.structure:
            total = total + self.structure * structure_loss(saliency, mask)
        if self.side:
            sides = [F.binary_cross_entropy_with_logits(m.float(), mask) for m in output.maps]
            total = total + self.side * torch.stack(sides).mean()
        if self.side_iou:
            sides = [soft_iou_loss(m.sigmoid(), mask) for m in output.maps]
            total = total + self.side_iou * torch.stack(sides).mean()
        return total, saliency
