"""The command line of training."""

import math
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from rich.progress import Progress

from salience.runtime.commands import parse_pairs, parse_settings, repeat_flags, report_errors
from salience.runtime.errors import DataError, SalienceError
from salience.runtime.splits import listed_sets
from salience.runtime.tables import entry

from .backbone import Backbone, check_size, load_weights
from .checkpoint import CheckpointHeader, build_network, file_sha256, initial_network
from .data.dataset import Augmentation
from .data.folders import check_sizes, split_by_file, split_by_seed
from .data.memory import keep_in_memory
from .data.priors import priors_origin
from .data.sampling import source_of
from .devices import PRECISIONS, determinism_explained, open_fabric
from .distillation import read_unlabelled, taught, teachers_origin
from .fit import describe, fit
from .networks import NETWORKS
from .optim import OptimiserSettings
from .preprocessing import CONVENTIONS, Preprocessing
from .recipe import Recipe
from .recipes import RECIPES
from .run_state import BEST_FILE, EpochRecord, FitSettings, hours, images_per_second
from .scalars import check_tensorboard

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
SIZE = (224, 224)


def main() -> None:
    """Entry point."""
    several = {"--data", "--network", "--recipe", "--teacher", "--unlabelled", "--priors"}
    app(repeat_flags(sys.argv[1:], frozenset(several)))


