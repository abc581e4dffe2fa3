"""Which picture goes to which file: inputs of the command line become a checked list of jobs."""

import glob
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import DataError
from .images import SUFFIXES

log = logging.getLogger("salience")


@dataclass(frozen=True)
class Job:
    """A picture to read and the PNG to write."""

    source: Path
    target: Path


def plan_jobs(inputs: Sequence[str], output: Path) -> list[Job]:
    """Jobs for files, folders (searched at any depth) and glob patterns, each picture once.

    A picture of a folder keeps its place below `output`, and so does one of a pattern, from the pattern's
    first wildcard on; names that would meet (a.jpg and a.png) keep their suffix (a.jpg.png). A search passes
    over hidden pictures, and over PNG files below `output`, which earlier runs have left.

    Raises:
        DataError: an input does not exist or holds no picture, a picture would be overwritten, or `output`
            is no folder.
    """
    if output.exists() and not output.is_dir():
        raise DataError(f"output {output}: is a file; expected a folder, or nothing yet.")
    found: dict[Path, tuple[Path, Path]] = {}
    for text in inputs:
        try:
            for source, relative in _expand(text, output):
                found.setdefault(source.parent.resolve() / source.name, (source, relative))
        except OSError as error:
            raise DataError(f"input {text}: cannot be searched ({error.strerror}).") from error
    targets = _targets([relative for _, relative in found.values()])
    jobs = [Job(source, output / target) for (source, _), target in zip(found.values(), targets, strict=True)]
    sources = {source.resolve() for source, _ in found.values()}
    clash = next((job for job in jobs if job.target.resolve() in sources), None)
    if clash:
        raise DataError(f"output {clash.target}: is itself an input picture; choose another --output folder.")
    return jobs


def _expand(text: str, output: Path) -> list[tuple[Path, Path]]:
    """Pictures of one input, each with its path below the output folder."""
    root, pattern = _split(text)
    if not text or (pattern and not glob.has_magic(pattern)):
        raise DataError(f"input {text or repr(text)}: no such file or folder, and no pattern that matches one.")
    if not root.is_dir() and not pattern:
        return [(root, Path(root.name))]
    matches = sorted(glob.glob(pattern, root_dir=root, recursive=True)) if pattern else [""]  # noqa: PTH207
    pictures = _without_results(text, root, _pictures(root / match for match in matches), output)
    if not pictures:
        kind = "pattern matches" if pattern else "folder holds"
        raise DataError(f"input {text}: the {kind} no pictures; known endings: {', '.join(sorted(SUFFIXES))}.")
    return [(picture, picture.relative_to(root)) for picture in pictures]


def _split(text: str) -> tuple[Path, str]:
    """The part of a path that exists, brackets and all, and the pattern after it."""
    root, pattern = Path(text), Path()
    while root.name and not root.exists():
        root, pattern = root.parent, root.name / pattern
    return root, "" if pattern == Path() else str(pattern)


def _pictures(places: Iterable[Path]) -> list[Path]:
    """Pictures among files, and at any depth in folders."""
    found: dict[Path, None] = {}
    for place in places:
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            hidden = any(part.startswith(".") for part in path.relative_to(place).parts)
            if path.suffix.lower() in SUFFIXES and not hidden and path.is_file():
                found[path] = None
    return list(found)


def _without_results(text: str, root: Path, pictures: list[Path], output: Path) -> list[Path]:
    """Without what an earlier run wrote; where that cannot be told from pictures, an error."""
    searched, written = root.resolve(), output.resolve()
    if not written.is_relative_to(searched):
        return pictures
    results = {p for p in pictures if p.suffix.lower() == ".png" and p.resolve().is_relative_to(written)}
    if results and written == searched:
        raise DataError(
            f"input {text}: is the --output folder too and holds PNG files, which may be an earlier run's results; "
            "choose another --output folder."
        )
    if results:
        log.warning("%d PNG files below %s are passed over as results of an earlier run", len(results), output)
    return [picture for picture in pictures if picture not in results]


def _targets(names: Sequence[Path]) -> list[Path]:
    """PNG names, no two equal, not even where case does not count: a.png; a.jpg.png; a.jpg-2.png, ..."""
    stems = Counter(_key(name.with_suffix("")) for name in names)
    wanted = [
        name.with_suffix(".png") if stems[_key(name.with_suffix(""))] == 1 else name.with_name(name.name + ".png")
        for name in names
    ]
    taken = {_key(target) for target in wanted}
    number: Counter[str] = Counter()
    targets = []
    for first in wanted:
        target = first
        number[_key(first)] += 1
        while number[_key(first)] > 1 and _key(target) in taken:
            target = first.with_stem(f"{first.stem}-{number[_key(first)]}")
            number[_key(first)] += _key(target) in taken
        taken.add(_key(target))
        targets.append(target)
    return targets


def _key(path: Path) -> str:
    return path.as_posix().casefold()
