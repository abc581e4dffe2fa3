"""Which threshold makes masks, which components are specks, and which maps show no object.

    python -m benchmarks.mask_threshold --data DATA
    python -m benchmarks.mask_threshold --data DATA --bundle multis=runtime/default_bundle arn=bundles/arn

DATA holds splits.json and the sets ecssd and coseg; their validation parts alone are read. Beside the bundles stand
stored maps of other methods, whose values are calibrated otherwise. Rules are compared by the mean IoU of their masks
with ground truth, speck sizes by that of the boxes, and the floor by the maximums of maps of images with and without
an object. Then `mask` and `box` are timed on a map of 12 megapixels.
"""

import argparse
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.evidence import Evidence
from benchmarks.forms import Floats
from benchmarks.mask_rules import REFERENCE, Mask, box_iou, images_without_object, mask_iou, masks_of
from benchmarks.mask_texts import maximum_cells, rule_cells, speck_cells, time_cells
from benchmarks.method_maps import groups_of, pairs_of
from benchmarks.quality_studies import STORED
from benchmarks.run_record import Row
from benchmarks.turns import take_turns
from salience.runtime import Detector, GroupDetector, SaliencyMap, load
from salience.runtime.bundle import DEFAULT_BUNDLE
from salience.runtime.components import box_of_components
from salience.runtime.evaluation.pairs import Pair
from salience.runtime.files import write_atomic
from salience.runtime.images import decode, decode_map, decode_mask

SETS = ("ecssd", "coseg")
SHARES = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_TIMED = (3000, 4000)
_WITH_OBJECT = "validation images"


class RuleRow(Row):
    """Masks of one rule on one part.

    Attributes:
        maps: name of the bundle or of the stored maps.
        part: set of whose validation part the images are.
        rule: of the threshold.
        images: count.
        iou: mean IoU of the masks with ground truth.
        change: of the mean IoU against a fixed threshold of .5.
        change_error: standard error of the change, over the images.
        empty: count of empty masks; every image has an object.
    """

    maps: str
    part: str
    rule: str
    images: int
    iou: float
    change: float
    change_error: float
    empty: int


class SpeckRow(Row):
    """Boxes of the default masks without components of less than `share` of the largest one's area.

    Attributes:
        maps: name of the bundle or of the stored maps.
        part: set of whose validation part the images are.
        share: 0 keeps all components, 1 only the largest.
        iou: mean IoU of the boxes with the box of the ground truth.
        change: of the mean IoU against boxes of all components.
        change_error: standard error of the change, over the images.
    """

    maps: str
    part: str
    share: float
    iou: float
    change: float
    change_error: float


class MaximumRow(Row):
    """Maximums of the maps of some images, and how many of these have a box.

    Attributes:
        maps: name of the bundle.
        kind: of the images.
        images: count.
        least: smallest maximum.
        most: largest maximum.
        boxes: count of the images that have a box.
    """

    maps: str
    kind: str
    images: int
    least: float
    most: float
    boxes: int


class TimeRow(Row):
    """Median CPU time of a call on a map of 3000 x 4000, which other processes change little."""

    call: str
    cpu_ms: float


