"""The option to average a picture's map with that of its mirror image: better maps for twice the arithmetic."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..graph import MethodExport


class Mirrored(nn.Module):
    """The mean of the map of a picture and of that of its mirror image, mirrored back; shapes are those of `single`.

    Args:
        single: (N, 3, H, W) -> (N, 1, H, W).
    """

    def __init__(self, single: nn.Module) -> None:
        super().__init__()
        self.single = single

    def forward(self, image: Tensor) -> Tensor:
        """Both in one pass."""
        maps: Tensor = self.single(torch.cat([image, image.flip(3)]))
        count = image.shape[0]
        return (maps[:count] + maps[count:].flip(3)) / 2


class MirrorExport(MethodExport):
    """With `mirror` a map is the mean of the picture's and of its mirror image's."""

    mirror: bool = False

    def whole(self, single: nn.Module) -> nn.Module:
        """What is exported of a module that gives the map of a picture."""
        return Mirrored(single) if self.mirror else single

    def predict(self, network: Any, tensor: Tensor, image: NDArray[np.uint8]) -> Tensor:
        """See `MethodExport`."""
        saliency: Tensor = network(tensor).saliency
        if self.mirror:
            saliency = (saliency + network(tensor.flip(3)).saliency.flip(3)) / 2
        return saliency