@app.command()
@report_errors
def train(
    method: Annotated[str, typer.Argument(help=f"One of: {', '.join(RECIPES)}.")],
    output: Annotated[Path, typer.Option(help="Folder of the run: checkpoints, history, state.")],
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="DIR[=WEIGHT] of sets: images/ and masks/, or as DUTS, MSRA10K, ... are published. With weights, "
            "sets are drawn by weight and not by their number of images."
        ),
    ] = None,
    synthetic: Annotated[int, typer.Option(min=0, help="Add this many synthetic scenes.")] = 0,
    priors: Annotated[
        list[Path] | None,
        typer.Option(help="lps: maps of other detectors, named like the images; a folder beside them, or one per set."),
    ] = None,
    splits: Annotated[Path | None, typer.Option(help="JSON split file; else a seeded split is made.")] = None,
    val_fraction: Annotated[float, typer.Option(min=0.0, max=0.9, help="Part that validates, without --splits.")] = 0.1,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="Feature extractor: vgg16, mobilenet_v2, timm:NAME, or squeezenet1_0 for cgd. "
            "Default: vgg16, or that of --initial."
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Backbone weights: a .safetensors file with torchvision's or timm's names, 'torchvision' or 'timm'."
        ),
    ] = None,
    initial: Annotated[
        Path | None, typer.Option(help="A checkpoint of METHOD to train further; its settings are the defaults.")
    ] = None,
    convention: Annotated[
        Literal["caffe", "matconvnet"] | None,
        typer.Option("--input", help="Input of weights from another framework; default: as the backbone's library."),
    ] = None,
    size: Annotated[
        tuple[int, int] | None, typer.Option(help="Input height and width; default: 224 224, or that of --initial.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Default: the paper's.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Images per pass; default: the paper's.")] = None,
    accumulate: Annotated[int, typer.Option(min=1, help="Passes per optimiser step.")] = 1,
    optimiser: Annotated[Literal["sgd", "adam", "adamw"] | None, typer.Option(help="Default: the paper's.")] = None,
    rate: Annotated[float | None, typer.Option(help="Learning rate; default: the paper's.")] = None,
    backbone_rate: Annotated[float | None, typer.Option(help="Factor on the rate for the backbone.")] = None,
    freeze_levels: Annotated[
        int, typer.Option(min=0, max=5, help="Keep the backbone's first feature levels as they are.")
    ] = 0,
    decay: Annotated[float | None, typer.Option(help="Weight decay.")] = None,
    schedule: Annotated[
        Literal["plateau", "halfway", "cosine", "constant"] | None, typer.Option(help="Default: the paper's.")
    ] = None,
    clip: Annotated[float | None, typer.Option(help="Largest gradient norm; 0 for none.")] = None,
    average: Annotated[float | None, typer.Option(help="Decay of a moving average of the weights.")] = None,
    freeze_norm: Annotated[
        bool, typer.Option("--freeze-norm", help="Keep statistics and parameters of batch norm, for small batches.")
    ] = False,
    sync_norm: Annotated[
        bool, typer.Option("--sync-norm", help="Batch norms take their statistics from all GPUs together.")
    ] = False,
    stop_after: Annotated[
        int | None, typer.Option(min=1, help="End after this many epochs without a better validation score.")
    ] = None,
    augmentation: Annotated[
        Augmentation | None, typer.Option(help="How samples are varied; default: the paper's.")
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option(
            min=32, help="Decode all images once and keep them in memory, their longer side this many pixels."
        ),
    ] = None,
    teacher: Annotated[
        list[Path] | None,
        typer.Option(help="Checkpoints or bundles whose maps are learned too; computed once, with mirror images."),
    ] = None,
    teacher_share: Annotated[
        float, typer.Option(min=0, max=1, help="Of the teachers' mean map in what is learned; the mask has the rest.")
    ] = 0.5,
    teacher_maps: Annotated[
        Path | None, typer.Option(help="Folder that keeps the teachers' maps; default: OUTPUT/teacher-maps.")
    ] = None,
    unlabelled: Annotated[
        list[str] | None, typer.Option(help="DIR[=WEIGHT] of images without masks, for the teachers.")
    ] = None,
    network_option: Annotated[
        list[str] | None, typer.Option("--network", help="NAME=VALUE ... of the network's settings.")
    ] = None,
    recipe_option: Annotated[
        list[str] | None, typer.Option("--recipe", help="NAME=VALUE ... of the recipe's settings.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the split, the order, the augmentation and the initial weights.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes that load data.")] = 0,
    accelerator: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    devices: Annotated[
        int | None,
        typer.Option(min=1, help="GPUs, or processes on the CPU, each with its own batch; default: 1, or torchrun's."),
    ] = None,
    precision: Annotated[str, typer.Option(help=f"One of: {', '.join(PRECISIONS)}.")] = "32-true",
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Same seed, same bytes: also on a GPU, where it is slower.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write the epochs to OUTPUT/tensorboard as well.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --output.")] = False,
    half: Annotated[bool, typer.Option("--half", help="Store the checkpoints' weights as fp16.")] = False,
    limit_steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps per epoch at most, for a quick trial.")
    ] = None,
) -> None:
    """Train METHOD; the best checkpoint by validation max F is OUTPUT/best.safetensors."""
    recipe = parse_settings(entry(RECIPES, method, what="method"), parse_pairs(recipe_option, "--recipe"), "--recipe")
    given = {
        "epochs": epochs, "optimiser": optimiser, "rate": rate, "backbone_rate": backbone_rate, "decay": decay,
        "schedule": schedule, "clip": clip, "average": average, "batch": batch * accumulate if batch else None,
        "freeze_norm": freeze_norm or None,
    }  # fmt: skip
    optimiser_settings = _override(recipe.defaults(), given)
    roots, weights_of = _sources(data or [], "--data")
    training_part, validation_part = _samples(recipe, roots, synthetic, splits, val_fraction, seed)
    if priors:
        joined = recipe.with_priors([*training_part, *validation_part], priors)
        training_part, validation_part = [*joined[: len(training_part)]], [*joined[len(training_part) :]]

    torch.manual_seed(seed)
    options = {"backbone": backbone} if backbone else {}
    options |= recipe.network_settings(training_part) | parse_pairs(network_option, "--network")
    network, preprocessing = _network(method, options, size, weights, initial, CONVENTIONS.get(convention or "", {}))
    if freeze_levels:
        _freeze(network, freeze_levels)
    if unlabelled and not teacher:
        raise SalienceError("--unlabelled: images without masks need a --teacher.")
    free_roots, free_weights = _sources(unlabelled or [], "--unlabelled")
    training_part += [sample for root in free_roots for sample in read_unlabelled(root)]
    if teacher:
        if not recipe.learns_maps:
            raise SalienceError(f"--teacher: {method} does not learn the map of a single image, as multis does.")
        training_part = _taught(training_part, teacher, teacher_share, teacher_maps or output / "teacher-maps")
    if tensorboard:
        check_tensorboard()
    fabric = open_fabric(accelerator, devices, precision, deterministic=deterministic)
    header = CheckpointHeader(
        method=method, network=network.settings.model_dump(), preprocessing=preprocessing,
        training=_origin(recipe, training_part, validation_part, weights, initial)
        | teachers_origin(teacher or [], teacher_share)
        | priors_origin(training_part, priors or []),
    )  # fmt: skip
    settings = FitSettings(
        output, optimiser_settings, accumulate, augmentation or recipe.augmentation, seed, workers, limit_steps, half,
        stop_after, tensorboard, deterministic, weights_of | free_weights, sync_norm,
    )  # fmt: skip
    if keep:
        training_part, validation_part = keep_in_memory(training_part, keep), keep_in_memory(validation_part, keep)
    with determinism_explained():
        history = fit(
            network, recipe, header, train=training_part, validate=validation_part, settings=settings, fabric=fabric,
            resume=resume,
        )  # fmt: skip
    if fabric.is_global_zero:
        typer.echo(_summary(history, output, fabric.world_size))


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


