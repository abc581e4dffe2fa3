"""`salience evaluate`."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from ..commands import parse_pairs, report_errors
from ..detector import Detector, load
from ..errors import DataError
from ..evaluation.command import Evaluation, evaluate_maps, load_stored_map, scores_table
from ..evaluation.pairs import Pair, find_pairs
from .options import (
    BackendOption,
    BundleOption,
    CudaGraphOption,
    DeviceOption,
    PrecisionOption,
    ProviderOption,
    ProviderOptionsOption,
    ThreadsOption,
)


@report_errors
def evaluate(
    masks: Annotated[Path, typer.Option(help="Folder of masks; it says which images are scored.")],
    predictions: Annotated[Path | None, typer.Option(help="Folder of saliency maps.")] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of pictures to predict, or to show in the report.")
    ] = None,
    bundle: BundleOption = None,
    splits: Annotated[Path | None, typer.Option(help="JSON split file; needs --part.")] = None,
    part: Annotated[Literal["train", "val", "test"] | None, typer.Option(help="Part of --splits to score.")] = None,
    report: Annotated[Path | None, typer.Option(help="Folder for the report: HTML, JSON, figures.")] = None,
    normalise: Annotated[
        bool, typer.Option(help="Stretch every map to the full range first, as the field does.")
    ] = True,
    json_output: Annotated[bool, typer.Option("--json", help="Print the scores as JSON instead of a table.")] = False,
    backend: BackendOption = "auto",
    precision: PrecisionOption = "auto",
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    provider: ProviderOption = None,
    provider_option: ProviderOptionsOption = None,
    cuda_graph: CudaGraphOption = False,
) -> None:
    """Score maps, or a bundle on pictures, against masks; exit code 1 if any image could not be scored."""
    sources = predictions or images
    if sources is None or (predictions and bundle):
        raise DataError("evaluation: give either --predictions DIR, or --images DIR with the --bundle to score.")
    pairs = find_pairs(sources, masks, pictures=images, splits=splits, part=part)
    if pairs.warning:
        typer.echo(pairs.warning, err=True)
    detector = None
    load_map: Callable[[Pair], NDArray[np.uint8]] = load_stored_map
    if predictions is None:
        detector = load(
            bundle, backend=backend, precision=precision, device=device, threads=threads, provider=provider,
            provider_options=parse_pairs(provider_option, "--provider-option"), cuda_graph=cuda_graph,
        )  # fmt: skip
        detector.require_standalone()
        load_map = partial(_predict, detector)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("scoring", total=len(pairs.pairs))
        found = evaluate_maps(
            pairs.pairs, load_map, normalise=normalise, progress=lambda done, _: progress.update(task, completed=done)
        )
    if json_output:
        typer.echo(found.scores.model_dump_json(indent=1))
    else:
        Console().print(scores_table(found.scores))
    if report is not None:
        from ..evaluation.report import write_report

        page = write_report(
            report,
            found,
            load_map,
            maps=sources,
            masks=masks,
            part=part,
            detector=_describe(detector) if detector else None,
        )
        typer.echo(f"report: {page}", err=True)
    _exit_on_failures(found)


def _describe(detector: Detector) -> str:
    manifest = detector.bundle.manifest
    return f"{manifest.method} of {manifest.created}, {detector.precision}, {detector.backend}"


def _predict(detector: Detector, pair: Pair) -> NDArray[np.uint8]:
    return detector.predict(pair.source).grey()


def _exit_on_failures(evaluation: Evaluation) -> None:
    for failure in evaluation.failures:
        typer.echo(f"error: {failure.name}: {failure.reason}", err=True)
    if evaluation.failures:
        raise typer.Exit(1)
