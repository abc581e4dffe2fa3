"""`gicd` as its authors released it, step by step: what the closed form of ours is compared with."""

from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from salience.training.networks.gicd import GradientInduced, GradientInducedSettings


def small_vgg(
    *, hidden: tuple[int, int] = (24, 16), classes: int = 20, seed: int = 0, **settings: Any
) -> GradientInduced:
    """A network on VGG16 whose classifier has few units (4096, 4096 and 1000 have 124 million weights).

    Random weights of a scale that keeps signals alive, and biases, so that a layer that forgets them shows.
    """
    build = torchvision.models.vgg16

    def narrow(**given: Any) -> Any:
        model: Any = build(**given)
        first, second = hidden
        model.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, first), nn.ReLU(True), nn.Dropout(),
            nn.Linear(first, second), nn.ReLU(True), nn.Dropout(),
            nn.Linear(second, classes),
        )  # fmt: skip
        return model

    torch.manual_seed(seed)
    with patch.object(torchvision.models, "vgg16", narrow):
        network = GradientInduced(GradientInducedSettings(**{"backbone": "vgg16", "width": 8, **settings}))
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return network.eval()


def released_weights(network: GradientInduced, top: Tensor) -> Tensor:
    """From F5 (N, 512, 14, 14) of one group the weights (N, 512), by autograd."""
    with torch.no_grad():
        # The group's consensus, by the classifier as it is.
        pooled = F.max_pool2d(top, kernel_size=2, stride=2)
        consensus = torch.softmax(_head(network, pooled.flatten(1)).sum(dim=0), dim=0)
    with torch.enable_grad():
        top = top.detach().requires_grad_()
        averaged = F.avg_pool2d(top, kernel_size=2, stride=2)
        similarity = (_head(network, averaged.flatten(1)) * consensus).sum()
        (gradient,) = torch.autograd.grad(similarity, top)
    weights = F.relu(gradient.mean(dim=(2, 3)))
    least, largest = weights.min(dim=1, keepdim=True).values, weights.max(dim=1, keepdim=True).values
    return (weights - least) / (largest - least)


def released_maps(network: GradientInduced, images: Tensor) -> list[Tensor]:
    """Maps S1 to S4 of one group (N, 3, 224, 224), before any upsampling to the input's size."""
    with torch.no_grad():
        f1, f2, f3, f4, f5 = _features(network, images)
        induced = f5 * released_weights(network, f5)[:, :, None, None]
        saliency = F.relu(induced.mean(dim=1, keepdim=True))
        least, largest = saliency.amin(dim=(2, 3), keepdim=True), saliency.amax(dim=(2, 3), keepdim=True)
        saliency = (saliency - least) / (largest - least)
        pyramid = _conv(network.reduce[3], F.relu(_conv(network.reduce[1], induced)))
        maps: list[Tensor] = []
        for block, feature in zip(network.blocks, (f4, f3, f2, f1), strict=True):
            pyramid, saliency = _retain(block, pyramid, saliency, feature)
            maps.insert(0, saliency)
    return maps


def _features(network: GradientInduced, images: Tensor) -> list[Tensor]:
    """relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3 of VGG16."""
    state, found = network.backbone.state_dict(), []
    values, index = images, 0
    for count in (2, 2, 3, 3, 3):
        for _ in range(count):
            weight, bias = state[f"features.{index}.weight"], state[f"features.{index}.bias"]
            values = F.relu(F.conv2d(values, weight, bias, padding=1))
            index += 2
        found.append(values)
        values, index = F.max_pool2d(values, kernel_size=2, stride=2), index + 1
    return found


def _head(network: GradientInduced, pooled: Tensor) -> Tensor:
    """fc6, fc7 and fc8: (N, 25088) -> the logits."""
    state = network.backbone.state_dict()
    for index in (0, 3):
        pooled = F.relu(F.linear(pooled, state[f"classifier.{index}.weight"], state[f"classifier.{index}.bias"]))
    return F.linear(pooled, state["classifier.6.weight"], state["classifier.6.bias"])


def _retain(block: nn.Module, pyramid: Tensor, saliency: Tensor, feature: Tensor) -> tuple[Tensor, Tensor]:
    """One attention retaining module: the coarser P and S, and F of this level -> this level's P and S."""
    names: Any = block
    up_saliency = F.interpolate(saliency, size=feature.shape[2:], mode="bilinear", align_corners=True)
    up_pyramid = F.interpolate(pyramid, size=feature.shape[2:], mode="bilinear", align_corners=True)
    retained = _conv(names.reduce[2], F.relu(_conv(names.reduce[0], up_saliency * feature)))
    pyramid = _conv(names.enhance[2], F.relu(_conv(names.enhance[0], up_pyramid + retained)))
    hidden = F.relu(_conv(names.detect[2], F.relu(_conv(names.detect[0], pyramid))))
    return pyramid, torch.sigmoid(_conv(names.detect[4], hidden))


def _conv(layer: nn.Module, values: Tensor) -> Tensor:
    assert isinstance(layer, nn.Conv2d)
    return F.conv2d(values, layer.weight, layer.bias, padding=layer.kernel_size[0] // 2)
