"""What `benchmarks.latency` measured, as its JSON file holds it."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from benchmarks.evidence import Evidence
from benchmarks.forms import Form, Kind, Workload
from salience.runtime.errors import DataError
from salience.runtime.files import write_atomic

# Of rows: method, form, batch, threads.
Key = tuple[str, str, int, int]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Settings(_Model):
    """Of the whole run; figures of different ones are not compared.

    Attributes:
        backbone: of all networks.
        sizes: of the network input, (height, width), by method.
        iterations: T of `lps` and `cgd`.
        group: pictures in a group of `gicd`, more where the batch is larger.
        weights: what the networks hold.
    """

    backbone: str
    sizes: dict[str, tuple[int, int]]
    iterations: int
    group: int
    weights: Literal["random"] = "random"


class Row(_Model):
    """One form at one batch with some threads. All times are of one picture: a call's over its pictures.

    Attributes:
        method: its name.
        form: in words, see `Form.name`.
        kind: see `Form`.
        precision: see `Form`.
        batch: pictures in a call of the engine.
        pictures: in a timed call; more than the batch where a group takes several calls.
        threads: of the engine.
        reason: why there are no figures; empty where there are.
        note: what the form does of its own accord.
        samples_ms: of every round.
        p50_ms: their median.
        p90_ms: the least sample that 90 % do not exceed.
        p99_ms: likewise; with fewer than 100 rounds the largest.
        images_per_s: 1000 / `p50_ms`.
        to_eager: `p50_ms` over that of eager PyTorch at the same batch and threads.
        operations: multiplications and additions of convolutions and matrix products.
        giga_per_s: 1e9 of these a second.
        share_of_peak: that over the measured peak of the same type.
        peak_bytes: memory of one call above the loaded model, in a process of its own.
        cold_start_s: of a new process from its first import to its first result, files in the system's cache.
    """

    method: str
    form: str
    kind: Kind
    precision: str
    batch: int
    pictures: int
    threads: int
    reason: str = ""
    note: str = ""
    samples_ms: tuple[float, ...] = ()
    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    images_per_s: float | None = None
    to_eager: float | None = None
    operations: int | None = None
    giga_per_s: float | None = None
    share_of_peak: float | None = None
    peak_bytes: int | None = None
    cold_start_s: float | None = None

    @classmethod
    def of(cls, workload: Workload, form: Form) -> Self:
        """The row of a form, before anything is measured."""
        return cls(
            method=workload.method, form=form.name, kind=form.kind, precision=form.precision, batch=form.batch,
            pictures=workload.pictures(form.batch), threads=form.threads,
        )  # fmt: skip

    @property
    def key(self) -> Key:
        """What tells rows apart."""
        return self.method, self.form, self.batch, self.threads

    def timed(self, seconds: Sequence[float]) -> Self:
        """With the seconds of each round's call."""
        samples = [second * 1e3 / self.pictures for second in seconds]
        median = statistics.median(samples)
        return self.model_copy(
            update={
                "samples_ms": tuple(samples), "p50_ms": median, "p90_ms": percentile(samples, 0.9),
                "p99_ms": percentile(samples, 0.99), "images_per_s": 1e3 / median,
            }
        )  # fmt: skip

    def counted(self, operations: int, peak: float) -> Self:
        """With its arithmetic; `peak` in 1e9 operations a second."""
        if self.p50_ms is None:
            return self
        rate = operations / self.p50_ms / 1e6
        update = {"operations": operations, "giga_per_s": rate, "share_of_peak": rate / peak}
        return self.model_copy(update=update)


class Peak(_Model):
    """The most operations a second that were measured on one large product, in 1e9.

    Attributes:
        threads: that computed it.
        fp32: multiplications and additions of floats.
        int8: likewise, 8-bit in and 32-bit sums.
        by: what reached how much.
    """

    threads: int
    fp32: float
    int8: float
    by: dict[str, float]

    def of(self, precision: str) -> float:
        """The one that a form of `precision` is measured by; fp16 files compute in fp32 on the CPU."""
        return self.int8 if precision == "int8" else self.fp32


class PhotoStep(_Model):
    """What is before and after the network, median milliseconds of a photograph.

    Attributes:
        step: in words.
        ours_ms: of this project.
        rembg_ms: of rembg's own functions; None where it is not installed.
        samples: photographs times rounds.
    """

    step: str
    ours_ms: float
    rembg_ms: float | None
    samples: int


class PhotoSteps(_Model):
    """Both sides bring photographs to networks of the same `size` (height, width) and back."""

    size: tuple[int, int]
    rembg: str
    steps: tuple[PhotoStep, ...]


class Record(_Model):
    """A run."""

    settings: Settings
    rounds: int
    seed: int
    evidence: Evidence
    peaks: tuple[Peak, ...]
    rows: tuple[Row, ...]
    photo_steps: PhotoSteps | None = None

    @classmethod
    def read(cls, path: Path) -> Self:
        """A file that `write` made.

        Raises:
            DataError: it is missing, or something else.
        """
        try:
            return cls.model_validate_json(path.read_text())
        except (OSError, ValidationError) as error:
            raise DataError(
                f"record {path}: cannot be read ({str(error).splitlines()[0]}); "
                "expected what python -m benchmarks.latency --json writes."
            ) from error

    def joined(self, later: Self) -> Self:
        """With the rows of another run of this machine, which measured other methods or batches.

        Raises:
            DataError: the runs computed different things, or the same.
        """
        alike = self.settings.model_dump(exclude={"sizes"}) == later.settings.model_dump(exclude={"sizes"})
        if not alike or self.evidence.commit != later.evidence.commit or self.rounds != later.rounds:
            raise DataError("record: of other settings, rounds or another commit than this run; write to a new file.")
        if {row.key for row in self.rows} & {row.key for row in later.rows}:
            raise DataError(f"record: holds {', '.join(later.settings.sizes)} already; write to a new file.")
        settings = self.settings.model_copy(update={"sizes": self.settings.sizes | later.settings.sizes})
        steps = max(self.photo_steps, later.photo_steps, key=lambda found: bool(found and found.steps[0].rembg_ms))
        return self.model_copy(update={"settings": settings, "rows": (*self.rows, *later.rows), "photo_steps": steps})

    def write(self, path: Path) -> None:
        """As JSON, whole or not at all."""
        write_atomic(path, f"{self.model_dump_json(indent=1)}\n".encode())


def percentile(samples: Sequence[float], share: float) -> float:
    """The least sample that this share of them does not exceed."""
    ranked = sorted(samples)
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)]


def with_ratios(rows: Sequence[Row]) -> list[Row]:
    """The rows with `to_eager`, where eager PyTorch has a time at the same batch and threads."""
    eager = {(r.method, r.batch, r.threads): r.p50_ms for r in rows if r.kind == "eager" and r.p50_ms}
    found = []
    for row in rows:
        base = eager.get((row.method, row.batch, row.threads))
        ratio = row.p50_ms / base if base and row.p50_ms else None
        found.append(row.model_copy(update={"to_eager": ratio}))
    return found
