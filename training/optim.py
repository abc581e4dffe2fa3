"""Optimisers and learning-rate schedules that the recipes choose from."""

import math
from functools import partial
from typing import Literal, cast

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer, lr_scheduler

from .backbone import Backbone


class OptimiserSettings(BaseModel):
    """Optimiser, schedule and length of a training run.

    `rate` is the learning rate of the new layers, `backbone_rate` the factor on it for the backbone,
    `batch` the images per optimiser step, `clip` the largest gradient norm (0: no clipping). `average` is the decay
    per step of an exponential moving average of the weights, which then validates and is saved (0: none).
    Schedules: `plateau` multiplies the rate by .1 when the training loss stalls for `patience` epochs,
    `halfway` does so once, in the middle; `cosine` rises linearly over the first `warmup` part and falls to zero by a
    cosine; `constant` does nothing. `betas` are Adam's. With `freeze_norm` the backbone's batch norms keep their
    statistics and affine parameters, as small batches call for; the new layers' batch norms learn.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    optimiser: Literal["sgd", "adam", "adamw"] = "sgd"
    rate: float = Field(default=0.01, gt=0)
    backbone_rate: float = Field(default=1.0, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    decay: float = Field(default=0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Literal["plateau", "halfway", "cosine", "constant"] = "constant"
    patience: int = Field(default=3, ge=0)
    warmup: float = Field(default=0.1, ge=0, le=1)
    epochs: int = Field(default=1, ge=1)
    batch: int = Field(default=16, ge=1)
    clip: float = Field(default=0.0, ge=0)
    average: float = Field(default=0.0, ge=0, lt=1)
    freeze_norm: bool = False


def build_optimiser(network: nn.Module, settings: OptimiserSettings) -> Optimizer:
    """An optimiser with two groups: the `backbone` submodule, without what the network calls `fresh`, and the rest.

    With a `backbone_rate` of 0 the backbone is frozen, with `freeze_norm` its batch norms: no gradients are computed.
    """
    fresh = getattr(network, "fresh", ())
    backbone: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        pretrained = name.startswith("backbone.") and not name.startswith(tuple(fresh))
        (backbone if pretrained else others).append(parameter)
    if settings.backbone_rate == 0:
        for parameter in backbone:
            parameter.requires_grad_(False)
    features = getattr(network, "backbone", None)
    if isinstance(features, Backbone) and hasattr(features, "classifier"):
        # It has no part in the loss, and several processes wait for the gradient of all that is not frozen.
        features.classifier.requires_grad_(False)
    if settings.freeze_norm:
        for norm in backbone_norms(network):
            norm.requires_grad_(False)
    groups = [
        {"params": others, "lr": settings.rate},
        {"params": backbone, "lr": settings.rate * settings.backbone_rate},
    ]
    match settings.optimiser:
        case "sgd":
            return torch.optim.SGD(groups, momentum=settings.momentum, weight_decay=settings.decay)
        case "adam":
            return torch.optim.Adam(groups, betas=settings.betas, weight_decay=settings.decay)
        case "adamw":
            return torch.optim.AdamW(groups, betas=settings.betas, weight_decay=settings.decay)


def backbone_norms(network: nn.Module) -> list[nn.Module]:
    """Return the batch norms of the network's `backbone`."""
    return [module for module in cast("nn.Module", network.backbone).modules() if isinstance(module, _BatchNorm)]


class Schedule:
    """A learning-rate schedule with one face: `step_batch` after every optimiser step, `step_epoch` after
    every epoch with its mean training loss. Its state is saved with the run's.
    """

    def __init__(self, optimiser: Optimizer, settings: OptimiserSettings, *, steps: int) -> None:
        self._per_batch: lr_scheduler.LRScheduler | None = None
        self._per_epoch: lr_scheduler.ReduceLROnPlateau | None = None
        if settings.schedule == "cosine":
            self._per_batch = lr_scheduler.LambdaLR(
                optimiser, partial(_warm_cosine, steps=steps, warmup=settings.warmup)
            )
        elif settings.schedule == "halfway":
            self._per_batch = lr_scheduler.LambdaLR(optimiser, lambda step: 1.0 if step < steps // 2 else 0.1)
        elif settings.schedule == "plateau":
            self._per_epoch = lr_scheduler.ReduceLROnPlateau(optimiser, patience=settings.patience)

    def step_batch(self) -> None:
        """After an optimiser step."""
        if self._per_batch is not None:
            self._per_batch.step()

    def step_epoch(self, loss: float) -> None:
        """After an epoch of mean training loss `loss`."""
        if self._per_epoch is not None:
            self._per_epoch.step(loss)

    def state_dict(self) -> dict[str, object]:
        """State to save."""
        current = self._per_batch or self._per_epoch
        return dict(current.state_dict()) if current else {}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Restore what `state_dict` gave."""
        current = self._per_batch or self._per_epoch
        if current:
            current.load_state_dict(state)


def _warm_cosine(step: int, *, steps: int, warmup: float) -> float:
    """Factor on the rate after `step` of `steps`."""
    rise = warmup * steps
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(steps - rise, 1))))
