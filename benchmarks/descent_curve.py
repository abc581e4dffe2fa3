"""F over the steps of the shipped presets of `cgd` on scikit-image's four photographs (Clamped descent, sec. 3.1).

    python -m benchmarks.descent_curve --bundle squeezenet1_0=bundles/squeezenet1_0 \
        --bundle mobilenet_v2=bundles/mobilenet_v2 --bundle tf_efficientnet_lite0=bundles/lite0 \
        --output benchmarks/results/cgd_descent

A bundle is NAME=FOLDER. Writes OUTPUT.json and OUTPUT.png.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from skimage import data

from salience.runtime import ClampedDescentDetector, load
from salience.runtime.low_level import PRESETS, Descent
from salience.runtime.methods.cgd import DescentLoop, Problem

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
# Preset -> bundle -> photograph -> F of X(0) to X(T).
Curves = dict[str, dict[str, dict[str, list[float]]]]


def main() -> None:
    """Measure, print, and write OUTPUT.json and OUTPUT.png."""
    parser = argparse.ArgumentParser(description="F over the steps of the presets of cgd.")
    parser.add_argument("--bundle", dest="bundles", action="append", required=True, help="NAME=FOLDER")
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--output", type=Path, default=Path("cgd_descent"))
    options = parser.parse_args()
    detectors = {}
    for text in options.bundles:
        name, _, folder = text.partition("=")
        detector = load(folder, backend=options.backend)
        if not isinstance(detector, ClampedDescentDetector):
            raise SystemExit(f"{folder}: expected a bundle of cgd.")
        detectors[name] = detector
    found = curves(detectors)
    Console().print(table_of(found))
    options.output.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    plot(found, options.output.with_suffix(".png"))


def curves(detectors: dict[str, ClampedDescentDetector]) -> Curves:
    """Return F of all presets, bundles and photographs."""
    images = [getattr(data, name)() for name in PHOTOGRAPHS]
    return {
        preset: {
            name: {
                photograph: [round(cost, 4) for cost in costs(detector, image, settings.descent)]
                for photograph, image in zip(PHOTOGRAPHS, images, strict=True)
            }
            for name, detector in detectors.items()
        }
        for preset, settings in PRESETS.items()
    }


def costs(detector: ClampedDescentDetector, image: NDArray[np.uint8], descent: Descent) -> list[float]:
    """Return F of X(0) to X(T) of one image, for the class that the classifier sees."""
    tensor = detector.prepare(image).tensor
    loop = DescentLoop(detector.engines["descend"], 1)
    state = loop.init(Problem(tensor, np.zeros((1, len(detector.names)), np.float32), descent))
    found = []
    # A step gives F of the image that it starts from.
    for _ in range(descent.iterations + 1):
        state = loop.step(state)
        found.append(float(loop.session.read("cost")[0]))
    return found


def table_of(found: Curves) -> Table:
    """F before and after, and the largest F on the way."""
    table = Table("preset", "classifier", "photograph", "F(0)", "F(T)", "largest F")
    for preset, bundles in found.items():
        for name, photographs in bundles.items():
            for photograph, values in photographs.items():
                row = (values[0], values[-1], max(values))
                table.add_row(preset, name, photograph, *(f"{value:.1f}" for value in row))
    return table


def plot(found: Curves, path: Path) -> None:
    """One row a preset, one panel a photograph, one line a classifier; F where it grows large is logarithmic."""
    figure = Figure(figsize=(11, 2.6 * len(found)), layout="constrained")
    panels = figure.subplots(len(found), len(PHOTOGRAPHS), squeeze=False)
    for axes, (preset, bundles) in zip(panels, found.items(), strict=True):
        for axis, photograph in zip(axes, PHOTOGRAPHS, strict=True):
            for name, photographs in bundles.items():
                axis.plot(photographs[photograph], marker="o", markersize=2, label=name)
            if max(max(photographs[photograph]) for photographs in bundles.values()) > 200:
                axis.set_yscale("symlog", linthresh=10)
            axis.set_title(f"{preset}: {photograph}", fontsize=9)
            axis.set_xlabel("steps t")
            axis.set_ylabel("F")
            axis.grid(alpha=0.3)
    panels[0][0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
