"""Scores of the maps that `lps` makes of stored priors, for T = 0 (the priors) to T iterations.

    python -m benchmarks.promotion_curve --bundle bundles/lps --set ecssd=DATA/ecssd:priors_csnet \
        --set coseg=DATA/coseg:priors_contrast --splits DATA/splits.json --part test --output curve

A set is NAME=FOLDER:PRIORS; the folder holds images/, masks/ and the priors' folder. With --splits the same priors
stand beside them under the best monotone curves that the part --curve-part chooses; see `benchmarks.monotone_curve`.
"""

import argparse
import json
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.method_maps import pairs_of, promoted_maps, score
from benchmarks.monotone_curve import PRIOR, SCORES, measure, parse_set, record, score_cells
from salience.runtime import PromoterDetector, load
from salience.runtime.evaluation.metrics import Scores

Curve = list[dict[str, float]]
KEPT = ("f_max", "mae", "f_weighted", "s", "images")


def main() -> None:
    """Measure, print, and write OUTPUT.json, OUTPUT.png and, with --splits, OUTPUT-monotone.json."""
    parser = argparse.ArgumentParser(description="Scores of promoted maps over the iterations.")
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--set", dest="sets", action="append", required=True)
    parser.add_argument("--splits", type=Path)
    parser.add_argument("--part", choices=["train", "val", "test"])
    parser.add_argument("--curve-part", choices=["train", "val"], default="val", help="chooses the monotone curves")
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--output", type=Path, default=Path("curve"))
    options = parser.parse_args()
    promoter = load(options.bundle)
    if not isinstance(promoter, PromoterDetector):
        raise SystemExit(f"{options.bundle}: expected a bundle of lps.")
    curves, monotone = {}, {}
    table = Table("set", "maps", *SCORES)
    for text in options.sets:
        name, folder, priors = parse_set(text)
        title = f"{name} {priors}"
        found = curve(promoter, folder, priors, options)
        curves[title] = [scores.model_dump(include=set(KEPT)) for scores in found]
        rows = dict(zip((f"T = {t}" if t else PRIOR for t in range(len(found))), found, strict=True))
        if options.splits:
            choices, beside = measure(
                folder, priors, splits=options.splits, choose_on=options.curve_part, part=options.part
            )  # fmt: skip
            monotone[title] = record(choices, beside)
            rows = {**beside, **rows}
        for row, scores in rows.items():
            table.add_row(title, row, *score_cells(scores))
    Console().print(table)
    options.output.with_suffix(".json").write_text(json.dumps(curves, indent=1) + "\n")
    if monotone:
        path = options.output.with_name(f"{options.output.stem}-monotone.json")
        path.write_text(json.dumps(monotone, indent=1) + "\n")
    plot(curves, options.output.with_suffix(".png"))


def curve(promoter: PromoterDetector, folder: Path, priors: str, options: argparse.Namespace) -> list[Scores]:
    """Scores of the priors and of the maps after each iteration, at the mask's size."""
    pairs = pairs_of(folder, sources=priors, splits=options.splits, part=options.part)
    watched = track(pairs, description=f"{folder.name} {priors}", console=Console(stderr=True))
    maps = promoted_maps(promoter, watched, iterations=range(options.iterations + 1))
    return list(score(pairs, maps).values())


def plot(curves: dict[str, Curve], path: Path) -> None:
    """Two panels over T, one line a set."""
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, key, label in zip(axes, ("mae", "f_max"), ("MAE", "max F"), strict=True):
        for name, points in curves.items():
            axis.plot(range(len(points)), [point[key] for point in points], marker="o", markersize=3, label=name)
        axis.set_xlabel("iterations T (0: the prior)")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
