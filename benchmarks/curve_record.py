"""What `benchmarks.curves` measured, as a file: points, medians and fits, which are checked when it is read."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from rich.table import Table

from benchmarks.slopes import Fit, Line, Power, worst_residual

PanelName = Literal["batch", "group", "memory", "iterations", "size"]
Samples = Mapping[int, Sequence[float]]


@dataclass(frozen=True)
class Panel:
    """What a panel shows: its title and axes, the unit of its values, what its slope is per, and its drawn height."""

    title: str
    x_label: str
    y_label: str
    unit: Literal["ms", "MB"]
    step: str
    law: type[Line] | type[Power] = Line
    inches: float = 2.9


PANELS: dict[PanelName, Panel] = {
    "batch": Panel("Batch size", "pictures per call", "time per call, ms", "ms", "picture"),
    "group": Panel("Group size, gicd", "", "time, ms", "ms", "picture", inches=1.25),
    "memory": Panel("", "pictures of the group, N", "peak memory, MB", "MB", "picture", inches=1.25),
    "iterations": Panel("Iterations", "iterations, T", "time per picture, ms", "ms", "iteration"),
    "size": Panel("Image size", "network input, pixels", "time per picture, ms", "ms", "pixel", Power),
}


class Curve(BaseModel):
    """One curve.

    Attributes:
        panel: where it belongs; a key of `PANELS`.
        name: what was measured.
        x: batch, N or T; for "size" the pixels of the network's input. Ascending.
        samples: ms of each round or MB, by x.
        median: of the samples.
        limit: largest x that the fit looks at, where the curve bends for a known reason; None for all.
        fit: of the medians.
        worst: residual of the fit at its worst point, as a fraction.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    panel: PanelName
    name: str
    x: tuple[int, ...]
    samples: tuple[tuple[float, ...], ...]
    median: tuple[float, ...]
    limit: int | None = None
    fit: Fit
    worst: float

    @classmethod
    def of(cls, panel: PanelName, name: str, samples: Samples, *, limit: int | None = None) -> Self:
        """The curve of samples by x. A limit counts for nothing where it cuts nothing off, or leaves one point."""
        x = tuple(sorted(samples))
        if limit is not None and (limit >= x[-1] or limit < x[1]):
            limit = None
        median = tuple(statistics.median(samples[place]) for place in x)
        fit, worst = _fit(panel, x, median, limit)
        rounds = tuple(tuple(samples[place]) for place in x)
        return cls(panel=panel, name=name, x=x, samples=rounds, median=median, limit=limit, fit=fit, worst=worst)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """A slope is believed only if it is that of the points beside it."""
        if not len(self.x) == len(self.samples) == len(self.median):
            raise ValueError(f"curve {self.name}: {len(self.x)} places, {len(self.median)} values; measure it again.")
        if list(self.median) != [statistics.median(samples) for samples in self.samples]:
            raise ValueError(f"curve {self.name}: its medians are not those of its samples; measure it again.")
        fit, worst = _fit(self.panel, self.x, self.median, self.limit)
        stored, found = (*self.fit.numbers(), self.worst), (*fit.numbers(), worst)
        # Beyond what other versions of a solver round differently; a residual is a small difference of large numbers.
        if fit.law != self.fit.law or not all(map(_close, stored, found)):
            raise ValueError(f"curve {self.name}: its fit is {self.fit}, its points give {fit}; measure it again.")
        return self

    def describe(self) -> str:
        """The slope in words, such as `3.1 + 12.4 ms per picture` or `pixels^1.02`."""
        panel = PANELS[self.panel]
        if isinstance(self.fit, Power):
            return f"pixels^{self.fit.exponent:.2f}"
        sign = "+" if self.fit.slope >= 0 else "-"
        return f"{_short(self.fit.fixed)} {sign} {_short(abs(self.fit.slope))} {panel.unit} per {panel.step}"


class Record(BaseModel):
    """All curves of a run, and what they were measured with; `side` is that of the network's input but for "size"."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str
    backend: str
    precision: str
    threads: int
    processor: str
    versions: dict[str, str]
    rounds: int
    side: int
    curves: tuple[Curve, ...]

    @classmethod
    def read(cls, path: Path) -> Self:
        """A stored record.

        Raises:
            SystemExit: it is none, or its fits are not those of its points.
        """
        try:
            return cls.model_validate_json(path.read_text())
        except ValidationError as error:
            problems = "; ".join(problem["msg"] for problem in error.errors())
            raise SystemExit(f"record {path}: {problems}") from error

    def write(self, path: Path) -> None:
        """As JSON, one sample list a line."""
        path.write_text(json.dumps(self.model_dump(mode="json"), indent=1) + "\n")

    def title(self) -> str:
        """What was measured on what."""
        threads = f"{self.threads} threads" if self.threads > 1 else "1 thread"
        return f"{self.backbone}, {self.backend}, {self.precision}, {threads} of {self.processor}"

    def table(self) -> Table:
        """Every curve with its points and its fit."""
        table = Table("panel", "curve", "measured", "fit", "off by", title=self.title())
        for curve in self.curves:
            unit = PANELS[curve.panel].unit
            points = ", ".join(f"{mark(curve, x)}: {_short(y)}" for x, y in zip(curve.x, curve.median, strict=True))
            up_to = f", up to {curve.limit}" if curve.limit else ""
            fit = f"{curve.describe()}{up_to}"
            table.add_row(curve.panel, curve.name, f"{points} {unit}", fit, f"{curve.worst:.1%}")
        return table


def mark(curve: Curve, x: int) -> str:
    """How x stands on its axis: pixels as the side of the square."""
    return f"{math.isqrt(x)}²" if curve.panel == "size" else str(x)


def _fit(panel: PanelName, x: Sequence[int], median: Sequence[float], limit: int | None) -> tuple[Line | Power, float]:
    """The panel's law through the points up to the limit, and its worst residual there."""
    count = len(x) if limit is None else sum(place <= limit for place in x)
    fit = PANELS[panel].law.of(x[:count], median[:count])
    return fit, worst_residual(fit, x[:count], median[:count])


def _close(stored: float, found: float) -> bool:
    return math.isclose(stored, found, rel_tol=1e-6, abs_tol=1e-6)


def _short(value: float) -> str:
    """Three digits, and none behind the point from 100 on."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
