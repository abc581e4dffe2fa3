"""Losses on saliency maps that several recipes share."""

import torch
import torch.nn.functional as F
from torch import Tensor


def map_loss(saliency: Tensor, mask: Tensor) -> Tensor:
    """Binary cross entropy of `saliency` (N, 1, H, W) in [0, 1] with `mask` of the same shape, the mean."""
    with torch.autocast(saliency.device.type, enabled=False):
        return F.binary_cross_entropy(saliency.float().clamp(1e-6, 1 - 1e-6), mask)


def soft_iou_loss(saliency: Tensor, mask: Tensor) -> Tensor:
    """1 - soft intersection over union, per image, the mean; shapes as in `map_loss`."""
    saliency = saliency.float()
    both = (saliency * mask).sum(dim=(1, 2, 3))
    either = (saliency + mask - saliency * mask).sum(dim=(1, 2, 3))
    return (1 - (both + 1) / (either + 1)).mean()
