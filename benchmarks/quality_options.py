"""The command line of `benchmarks.quality`, checked before anything is scored."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from benchmarks.quality_studies import STUDIES
from benchmarks.report_runs import TrainingRun, read_ablations, read_run
from salience.runtime import Bundle
from salience.runtime.backends import BACKENDS
from salience.runtime.errors import SalienceError
from salience.runtime.evaluation.figures import new_figure
from salience.runtime.manifest import Precision


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `bundle` becomes a dict of METHOD[:LABEL] and folder, other files what they hold."""
    parser = argparse.ArgumentParser(description="Scores of every method, precision and backend.")
    parser.add_argument("--bundle", nargs="+", required=True, metavar="METHOD[:LABEL]=DIR")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--backends", nargs="+", default=["onnxruntime"], choices=list(BACKENDS))
    parser.add_argument("--precisions", nargs="+", default=["fp32"], choices=get_args(Precision))
    parser.add_argument("--part", default="test", choices=["test", "val"])
    parser.add_argument("--limit", type=int, help="pictures of a set at most, the first by name")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--add", action="store_true", help="keep the methods that the JSON file holds already")
    parser.add_argument("--markdown", type=Path, help="of the methods of this run")
    parser.add_argument("--report", type=Path, metavar="DIR", help="HTML with pictures, Markdown and JSON, of this run")
    parser.add_argument("--ablations", type=Path, metavar="FILE", help="JSON of ablations, for the report")
    parser.add_argument("--runs", nargs="+", default=[], metavar="METHOD=DIR", help="training runs, for the report")
    options = parser.parse_args(arguments)
    if options.limit is not None and options.limit < 1:
        parser.error(f"--limit {options.limit}: expected at least 1.")
    if (options.ablations or options.runs) and not options.report:
        parser.error("--ablations and --runs are for the report; add --report DIR.")
    known = sorted({study.method for study in STUDIES})
    options.bundle = dict(_folders(parser, "--bundle", options.bundle, known))
    runs = _folders(parser, "--runs", options.runs, known)
    try:
        read_extras(options, runs)
    except SalienceError as error:
        raise SystemExit(str(error)) from error
    return options


def _folders(
    parser: argparse.ArgumentParser, option: str, texts: Sequence[str], known: Sequence[str]
) -> list[tuple[str, str]]:
    """METHOD=DIR, or METHOD:LABEL=DIR, of each text."""
    found = []
    for text in texts:
        name, _, folder = text.partition("=")
        if name.partition(":")[0] not in known or not folder:
            parser.error(f"{option} {text}: expected METHOD=DIR with a method of {', '.join(known)}.")
        found.append((name, folder))
    return found


def read_extras(options: argparse.Namespace, runs: Sequence[tuple[str, str]]) -> None:
    """Read what goes into the report beside the scores, and see that it can be drawn.

    Raises:
        DataError: a file is missing or damaged.
        BackendUnavailableError: matplotlib is not installed.
    """
    if options.report:
        new_figure((1, 1))
    options.ablations = read_ablations(options.ablations) if options.ablations else None
    found: list[TrainingRun] = [read_run(method, Path(folder)) for method, folder in runs]
    options.runs = found


def open_bundles(folders: dict[str, str]) -> dict[str, Bundle]:
    """The bundles by METHOD[:LABEL], all of them checked before anything is scored."""
    bundles = {name: Bundle(folder) for name, folder in folders.items()}
    for name, bundle in bundles.items():
        method = name.partition(":")[0]
        if bundle.manifest.method != method:
            raise SystemExit(f"--bundle {name}={bundle.path}: holds {bundle.manifest.method}, expected {method}.")
    return bundles
