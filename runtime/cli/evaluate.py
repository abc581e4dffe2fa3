"""`salience evaluate`."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from typer.core import TyperCommand

from ..commands import repeat_flags, report_errors
from ..detector import Detector, open_detector
from ..errors import DataError
from ..evaluation.command import Evaluation, LoadMap, compare_maps, load_stored_map
from ..evaluation.pairs import Pair, PairSet, find_method_pairs, parse_methods
from ..evaluation.tables import (
    comparison_table,
    precision_recall_table,
    scores_json,
    scores_table,
    source_scores,
)
from ..load_options import LoadOptions
from ..option_groups import expand_options
from ..splits import Part

_SEVERAL = frozenset({"--predictions", "--bundle"})


class SeveralValues(TyperCommand):
    """A command whose options `--predictions` and `--bundle` take several values each."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read `--predictions A B` as `--predictions A --predictions B`."""
        return super().parse_args(ctx, repeat_flags(args, _SEVERAL))


@report_errors
@expand_options
def evaluate(
    masks: Annotated[Path, typer.Option(help="Folder of masks; it says which images are scored.")],
    predictions: Annotated[
        list[str] | None,
        typer.Option(help="Folder of saliency maps; several folders, DIR or NAME=DIR, are compared."),
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of images to predict, or to show in the report.")] = None,
    bundle: Annotated[
        list[str] | None,
        typer.Option(help="Folder made by build_engine.py; several are compared. [the bundle in the package]"),
    ] = None,
    splits: Annotated[Path | None, typer.Option(help="JSON split file; needs --part.")] = None,
    part: Annotated[Literal["train", "val", "test"] | None, typer.Option(help="Part of --splits to score.")] = None,
    per_source: Annotated[
        bool | None,
        typer.Option(
            "--per-source/--no-per-source",
            help="Score each folder of images too, and their mean. [where there are several folders]",
        ),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Folder for the report: HTML, JSON, figures.")] = None,
    normalise: Annotated[
        bool, typer.Option(help="Stretch every map to the full range first, as the field does.")
    ] = True,
    json_output: Annotated[bool, typer.Option("--json", help="Print the scores as JSON instead of a table.")] = False,
    *,
    options: LoadOptions,
) -> None:
    """Score maps, or bundles on images, against masks; exit code 1 if any image could not be scored."""
    sources, bundles = _sources(predictions, images, bundle)
    pairs = find_method_pairs(sources, masks, pictures=images, splits=splits, part=part)
    _warn(pairs)
    detectors = {name: open_detector(folder, options) for name, folder in bundles.items()}
    for detector in detectors.values():
        detector.require_standalone()
    load_maps: dict[str, LoadMap] = {
        name: partial(_predict, detectors[name]) if detectors else load_stored_map for name in sources
    }
    found = _compare(pairs, load_maps, normalise=normalise, per_source=per_source)
    _print(found, as_json=json_output)
    if report is not None:
        made = {name: _describe(detector) for name, detector in detectors.items()}
        page = _write_report(report, found, load_maps, maps=sources, masks=masks, part=part, detectors=made)
        typer.echo(f"report: {page}", err=True)
    _exit_on_failures(next(iter(found.values())))


def _sources(
    predictions: list[str] | None, images: Path | None, bundle: list[str] | None
) -> tuple[dict[str, Path], dict[str, Path | None]]:
    """Folders of maps or images by method, and the bundles of the methods that make maps of images."""
    if predictions and not bundle:
        return parse_methods(predictions), {}
    if predictions or images is None:
        raise DataError("evaluation: give either --predictions DIR, or --images DIR with the --bundle to score.")
    bundles: dict[str, Path | None] = {**parse_methods(bundle)} if bundle else {"salience": None}
    return dict.fromkeys(bundles, images), bundles


def _warn(pairs: Mapping[str, PairSet]) -> None:
    for name, found in pairs.items():
        if found.warning:
            typer.echo(f"{name}: {found.warning}" if len(pairs) > 1 else found.warning, err=True)


def _compare(
    pairs: Mapping[str, PairSet], load_maps: Mapping[str, LoadMap], *, normalise: bool, per_source: bool | None
) -> dict[str, Evaluation]:
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("scoring", total=len(next(iter(pairs.values())).pairs))
        return compare_maps(
            {name: found.pairs for name, found in pairs.items()},
            load_maps,
            normalise=normalise,
            per_group=per_source,
            progress=lambda done, _: progress.update(task, completed=done),
        )


def _print(found: Mapping[str, Evaluation], *, as_json: bool) -> None:
    """Print the scores of one method, or a row for each of several, and those of their sources."""
    several = len(found) > 1
    if as_json:
        methods = {name: scores_json(evaluation) for name, evaluation in found.items()}
        typer.echo(json.dumps({"methods": methods} if several else next(iter(methods.values())), indent=1))
        return
    console = Console()
    if several:
        scores = {name: evaluation.scores for name, evaluation in found.items()}
        console.print(comparison_table(scores, title="Scores of each method", heading="method"))
        console.print(precision_recall_table(scores, title="Precision / recall of each F", heading="method"))
    else:
        console.print(scores_table(next(iter(found.values())).scores))
    for name, evaluation in found.items():
        sources = source_scores(evaluation)
        if sources:
            title = f"Scores of each source: {name}" if several else "Scores of each source"
            console.print(comparison_table(sources, title=title, heading="source"))


def _write_report(
    folder: Path,
    found: Mapping[str, Evaluation],
    load_maps: Mapping[str, LoadMap],
    *,
    maps: Mapping[str, Path],
    masks: Path,
    part: Part | None,
    detectors: Mapping[str, str],
) -> Path:
    if len(found) > 1:
        from ..evaluation.comparison import write_comparison

        return write_comparison(folder, found, load_maps, maps=maps, masks=masks, part=part, detectors=detectors)
    from ..evaluation.report import write_report

    (name,) = found
    return write_report(
        folder, found[name], load_maps[name], maps=maps[name], masks=masks, part=part, detector=detectors.get(name)
    )


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
