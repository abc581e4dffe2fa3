"""Pictures a second of `salience batch` over a folder, by 1 worker and by 2, on a Ray cluster of this machine.

    python -m benchmarks.scale_out --images 400 --json scale_out.json

The numbers of workers take turns. A worker has one core, so that what is measured is the gain of more workers.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.evidence import Evidence
from benchmarks.run_record import Row, Run
from benchmarks.throughput import write_pictures
from salience.runtime.bundle import DEFAULT_BUNDLE
from salience.runtime.load_options import LoadOptions
from salience.runtime.scale.cluster import joined
from salience.runtime.scale.run import run_batch
from salience.runtime.scale.settings import Settings

WORKERS = (1, 2)
SIZE = "800 x 600"


class ScaleRow(Row):
    """One number of workers, medians over the rounds.

    Attributes:
        workers: how many.
        images: in the folder.
        images_per_s: with the start of the workers.
        steady_images_per_s: from the first unit that was done to the last.
        to_one: its steady rate over that of one worker.
    """

    workers: int
    images: int
    images_per_s: float
    steady_images_per_s: float
    to_one: float


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="Pictures a second by 1 worker and by 2.")
    parser.add_argument("--bundle", type=Path, default=DEFAULT_BUNDLE)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    evidence = Evidence.gather()
    with tempfile.TemporaryDirectory() as name, joined("local"):
        pictures = write_pictures(Path(name) / "pictures", SIZE, options.images)
        rows = measure(options.bundle, pictures, options.images, options.rounds)
    for row in rows:
        print(f"{row.workers} workers: {row.images_per_s:.1f} images/s, steady {row.steady_images_per_s:.1f}")
    if options.json:
        Run[ScaleRow](rounds=options.rounds, evidence=evidence, rows=tuple(rows)).write(options.json)


def measure(bundle: Path, pictures: Path, images: int, rounds: int) -> list[ScaleRow]:
    """A row of each number of workers."""
    whole: dict[int, list[float]] = {workers: [] for workers in WORKERS}
    steady: dict[int, list[float]] = {workers: [] for workers in WORKERS}
    for turn in range(rounds):
        for workers in WORKERS[:: -1 if turn % 2 else 1]:
            output = pictures.with_name(f"maps {turn} {workers}")
            rates = run_once(Settings(bundle, load=LoadOptions(threads=1)), pictures, output, workers)
            for found, rate in zip((whole, steady), rates, strict=True):
                found[workers].append(rate)
    one = statistics.median(steady[1])
    return [
        ScaleRow(
            workers=workers, images=images, images_per_s=statistics.median(whole[workers]),
            steady_images_per_s=statistics.median(steady[workers]), to_one=statistics.median(steady[workers]) / one,
        )
        for workers in WORKERS
    ]  # fmt: skip


def run_once(settings: Settings, pictures: Path, output: Path, workers: int) -> tuple[float, float]:
    """Images a second with the start of the workers, and without."""
    seen: list[tuple[float, int]] = []
    outcome = run_batch(
        pictures, output, settings, workers=workers,
        progress=lambda done, total, maps: seen.append((time.perf_counter(), maps)),
    )  # fmt: skip
    if outcome.failures:
        raise RuntimeError(outcome.failures[0].message)
    (start, first), (end, last) = seen[0], seen[-1]
    return outcome.rate, (last - first) / (end - start)


if __name__ == "__main__":
    main()
