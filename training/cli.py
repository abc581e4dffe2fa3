"""The command line of training."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.progress import Progress

from salience.runtime.commands import parse_pairs, parse_settings, repeat_flags, report_errors
from salience.runtime.option_groups import expand_options
from salience.runtime.tables import entry

from .checkpoint import CheckpointHeader, file_sha256
from .data.memory import keep_in_memory
from .data.priors import priors_origin
from .devices import determinism_explained, open_fabric
from .distillation import teachers_origin
from .fit import describe, fit
from .optim import OptimiserSettings
from .options import DataOptions, NetworkOptions, OptimiserOptions, RunOptions, TeacherOptions
from .preparation import Samples, add_teachers, make_network, read_samples
from .recipe import Recipe
from .recipes import RECIPES
from .run_state import BEST_FILE, EpochRecord, FitSettings, hours, images_per_second
from .scalars import check_tensorboard

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def main() -> None:
    """Entry point."""
    several = {"--data", "--network", "--recipe", "--teacher", "--unlabelled", "--priors"}
    app(repeat_flags(sys.argv[1:], frozenset(several)))


@app.command()
@report_errors
@expand_options
def train(
    method: Annotated[str, typer.Argument(help=f"One of: {', '.join(RECIPES)}.")],
    output: Annotated[Path, typer.Option(help="Folder of the run: checkpoints, history, state.")],
    *,
    data: DataOptions,
    teaching: TeacherOptions,
    start: NetworkOptions,
    optimiser: OptimiserOptions,
    run: RunOptions,
) -> None:
    """Train METHOD; the best checkpoint by validation max F is OUTPUT/best.safetensors."""
    recipe_type = entry(RECIPES, method, what="method")
    recipe: Recipe = parse_settings(recipe_type, parse_pairs(optimiser.recipe_option, "--recipe"), "--recipe")
    changed = recipe.defaults().model_dump() | optimiser.changes()
    settings = FitSettings(
        output, parse_settings(OptimiserSettings, changed, "training options"), optimiser.accumulate,
        data.augmentation or recipe.augmentation, run.seed, run.workers, run.limit_steps, run.half, run.stop_after,
        run.tensorboard, run.deterministic, sync_norm=run.sync_norm,
    )  # fmt: skip
    samples = read_samples(recipe, data, seed=run.seed, note=lambda text: typer.echo(text, err=True))
    torch.manual_seed(run.seed)
    network, preprocessing = make_network(method, recipe.network_settings(samples.training), start)
    with _teaching_bar() as progress:
        folder = teaching.teacher_maps or output / "teacher-maps"
        add_teachers(samples, recipe, teaching, folder=folder, progress=progress)
    if run.tensorboard:
        check_tensorboard()
    fabric = open_fabric(run.accelerator, run.devices, run.precision, deterministic=run.deterministic)
    header = CheckpointHeader(
        method=method, network=network.settings.model_dump(), preprocessing=preprocessing,
        training=_origin(recipe, samples, start)
        | teachers_origin(teaching.teacher or [], teaching.teacher_share)
        | priors_origin(samples.training, data.priors or []),
    )  # fmt: skip
    parts = [samples.training, samples.validation]
    training, validation = (keep_in_memory(part, data.keep) if data.keep else part for part in parts)
    with determinism_explained():
        history = fit(
            network, recipe, header, train=training, validate=validation,
            settings=replace(settings, weights=samples.weights), fabric=fabric, resume=run.resume,
        )  # fmt: skip
    if fabric.is_global_zero:
        typer.echo(_summary(history, output, fabric.world_size))


@contextmanager
def _teaching_bar() -> Iterator[Callable[[int, int], None]]:
    """A bar that shows while the teachers' maps are computed."""
    with Progress(transient=True) as bar:
        task = bar.add_task("teachers' maps", visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


def _summary(history: Sequence[EpochRecord], output: Path, devices: int) -> str:
    """What the run came to, and what it took."""
    best = max(history, key=lambda record: record.quality)
    stop = f"stopped after epoch {len(history)}, {len(history) - 1 - best.epoch} without a better score\n"
    return (
        f"{stop if history[-1].stopped else ''}"
        f"{output / BEST_FILE}: epoch {best.epoch + 1}, validation {describe(best.scores)}\n"
        f"{hours(history):.2f} hours, {images_per_second(history):.1f} images/s, devices: {devices}"
        f"{_draws(history)}"
    )


def _draws(history: Sequence[EpochRecord]) -> str:
    """How often each source was drawn, where there are several."""
    total = sum((Counter(record.draws) for record in history), Counter[str]())
    counted = ", ".join(f"{source} {count}" for source, count in sorted(total.items()))
    return f"\ndraws: {counted}" if len(total) > 1 else ""


def _origin(recipe: Recipe, samples: Samples, start: NetworkOptions) -> dict[str, Any]:
    """What the header says that a network was trained on."""
    initial = start.initial
    return {
        "sets": sorted({sample.name.split("/")[0] for sample in samples.training}),
        "images": len(samples.training),
        "validation_images": len(samples.validation),
        "backbone_weights": Path(start.weights).name if start.weights else None,
        "recipe": recipe.model_dump(),
        **({"initial": {"file": initial.name, "sha256": file_sha256(initial)}} if initial else {}),
    }
