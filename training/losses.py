"""Losses on saliency maps that several recipes share."""

import torch
import torch.nn.functional as F
from torch import Tensor


def soft_iou_loss(saliency: Tensor, mask: Tensor) -> Tensor:
    """1 - soft intersection over union of `saliency` (N, 1, H, W) in [0, 1] with `mask`; the mean over images."""
    saliency = saliency.float()
    both = (saliency * mask).sum(dim=(1, 2, 3))
    either = (saliency + mask - saliency * mask).sum(dim=(1, 2, 3))
    return (1 - (both + 1) / (either + 1)).mean()


def structure_loss(saliency: Tensor, mask: Tensor, *, window: int = 31, emphasis: float = 5.0) -> Tensor:
    """Cross entropy and 1 - IoU in which pixels near an edge count more (F3Net, Wei et al. 2020, eq. 5 to 8).

    A pixel weighs 1 + `emphasis` times how far its mask is from the mean mask of the `window` around it; shapes as
    in `soft_iou_loss`.
    """
    with torch.autocast(saliency.device.type, enabled=False):
        saliency = saliency.float().clamp(1e-6, 1 - 1e-6)
        rows = F.avg_pool2d(mask, (window, 1), stride=1, padding=(window // 2, 0), count_include_pad=True)
        mean = F.avg_pool2d(rows, (1, window), stride=1, padding=(0, window // 2), count_include_pad=True)
        weight = 1 + emphasis * (mean - mask).abs()
        entropy = F.binary_cross_entropy(saliency, mask, reduction="none")
        weighted = (weight * entropy).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3))
        both = (weight * saliency * mask).sum(dim=(1, 2, 3))
        either = (weight * (saliency + mask - saliency * mask)).sum(dim=(1, 2, 3))
        return (weighted + 1 - (both + 1) / (either + 1)).mean()
