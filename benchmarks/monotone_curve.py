"""The best monotone curve of grey levels for stored maps: chosen on a validation part, applied to a test part.

    python -m benchmarks.monotone_curve --set ecssd=DATA/ecssd:priors_csnet --set coseg=DATA/coseg:priors_contrast \
        --splits DATA/splits.json --output monotone

A network that improves priors has to beat a curve alone. A curve maps level 0 to 0 and 255 to 255 and never falls.
Three curves are chosen: by MAE, by weighted F and by S of the validation part. The test part chooses nothing.
"""

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.method_maps import Grey, score
from salience.runtime.evaluation.command import fit_to
from salience.runtime.evaluation.metrics import MetricAccumulator, Scores, stretch
from salience.runtime.evaluation.pairs import Pair, find_pairs
from salience.runtime.images import decode_grey, decode_mask
from salience.runtime.splits import Part

Criterion = Literal["mae", "f_weighted", "s"]
CRITERIA: tuple[Criterion, ...] = get_args(Criterion)
Levels: TypeAlias = NDArray[np.float64]

PRIOR = "the prior"
LEVELS: Levels = np.arange(256) / 255
# Weighted F and S need every pixel of every map, so only so many curves, the best by MAE and the identity, are tried.
FINALISTS = 24


@dataclass(frozen=True)
class Curve:
    """A monotone curve of grey levels.

    Attributes:
        family: identity, logistic, power, ramp, step or isotonic.
        parameters: of the family, by name.
        values: (256,) in [0, 1] for the levels 0 to 255, from 0 to 1, never falling.
    """

    family: str
    parameters: tuple[tuple[str, float], ...]
    values: tuple[float, ...]

    @property
    def name(self) -> str:
        """Family and parameters."""
        return " ".join([self.family, *(f"{name}={value:g}" for name, value in self.parameters)])

    def apply(self, saliency: Grey) -> Grey:
        """Return the map (H, W) uint8 under the curve, after it was stretched to the full range."""
        found: Grey = self._table()[levels_of(saliency)]
        return found

    def _table(self) -> Grey:
        table: Grey = np.rint(np.array(self.values) * 255).astype(np.uint8)
        return table


@dataclass(frozen=True)
class Choice:
    """The curve that is best on the validation part by `criterion`, and its value there."""

    criterion: Criterion
    curve: Curve
    value: float


class LevelCounts:
    """How many pixels of the images have which level, which gives the MAE of any curve without the images.

    Attributes:
        background, foreground: (256,) shares of the pixels of an image that have a level, averaged over images.
    """

    def __init__(self) -> None:
        self.background, self.foreground, self._images = np.zeros(256), np.zeros(256), 0

    def add(self, saliency: Grey, mask: NDArray[np.bool_]) -> None:
        """Count one image in, map and mask of the same size."""
        levels = levels_of(saliency)
        for total, chosen in ((self.background, ~mask), (self.foreground, mask)):
            total += np.bincount(levels[chosen], minlength=256) / mask.size
        self._images += 1

    def mae(self, values: Levels) -> float:
        """Return MAE averaged over the images under a curve of (256,) values in [0, 1]."""
        return float((self.background @ values + self.foreground @ (1 - values)) / self._images)

    def isotonic(self) -> Levels:
        """Return the monotone curve of least squared error, stretched to [0, 1]."""
        from scipy.optimize import isotonic_regression

        weight = self.background + self.foreground
        known = weight > 0
        fitted = isotonic_regression(self.foreground[known] / weight[known], weights=weight[known]).x
        return _full_range(np.interp(np.arange(256), np.flatnonzero(known), fitted))


