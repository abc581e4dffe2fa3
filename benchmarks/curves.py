"""What a call costs by batch, group size, iterations and image size, with the slope of every curve named.

    python -m benchmarks.curves --backbone vgg16 --backend onnxruntime --json curves.json --plot curves.png

Weights are random and pictures noise, on which speed does not depend. Every round visits all points of a panel in
shuffled order, the first one to warm up; figures are medians over the rounds. Slopes are of least squares: lines for
batch, group and iterations, the exponent in log-log over pixels for the image size. Peak memory is above the loaded
model and the pictures' own, each point of a round in a process of its own. `--record FILE` draws a stored run again.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from benchmarks.curve_calls import (
    Call,
    DetectorT,
    Serving,
    batch_calls,
    descend_calls,
    embed_call,
    group_calls,
    group_peak,
    kept_pictures,
    refine_calls,
)
from benchmarks.curve_plot import plot
from benchmarks.curve_record import PANELS, Curve, PanelName, Record
from benchmarks.evidence import Evidence
from salience.runtime import ClampedDescentDetector, GroupDetector, PromoterDetector
from salience.runtime.backends.engine import available_cores
from salience.runtime.detector import SaliencyDetector
from salience.runtime.methods.gicd import DEFAULT_MEMORY_BYTES

# A visit repeats short calls for so long, so that neither the timer nor the switch between points counts.
VISIT_S = 0.1
# Threads of an engine's pool look for work a little longer and would take the next engine's processor.
PAUSE_S = 0.02
KEPT_MEMORY = {f"memory {DEFAULT_MEMORY_BYTES // 10**6} MB": DEFAULT_MEMORY_BYTES, "memory 0": 0}
Points = Mapping[int, Call]
Samples = dict[str, dict[int, list[float]]]
Clock = Callable[[], float]


@dataclass(frozen=True)
class Bench:
    """Where bundles come from (method and side of the input), how they are served, and what is asked for."""

    bundle: Callable[[str, int], Path]
    serving: Serving
    options: argparse.Namespace

    def curves(self, panel: PanelName) -> list[Curve]:
        """Of one panel."""
        return {
            "batch": self._batch, "group": self._group, "memory": self._memory, "iterations": self._iterations,
            "size": self._size,
        }[panel]()  # fmt: skip

    def _batch(self) -> list[Curve]:
        opened = {method: self._open(method, SaliencyDetector) for method in ("multis", "arn")}
        calls = {method: batch_calls(detector, self.options.batches) for method, detector in opened.items()}
        return self._timed("batch", calls)

    def _group(self) -> list[Curve]:
        detector = self._open("gicd", GroupDetector)
        calls = {name: group_calls(detector, self.options.groups, memory) for name, memory in KEPT_MEMORY.items()}
        return self._timed("group", calls, limits=self._limits(detector))

    def _memory(self) -> list[Curve]:
        bundle = self.bundle("gicd", self.options.side)
        limits = self._limits(self._open("gicd", GroupDetector))
        samples: Samples = {name: {count: [] for count in self.options.groups} for name in KEPT_MEMORY}
        for name, count in turns(samples, self.options.memory_rounds, label="memory"):
            samples[name][count].append(group_peak(bundle, self.serving, count, KEPT_MEMORY[name]))
        return [Curve.of("memory", name, found, limit=limits[name]) for name, found in samples.items()]

    def _iterations(self) -> list[Curve]:
        promoter, classifier = self._open("lps", PromoterDetector), self._open("cgd", ClampedDescentDetector)
        wanted = self.options.iterations
        calls = {"lps": refine_calls(promoter, wanted), "cgd": descend_calls(classifier, wanted)}
        return self._timed("iterations", calls)

    def _size(self) -> list[Curve]:
        calls: dict[str, dict[int, Call]] = {"multis": {}, "arn": {}, "lps, embed": {}}
        for side in self.options.sizes:
            for method in ("multis", "arn"):
                detector = self._open(method, SaliencyDetector, side)
                calls[method][side * side] = batch_calls(detector, [1])[1]
            calls["lps, embed"][side * side] = embed_call(self._open("lps", PromoterDetector, side))
        return self._timed("size", calls)

    def _open(self, method: str, kind: type[DetectorT], side: int | None = None) -> DetectorT:
        return self.serving.open(self.bundle(method, side or self.options.side), kind)

    def _limits(self, detector: GroupDetector) -> dict[str, int | None]:
        """Up to how many pictures a group's cost is one line: until features no longer fit the memory."""
        return {name: kept_pictures(detector, memory) or None for name, memory in KEPT_MEMORY.items()}

    def _timed(
        self, panel: PanelName, calls: Mapping[str, Points], *, limits: Mapping[str, int | None] | None = None
    ) -> list[Curve]:
        found = measure(calls, self.options.rounds, label=panel)
        return [Curve.of(panel, name, samples, limit=(limits or {}).get(name)) for name, samples in found.items()]


