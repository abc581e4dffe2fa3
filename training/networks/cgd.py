"""The classifier whose object clamped gradient descent finds."""

from typing import Any, ClassVar, Literal, NamedTuple, cast

import torch
import torchvision
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from ..backbone import IMAGENET_MEAN, IMAGENET_STD, ClassifierName, build_classifier, normalisation

IMAGENET_CLASSES = 1000


def imagenet_names() -> tuple[str, ...]:
    """ImageNet's 1000 class names, in the order of torchvision's classifiers."""
    return tuple(torchvision.models.VGG16_Weights.DEFAULT.meta["categories"])


class ClassifierSettings(BaseModel):
    """Name of the classifier, its classes' names in order, and the normalisation of images in [0, 1] that it takes.

    `mean` and `std` default to those of the classifier's pretrained weights; they are for RGB, whatever the `order`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: ClassifierName = "vgg16"
    classes: tuple[str, ...] = Field(default_factory=imagenet_names, min_length=2)
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    order: Literal["rgb", "bgr"] = "rgb"

    @model_validator(mode="before")
    @classmethod
    def _fill_normalisation(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("backbone"), str):
            return values
        mean, std = normalisation(values["backbone"])
        return {"mean": mean, "std": std} | values


class ClassifierOutput(NamedTuple):
    """Logits of the classes, (N, K)."""

    logits: Tensor


class Classifier(nn.Module):
    """Grey levels (N, 3, H, W) RGB in 0..255 -> `ClassifierOutput`.

    Normalisation is part of the network, so that gradients are with respect to grey levels.
    """

    settings_type: ClassVar = ClassifierSettings
    # What `Preprocessing` has to do: nothing but the resize.
    input_scale: ClassVar = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255, 1 / 255, 1 / 255)}

    def __init__(self, settings: ClassifierSettings, module: nn.Module | None = None) -> None:
        """`module` is a classifier of one's own, (N, 3, H, W) normalised -> (N, K); it cannot be saved and loaded."""
        super().__init__()
        self.settings = settings
        self.fresh: tuple[str, ...] = ()
        if module is None:
            module = build_classifier(settings.backbone)
            # 1000 classes of one's own need a new layer too, and so do ImageNet's in another order.
            if settings.classes != imagenet_names():
                self.fresh = (f"backbone.{_renew_last_layer(module, len(settings.classes))}.",)
        self.backbone = module

    def forward(self, image: Tensor) -> ClassifierOutput:
        """Logits of `image`."""
        return ClassifierOutput(self.backbone(self.normalise(image)))

    def normalise(self, image: Tensor) -> Tensor:
        """Grey levels -> what the classifier takes."""
        # Not buffers, which would be rounded where the network is cast to half precision.
        mean, std = (
            torch.tensor(values, device=image.device)[:, None, None]
            for values in (self.settings.mean, self.settings.std)
        )
        normalised = (image / 255 - mean) / std
        return normalised.flip(1) if self.settings.order == "bgr" else normalised


def _renew_last_layer(model: nn.Module, classes: int) -> str:
    """Put a new layer of `classes` outputs in place of the last one that has weights; its name."""
    layers: dict[str, nn.Module] = dict(model.named_modules())
    name = [name for name, layer in layers.items() if isinstance(layer, nn.Conv2d | nn.Linear)][-1]
    last = layers[name]
    parent, _, child = name.rpartition(".")
    new: nn.Module
    if isinstance(last, nn.Linear):
        new = nn.Linear(last.in_features, classes)
    else:
        new = nn.Conv2d(cast("nn.Conv2d", last).in_channels, classes, 1)
    for tensor in new.parameters():
        nn.init.normal_(tensor, std=0.01)
    setattr(model.get_submodule(parent), child, new)
    return name
