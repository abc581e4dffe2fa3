"""Copy-paste: objects, cut out by their masks, on other pictures and on other backgrounds."""

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

# A pasted edge is blurred over this many pixels, so that it does not give the object away.
_FEATHER = 5
# A background is an object-free strip of a picture; a smaller part of it would be stretched too far.
_LEAST_BACKGROUND = 0.25
# A graded mask is of an object from here on.
_OBJECT = 0.3


def paste(picture: Tensor, mask: Tensor, donor: Tensor, donor_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Put the donor's object, moved, turned and resized at random, on a picture.

    Args:
        picture: (3, H, W) uint8.
        mask: (1, H, W) float32 in [0, 1].
        donor: (3, H, W) uint8, where the object comes from.
        donor_mask: (1, H, W) float32.

    Returns:
        The new picture and its mask, which holds both objects.
    """
    move = v2.RandomAffine(degrees=15, translate=(0.2, 0.2), scale=(0.6, 1.1))
    moved, moved_mask = move(tv_tensors.Image(donor), tv_tensors.Mask(donor_mask))
    cut = moved_mask.as_subclass(Tensor)
    alpha = functional.gaussian_blur(cut, [_FEATHER, _FEATHER])
    joined = alpha * moved.as_subclass(Tensor).float() + (1 - alpha) * picture.float()
    return joined.round().to(torch.uint8), torch.maximum(mask, cut)


def free_strip(picture: Tensor, mask: Tensor) -> Tensor | None:
    """The largest strip beside the object, stretched to the picture's size (3, H, W); None where it is too small.

    Args:
        picture: (3, H, W) uint8.
        mask: (1, H, W), 0 where no object is.
    """
    height, width = picture.shape[1:]
    rows, columns = (torch.nonzero(mask[0].amax(dim=axis) > _OBJECT)[:, 0].tolist() for axis in (1, 0))
    if not rows:
        return picture
    strips = (
        picture[:, : rows[0]], picture[:, rows[-1] + 1 :],
        picture[:, :, : columns[0]], picture[:, :, columns[-1] + 1 :],
    )  # fmt: skip
    largest = max(strips, key=lambda strip: strip[0].numel())
    if largest[0].numel() < _LEAST_BACKGROUND * height * width:
        return None
    stretched: Tensor = functional.resize(largest, [height, width], antialias=True)
    return stretched
