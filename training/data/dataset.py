"""Samples as network input: resized, augmented, normalised, with the recipe's labels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from ..preprocessing import Preprocessing
from .pasting import free_strip, paste

# The papers' own: "flip" (arn, cgd), "flip+crop0.9" (lps), "flip+rescale" (multis), "flip+rotate90" (gicd, after its
# jigsaws). Ours: "crop", "strong", and "paste", which is "strong" and copy-paste.
Augmentation = Literal["none", "flip", "flip+crop0.9", "flip+rescale", "flip+rotate90", "crop", "strong", "paste"]
# How often "paste" puts a second object into a picture, and how often an object on another background.
_SECOND_OBJECT, _OTHER_BACKGROUND = 0.25, 0.25


class Loadable(Protocol):
    """What a dataset item needs: a name and a way to load image and mask."""

    @property
    def name(self) -> str:
        """A unique name."""

    def load(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | NDArray[np.uint8]]:
        """Image (H, W, 3) uint8 RGB and mask (H, W): bool, or graded uint8, 255 for salient."""


@dataclass
class SaliencyDataset(Dataset[dict[str, Tensor]]):
    """Items are `image` (3, H, W) float32 normalised, `mask` (1, H, W) float32, and the recipe's labels.

    What augmentation and labels draw depends on `seed`, `epoch` and the item's index alone, so a resumed run sees
    what an uninterrupted one sees, with any number of workers.
    """

    samples: Sequence[Loadable]
    preprocessing: Preprocessing
    labels: Callable[[Tensor], dict[str, Tensor]]
    augmentation: Augmentation = "none"
    seed: int = 0
    epoch: int = 0

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed((self.seed * 1_000_003 + self.epoch) * 1_000_003 + index)
            return self.item(self.samples[index])

    def item(self, sample: Loadable) -> dict[str, Tensor]:
        """Load and augment one sample; the caller has seeded the random numbers."""
        picture, target = augmented(sample, self.augmentation, self.preprocessing.size)
        if self.augmentation == "paste":
            picture, target = self._pasted(picture, target)
        labels = self.labels(target)
        return {"image": self.preprocessing.normalise(picture), "mask": target, **labels}

    def _pasted(self, picture: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The picture as it is, or with another's object, or its object where another picture has none."""
        draw = float(torch.rand(()))
        if draw >= _SECOND_OBJECT + _OTHER_BACKGROUND:
            return picture, target
        other = self.samples[int(torch.randint(len(self.samples), ()))]
        other_picture, other_target = augmented(other, self.augmentation, self.preprocessing.size)
        if draw < _SECOND_OBJECT:
            return paste(picture, target, other_picture, other_target)
        background = free_strip(other_picture, other_target)
        if background is None:
            return picture, target
        return paste(background, torch.zeros_like(target), picture, target)


class RandomQuarterTurn(v2.Transform):  # type: ignore[misc]
    """Rotate by -90, 0 or 90 degrees, each in a third of the draws."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the number of quarter turns."""
        return {"turns": int(torch.randint(-1, 2, ()))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Turn `inpt` (..., H, W) counter-clockwise."""
        return tv_tensors.wrap(torch.rot90(inpt.as_subclass(Tensor), params["turns"], (-2, -1)), like=inpt)


def augmented(sample: Loadable, augmentation: Augmentation, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """A sample varied at random and resized: (3, *size) uint8 and its mask (1, *size) float32 in [0, 1]."""
    image, mask = sample.load()
    picture, target = vary(image, mask.astype(np.uint8)[None], augmentation, size)
    return picture, target.float() if mask.dtype == np.bool_ else target.float() / 255


def vary(
    image: NDArray[np.uint8], maps: NDArray[np.uint8], augmentation: Augmentation, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Augment and resize an image (H, W, 3) and maps (C, H, W) of the same geometry: (3, *size) and (C, *size) uint8.

    Maps are resized to the nearest pixel and keep their colours.
    """
    picture, varied = _transform(augmentation, size)(
        tv_tensors.Image(torch.from_numpy(image.transpose(2, 0, 1).copy())),
        tv_tensors.Mask(torch.from_numpy(maps)),
    )
    return picture.as_subclass(Tensor), varied.as_subclass(Tensor)


def _transform(augmentation: Augmentation, size: tuple[int, int]) -> v2.Transform:
    resize = v2.Resize(list(size), antialias=True)
    flip = v2.RandomHorizontalFlip()
    aspect = size[1] / size[0]
    match augmentation:
        case "none":
            return resize
        case "flip":
            return v2.Compose([flip, resize])
        case "flip+crop0.9":
            # Cropped at 1/.9 of the size: no pixel is resized twice.
            larger = [round(side / 0.9) for side in size]
            return v2.Compose([flip, v2.Resize(larger, antialias=True), v2.RandomCrop(list(size))])
        case "flip+rescale":
            crop = v2.RandomResizedCrop(list(size), scale=(0.64, 1.0), ratio=(aspect, aspect), antialias=True)
            return v2.Compose([flip, resize, crop])
        case "flip+rotate90":
            return v2.Compose([flip, RandomQuarterTurn(), resize])
        case "crop":
            crop = v2.RandomResizedCrop(list(size), scale=(0.64, 1.0), ratio=(0.9, 1.11), antialias=True)
            return v2.Compose([flip, crop])
        case "strong" | "paste":
            crop = v2.RandomResizedCrop(list(size), scale=(0.5, 1.0), ratio=(0.75, 1.33), antialias=True)
            colour = v2.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.04)
            return v2.Compose([flip, v2.RandomApply([crop], p=0.7), resize, colour, v2.RandomGrayscale(0.05)])