def _origin(
    recipe: Recipe,
    training_part: Sequence[Any],
    validation_part: Sequence[Any],
    weights: str | None,
    initial: Path | None,
) -> dict[str, Any]:
    """What the header says that a network was trained on."""
    return {
        "sets": sorted({sample.name.split("/")[0] for sample in training_part}),
        "images": len(training_part),
        "validation_images": len(validation_part),
        "backbone_weights": Path(weights).name if weights else None,
        "recipe": recipe.model_dump(),
        **({"initial": {"file": initial.name, "sha256": file_sha256(initial)}} if initial else {}),
    }


def _override(defaults: OptimiserSettings, given: dict[str, Any]) -> OptimiserSettings:
    """The recipe's defaults with what the command line gives."""
    chosen = defaults.model_dump() | {name: value for name, value in given.items() if value is not None}
    return parse_settings(OptimiserSettings, chosen, "training options")


def _network(
    method: str,
    options: dict[str, Any],
    size: tuple[int, int] | None,
    weights: str | None,
    initial: Path | None,
    convention: dict[str, Any],
) -> tuple[Any, Preprocessing]:
    """The network to train, its backbone filled from `weights` or all of it from `initial`, and its preprocessing.

    A network that normalises its input itself (`input_scale`) takes the `convention` as settings.
    """
    network_type = entry(NETWORKS, method, what="method")
    normalises_itself = hasattr(network_type, "input_scale")
    if normalises_itself:
        options = convention | options
    if weights is not None and initial is not None:
        raise SalienceError("--weights, --initial: both fill the backbone; give one of them.")
    network: Any
    if initial is not None:
        header, network = initial_network(initial, method=method, changes=options)
        size = size or header.preprocessing.size
    else:
        network = build_network(method, options)
    size = size or SIZE
    if isinstance(network.backbone, Backbone):
        check_size(network.backbone.levels, size)
    if weights is not None:
        fresh = tuple(name.removeprefix("backbone.") for name in getattr(network, "fresh", ()))
        load_weights(network.backbone, weights, architecture=network.settings.backbone, skip=fresh)
    if normalises_itself:
        return network, Preprocessing(size=size, **network_type.input_scale)
    if convention or initial is None:
        scale = {"mean": network.backbone.mean, "std": network.backbone.std} | convention
        return network, Preprocessing(size=size, **scale)
    return network, header.preprocessing.model_copy(update={"size": size})


def _freeze(network: Any, count: int) -> None:
    if not isinstance(network.backbone, Backbone):
        raise SalienceError(f"--freeze-levels {count}: this method's network has no feature levels.")
    network.backbone.freeze(count)


def _taught(samples: list[Any], teachers: list[Path], share: float, folder: Path) -> list[Any]:
    """`samples` with the teachers' maps, and a bar while these are computed."""
    with Progress() as bar:
        task = bar.add_task("teachers' maps", total=len(samples))
        return taught(
            samples, teachers, share=share, folder=folder,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip


def _sources(data: list[str], flag: str) -> tuple[list[Path], dict[str, float]]:
    """Folders of `DIR[=WEIGHT]`, and the weights by the folders' names; both or none of the sources have one."""
    roots, weights = [], {}
    for given in data:
        folder, equals, number = given.rpartition("=")
        try:
            weight = float(number) if equals else None
        except ValueError:  # the sign belongs to the folder's name
            weight = None
        root = Path(given if weight is None else folder)
        roots.append(root)
        if weight is not None:
            if not 0 < weight < math.inf:
                raise DataError(f"{flag} {given}: the weight is {number}, expected a positive number.")
            weights[Path(os.path.normpath(root.absolute())).name] = weight
    return roots, weights


def _samples(
    recipe: Recipe, roots: list[Path], synthetic: int, splits: Path | None, fraction: float, seed: int
) -> tuple[list[Any], list[Any]]:
    """Training and validation samples of all folders, and of the synthetic scenes."""
    found = [sample for root in roots for sample in recipe.read(root)]
    if not found and not synthetic:
        raise DataError("training data: none given; pass --data DIR or --synthetic COUNT.")
    if splits is not None and found:
        training = [*recipe.merge(split_by_file(found, splits, "train"))]
        validation = [*recipe.merge(split_by_file(found, splits, "val"))]
        free = sorted({source_of(sample) for sample in found} - listed_sets(splits))
        if free:
            typer.echo(f"{splits}: does not list {', '.join(free)}; all images of these sets train.", err=True)
    elif found:
        training, validation = split_by_seed(recipe.merge(found), fraction=fraction, seed=seed)
    else:
        training, validation = [], [*recipe.synthetic(max(1, round(fraction * synthetic)), seed=seed + 1)]
    check_sizes([*training, *validation])
    return [*training, *recipe.synthetic(synthetic, seed=seed)], validation