def best_curves(pairs: Sequence[Pair], *, criteria: Sequence[Criterion] = CRITERIA) -> dict[Criterion, Choice]:
    """Choose the best curve for stored maps by each criterion.

    Args:
        pairs: maps and masks of the validation part.
        criteria: `mae` (least), `f_weighted`, `s` (largest). The last two choose among `finalists` only.
    """
    counts = LevelCounts()
    for saliency, mask in read_maps(pairs):
        counts.add(saliency, mask)
    curves = [*candidates(), isotonic_curve(counts)]
    errors = {curve: counts.mae(np.array(curve.values)) for curve in curves}
    best = min(curves, key=errors.__getitem__)
    found = {"mae": Choice("mae", best, errors[best])} if "mae" in criteria else {}
    others = [criterion for criterion in criteria if criterion != "mae"]
    if others:
        scores = score_curves(pairs, finalists(curves, errors))
        for criterion in others:
            value = {curve: _value(scores[curve], criterion) for curve in scores}
            best = max(value, key=value.__getitem__)
            found[criterion] = Choice(criterion, best, value[best])
    return {criterion: found[criterion] for criterion in criteria}


def candidates() -> list[Curve]:
    """The curves of the parametric families; the identity is first."""
    grid = np.round(np.arange(0.05, 1, 0.05), 2).tolist()
    logistic = [
        _curve("logistic", {"k": k, "c": c}, _full_range(1 / (1 + np.exp(-k * (LEVELS - c)))))
        for k in (4, 6, 8, 12, 16, 24, 32, 64)
        for c in grid
    ]
    power = [_curve("power", {"gamma": g}, LEVELS**g) for g in (0.25, 0.35, 0.5, 0.7, 1.4, 2, 2.8, 4, 5.6, 8)]
    ramp = [
        _curve("ramp", {"from": low, "to": high}, np.clip((LEVELS - low) / (high - low), 0, 1))
        for low in (0.0, *grid)
        for high in (*grid, 1.0)
        if low < high and (low, high) != (0, 1)
    ]
    steps = [_curve("step", {"at": c}, (c <= LEVELS).astype(np.float64)) for c in grid]
    return [_curve("identity", {}, LEVELS), *logistic, *power, *ramp, *steps]


def isotonic_curve(counts: LevelCounts) -> Curve:
    """The isotonic regression of the mask on the level."""
    return _curve("isotonic", {}, counts.isotonic())


def finalists(curves: Sequence[Curve], errors: Mapping[Curve, float], *, count: int = FINALISTS) -> list[Curve]:
    """The identity, and `count` curves: the best by MAE of each family in turn, so that every family is tried."""
    families: dict[str, list[Curve]] = {}
    for curve in sorted(curves, key=errors.__getitem__):
        families.setdefault(curve.family, []).append(curve)
    identity = families.pop("identity", [])
    depth = max(map(len, families.values()))
    turns = [members[turn] for turn in range(depth) for members in families.values() if turn < len(members)]
    return [*identity, *turns[:count]]


def score_curves(pairs: Sequence[Pair], curves: Sequence[Curve]) -> dict[Curve, Scores]:
    """All scores of stored maps under each curve."""
    found = {curve: MetricAccumulator(keep_curves=False) for curve in curves}
    for saliency, mask in read_maps(track(pairs, description="curves", console=Console(stderr=True))):
        for curve, accumulator in found.items():
            accumulator.add(curve.apply(saliency), mask)
    return {curve: accumulator.scores() for curve, accumulator in found.items()}


def curve_rows(choices: Mapping[Criterion, Choice], pairs: Sequence[Pair]) -> dict[str, Scores]:
    """Scores of the stored maps of a test part as they are, and under each chosen curve.

    Returns:
        By name: `PRIOR`, then a row for each criterion.
    """
    curves = {row_name(choice): choice.curve for choice in choices.values()}
    maps = (
        {PRIOR: prior, **{name: curve.apply(prior) for name, curve in curves.items()}} for prior, _ in read_maps(pairs)
    )
    return score(pairs, maps)


def row_name(choice: Choice) -> str:
    """The name of a row: the curve, and what chose it."""
    labels = {"mae": "MAE", "f_weighted": "weighted F", "s": "S"}
    return f"curve of best {labels[choice.criterion]} on validation: {choice.curve.name}"


