"""Pictures a second of a folder: `salience predict` beside a loop of single calls, and the engine alone.

    python -m benchmarks.throughput --json throughput.json

int8 `multis` on vgg16 with random weights, and the packaged network, over scikit-image's photographs as JPEG files of
several sizes. The forms take turns in one process.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.table import Table
from skimage import data

from benchmarks.evidence import Evidence
from benchmarks.forms import Workload
from benchmarks.networks import write_bundle, write_calibration, write_checkpoint
from benchmarks.run_record import Row, Run
from benchmarks.sample_photos import PHOTOS
from salience.runtime import Detector, load
from salience.runtime.backends.engine import available_cores
from salience.runtime.bundle import DEFAULT_BUNDLE
from salience.runtime.cli.folders import share_cores
from salience.runtime.jobs import Job, plan_jobs
from salience.runtime.pipeline import Predictor, run_jobs

# Width and height of the pictures, and how many of them stand for a folder of so many.
SIZES = {"400 x 300": 600, "1600 x 1200": 600, "4000 x 3000": 60}
ENGINE, LOOP, PREDICT = "engine alone", "one by one", "salience predict"
_SAMPLES = 12


class Rate(Row):
    """One form on one folder, medians over the rounds.

    Attributes:
        network: what was served.
        size: of the pictures.
        pictures: how many.
        form: `ENGINE` is the network on prepared pictures, by as many calls at once as `PREDICT` makes.
        images_per_s: from the first file to the last map written.
        cpu: the share of all cores that the process used.
        to_loop: its rate over that of `LOOP`.
        over_engine: its time over that of `ENGINE`, less one.
    """

    network: str
    size: str
    pictures: int
    form: str
    images_per_s: float
    cpu: float
    to_loop: float
    over_engine: float


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="Pictures a second of a folder.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--share", type=float, default=1.0, help="of the pictures, for a quick look")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    evidence = Evidence.gather()
    rows: list[Rate] = []
    with tempfile.TemporaryDirectory() as name:
        bundles = {"vgg16 int8": int8_bundle(Path(name) / "vgg16"), "packaged": DEFAULT_BUNDLE}
        for size in options.sizes:
            pictures = write_pictures(Path(name) / size, size, max(2, round(SIZES[size] * options.share)))
            for network, bundle in bundles.items():
                rows += measure(network, bundle, size, pictures, options.rounds)
    record = Run[Rate](rounds=options.rounds, evidence=evidence, rows=tuple(rows))
    Console().print(table(record))
    if options.json:
        record.write(options.json)


def int8_bundle(folder: Path) -> Path:
    """`multis` of the paper's size, random weights, all layers int8."""
    workload = Workload("multis", "vgg16", (224, 224), folder)
    folder.mkdir()
    write_checkpoint(workload)
    write_bundle(workload, "int8", write_calibration(folder / "calibration"))
    return workload.bundle("int8")


def write_pictures(folder: Path, size: str, count: int) -> Path:
    """JPEG files of one size: the photographs in turn."""
    folder.mkdir()
    width, height = map(int, size.split(" x "))
    photos = []
    for name in PHOTOS:
        photos.append(folder / f"{name}.jpg")
        Image.fromarray(getattr(data, name)()).convert("RGB").resize((width, height)).save(photos[-1], quality=90)
    for index in range(count):
        shutil.copy(photos[index % len(photos)], folder / f"{index:04d}.jpg")
    for photo in photos:
        photo.unlink()
    return folder


def measure(network: str, bundle: Path, size: str, pictures: Path, rounds: int) -> list[Rate]:
    """The rows of one network and folder."""
    output = pictures.with_name(f"{pictures.name} maps")
    jobs = plan_jobs([str(pictures)], output)
    output.mkdir(exist_ok=True)
    threads, calls = share_cores(None, len(jobs))
    single, shared = (load(bundle, backend="onnxruntime", threads=count) for count in (None, threads))
    prepared = EngineOnly(shared, [job.source for job in jobs[:_SAMPLES]])
    forms: dict[str, Callable[[], None]] = {
        ENGINE: lambda: all_at_once(prepared, jobs, calls),
        LOOP: lambda: one_by_one(single, jobs),
        PREDICT: lambda: all_at_once(shared, jobs, calls),
    }
    seconds: dict[str, list[float]] = {form: [] for form in forms}
    used: dict[str, list[float]] = {form: [] for form in forms}
    for _ in range(rounds):
        for form, run in forms.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            seconds[form].append(time.perf_counter() - wall)
            used[form].append((time.process_time() - cpu) / seconds[form][-1] / available_cores())
    shutil.rmtree(output)
    median = {form: statistics.median(found) for form, found in seconds.items()}
    return [
        Rate(
            network=network, size=size, pictures=len(jobs), form=form, images_per_s=len(jobs) / median[form],
            cpu=statistics.median(used[form]), to_loop=median[LOOP] / median[form],
            over_engine=median[form] / median[ENGINE] - 1,
        )
        for form in forms
    ]  # fmt: skip


def one_by_one(detector: Detector, jobs: list[Job]) -> None:
    """As one writes it first."""
    for job in jobs:
        detector.predict(job.source).save(job.target)


def all_at_once(detector: Predictor, jobs: list[Job], calls: int) -> None:
    """As `salience predict` does it."""
    failures = run_jobs(detector, jobs, calls=calls)
    if failures:
        raise RuntimeError(failures[0].message)


class EngineOnly:
    """A detector whose pictures are prepared already, and whose maps are left as they are."""

    def __init__(self, detector: Detector, sources: list[Path]) -> None:
        self.detector, self.backend, self.precision = detector, detector.backend, detector.precision
        self.prepared = [detector.prepare(source) for source in sources]
        self.infer = detector.infer

    def prepare(self, image: Path) -> Any:
        """The same few pictures over and over."""
        return self.prepared[hash(image) % len(self.prepared)]

    def finish(self, prepared: Any, values: Any) -> Any:
        """A map that writes nothing."""
        return Unwritten()


class Unwritten:
    """Stands for a map."""

    def save(self, target: Path, **options: object) -> None:
        """Write nothing."""


def table(record: Run[Rate]) -> Table:
    """For people."""
    found = Table("network", "pictures", "form", "images/s", "CPU", "to the loop", "over the engine")
    for row in record.rows:
        found.add_row(
            row.network, f"{row.pictures} of {row.size}", row.form, f"{row.images_per_s:.1f}", f"{row.cpu:.0%}",
            f"{row.to_loop:.2f}", f"{row.over_engine:+.0%}",
        )  # fmt: skip
    return found


if __name__ == "__main__":
    main()
