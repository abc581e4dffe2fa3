"""What `lps` makes of stored priors, iteration by iteration: max F and MAE for T = 0 (the priors) to T.

    python -m benchmarks.promotion_curve --bundle bundles/lps --set ecssd=DATA/ecssd:priors_csnet \
        --set coseg=DATA/coseg:priors_contrast --splits DATA/splits.json --part test --output curve

A set is NAME=FOLDER:PRIORS; the folder holds images/, masks/ and the priors' folder.
"""

import argparse
import json
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.method_maps import pairs_of, promoted_maps, score
from salience.runtime import PromoterDetector, load

Curve = list[dict[str, float]]


def main() -> None:
    """Measure, print, and write OUTPUT.json and OUTPUT.png."""
    parser = argparse.ArgumentParser(description="Max F and MAE of promoted maps over the iterations.")
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--set", dest="sets", action="append", required=True)
    parser.add_argument("--splits", type=Path)
    parser.add_argument("--part", choices=["train", "val", "test"])
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--output", type=Path, default=Path("curve"))
    options = parser.parse_args()
    promoter = load(options.bundle)
    if not isinstance(promoter, PromoterDetector):
        raise SystemExit(f"{options.bundle}: expected a bundle of lps.")
    curves = {}
    for text in options.sets:
        name, folder, priors = parse_set(text)
        curves[f"{name} {priors}"] = curve(promoter, folder, priors, options)
    table = Table("set", "T", "max F", "MAE")
    for name, points in curves.items():
        for t, point in enumerate(points):
            table.add_row(name, str(t), f"{point['f_max']:.4f}", f"{point['mae']:.4f}")
    Console().print(table)
    options.output.with_suffix(".json").write_text(json.dumps(curves, indent=1) + "\n")
    plot(curves, options.output.with_suffix(".png"))


def parse_set(text: str) -> tuple[str, Path, str]:
    """NAME=FOLDER:PRIORS."""
    name, _, rest = text.partition("=")
    folder, colon, priors = rest.rpartition(":")
    if not (name and colon and folder and priors):
        raise SystemExit(f"--set {text}: expected NAME=FOLDER:PRIORS.")
    return name, Path(folder), priors


def curve(promoter: PromoterDetector, folder: Path, priors: str, options: argparse.Namespace) -> Curve:
    """Scores of the priors and of the maps after each iteration, at the mask's size."""
    pairs = pairs_of(folder, sources=priors, splits=options.splits, part=options.part)
    watched = track(pairs, description=f"{folder.name} {priors}", console=Console(stderr=True))
    maps = promoted_maps(promoter, watched, iterations=range(options.iterations + 1))
    found = score(pairs, maps, full=False).values()
    return [{"f_max": scores.f_max, "mae": scores.mae, "images": scores.images} for scores in found]


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
