"""`gicd` against maps that ignore the group, on groups with masks of what is common: F, S, E and MAE.

    python -m benchmarks.group_quality --bundle bundles/gicd --single bundles/multis --data DATA/coseg \
        --maps priors_contrast --splits DATA/splits.json --part test --output groups

Groups are the folders of images/. Beside them stand every picture of a group by itself, and `--without` a bundle
without induction.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.method_maps import Grey, group_maps, groups_of, pairs_of, single_maps
from salience.runtime import Detector, GroupDetector, load
from salience.runtime.evaluation.metrics import MetricAccumulator
from salience.runtime.evaluation.pairs import Pair
from salience.runtime.images import decode, decode_grey, decode_mask

Maps = Callable[[Sequence[Pair]], list[Grey]]
_TILE = 120
_SHOWN = 3


def main() -> None:
    """Measure, print, and write OUTPUT.json and OUTPUT.png."""
    parser = argparse.ArgumentParser(description="Scores of gicd and of what ignores the group.")
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--without", help="a bundle of gicd without induction")
    parser.add_argument("--single", help="a bundle that sees one picture at a time")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--maps", help="folder of stored maps below --data")
    parser.add_argument("--splits", type=Path)
    parser.add_argument("--part", choices=["train", "val", "test"], default="test")
    parser.add_argument("--output", type=Path, default=Path("groups"))
    options = parser.parse_args()
    groups = groups_of(pairs_of(options.data, splits=options.splits, part=options.part if options.splits else None))
    forms = all_forms(options)
    results: dict[str, dict[str, dict[str, float | None]]] = {}
    sheet: list[list[Grey]] = []
    maps = {
        name: {group: form(pairs) for group, pairs in track(groups.items(), name, console=Console(stderr=True))}
        for name, form in forms.items()
    }
    for name, found in maps.items():
        results[name] = score(groups, found)
    for group, pairs in groups.items():
        for index in np.linspace(0, len(pairs) - 1, _SHOWN).astype(int):
            image, mask = decode(pairs[index].source), decode_mask(pairs[index].mask)
            planes = [mask.astype(np.uint8) * 255, *(maps[name][group][index] for name in forms)]
            sheet.append([image, *(np.repeat(plane[..., None], 3, axis=2) for plane in planes)])
    report(results)
    options.output.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    save_sheet(sheet, options.output.with_suffix(".png"))


def all_forms(options: argparse.Namespace) -> dict[str, Maps]:
    """What is compared, by name."""
    detector = load(options.bundle)
    if not isinstance(detector, GroupDetector):
        raise SystemExit(f"{options.bundle}: expected a bundle of gicd.")
    forms: dict[str, Maps] = {}
    if options.maps:
        forms[options.maps] = lambda pairs: [stored(options.data / options.maps, pair) for pair in pairs]
    if options.single:
        single = load(options.single)
        forms[f"{single.bundle.manifest.method}, picture by picture"] = lambda pairs: one_by_one(single, pairs)
    if options.without:
        without = load(options.without)
        forms["gicd without induction"] = lambda pairs: one_by_one(without, pairs)
    forms["gicd, each picture a group"] = lambda pairs: one_by_one(detector, pairs)
    forms["gicd"] = lambda pairs: grouped(detector, pairs)
    return forms


def one_by_one(detector: Detector, pairs: Sequence[Pair]) -> list[Grey]:
    """Every picture by itself."""
    return [found[""] for found in single_maps(detector, pairs)]


def grouped(detector: GroupDetector, pairs: Sequence[Pair]) -> list[Grey]:
    """The pictures as one group."""
    return [found[""] for found in group_maps(detector, pairs)]


def stored(folder: Path, pair: Pair) -> Grey:
    """The map of a picture from a folder."""
    return decode_grey(folder / f"{pair.name}.png")


def score(groups: dict[str, list[Pair]], maps: dict[str, list[Grey]]) -> dict[str, dict[str, float | None]]:
    """Scores of each group, and of all pictures."""
    total, found = MetricAccumulator(), {}
    for group, pairs in groups.items():
        part = MetricAccumulator()
        for pair, values in zip(pairs, maps[group], strict=True):
            mask = decode_mask(pair.mask)
            part.add(values, mask)
            total.add(values, mask)
        found[group] = part.scores().model_dump()
    return {"all": total.scores().model_dump(), **found}


def report(results: dict[str, dict[str, dict[str, float | None]]]) -> None:
    """A table on standard output."""
    groups = [name for name in next(iter(results.values())) if name != "all"]
    table = Table("maps", "max F", "mean F", "S", "mean E", "MAE", *(f"{group}: max F, MAE" for group in groups))
    for name, scores in results.items():
        whole = [f"{scores['all'][key]:.4f}" for key in ("f_max", "f_mean", "s", "e_mean", "mae")]
        table.add_row(name, *whole, *(f"{scores[g]['f_max']:.3f}, {scores[g]['mae']:.3f}" for g in groups))
    Console(width=160).print(table)


def save_sheet(lines: list[list[Grey]], path: Path) -> None:
    """Pictures, masks and maps, a line each."""
    sheet = Image.new("RGB", (_TILE * len(lines[0]), _TILE * len(lines)))
    for row, line in enumerate(lines):
        for column, picture in enumerate(line):
            sheet.paste(Image.fromarray(picture).resize((_TILE - 4, _TILE - 4)), (column * _TILE, row * _TILE))
    sheet.save(path)


if __name__ == "__main__":
    main()
