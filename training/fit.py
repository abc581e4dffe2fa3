"""The training loop: one for all methods, on one CPU or many GPUs (Lightning Fabric)."""

import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from lightning_fabric import Fabric
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn
from torch.optim.swa_utils import AveragedModel

from salience.runtime.errors import DataError
from salience.runtime.files import write_atomic

from .checkpoint import CheckpointHeader, save_checkpoint
from .data.sampling import DrawOrder, source_of
from .devices import synchronise_norms
from .identity import Identity
from .optim import Schedule, build_optimiser
from .recipe import Recipe
from .run_state import (
    BEST_FILE,
    HISTORY_FILE,
    LAST_FILE,
    STATE_FILE,
    TENSORBOARD_FOLDER,
    EpochRecord,
    FitSettings,
    Run,
    hours,
    images_per_second,
)
from .scalars import ScalarLog
from .trainer import Trainer, passes_per_epoch
from .wide_backward import widen_backward


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
    # A recipe may let the network compute what the frozen part gives; that runs on the training device.
    network.to(fabric.device)
    data: Any = recipe.dataset(
        network, train, header.preprocessing,
        augmentation=settings.augmentation, seed=settings.seed, workers=settings.workers,
    )  # fmt: skip
    checks: Any = recipe.checks(network, validate, header.preprocessing)
    passes = passes_per_epoch(len(data), settings, fabric.world_size)
    identity = _identity(network, recipe, header, settings, fabric, images=len(data))
    order = None
    if recipe.draws_samples:
        order = DrawOrder([source_of(sample) for sample in train], settings.weights, settings.seed)
    elif settings.weights:
        raise DataError(f"--data DIR=WEIGHT: {header.method} draws groups, not samples; leave the weights out.")
    trainer = _trainer(network, recipe, identity, settings, fabric, passes=passes, order=order)
    run = trainer.run
    if resume and (settings.output / STATE_FILE).exists():
        run.resume(settings.output / STATE_FILE)
    folder = settings.output / TENSORBOARD_FOLDER if settings.tensorboard and fabric.is_global_zero else None
    with ScalarLog(folder, start=len(run.history)) as log:
        while len(run.history) < settings.optimiser.epochs and not run.stalled(settings.stop_after):
            record = _epoch(trainer, data, checks, passes)
            run.add(record, settings)
            if fabric.is_global_zero:
                log.write(record)
                _write_epoch(run, header, settings, fabric)
            fabric.barrier()
    return run.history


def describe(scores: dict[str, float]) -> str:
    """Scores in a row, as `f_max 0.8600  mae 0.0733`."""
    return "  ".join(f"{name} {value:.4f}" for name, value in scores.items())


def _trainer(
    network: nn.Module,
    recipe: Recipe,
    identity: Identity,
    settings: FitSettings,
    fabric: Fabric,
    *,
    passes: int,
    order: DrawOrder | None,
) -> Trainer:
    """Everything that trains, on the device, at the start of a run."""
    optimiser = build_optimiser(network, settings.optimiser)
    if settings.sync_norm:
        synchronise_norms(network, fabric)
    averaged = AveragedModel(network, use_buffers=True) if settings.optimiser.average else None
    if fabric.device.type == "cpu" and fabric.strategy.precision.precision == "bf16-mixed":
        widen_backward(network)
    # Twice as fast on a CPU as (N, C, H, W) order, and never slower on a GPU.
    wrapped, wrapped_optimiser = fabric.setup(network.to(memory_format=torch.channels_last), optimiser)
    steps = passes // settings.accumulate * settings.optimiser.epochs
    run = Run(
        network,
        optimiser,
        Schedule(optimiser, settings.optimiser, steps=steps),
        fabric.strategy.precision,
        identity,
        averaged,
    )
    return Trainer(wrapped, wrapped_optimiser, run, recipe, settings, fabric, order)


def _epoch(trainer: Trainer, data: Any, checks: Any, passes: int) -> EpochRecord:
    """Train and validate once."""
    run, start = trainer.run, time.monotonic()
    data.epoch = epoch = len(run.history)
    rate = run.optimiser.param_groups[0]["lr"]
    with _progress(trainer.fabric) as progress:
        name = f"epoch {epoch + 1}/{trainer.settings.optimiser.epochs}"
        task = progress.add_task(name, total=passes, note="")
        trained = trainer.train(data, lambda note: progress.update(task, advance=1, note=note))
        run.schedule.step_epoch(trained.loss)
        scores = trainer.validate(checks)
        progress.update(task, note=f"loss {trained.loss:.4f}  {describe(scores)}")
    return EpochRecord(
        epoch=epoch, loss=trained.loss, scores=scores, rate=rate, seconds=time.monotonic() - start,
        images_per_second=trained.images_per_second, draws=trained.draws,
    )  # fmt: skip


def _write_epoch(run: Run, header: CheckpointHeader, settings: FitSettings, fabric: Fabric) -> None:
    """Checkpoints first, the state last: a kill between them repeats the epoch, with the same result."""
    summary = header.training | {
        "epochs": len(run.history),
        "optimiser": settings.optimiser.model_dump(),
        "augmentation": settings.augmentation,
        "seed": settings.seed,
        "devices": fabric.world_size,
        "draws": dict(sum((Counter(record.draws) for record in run.history), Counter[str]())),
        "validation": run.history[-1].model_dump(include={"epoch", "scores"}),
    }
    if not settings.deterministic:
        summary |= {"hours": hours(run.history), "images_per_second": images_per_second(run.history)}
    current = header.model_copy(update={"training": summary})
    dtype = torch.float16 if settings.half else torch.float32
    save_checkpoint(settings.output / LAST_FILE, run.result, current, dtype=dtype)
    if run.best is run.history[-1]:
        save_checkpoint(settings.output / BEST_FILE, run.result, current, dtype=dtype)
    history = json.dumps([record.model_dump() for record in run.history], indent=1)
    write_atomic(settings.output / HISTORY_FILE, history.encode())
    run.save(settings.output / STATE_FILE)


def _identity(
    network: Any, recipe: Recipe, header: CheckpointHeader, settings: FitSettings, fabric: Fabric, *, images: int
) -> Identity:
    """Everything that two runs must share for one to continue the other."""
    models = {
        "network": network.settings,
        "preprocessing": header.preprocessing,
        "optimiser": settings.optimiser,
        "recipe": recipe,
    }
    others = {
        "method": header.method,
        "accumulate": settings.accumulate,
        "augmentation": settings.augmentation,
        "seed": settings.seed,
        "source weights": json.dumps(dict(settings.weights), sort_keys=True),
        "images": images,
        "frozen layers": getattr(network.backbone, "frozen", 0),
        "weights": header.training.get("backbone_weights"),
        "initial": header.training.get("initial", {}).get("sha256"),
        "teachers": header.training.get("teachers"),
        "priors": header.training.get("priors"),
        "devices": fabric.world_size,
        "precision": fabric.strategy.precision.precision,
    }
    return Identity(models, others)


def _progress(fabric: Fabric) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        disable=not fabric.is_global_zero or "PYTEST_CURRENT_TEST" in os.environ,
    )