def main() -> None:
    """Measure, or read a stored record; print, write and draw."""
    options = parse()
    record = Record.read(options.record) if options.record else measured(options)
    Console(width=120).print(record.table())
    if options.json:
        record.write(options.json)
    if options.plot:
        plot(record, options.plot)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Cost curves, with the slope of each named.")
    parser.add_argument("--backbone", default="vgg16", choices=["vgg16", "mobilenet_v2"])
    parser.add_argument("--backend", default="onnxruntime", choices=["onnxruntime", "openvino"])
    parser.add_argument("--precision", default="fp32", choices=["fp32", "fp16", "fp16-weights", "int8"])
    parser.add_argument("--threads", type=int, help="of one engine call; all cores by default")
    parser.add_argument("--panels", nargs="+", default=list(PANELS), choices=list(PANELS))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--groups", type=int, nargs="+", default=[4, 8, 16, 32])
    parser.add_argument("--iterations", type=int, nargs="+", default=[1, 2, 5, 10, 20])
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 224, 320, 448], help="sides of square inputs")
    parser.add_argument("--side", type=int, default=224, help="of the square input in all panels but size")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-rounds", type=int, default=3, help="each of its points is a process of its own")
    parser.add_argument("--record", type=Path, help="a stored record to print and draw in place of measuring")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args(arguments)
    for name in ("batches", "groups", "iterations", "sizes"):
        found = getattr(options, name)
        if len(set(found)) < 2 or min(found) < 1:
            parser.error(f"--{name}: got {found}, expected two different positive numbers or more, as a slope needs.")
    if min(options.rounds, options.memory_rounds) < 1:
        parser.error(f"--rounds: got {options.rounds} and {options.memory_rounds} of memory, expected at least 1.")
    return options


def measured(options: argparse.Namespace) -> Record:
    """Build bundles in a temporary folder and measure every panel asked for."""
    # Only where bundles are built: the processes that measure memory import this module too.
    from benchmarks.curve_bundles import BundleMaker

    serving = Serving(options.backend, options.precision, options.threads)
    with tempfile.TemporaryDirectory() as folder:
        maker = BundleMaker(Path(folder), options.backbone, options.precision)
        bench = Bench(maker.bundle, serving, options)
        curves = [curve for panel in options.panels for curve in bench.curves(panel)]
    return Record(
        backbone=options.backbone,
        backend=options.backend,
        precision=options.precision,
        threads=options.threads or available_cores(),
        processor=Evidence.gather().cpu,
        versions={name: metadata.version(name) for name in ("salience", options.backend)},
        rounds=options.rounds,
        side=options.side,
        curves=tuple(curves),
    )


def measure(calls: Mapping[str, Points], rounds: int, *, label: str, clock: Clock = time.perf_counter) -> Samples:
    """Milliseconds of every round, by curve and point."""
    found: Samples = {name: {x: [] for x in points} for name, points in calls.items()}
    for name, x in turns(calls, 1, label=f"{label}, warming up"):
        calls[name][x]()
    for name, x in turns(calls, rounds, label=label):
        time.sleep(PAUSE_S)
        found[name][x].append(visit(calls[name][x], clock) * 1e3)
    return found


def turns(curves: Mapping[str, Mapping[int, object]], rounds: int, *, label: str) -> Iterator[tuple[str, int]]:
    """All points of all curves, by name and x, in another order in every round."""
    places = [(name, x) for name, points in curves.items() for x in points]
    generator = np.random.default_rng(0)
    order = [places[index] for _ in range(rounds) for index in generator.permutation(len(places))]
    yield from track(order, description=label, console=Console(stderr=True))


def visit(call: Call, clock: Clock) -> float:
    """Median seconds of the calls that fit `VISIT_S`, one at least."""
    times: list[float] = []
    while sum(times) < VISIT_S:
        start = clock()
        call()
        times.append(clock() - start)
    return statistics.median(times)


if __name__ == "__main__":
    main()
