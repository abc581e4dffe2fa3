"""What a run is told, records, and leaves on the disk to go on from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import harmonic_mean

import torch
from lightning_fabric.plugins import Precision
from pydantic import BaseModel
from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from salience.runtime.errors import CheckpointError
from salience.runtime.files import atomic_path

from .data.dataset import Augmentation
from .identity import Identity
from .optim import OptimiserSettings, Schedule

STATE_FILE = "state.pt"
BEST_FILE = "best.safetensors"
LAST_FILE = "last.safetensors"
HISTORY_FILE = "history.json"
TENSORBOARD_FOLDER = "tensorboard"


class EpochRecord(BaseModel):
    """What one epoch left behind; `scores` are the recipe's, of the validation part at input size.

    `seconds` are those of training and validation, `images_per_second` the training images of all processes over
    the time of training alone (0: not measured). `stopped` says that the run ended here, before its last epoch.
    """

    epoch: int
    loss: float
    scores: dict[str, float]
    rate: float
    seconds: float
    images_per_second: float = 0.0
    stopped: bool = False
    draws: dict[str, int] = {}

    @property
    def quality(self) -> float:
        """The score that decides; larger is better."""
        return next(iter(self.scores.values()))


@dataclass(frozen=True)
class FitSettings:
    """How a run proceeds; `optimiser.batch` images are gathered from `accumulate` passes on each process, and
    `half` stores the checkpoints' weights as fp16. `weights` are those of `DrawOrder`.
    With `sync_norm` batch norms take their statistics from the batches of all GPUs.

    `stop_after` ends a run after that many epochs without a better validation score. `tensorboard` writes the
    records there too. `deterministic` leaves the time that a run took out of its checkpoints, so that the same run
    gives the same bytes.
    """

    output: Path
    optimiser: OptimiserSettings
    accumulate: int = 1
    augmentation: Augmentation = "flip"
    seed: int = 0
    workers: int = 0
    limit_steps: int | None = None
    half: bool = False
    stop_after: int | None = None
    tensorboard: bool = False
    deterministic: bool = False
    weights: Mapping[str, float] = field(default_factory=dict)
    sync_norm: bool = False

    @property
    def pass_batch(self) -> int:
        """Images per forward pass."""
        return max(1, self.optimiser.batch // self.accumulate)


@dataclass
class Run:
    """A training run in progress: everything that `save` writes and `resume` reads back."""

    network: nn.Module
    optimiser: Optimizer
    schedule: Schedule
    precision: Precision
    identity: Identity
    averaged: AveragedModel | None = None
    history: list[EpochRecord] = field(default_factory=list)

    @property
    def result(self) -> nn.Module:
        """The network to validate and save: the averaged one where there is one."""
        return self.averaged.module if self.averaged else self.network

    @property
    def best(self) -> EpochRecord | None:
        """The epoch that validates best, the first of equals."""
        return max(self.history, key=lambda record: record.quality, default=None)

    def stalled(self, stop_after: int | None) -> bool:
        """Whether the last `stop_after` epochs were no better than one before; None: never."""
        best = self.best
        return stop_after is not None and best is not None and len(self.history) - 1 - best.epoch >= stop_after

    def add(self, record: EpochRecord, settings: FitSettings) -> None:
        """Take in an epoch; it says whether the run ends with it before its time."""
        for earlier in self.history:
            earlier.stopped = False  # a run that had stopped goes on with another `stop_after`
        self.history.append(record)
        record.stopped = record.epoch + 1 < settings.optimiser.epochs and self.stalled(settings.stop_after)

    def save(self, path: Path) -> None:
        """Write the state, whole or not at all."""
        state = {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "precision": self.precision.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged else {},
            "fingerprint": self.identity.values,
            "history": [record.model_dump() for record in self.history],
        }
        with atomic_path(path) as temporary:
            torch.save(state, temporary)

    def resume(self, path: Path) -> None:
        """Read back what `save` wrote.

        Raises:
            CheckpointError: the file is damaged or belongs to a run with other settings or data.
        """
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            different = self.identity.differences(state["fingerprint"])
        except Exception as error:
            raise CheckpointError(f"run state {path}: cannot be read ({error}); start without --resume.") from error
        if different:
            raise CheckpointError(
                f"run state {path}: written with other settings or data ({'; '.join(different)}); resume with the "
                "same command or choose another --output."
            )
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        if state.get("precision"):
            self.precision.load_state_dict(state["precision"])
        if self.averaged:
            self.averaged.load_state_dict(state["averaged"])
        self.history = [EpochRecord.model_validate(record) for record in state["history"]]


def hours(history: Sequence[EpochRecord]) -> float:
    """How long a run took, validation included and pauses not."""
    return sum(record.seconds for record in history) / 3600


def images_per_second(history: Sequence[EpochRecord]) -> float:
    """Training images of all processes over the time of training; 0 where no epoch was measured."""
    measured = [record.images_per_second for record in history if record.images_per_second]
    # Epochs have the same number of images, so it is their times that are averaged.
    return harmonic_mean(measured) if measured else 0.0