class MaskRun(BaseModel):
    """All that is measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    evidence: Evidence
    rules: tuple[RuleRow, ...]
    specks: tuple[SpeckRow, ...]
    maximums: tuple[MaximumRow, ...]
    times: tuple[TimeRow, ...]


@dataclass
class Part:
    """Scores of the maps of one validation part, image by image."""

    masks: dict[str, list[float]] = field(default_factory=dict)
    empty: dict[str, int] = field(default_factory=dict)
    boxes: dict[float, list[float]] = field(default_factory=dict)
    maximums: list[float] = field(default_factory=list)
    found: int = 0

    def add(self, saliency: SaliencyMap, truth: Mask) -> None:
        """Count one image in."""
        for name, mask in masks_of(saliency).items():
            self.masks.setdefault(name, []).append(mask_iou(mask, truth))
            self.empty[name] = self.empty.get(name, 0) + (not mask.any())
        wanted, mask = box_of_components(truth, least_share=0), saliency.mask()
        for share in SHARES:
            found = box_of_components(mask, least_share=share)
            self.boxes.setdefault(share, []).append(box_iou(found, wanted))
        self.maximums.append(float(saliency.values.max()))
        self.found += saliency.box() is not None

    def rule_rows(self, **names: str) -> Iterator[RuleRow]:
        """One row for each rule."""
        for rule, scores in self.masks.items():
            changes = _changes(scores, self.masks[REFERENCE])
            yield RuleRow(**names, rule=rule, images=len(scores), empty=self.empty[rule], **changes)

    def speck_rows(self, **names: str) -> Iterator[SpeckRow]:
        """One row for each share."""
        for share, scores in self.boxes.items():
            yield SpeckRow(**names, share=share, **_changes(scores, self.boxes[SHARES[0]]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="Thresholds of masks, specks, and maps that show no object.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundle", nargs="+", default=[f"packaged={DEFAULT_BUNDLE}"], metavar="NAME=FOLDER")
    parser.add_argument("--rounds", type=int, default=7, help="of the times")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/mask_threshold.json"))
    options = parser.parse_args(arguments)
    evidence = Evidence.gather()
    detectors = {name: load(folder, device="cpu") for name, folder in map(_named, options.bundle)}
    run = measure(detectors, options.data, evidence=evidence, rounds=options.rounds)
    show(run)
    write_atomic(options.json, f"{run.model_dump_json(indent=1)}\n".encode())


def measure(detectors: dict[str, Detector], data: Path, *, evidence: Evidence, rounds: int) -> MaskRun:
    """The rows of all bundles and of the stored maps."""
    pairs = {name: pairs_of(data / name, splits=data / "splits.json", part="val") for name in SETS}
    rules, specks, maximums = list[RuleRow](), list[SpeckRow](), list[MaximumRow]()
    for name, detector in detectors.items():
        for part, members in pairs.items():
            scores = score(maps_of(detector, members), members, f"{name}, {part}")
            rules += scores.rule_rows(maps=name, part=part)
            specks += scores.speck_rows(maps=name, part=part)
            maximums.append(_maximum_row(name, f"{_WITH_OBJECT} of {part}", scores.maximums, scores.found))
        maximums += rows_without_object(name, detector)
    for part in SETS:
        title, folder = STORED[part]
        stored = pairs_of(data / part, sources=folder, splits=data / "splits.json", part="val")
        scores = score(map(stored_map, stored), stored, title)
        rules += scores.rule_rows(maps=title, part=part)
        specks += scores.speck_rows(maps=title, part=part)
    times = tuple(time_rows(rounds))
    return MaskRun(evidence=evidence, rules=tuple(rules), specks=tuple(specks), maximums=tuple(maximums), times=times)


def maps_of(detector: Detector, pairs: Sequence[Pair]) -> Iterator[SaliencyMap]:
    """The map of each image; of `gicd` as a member of its group."""
    if isinstance(detector, GroupDetector):
        for members in groups_of(pairs).values():
            yield from detector.predict_group([pair.source for pair in members])
    else:
        yield from (detector.predict(pair.source) for pair in pairs)


def stored_map(pair: Pair) -> SaliencyMap:
    """The map that a file holds."""
    return SaliencyMap(decode_map(pair.source), decode(pair.source))


def score(maps: Iterable[SaliencyMap], pairs: Sequence[Pair], title: str) -> Part:
    """Scores of all maps of a part."""
    scores = Part()
    paired = zip(maps, pairs, strict=True)
    for found, pair in track(paired, title, total=len(pairs), console=Console(stderr=True)):
        scores.add(found, decode_mask(pair.mask))
    return scores


def rows_without_object(name: str, detector: Detector) -> Iterator[MaximumRow]:
    """One row for each kind of image; every image is a group of its own for `gicd`."""
    for kind, images in images_without_object().items():
        maps = [detector.predict(image) for image in images]
        found = sum(each.box() is not None for each in maps)
        yield _maximum_row(name, kind, [float(each.values.max()) for each in maps], found)


def time_rows(rounds: int) -> Iterator[TimeRow]:
    """`mask` and `box` of smooth blobs and of a noisy map, which has many components."""
    smooth, noisy = random_map(12), random_map(240)
    calls = {
        "mask, smooth map": smooth.mask,
        "box, smooth map": smooth.box,
        "mask, noisy map": noisy.mask,
        "box, noisy map": noisy.box,
    }
    for call, times in take_turns(calls, rounds=rounds, seed=0, clock=time.process_time).items():
        yield TimeRow(call=call, cpu_ms=1000 * statistics.median(times))


def random_map(grains: int) -> SaliencyMap:
    """A map of 3000 x 4000 with values at random on a grid of `grains` by `grains`, and smooth between."""
    height, width = _TIMED
    values: Floats = np.random.default_rng(0).random((grains, grains), dtype=np.float32)
    enlarged = np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR))
    return SaliencyMap(enlarged, np.zeros((height, width, 3), dtype=np.uint8))


def show(run: MaskRun) -> None:
    """Print the tables."""
    found = run.model_dump()
    tables = {
        "Mean IoU of masks": rule_cells(found["rules"]),
        "Mean IoU of boxes, and its change against boxes of all components": speck_cells(found["specks"]),
        "Images with and without an object": maximum_cells(found["maximums"]),
        "Maps of 3000 x 4000": time_cells(found["times"]),
    }
    for title, (columns, rows) in tables.items():
        table = Table(*columns, title=title)
        for row in rows:
            table.add_row(*row)
        Console().print(table)


def _maximum_row(name: str, kind: str, maximums: Sequence[float], boxes: int) -> MaximumRow:
    return MaximumRow(maps=name, kind=kind, images=len(maximums), least=min(maximums), most=max(maximums), boxes=boxes)


def _changes(scores: Sequence[float], reference: Sequence[float]) -> dict[str, float]:
    """Mean of the scores, mean of their differences from the reference, and the standard error of that."""
    differences = np.subtract(scores, reference)
    error = float(differences.std()) / len(differences) ** 0.5
    return {"iou": float(np.mean(scores)), "change": float(differences.mean()), "change_error": error}


def _named(word: str) -> tuple[str, str]:
    """NAME and FOLDER of an argument; the folder's last name where there is no NAME."""
    name, separator, folder = word.rpartition("=")
    return (name, folder) if separator else (Path(folder).name, folder)


if __name__ == "__main__":
    main()
