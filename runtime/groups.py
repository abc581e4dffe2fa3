"""Folders of pictures as groups: planned, run and written, a failure of one picture its own."""

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from .errors import DataError, SalienceError
from .jobs import Job, plan_jobs
from .methods.gicd import GroupDetector, GroupPass
from .pipeline import Failure, Writers
from .saliency import Kind

log = logging.getLogger("salience")

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def parse_bytes(text: str) -> int:
    """`"512MB"` -> 512000000.

    Raises:
        SalienceError: not a number with one of the units B, KB, MB, GB, TB.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)B?\s*", text.upper())
    if not found:
        raise SalienceError(f"memory {text!r}: expected a size such as 512MB or 2GB.")
    return int(float(found[1]) * _UNITS[found[2]])


def plan_groups(folders: Sequence[Path], output: Path) -> list[list[Job]]:
    """The jobs of each folder, whose results go to a folder of its name below `output`.

    Raises:
        DataError: an input is no folder or holds no picture, two have the same name, or `output` is no folder.
    """
    if output.exists() and not output.is_dir():
        raise DataError(f"output {output}: is a file; expected a folder, or nothing yet.")
    names: dict[str, Path] = {}
    groups = []
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"group {folder}: no such folder; a group is a folder of pictures.")
        name = folder.resolve().name
        other = names.setdefault(name.casefold(), folder)
        if other is not folder:
            raise DataError(f"groups {other} and {folder}: have the same name; rename one, or run them apart.")
        groups.append(plan_jobs([str(folder)], output / name))
    return groups


def run_groups(
    detector: GroupDetector,
    groups: Sequence[Sequence[Job]],
    *,
    kind: Kind = "map",
    threshold: float | None = None,
    memory_bytes: int,
    batch: int = 1,
    workers: int = 2,
    done: Callable[[], None] = lambda: None,
    wanted: Callable[[Job], bool] = lambda job: True,
) -> list[Failure]:
    """Segment and write every group; the failures, in no fixed order.

    Args:
        detector: what segments.
        groups: the pictures of each group, and where their results go.
        kind: what is written, see `SaliencyMap.render`.
        threshold: of masks; None for half of the map's maximum, at least .3.
        memory_bytes: for features that are kept between the passes over a group.
        batch: pictures per engine call.
        workers: threads that decode, and as many that write.
        done: called after each job that is wanted, in the calling thread.
        wanted: which results to write; pictures of the others count for the consensus alone, and one of them that
            cannot be read is a warning.
    """
    with Writers(detector, kind=kind, threshold=threshold, workers=workers, done=done) as writers:
        for jobs in groups:
            _run_group(detector, jobs, writers, memory_bytes, batch, workers, wanted)
    return writers.failures


def _run_group(
    detector: GroupDetector,
    jobs: Sequence[Job],
    writers: Writers,
    memory_bytes: int,
    batch: int,
    workers: int,
    wanted: Callable[[Job], bool],
) -> None:
    group = GroupPass(
        detector, lambda index: detector.prepare(jobs[index].source), len(jobs), memory_bytes, batch, workers
    )
    left = {index for index, job in enumerate(jobs) if wanted(job)}
    try:
        for index, prepared, values in group.maps(left.copy().__contains__):
            left.discard(index)
            writers.write(jobs[index], prepared, values)
    except SalienceError as error:
        for index in left - group.failures.keys():
            writers.fail(jobs[index], error)
    for index, reason in group.failures.items():
        if wanted(jobs[index]):
            writers.fail(jobs[index], reason)
        else:
            log.warning("%s: does not count in its group (%s)", jobs[index].source, reason)
