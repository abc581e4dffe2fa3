"""What each step of `cgd` is worth: scores of raw, smoothed and refined maps, beside plain gradients and presets.

    python -m benchmarks.object_quality --bundle bundles/cgd --data DATA/ecssd --splits DATA/splits.json --part test \
        --count 50 --output objects

The bundle classifies; its pictures need not be of its classes. Writes OUTPUT.json and the contact sheet OUTPUT.png.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.method_maps import Forms, low_level_map, pairs_of
from salience.runtime import ClampedDescentDetector, load
from salience.runtime.detector import Prepared
from salience.runtime.evaluation.metrics import MetricAccumulator
from salience.runtime.evaluation.pairs import Pair
from salience.runtime.images import decode_mask
from salience.runtime.low_level import PRESETS, Preset, Refinement

_DEFAULT = PRESETS["default"]
_RAW = Refinement(theta=0, smooth=False, refine=False, gain=1, prune=0)
_SMOOTHED = replace(_DEFAULT.refinement, refine=False)
_PLAIN = replace(_DEFAULT.descent, iterations=1, gamma=0)
_UNCLAMPED = replace(_DEFAULT.descent, gamma=0)
ROWS: dict[str, Preset] = {
    "plain gradients (T = 1), raw": Preset(_PLAIN, _RAW),
    "plain gradients (T = 1), smoothed": Preset(_PLAIN, _SMOOTHED),
    "plain gradients (T = 1), refined": Preset(_PLAIN, _DEFAULT.refinement),
    "unclamped, raw": Preset(_UNCLAMPED, _RAW),
    "unclamped, smoothed": Preset(_UNCLAMPED, _SMOOTHED),
    "unclamped, refined": Preset(_UNCLAMPED, _DEFAULT.refinement),
    "clamped, raw": Preset(_DEFAULT.descent, _RAW),
    "clamped, smoothed": Preset(_DEFAULT.descent, _SMOOTHED),
    "clamped, refined (preset default)": _DEFAULT,
    "preset paper": PRESETS["paper"],
    "preset released": PRESETS["released"],
}
SHOWN = ("plain gradients (T = 1), raw", "clamped, raw", "clamped, smoothed", "clamped, refined (preset default)",
         "preset paper", "preset released")  # fmt: skip
_TILE = 120


def main() -> None:
    """Measure, print, and write OUTPUT.json and OUTPUT.png."""
    parser = argparse.ArgumentParser(description="Scores of the steps and presets of cgd.")
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--splits", type=Path)
    parser.add_argument("--part", choices=["train", "val", "test"], default="test")
    parser.add_argument("--count", type=int, default=50, help="pictures, the first by name")
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--output", type=Path, default=Path("objects"))
    options = parser.parse_args()
    detector = load(options.bundle, backend=options.backend)
    if not isinstance(detector, ClampedDescentDetector):
        raise SystemExit(f"{options.bundle}: expected a bundle of cgd.")
    pairs = pairs_of(options.data, splits=options.splits, part=options.part if options.splits else None)[
        : options.count
    ]
    scores = {name: MetricAccumulator() for name in (*ROWS, "low-level map alone")}
    sheet = []
    for index, pair in enumerate(track(pairs, console=Console(stderr=True))):
        sheet += measure(detector, pair, scores, show=index < 12)
    rows = {name: accumulator.scores().model_dump() for name, accumulator in scores.items()}
    table = Table("map", "max F", "mean F", "S", "max E", "MAE")
    for name, row in rows.items():
        table.add_row(name, *(f"{row[key]:.3f}" for key in ("f_max", "f_mean", "s", "e_max", "mae")))
    Console().print(table)
    options.output.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    save_sheet(sheet, options.output.with_suffix(".png"))


def measure(
    detector: ClampedDescentDetector, pair: Pair, scores: dict[str, MetricAccumulator], *, show: bool
) -> list[list[NDArray[np.uint8]]]:
    """Score every row's map of one picture; a line of the contact sheet where it is to be shown."""
    prepared, mask = detector.prepare(pair.source), decode_mask(pair.mask)
    maps = form_maps(detector, prepared)
    for name, values in maps.items():
        scores[name].add(values, mask)
    if not show:
        return []
    grey = [mask * np.uint8(255), *(maps[name] for name in SHOWN)]
    return [[prepared.image, *(np.repeat(plane[..., None], 3, axis=2) for plane in grey)]]


def form_maps(detector: ClampedDescentDetector, prepared: Prepared) -> Forms:
    """The maps of all `ROWS` of one picture, and the low-level map alone."""
    loops = {preset.descent for preset in ROWS.values()}
    ends = {descent: detector.descend([prepared], [None], descent)[0] for descent in loops}
    maps = {name: detector.object_map(prepared, ends[preset.descent], preset).values for name, preset in ROWS.items()}
    maps["low-level map alone"] = low_level_map(detector, prepared)
    return {name: np.rint(values * 255).astype(np.uint8) for name, values in maps.items()}


def save_sheet(lines: list[list[NDArray[np.uint8]]], path: Path) -> None:
    """Pictures and their maps, a line each."""
    sheet = Image.new("RGB", (_TILE * len(lines[0]), _TILE * len(lines)))
    for row, line in enumerate(lines):
        for column, picture in enumerate(line):
            sheet.paste(Image.fromarray(picture).resize((_TILE - 4, _TILE - 4)), (column * _TILE, row * _TILE))
    sheet.save(path)


if __name__ == "__main__":
    main()
