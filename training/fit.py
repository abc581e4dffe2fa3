"""The training loop: one for all methods, on one CPU or many GPUs (Lightning Fabric)."""

import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from pydantic import BaseModel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, DistributedSampler

from salience.runtime.errors import CheckpointError, DataError, SalienceError
from salience.runtime.files import atomic_path, write_atomic

from .checkpoint import CheckpointHeader, save_checkpoint
from .data.dataset import Augmentation
from .optim import OptimiserSettings, Schedule, build_optimiser
from .recipe import Recipe

STATE_FILE = "state.pt"
BEST_FILE = "best.safetensors"
LAST_FILE = "last.safetensors"


class EpochRecord(BaseModel):
    """What one epoch left behind; `scores` are the recipe's, of the validation part at input size."""

    epoch: int
    loss: float
    scores: dict[str, float]
    rate: float
    seconds: float

    @property
    def quality(self) -> float:
        """The score that decides; larger is better."""
        return next(iter(self.scores.values()))


@dataclass(frozen=True)
class FitSettings:
    """How a run proceeds; `optimiser.batch` images are gathered from `accumulate` passes, and `half` stores
    the checkpoints' weights as fp16.
    """

    output: Path
    optimiser: OptimiserSettings
    accumulate: int = 1
    augmentation: Augmentation = "paper"
    seed: int = 0
    workers: int = 0
    limit_steps: int | None = None
    half: bool = False

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
    fingerprint: str
    averaged: AveragedModel | None = None
    history: list[EpochRecord] = field(default_factory=list)

    @property
    def result(self) -> nn.Module:
        """The network to validate and save: the averaged one where there is one."""
        return self.averaged.module if self.averaged else self.network

    @property
    def best(self) -> EpochRecord | None:
        """The epoch that validates best."""
        return max(self.history, key=lambda record: record.quality, default=None)

    def save(self, path: Path) -> None:
        """Write the state, whole or not at all."""
        state = {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged else {},
            "fingerprint": self.fingerprint,
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
            fingerprint = state["fingerprint"]
        except Exception as error:
            raise CheckpointError(f"run state {path}: cannot be read ({error}); start without --resume.") from error
        if fingerprint != self.fingerprint:
            raise CheckpointError(
                f"run state {path}: written with other settings or data; resume with the same command "
                f"(it was {fingerprint}) or choose another --output."
            )
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        if self.averaged:
            self.averaged.load_state_dict(state["averaged"])
        self.history = [EpochRecord.model_validate(record) for record in state["history"]]


def fit(
    network: nn.Module,
    recipe: Recipe,
    header: CheckpointHeader,
    *,
    train: Sequence[Any],
    validate: Sequence[Any],
    settings: FitSettings,
    fabric: Fabric,
    resume: bool = False,
) -> list[EpochRecord]:
    """Train `network` and leave the best and the last checkpoint in `settings.output`.

    Every epoch is drawn from the seed and its own number alone, so a run that is killed and resumed ends
    with the same weights as one that is not (on the CPU with the same number of threads).

    Args:
        network: as `build_network` makes it.
        recipe: loss, data and scores.
        header: goes into the checkpoints, with the training summary added.
        train: samples to learn from.
        validate: samples that choose the best epoch.
        settings: see `FitSettings`.
        fabric: launched; decides device, precision and number of processes.
        resume: continue from the state file of `settings.output` if there is one.

    Returns:
        One record per epoch, earlier ones of a resumed run included.
    """
    preprocessing = header.preprocessing
    data: Any = recipe.dataset(
        network, train, preprocessing,
        augmentation=settings.augmentation, seed=settings.seed, workers=settings.workers,
    )  # fmt: skip
    checks: Any = recipe.checks(network, validate, preprocessing)
    passes = _passes_per_epoch(data, settings, fabric)
    steps = passes // settings.accumulate * settings.optimiser.epochs
    optimiser = build_optimiser(network, settings.optimiser)
    # Twice as fast on a CPU as (N, C, H, W) order, and never slower on a GPU.
    wrapped, wrapped_optimiser = fabric.setup(network.to(memory_format=torch.channels_last), optimiser)
    decay = settings.optimiser.average
    run = Run(
        network,
        optimiser,
        Schedule(optimiser, settings.optimiser, steps=steps),
        _fingerprint(settings, header, data),
        AveragedModel(network, use_buffers=True) if decay else None,
    )
    state_path = settings.output / STATE_FILE
    if resume and state_path.exists():
        run.resume(state_path)
    for epoch in range(len(run.history), settings.optimiser.epochs):
        start = time.monotonic()
        data.epoch = epoch
        with _progress(fabric) as progress:
            task = progress.add_task(f"epoch {epoch + 1}/{settings.optimiser.epochs}", total=passes, note="")
            rate = optimiser.param_groups[0]["lr"]
            loss = _train_epoch(wrapped, wrapped_optimiser, run, recipe, _loader(data, recipe, settings, fabric),
                                settings, fabric, progress=(progress, task))  # fmt: skip
            run.schedule.step_epoch(loss)
            scores = _validate(run.result, recipe, checks, settings, fabric)
            progress.update(task, note=f"loss {loss:.4f}  {describe(scores)}")
        run.history.append(
            EpochRecord(epoch=epoch, loss=loss, scores=scores, rate=rate, seconds=time.monotonic() - start)
        )
        if fabric.is_global_zero:
            _write_epoch(run, header, settings)
        fabric.barrier()
    return run.history


def describe(scores: dict[str, float]) -> str:
    """Scores in a row, as `f_max 0.8600  mae 0.0733`."""
    return "  ".join(f"{name} {value:.4f}" for name, value in scores.items())


def _passes_per_epoch(data: Any, settings: FitSettings, fabric: Fabric) -> int:
    """Forward passes of each process; at least one optimiser step must come of them."""
    passes = len(data) // (settings.pass_batch * fabric.world_size)
    if passes < 1:
        raise DataError(
            f"training: {len(data)} images do not fill one batch of {settings.pass_batch} on each of "
            f"{fabric.world_size} processes; lower --batch or add images."
        )
    if passes < settings.accumulate:
        raise DataError(
            f"training: an epoch has {passes} passes, fewer than the {settings.accumulate} that one optimiser step "
            "gathers; lower --accumulate or add images."
        )
    return passes


def _train_epoch(
    network: Any,
    optimiser: Any,
    run: Run,
    recipe: Recipe,
    loader: Iterable[dict[str, Tensor]],
    settings: FitSettings,
    fabric: Fabric,
    *,
    progress: tuple[Progress, Any],
) -> float:
    """One pass over the data; the mean loss."""
    network.train()
    if settings.optimiser.backbone_rate == 0:
        cast("nn.Module", run.network.backbone).eval()  # frozen, its batch statistics too
    # Dropout draws from the global generator: seeding it by epoch makes the epoch repeatable.
    torch.manual_seed(settings.seed * 100_003 + len(run.history))
    total, count = 0.0, 0
    for index, batch in enumerate(_batches(loader)):
        if settings.limit_steps is not None and index >= settings.limit_steps * settings.accumulate:
            break
        last = (index + 1) % settings.accumulate == 0
        with fabric.no_backward_sync(network, enabled=not last):
            loss, _ = recipe.loss(network, batch)
            fabric.backward(loss / settings.accumulate)
        if last:
            if settings.optimiser.clip:
                fabric.clip_gradients(network, optimiser, max_norm=settings.optimiser.clip)
            optimiser.step()
            optimiser.zero_grad()
            run.schedule.step_batch()
            if run.averaged:
                run.averaged.multi_avg_fn = _average(run.averaged, settings.optimiser.average)
                run.averaged.update_parameters(run.network)
        total, count = total + float(loss.detach()), count + 1
        progress[0].update(progress[1], advance=1, note=f"loss {total / count:.4f}")
    optimiser.zero_grad()
    return cast("Tensor", fabric.all_reduce(torch.tensor(total / max(count, 1)), reduce_op="mean")).item()


@torch.no_grad()
def _validate(network: Any, recipe: Recipe, data: Any, settings: FitSettings, fabric: Fabric) -> dict[str, float]:
    """Scores at input size; every process scores all images."""
    network.eval()
    scorer = recipe.scorer()
    loader: Any = fabric.setup_dataloaders(
        DataLoader(data, batch_size=settings.pass_batch, num_workers=settings.workers, collate_fn=recipe.collate),
        use_distributed_sampler=False,
    )
    for batch in _batches(loader):
        _, prediction = recipe.loss(network, batch)
        scorer.add(prediction, batch)
    return scorer.scores()


def _average(averaged: AveragedModel, decay: float) -> Any:
    """The moving average's next step; its decay rises to `decay`, so that the first weights are soon forgotten."""
    steps = int(averaged.n_averaged)
    return get_ema_multi_avg_fn(min(decay, (1 + steps) / (10 + steps)))


def _batches(loader: Iterable[dict[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    """Batches with the image in channels-last order; an error in a worker process is its last line alone."""
    try:
        for batch in loader:
            if "image" in batch:
                batch["image"] = batch["image"].contiguous(memory_format=torch.channels_last)
            yield batch
    except SalienceError as error:
        raise type(error)(str(error).strip().splitlines()[-1].split("Error: ", 1)[-1]) from None


def _loader(data: Any, recipe: Recipe, settings: FitSettings, fabric: Fabric) -> Any:
    sampler: DistributedSampler[dict[str, Tensor]] = DistributedSampler(
        data, num_replicas=fabric.world_size, rank=fabric.global_rank, seed=settings.seed, drop_last=True
    )
    sampler.set_epoch(data.epoch)
    loader = DataLoader(
        data, batch_size=settings.pass_batch, sampler=sampler, num_workers=settings.workers, drop_last=True,
        collate_fn=recipe.collate,
    )  # fmt: skip
    return fabric.setup_dataloaders(loader, use_distributed_sampler=False)


def _write_epoch(run: Run, header: CheckpointHeader, settings: FitSettings) -> None:
    """Checkpoints first, the state last: a kill between them repeats the epoch, with the same result."""
    summary = header.training | {
        "epochs": len(run.history),
        "optimiser": settings.optimiser.model_dump(),
        "augmentation": settings.augmentation,
        "seed": settings.seed,
        "validation": run.history[-1].model_dump(include={"epoch", "scores"}),
    }
    current = header.model_copy(update={"training": summary})
    dtype = torch.float16 if settings.half else torch.float32
    save_checkpoint(settings.output / LAST_FILE, run.result, current, dtype=dtype)
    if run.best is run.history[-1]:
        save_checkpoint(settings.output / BEST_FILE, run.result, current, dtype=dtype)
    history = json.dumps([record.model_dump() for record in run.history], indent=1)
    write_atomic(settings.output / "history.json", history.encode())
    run.save(settings.output / STATE_FILE)


def _fingerprint(settings: FitSettings, header: CheckpointHeader, data: Any) -> str:
    """Everything that two runs must share for one to continue the other."""
    return (
        f"{header.method} {json.dumps(header.network, sort_keys=True)} {header.preprocessing.model_dump_json()} "
        f"{settings.optimiser.model_dump_json()} accumulate={settings.accumulate} "
        f"augmentation={settings.augmentation} seed={settings.seed} images={len(data)} "
        f"recipe={json.dumps(header.training.get('recipe'), sort_keys=True)} "
        f"weights={header.training.get('backbone_weights')}"
    )


def _progress(fabric: Fabric) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        disable=not fabric.is_global_zero or "PYTEST_CURRENT_TEST" in os.environ,
    )
