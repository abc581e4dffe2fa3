"""What an image becomes before a network sees it; the one home of these numbers.

They are written into every checkpoint, travel from there into the bundle's `preprocess` graph, and
nothing downstream repeats them.
"""

import torch
import torchvision.transforms.v2.functional as TF
from pydantic import BaseModel, ConfigDict
from torch import Tensor


class Preprocessing(BaseModel):
    """Resize to `size`, scale to [0, 1], normalise per channel.

    `size` is (height, width); `mean` and `std` are for RGB in [0, 1] (ImageNet's by default).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: tuple[int, int] = (224, 224)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def resize(self, image: Tensor) -> Tensor:
        """`image` (..., 3, H, W) uint8 -> (..., 3, *size) uint8, antialiased bilinear."""
        resized: Tensor = TF.resize(image, list(self.size), antialias=True)
        return resized

    def normalise(self, image: Tensor) -> Tensor:
        """`image` (..., 3, H, W) uint8 -> float32 of the same shape, zero mean and unit deviation."""
        pixels = TF.to_dtype(image, torch.float32, scale=True)
        normalised: Tensor = TF.normalize(pixels, list(self.mean), list(self.std))
        return normalised

    def __call__(self, image: Tensor) -> Tensor:
        """`image` (..., 3, H, W) uint8 -> the network's input (..., 3, *size) float32."""
        return self.normalise(self.resize(image))
