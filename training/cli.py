"""The command line of training."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from lightning_fabric import Fabric

from salience.runtime.commands import parse_pairs, parse_settings, repeat_flags, report_errors
from salience.runtime.errors import DataError, SalienceError
from salience.runtime.tables import entry

from .backbone import Backbone, ClassifierName, check_size, load_weights
from .checkpoint import CheckpointHeader, build_network
from .data.dataset import Augmentation
from .data.folders import split_by_file, split_by_seed
from .fit import BEST_FILE, FitSettings, describe, fit
from .optim import OptimiserSettings
from .preprocessing import Preprocessing
from .recipe import Recipe
from .recipes import RECIPES

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def main() -> None:
    """Entry point."""
    app(repeat_flags(sys.argv[1:], frozenset({"--data", "--network", "--recipe"})))


@app.command()
@report_errors
def train(
    method: Annotated[str, typer.Argument(help=f"One of: {', '.join(RECIPES)}.")],
    output: Annotated[Path, typer.Option(help="Folder of the run: checkpoints, history, state.")],
    data: Annotated[list[Path] | None, typer.Option(help="Folders with images/ and masks/.")] = None,
    synthetic: Annotated[int, typer.Option(min=0, help="Add this many synthetic scenes.")] = 0,
    splits: Annotated[Path | None, typer.Option(help="JSON split file; else a seeded split is made.")] = None,
    val_fraction: Annotated[float, typer.Option(min=0.0, max=0.9, help="Part that validates, without --splits.")] = 0.1,
    backbone: Annotated[ClassifierName, typer.Option(help="Feature extractor; squeezenet1_0 for cgd alone.")] = "vgg16",
    weights: Annotated[
        str | None,
        typer.Option(help="Backbone weights: a .safetensors file with torchvision's names, or 'torchvision'."),
    ] = None,
    size: Annotated[tuple[int, int], typer.Option(help="Input height and width.")] = (224, 224),
    epochs: Annotated[int | None, typer.Option(min=1, help="Default: the paper's.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Images per pass; default: the paper's.")] = None,
    accumulate: Annotated[int, typer.Option(min=1, help="Passes per optimiser step.")] = 1,
    optimiser: Annotated[Literal["sgd", "adam", "adamw"] | None, typer.Option(help="Default: the paper's.")] = None,
    rate: Annotated[float | None, typer.Option(help="Learning rate; default: the paper's.")] = None,
    backbone_rate: Annotated[float | None, typer.Option(help="Factor on the rate for the backbone.")] = None,
    decay: Annotated[float | None, typer.Option(help="Weight decay.")] = None,
    schedule: Annotated[
        Literal["plateau", "halfway", "cosine", "constant"] | None, typer.Option(help="Default: the paper's.")
    ] = None,
    clip: Annotated[float | None, typer.Option(help="Largest gradient norm; 0 for none.")] = None,
    average: Annotated[float | None, typer.Option(help="Decay of a moving average of the weights.")] = None,
    augmentation: Annotated[Augmentation, typer.Option(help="How samples are varied.")] = "paper",
    network_option: Annotated[
        list[str] | None, typer.Option("--network", help="NAME=VALUE ... of the network's settings.")
    ] = None,
    recipe_option: Annotated[
        list[str] | None, typer.Option("--recipe", help="NAME=VALUE ... of the recipe's settings.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the split, the order, the augmentation and the initial weights.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes that load data.")] = 0,
    accelerator: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="Number of GPUs or processes.")] = 1,
    precision: Annotated[str, typer.Option(help="32-true or bf16-mixed.")] = "32-true",
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --output.")] = False,
    half: Annotated[bool, typer.Option("--half", help="Store the checkpoints' weights as fp16.")] = False,
    limit_steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps per epoch at most, for a quick trial.")
    ] = None,
) -> None:
    """Train METHOD; the best checkpoint by validation F is OUTPUT/best.safetensors."""
    recipe = parse_settings(entry(RECIPES, method, what="method"), parse_pairs(recipe_option, "--recipe"), "--recipe")
    given = {
        "epochs": epochs, "optimiser": optimiser, "rate": rate, "backbone_rate": backbone_rate, "decay": decay,
        "schedule": schedule, "clip": clip, "average": average, "batch": batch * accumulate if batch else None,
    }  # fmt: skip
    optimiser_settings = _override(recipe.defaults(), given)
    training_part, validation_part = _samples(recipe, data or [], synthetic, splits, val_fraction, seed)

    torch.manual_seed(seed)
    options = recipe.network_settings(training_part) | parse_pairs(network_option, "--network")
    network = _network(method, backbone, weights, size, options)
    fabric = _fabric(accelerator, devices, precision)
    scale = getattr(network, "input_scale", {})
    header = CheckpointHeader(
        method=method, network=network.settings.model_dump(), preprocessing=Preprocessing(size=size, **scale),
        training=_origin(recipe, training_part, validation_part, weights),
    )  # fmt: skip
    history = fit(
        network, recipe, header, train=training_part, validate=validation_part, fabric=fabric, resume=resume,
        settings=FitSettings(output, optimiser_settings, accumulate, augmentation, seed, workers, limit_steps, half),
    )  # fmt: skip
    if fabric.is_global_zero:
        best = max(history, key=lambda record: record.quality)
        typer.echo(f"{output / BEST_FILE}: epoch {best.epoch + 1}, validation {describe(best.scores)}")


def _origin(
    recipe: Recipe, training_part: Sequence[Any], validation_part: Sequence[Any], weights: str | None
) -> dict[str, Any]:
    """What the header says that a network was trained on."""
    return {
        "sets": sorted({sample.name.split("/")[0] for sample in training_part}),
        "images": len(training_part),
        "validation_images": len(validation_part),
        "backbone_weights": Path(weights).name if weights else None,
        "recipe": recipe.model_dump(),
    }


def _override(defaults: OptimiserSettings, given: dict[str, Any]) -> OptimiserSettings:
    """The recipe's defaults with what the command line gives."""
    chosen = defaults.model_dump() | {name: value for name, value in given.items() if value is not None}
    return parse_settings(OptimiserSettings, chosen, "training options")


def _network(
    method: str, backbone: ClassifierName, weights: str | None, size: tuple[int, int], options: dict[str, Any]
) -> Any:
    """The network to train, its backbone filled from `weights`."""
    network: Any = build_network(method, {"backbone": backbone} | options)
    if isinstance(network.backbone, Backbone):
        check_size(network.backbone.levels, size)
    if weights is not None:
        fresh = tuple(name.removeprefix("backbone.") for name in getattr(network, "fresh", ()))
        load_weights(network.backbone, weights, architecture=backbone, skip=fresh)
    return network


def _fabric(accelerator: str, devices: int, precision: str) -> Fabric:
    try:
        fabric = Fabric(accelerator=accelerator, devices=devices, precision=precision)  # type: ignore[arg-type]
        fabric.launch()
    except (ValueError, RuntimeError) as error:
        raise SalienceError(
            f"--accelerator {accelerator} --devices {devices} --precision {precision}: not possible here ({error})."
        ) from error
    return fabric


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
    elif found:
        training, validation = split_by_seed(recipe.merge(found), fraction=fraction, seed=seed)
    else:
        training, validation = [], [*recipe.synthetic(max(1, round(fraction * synthetic)), seed=seed + 1)]
    return [*training, *recipe.synthetic(synthetic, seed=seed)], validation
