"""Jigsaws of the groups of a part of coseg: how much of each map lies on an object of another class.

    python -m benchmarks.distractors --data DATA --bundle gicd=bundles/gicd --single multis=bundles/multis \
        --part val --json distractors.json --sheet distractors.png

DATA holds splits.json and the sets coseg, ecssd and horses. Each image of a group stands beside or above an image of
another class; both halves have the same size. The ground truth is the object of the group alone. `gicd` gets the
jigsaws of a group together, and each of them alone. Objects of the images of ecssd have no class on record; name
images that show the class of a group in `--exclude`.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.evidence import Evidence
from benchmarks.group_quality import save_sheet
from benchmarks.jigsaws import Jigsaw, Pairing, compose, labels_of, pair_up, read_classes
from benchmarks.method_maps import Grey
from benchmarks.run_record import Row
from salience.runtime import DataError, GroupDetector, SaliencyMap, load
from salience.runtime.evaluation.image_metrics import CURVES, FPoint, ImageMetrics, ImageScorer
from salience.runtime.evaluation.metrics import average, stretch
from salience.runtime.files import write_atomic

# The maps of the images of a group, in their order.
Method = Callable[[Sequence[Grey]], Sequence[SaliencyMap]]
# Share of the pixels; a map with less mass shows nothing.
LEAST_MASS = 0.001
ALL = "all"
_SHOWN = 3


class DistractorRow(Row):
    """Means over the jigsaws of one group, or of all.

    Attributes:
        maps: name of the method.
        group: `all`, or a group.
        images: count.
        half: share of a map's mass on the half of the distractor.
        distractor: share of a map's mass on the object of the distractor.
        f_max: maximum of the image-averaged F curve.
        mae: mean absolute error.
        failures: count of nearly empty maps; their shares are 1 and their F is 0.
    """

    maps: str
    group: str
    images: int
    half: float
    distractor: float
    f_max: float
    mae: float
    failures: int


class DistractorRun(BaseModel):
    """All that is measured.

    Attributes:
        evidence: of the machine.
        part: of the split file.
        seed: of the jigsaws.
        classes: number of jigsaws by class of the distractor, for each group.
        rows: the means.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    evidence: Evidence
    part: str
    seed: int
    classes: dict[str, dict[str, int]]
    rows: tuple[DistractorRow, ...]


@dataclass(frozen=True)
class Record:
    """Shares and metrics of one map; see `DistractorRow`."""

    group: str
    half: float
    distractor: float
    failed: bool
    metrics: ImageMetrics


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="Maps of groups whose images hold an object of another class.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundle", nargs="+", required=True, metavar="NAME=FOLDER", help="bundles of gicd")
    parser.add_argument("--single", nargs="*", default=[], metavar="NAME=FOLDER", help="bundles that see one image")
    parser.add_argument("--part", choices=["val", "test"], default="val")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--exclude", nargs="*", default=[], metavar="SET/NAME", help="images that are no distractors")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--sheet", type=Path, help="PNG of example jigsaws, their masks and maps")
    options = parser.parse_args(arguments)
    evidence = Evidence.gather()
    methods = methods_of(options.bundle, options.single)
    groups, others = read_classes(options.data, part=options.part, exclude=options.exclude)
    pairings = pair_up(groups, others, seed=options.seed)
    records, examples = measure_all(pairings, methods)
    run = DistractorRun(
        evidence=evidence, part=options.part, seed=options.seed,
        classes={group: labels_of(members) for group, members in pairings.items()}, rows=tuple(rows_of(records)),
    )  # fmt: skip
    show(run.rows)
    write_atomic(options.json, f"{run.model_dump_json(indent=1)}\n".encode())
    if options.sheet:
        save_sheet(examples, options.sheet)
        Console().print(f"{options.sheet}: image, mask, {'; '.join(methods)}")


