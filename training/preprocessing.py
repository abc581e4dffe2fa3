"""Preprocessing of a network's input; the one home of these numbers.

They are written into every checkpoint, travel from there into the bundle's `preprocess` graph, and
nothing downstream repeats them.
"""

from typing import Any, Literal

import torch
import torchvision.transforms.v2.functional as TF
from pydantic import BaseModel, ConfigDict
from torch import Tensor


class Preprocessing(BaseModel):
    """Resize to `size`, scale to [0, 1], normalise per channel, and put the channels in `order`.

    `size` is (height, width); `mean` and `std` are for RGB in [0, 1] (ImageNet's by default), whatever the order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: tuple[int, int] = (224, 224)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    order: Literal["rgb", "bgr"] = "rgb"

    def resize(self, image: Tensor) -> Tensor:
        """`image` (..., 3, H, W) uint8 -> (..., 3, *size) uint8, antialiased bilinear."""
        resized: Tensor = TF.resize(image, list(self.size), antialias=True)
        return resized

    def normalise(self, image: Tensor) -> Tensor:
        """`image` (..., 3, H, W) uint8 RGB -> float32 of the same shape, zero mean and unit deviation."""
        pixels = TF.to_dtype(image, torch.float32, scale=True)
        normalised: Tensor = TF.normalize(pixels, list(self.mean), list(self.std))
        return normalised.flip(-3) if self.order == "bgr" else normalised

    def __call__(self, image: Tensor) -> Tensor:
        """`image` (..., 3, H, W) uint8 -> the network's input (..., 3, *size) float32."""
        return self.normalise(self.resize(image))


# Grey levels minus the mean of ImageNet's, which is how Caffe's and MatConvNet's VGG16 were trained.
_MEAN_ONLY = {"mean": (123.68 / 255, 116.779 / 255, 103.939 / 255), "std": (1 / 255, 1 / 255, 1 / 255)}
# The input of weights from other frameworks, by the framework's name.
CONVENTIONS: dict[str, dict[str, Any]] = {"caffe": _MEAN_ONLY | {"order": "bgr"}, "matconvnet": _MEAN_ONLY}
