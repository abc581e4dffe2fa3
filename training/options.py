"""The options of training, in groups that `expand_options` turns into those of the command line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from salience.runtime.option_groups import option

from .data.dataset import Augmentation
from .devices import PRECISIONS


@dataclass(frozen=True)
class DataOptions:
    """What a run learns from, and how samples are varied."""

    data: list[str] | None = option(
        None,
        "DIR[=WEIGHT] of sets: images/ and masks/, or as DUTS, MSRA10K, ... are published. With weights, sets are "
        "drawn by weight and not by their number of images.",
        panel="Data",
    )
    synthetic: int = option(0, "Add this many synthetic scenes.", min=0, panel="Data")
    priors: list[Path] | None = option(
        None,
        "lps: maps of other detectors, named like the images; a folder beside them, or one per set.",
        panel="Data",
    )
    splits: Path | None = option(None, "JSON split file; else a seeded split is made.", panel="Data")
    val_fraction: float = option(0.1, "Part that validates, without --splits.", min=0.0, max=0.9, panel="Data")
    augmentation: Augmentation | None = option(None, "How samples are varied; default: the paper's.", panel="Data")
    keep: int | None = option(
        None,
        "Decode all images once and keep them in memory, their longer side this many pixels.",
        min=32,
        panel="Data",
    )


@dataclass(frozen=True)
class TeacherOptions:
    """Networks whose maps are learned too."""

    teacher: list[Path] | None = option(
        None,
        "Checkpoints or bundles whose maps are learned too; computed once, with mirror images.",
        panel="Distillation",
    )
    teacher_share: float = option(
        0.5, "Of the teachers' mean map in the target; the mask has the rest.", min=0, max=1, panel="Distillation"
    )
    teacher_maps: Path | None = option(
        None, "Folder that keeps the teachers' maps; default: OUTPUT/teacher-maps.", panel="Distillation"
    )
    unlabelled: list[str] | None = option(
        None, "DIR[=WEIGHT] of images without masks, for the teachers.", panel="Distillation"
    )


@dataclass(frozen=True)
class NetworkOptions:
    """The network, and the weights that it starts from."""

    backbone: str | None = option(
        None,
        "Feature extractor: vgg16, mobilenet_v2, timm:NAME, or squeezenet1_0 for cgd. Default: vgg16, or that of "
        "--initial.",
        panel="Network",
    )
    weights: str | None = option(
        None,
        "Backbone weights: a .safetensors file with torchvision's or timm's names, 'torchvision' or 'timm'.",
        panel="Network",
    )
    initial: Path | None = option(
        None, "A checkpoint of METHOD to train further; its settings are the defaults.", panel="Network"
    )
    convention: Literal["caffe", "matconvnet"] | None = option(
        None,
        "Input of weights from another framework; default: as the backbone's library.",
        "--input",
        panel="Network",
    )
    size: tuple[int, int] | None = option(
        None, "Input height and width; default: 224 224, or that of --initial.", panel="Network"
    )
    network_option: list[str] | None = option(
        None, "NAME=VALUE ... of the network's settings.", "--network", panel="Network"
    )
    freeze_levels: int = option(
        0, "Keep the backbone's first feature levels as they are.", min=0, max=5, panel="Network"
    )


@dataclass(frozen=True)
class OptimiserOptions:
    """Changes of the recipe's optimiser and schedule."""

    epochs: int | None = option(None, "Default: the paper's.", min=1, panel="Optimiser")
    batch: int | None = option(None, "Images per pass; default: the paper's.", min=1, panel="Optimiser")
    accumulate: int = option(1, "Passes per optimiser step.", min=1, panel="Optimiser")
    optimiser: Literal["sgd", "adam", "adamw"] | None = option(None, "Default: the paper's.", panel="Optimiser")
    rate: float | None = option(None, "Learning rate; default: the paper's.", panel="Optimiser")
    backbone_rate: float | None = option(None, "Factor on the rate for the backbone.", panel="Optimiser")
    decay: float | None = option(None, "Weight decay.", panel="Optimiser")
    schedule: Literal["plateau", "halfway", "cosine", "constant"] | None = option(
        None, "Default: the paper's.", panel="Optimiser"
    )
    clip: float | None = option(None, "Largest gradient norm; 0 for none.", panel="Optimiser")
    average: float | None = option(None, "Decay of a moving average of the weights.", panel="Optimiser")
    freeze_norm: bool = option(
        False,
        "Keep statistics and parameters of the backbone's batch norms, for small batches.",
        "--freeze-norm",
        panel="Optimiser",
    )
    recipe_option: list[str] | None = option(
        None, "NAME=VALUE ... of the recipe's settings.", "--recipe", panel="Optimiser"
    )

    def changes(self) -> dict[str, Any]:
        """Return the settings of `OptimiserSettings` that were given."""
        given = {
            "epochs": self.epochs, "optimiser": self.optimiser, "rate": self.rate,
            "backbone_rate": self.backbone_rate, "decay": self.decay, "schedule": self.schedule, "clip": self.clip,
            "average": self.average, "freeze_norm": self.freeze_norm or None,
            "batch": self.batch * self.accumulate if self.batch else None,
        }  # fmt: skip
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class RunOptions:
    """Devices, repeatability, and what a run writes."""

    seed: int = option(0, "Of the split, the order, the augmentation and the initial weights.", panel="Run")
    workers: int = option(0, "Processes that load data.", min=0, panel="Run")
    accelerator: str = option("auto", "auto, cpu or cuda.", panel="Run")
    devices: int | None = option(
        None,
        "GPUs, or processes on the CPU, each with its own batch; default: 1, or torchrun's.",
        min=1,
        panel="Run",
    )
    precision: str = option("32-true", f"One of: {', '.join(PRECISIONS)}.", panel="Run")
    sync_norm: bool = option(
        False, "Batch norms take their statistics from all GPUs together.", "--sync-norm", panel="Run"
    )
    deterministic: bool = option(
        False, "Same seed, same bytes: also on a GPU, where it is slower.", "--deterministic", panel="Run"
    )
    tensorboard: bool = option(False, "Write the epochs to OUTPUT/tensorboard as well.", "--tensorboard", panel="Run")
    resume: bool = option(False, "Continue the run in --output.", "--resume", panel="Run")
    half: bool = option(False, "Store the checkpoints' weights as fp16.", "--half", panel="Run")
    stop_after: int | None = option(
        None, "End after this many epochs without a better validation score.", min=1, panel="Run"
    )
    limit_steps: int | None = option(None, "Optimiser steps per epoch at most, for a quick trial.", min=1, panel="Run")