def methods_of(bundles: Sequence[str], singles: Sequence[str]) -> dict[str, Method]:
    """Return the methods of NAME=FOLDER bundles: `gicd` by the group and image by image, then the others."""
    methods: dict[str, Method] = {}
    for text in bundles:
        name, folder = _named(text)
        detector = load(folder)
        if not isinstance(detector, GroupDetector):
            raise DataError(f"--bundle {text}: got a bundle of another method, expected gicd; pass it as --single.")
        methods[f"{name}, group"] = detector.predict_group
        methods[f"{name}, image alone"] = _one_by_one(detector.predict)
    for text in singles:
        name, folder = _named(text)
        methods[name] = _one_by_one(load(folder).predict)
    return methods


def measure_all(
    pairings: Mapping[str, Sequence[Pairing]], methods: Mapping[str, Method]
) -> tuple[dict[str, list[Record]], list[list[Grey]]]:
    """Measure the maps of every method.

    Returns:
        The records of each method, and rows of example images (H, W, 3): jigsaw, mask, and a map of each method.
    """
    scorer = ImageScorer(full=False)
    records: dict[str, list[Record]] = {name: [] for name in methods}
    examples: list[list[Grey]] = []
    for group, members in track(pairings.items(), "groups", console=Console(stderr=True)):
        jigsaws = [compose(pairing) for pairing in members]
        maps = {name: method([jigsaw.image for jigsaw in jigsaws]) for name, method in methods.items()}
        for name, found in maps.items():
            paired = zip(found, jigsaws, strict=True)
            records[name] += [measure(saliency, jigsaw, group, scorer) for saliency, jigsaw in paired]
        for index in np.linspace(0, len(jigsaws) - 1, min(_SHOWN, len(jigsaws))).astype(int):
            planes = [jigsaws[index].truth.astype(np.uint8) * 255, *(found[index].grey() for found in maps.values())]
            examples.append([jigsaws[index].image, *(np.repeat(plane[..., None], 3, axis=2) for plane in planes)])
    return records, examples


def measure(saliency: SaliencyMap, jigsaw: Jigsaw, group: str, scorer: ImageScorer) -> Record:
    """Measure one map; a nearly empty one has shares of 1, and F, precision and recall of 0."""
    values = saliency.values.astype(np.float64)
    mass = float(values.sum())
    if mass < LEAST_MASS * values.size:
        found = scorer.measure(values, jigsaw.truth)
        zero = FPoint(0.0, 0.0, 0.0)
        empty = ImageMetrics(found.mae, {name: np.zeros(256) for name in CURVES}, zero, found.has_both, None)
        return Record(group, 1.0, 1.0, True, empty)
    half, distractor = (float(values[region].sum()) / mass for region in (jigsaw.other_half, jigsaw.other_object))
    return Record(group, half, distractor, False, scorer.measure(stretch(saliency.grey()), jigsaw.truth))


def rows_of(records: Mapping[str, Sequence[Record]]) -> Iterator[DistractorRow]:
    """Means of each method, over all jigsaws and over those of each group."""
    for name, found in records.items():
        yield _row(name, ALL, found)
        for group in dict.fromkeys(record.group for record in found):
            yield _row(name, group, [record for record in found if record.group == group])


def show(rows: Sequence[DistractorRow]) -> None:
    """Print the table."""
    table = Table("maps", "group", "images", "on its half", "on the distractor", "max F", "MAE", "failures")
    for row in rows:
        numbers = (row.half, row.distractor, row.f_max, row.mae)
        cells = (f"{number:.4f}" for number in numbers)
        table.add_row(row.maps, row.group, str(row.images), *cells, str(row.failures))
    Console().print(table)


def _row(name: str, group: str, records: Sequence[Record]) -> DistractorRow:
    scores = average((record.metrics for record in records), full=False)
    return DistractorRow(
        maps=name, group=group, images=len(records), f_max=scores.f_max, mae=scores.mae,
        half=float(np.mean([record.half for record in records])),
        distractor=float(np.mean([record.distractor for record in records])),
        failures=sum(record.failed for record in records),
    )  # fmt: skip


def _one_by_one(predict: Callable[[Grey], SaliencyMap]) -> Method:
    return lambda images: [predict(image) for image in images]


def _named(text: str) -> tuple[str, str]:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise DataError(f"bundle {text}: expected NAME=FOLDER.")
    return name, folder


if __name__ == "__main__":
    main()
