"""What `benchmarks.curves` times: calls of a served bundle on prepared random pictures, by batch, N, T or pixels."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from benchmarks.memory import peak_bytes
from salience.runtime import GroupDetector, PromoterDetector, load
from salience.runtime.detector import Detector, Prepared
from salience.runtime.low_level import PRESETS
from salience.runtime.methods.cgd import ClampedDescentDetector
from salience.runtime.methods.gicd import LOGITS, GroupPass
from salience.runtime.methods.lps import PreparedPair

Call = Callable[[], object]
DetectorT = TypeVar("DetectorT", bound=Detector)


@dataclass(frozen=True)
class Serving:
    """How bundles are opened, see `salience.runtime.load`."""

    backend: Any
    precision: Any
    threads: int | None

    def open(self, bundle: Path, kind: type[DetectorT]) -> DetectorT:
        """The bundle's detector."""
        detector = load(bundle, backend=self.backend, precision=self.precision, threads=self.threads)
        if not isinstance(detector, kind):
            raise SystemExit(f"bundle {bundle}: serves {detector!r}, expected a {kind.__name__}.")
        return detector


def noise(detector: Detector, index: int) -> Prepared:
    """A prepared picture of noise, of the network's size."""
    size = detector.bundle.manifest.input_size
    return detector.prepare(np.random.default_rng(index).integers(0, 256, (*size, 3), dtype=np.uint8))


def batch_calls(detector: Detector, batches: Sequence[int]) -> dict[int, Call]:
    """`infer` on so many pictures at once."""
    pictures = [noise(detector, index) for index in range(max(batches))]
    return {batch: lambda some=pictures[:batch]: detector.infer(some) for batch in batches}  # type: ignore[misc]


def group_calls(detector: GroupDetector, counts: Sequence[int], memory_bytes: int) -> dict[int, Call]:
    """Both passes over a group of so many pictures."""
    pictures = [noise(detector, index) for index in range(max(counts))]
    return {count: lambda some=pictures[:count]: run_group(detector, some, memory_bytes) for count in counts}  # type: ignore[misc]


def run_group(detector: GroupDetector, pictures: Sequence[Prepared], memory_bytes: int) -> None:
    """The maps of a group, made and dropped one by one."""
    for _ in GroupPass(detector, pictures.__getitem__, len(pictures), memory_bytes=memory_bytes).maps():
        pass


def kept_pictures(detector: GroupDetector, memory_bytes: int) -> int:
    """How many pictures' features fit `memory_bytes`; further ones are embedded twice."""
    specs = [spec for name, spec in detector.engines["embed"].outputs.items() if name != LOGITS]
    sides = [[side for side in spec.shape if isinstance(side, int)] for spec in specs]
    sizes = [math.prod(shape) * np.dtype(spec.dtype).itemsize for spec, shape in zip(specs, sides, strict=True)]
    return memory_bytes // sum(sizes)


def refine_calls(detector: PromoterDetector, iterations: Sequence[int]) -> dict[int, Call]:
    """One embedding and so many rounds of refinement."""
    picture = noise(detector, 0)
    prior = np.random.default_rng(1).uniform(size=(1, 1, *detector.bundle.manifest.input_size)).astype(np.float32)
    pair = PreparedPair(picture.image, picture.tensor, prior)
    return {count: lambda count=count: detector.refine([pair], count) for count in iterations}  # type: ignore[misc]


def descend_calls(detector: ClampedDescentDetector, iterations: Sequence[int]) -> dict[int, Call]:
    """So many steps of the descent; superpixels and refinement are not part of it."""
    picture, descent = noise(detector, 0), PRESETS["default"].descent
    settings = {count: replace(descent, iterations=count) for count in iterations}
    return {
        count: lambda descent=descent: detector.descend([picture], [None], descent)  # type: ignore[misc]
        for count, descent in settings.items()
    }


def embed_call(detector: PromoterDetector) -> Call:
    """The embedding of one picture, left on the device."""
    session = detector.engines["embed"].session(1)
    session.feed("input", noise(detector, 0).tensor)
    return session.run


def group_peak(bundle: Path, serving: Serving, count: int, memory_bytes: int) -> float:
    """Peak MB of a group above the loaded model and its pictures, in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_peak, bundle, serving, count, memory_bytes).result() / 1e6


def _peak(bundle: Path, serving: Serving, count: int, memory_bytes: int) -> int:
    detector = serving.open(bundle, GroupDetector)
    pictures = [noise(detector, index) for index in range(count)]
    return peak_bytes(lambda: run_group(detector, pictures, memory_bytes))
