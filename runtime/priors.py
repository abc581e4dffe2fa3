"""Which prior belongs to which picture, and a promoter that takes pictures with their priors through a pipeline."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .detector import Detector
from .errors import DataError
from .images import SUFFIXES
from .jobs import Job
from .methods.lps import EmptyPrior, PreparedPair, Prior, PromoterDetector
from .saliency import SaliencyMap

PRIOR_SUFFIXES = SUFFIXES | {".npy"}


class StoredPriors:
    """The maps of a folder, by their path in it without the ending: as `salience predict` leaves them.

    Raises:
        DataError: the folder is missing or holds no map.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not folder.is_dir():
            raise DataError(f"priors {folder}: no such folder; expected a folder of maps, or a bundle.")
        self._found: dict[str, list[Path]] = {}
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in PRIOR_SUFFIXES and path.is_file():
                self._found.setdefault(str(path.relative_to(folder).with_suffix("")), []).append(path)
        if not self._found:
            raise DataError(f"priors {folder}: holds no maps; known endings: {', '.join(sorted(PRIOR_SUFFIXES))}.")

    def paths(self) -> list[Path]:
        """All maps."""
        return [path for paths in self._found.values() for path in paths]

    def find(self, name: Path) -> Path:
        """The map of a picture, `name` being its path below its input folder without the ending.

        Raises:
            DataError: there is none, or more than one.
        """
        found = self._found.get(str(name), [])
        if len(found) != 1:
            got = ", ".join(path.name for path in found) or "none"
            raise DataError(f"prior of {name}: expected one map {self.folder / name}.*, got {got}.")
        return found[0]


@dataclass(frozen=True)
class Promotion:
    """A promoter with its settings and the source of its priors, as `pipeline.run_jobs` wants a detector.

    Attributes:
        promoter: see `PromoterDetector`.
        priors: stored maps, or a detector that makes them.
        names: for stored maps, what to look for under which name: a picture's path -> name.
        iterations: as for `PromoterDetector.promote`.
        empty: likewise.
        every: keep the maps of all iterations.
    """

    promoter: PromoterDetector
    priors: StoredPriors | Detector
    names: dict[Path, Path]
    iterations: int
    empty: EmptyPrior = "error"
    every: bool = False

    @property
    def backend(self) -> str:
        """The engine that promotes, in words."""
        return self.promoter.backend

    @property
    def precision(self) -> str:
        """Of the graphs that promote."""
        return self.promoter.precision

    def prepare(self, image: Path) -> PreparedPair:
        """Read a picture and find its prior."""
        source = self.priors
        prior: Prior = source.find(self.names[image]) if isinstance(source, StoredPriors) else source.predict
        return self.promoter.prepare_pair(image, prior, empty=self.empty)

    def infer(self, prepared: Sequence[PreparedPair]) -> NDArray[np.float32]:
        """Maps (N, T, 1, h, w) of N pairs, after each iteration or after the last alone."""
        return self.promoter.refine(prepared, self.iterations, every=self.every)

    def finish(self, prepared: PreparedPair, values: NDArray[np.float32]) -> SaliencyMap:
        """The last of the maps (T, 1, h, w) at its picture's size."""
        return self.promoter.finish(prepared, values[-1])

    def steps(
        self, job: Job, prepared: PreparedPair, values: NDArray[np.float32], *, output: Path
    ) -> Iterator[tuple[Path, SaliencyMap]]:
        """The map of each iteration t and its file, OUTPUT/tNN/NAME.png: a folder for each t, ready to be scored."""
        for t, step in enumerate(values, start=1):
            yield output / _step_folder(t) / job.target.relative_to(output), self.promoter.finish(prepared, step)


def check_kept(priors: Sequence[Path], jobs: Sequence[Job], *, output: Path, steps: int) -> None:
    """Raise DataError if a result, or the map of one of `steps`, would replace a picture, a prior or a result."""
    root = output.resolve()
    names = {job.target.relative_to(output) for job in jobs}
    folders = {_step_folder(t) for t in range(1, steps + 1)}

    def is_step(name: Path) -> bool:
        return name.parts[0] in folders and Path(*name.parts[1:]) in names

    found = (path.resolve() for path in [*priors, *(job.source for job in jobs)])
    below = [path.relative_to(root) for path in found if path.is_relative_to(root)]
    replaced = names.intersection(below) | {name for name in [*below, *names] if is_step(name)}
    if replaced:
        raise DataError(
            f"output {output / min(replaced)}: would replace a prior, a picture or another result; "
            "choose another --output folder."
        )


def _step_folder(t: int) -> str:
    return f"t{t:02d}"