def measure(
    folder: Path, priors: str, *, splits: Path, choose_on: Part = "val", part: Part = "test"
) -> tuple[dict[Criterion, Choice], dict[str, Scores]]:
    """Choose the curves on one part of a set and score them on another.

    Args:
        folder: of the set, with masks/ and the folder `priors`.
        priors: folder of the stored maps.
        splits: the split file.
        choose_on, part: where curves are chosen, and where they are scored.
    """
    validation = find_pairs(folder / priors, folder / "masks", splits=splits, part=choose_on).pairs
    choices = best_curves(validation)
    return choices, curve_rows(choices, find_pairs(folder / priors, folder / "masks", splits=splits, part=part).pairs)


def read_maps(pairs: Iterable[Pair]) -> Iterator[tuple[Grey, NDArray[np.bool_]]]:
    """The stored map of each pair at its mask's size, and the mask."""
    for pair in pairs:
        mask = decode_mask(pair.mask)
        yield fit_to(decode_grey(pair.source), mask.shape), mask


def levels_of(saliency: Grey) -> Grey:
    """The map stretched to the levels 0 to 255; a flat map keeps its level."""
    return np.rint(stretch(saliency) * 255).astype(np.uint8)


def parse_set(text: str) -> tuple[str, Path, str]:
    """NAME=FOLDER:PRIORS."""
    name, _, rest = text.partition("=")
    folder, colon, priors = rest.rpartition(":")
    if not (name and colon and folder and priors):
        raise SystemExit(f"--set {text}: expected NAME=FOLDER:PRIORS.")
    return name, Path(folder), priors


SCORES = {"MAE": "mae", "max F": "f_max", "weighted F": "f_weighted", "S": "s"}


def score_cells(scores: Scores) -> list[str]:
    """MAE, max F, weighted F and S to four digits."""
    return [f"{value:.4f}" if (value := getattr(scores, key)) is not None else "" for key in SCORES.values()]


def record(choices: Mapping[Criterion, Choice], rows: Mapping[str, Scores]) -> dict[str, object]:
    """What the JSON file says of one set."""
    return {
        "curves": {
            criterion: {
                "name": choice.curve.name,
                "values": [round(value, 6) for value in choice.curve.values],
                "value_on_validation": choice.value,
            }
            for criterion, choice in choices.items()
        },
        "rows": {name: scores.model_dump(exclude_none=True) for name, scores in rows.items()},
    }


def main() -> None:
    """Choose, score, print, and write OUTPUT.json."""
    parser = argparse.ArgumentParser(description="Stored maps under the best monotone curve.")
    parser.add_argument("--set", dest="sets", action="append", required=True, help="NAME=FOLDER:PRIORS")
    parser.add_argument("--splits", type=Path, required=True)
    parser.add_argument("--choose-on", choices=["train", "val"], default="val")
    parser.add_argument("--part", choices=["train", "val", "test"], default="test")
    parser.add_argument("--output", type=Path, default=Path("monotone"))
    options = parser.parse_args()
    table, records = Table("set", "maps", *SCORES), {}
    for text in options.sets:
        name, folder, priors = parse_set(text)
        choices, rows = measure(
            folder, priors, splits=options.splits, choose_on=options.choose_on, part=options.part
        )  # fmt: skip
        for row, scores in rows.items():
            table.add_row(f"{name} {priors}", row, *score_cells(scores))
        records[f"{name} {priors}"] = record(choices, rows)
    Console().print(table)
    options.output.with_suffix(".json").write_text(json.dumps(records, indent=1) + "\n")


def _curve(family: str, parameters: Mapping[str, float], values: Levels) -> Curve:
    return Curve(family, tuple(parameters.items()), tuple(values.tolist()))


def _full_range(values: Levels) -> Levels:
    """Values from 0 to 1; a constant curve becomes the identity."""
    low, high = values[0], values[-1]
    return LEVELS if high <= low else (values - low) / (high - low)


def _value(scores: Scores, criterion: Criterion) -> float:
    return float(getattr(scores, criterion))


if __name__ == "__main__":
    main()
