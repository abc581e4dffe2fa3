"""Which picture goes to which file: inputs of the command line become a checked list of jobs."""

import glob
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import DataError
from .images import SUFFIXES


@dataclass(frozen=True)
class Job:
    """A picture to read and the PNG to write."""

    source: Path
    target: Path


def plan_jobs(inputs: Sequence[str], output: Path) -> list[Job]:
    """Jobs for files, folders (searched at any depth) and glob patterns, each picture once.

    A picture of a folder keeps its place below `output`; names that would meet (a.jpg and a.png) keep
    their suffix (a.jpg.png).

    Raises:
        DataError: an input does not exist or holds no picture, or a picture would be overwritten.
    """
    found: dict[Path, Path] = {}
    for text in inputs:
        for source, relative in _expand(text):
            found.setdefault(source, relative)
    stems = Counter(relative.with_suffix("").as_posix().casefold() for relative in found.values())
    names = {
        source: (
            relative.with_suffix(".png")
            if stems[relative.with_suffix("").as_posix().casefold()] == 1
            else relative.with_name(relative.name + ".png")
        )
        for source, relative in found.items()
    }
    jobs = [Job(source, output / name) for source, name in _number_equal(names)]
    sources = {source.resolve() for source in found}
    clash = next((job for job in jobs if job.target.resolve() in sources), None)
    if clash:
        raise DataError(f"output {clash.target}: is itself an input picture; choose another --output folder.")
    return jobs


def _number_equal(names: dict[Path, Path]) -> list[tuple[Path, Path]]:
    """Give files of the same name from different folders different targets: a.png, a-2.png, ..."""
    seen: Counter[str] = Counter()
    taken = {name.as_posix().casefold() for name in names.values()}
    result = []
    for source, name in names.items():
        key = name.as_posix().casefold()
        seen[key] += 1
        unique = name
        while seen[key] > 1 and unique.as_posix().casefold() in taken:
            unique = name.with_stem(f"{name.stem}-{seen[key]}")
            seen[key] += unique.as_posix().casefold() in taken
        taken.add(unique.as_posix().casefold())
        result.append((source, unique))
    return result


def _expand(text: str) -> list[tuple[Path, Path]]:
    """Pictures of one input, each with its path below the output folder."""
    path = Path(text)
    if path.is_dir():
        pictures = [
            p
            for p in sorted(path.rglob("*"))
            if p.suffix.lower() in SUFFIXES and p.is_file() and not p.name.startswith(".")
        ]
        if not pictures:
            raise DataError(
                f"input {text}: the folder holds no pictures; known endings: {', '.join(sorted(SUFFIXES))}."
            )
        return [(p, p.relative_to(path)) for p in pictures]
    if path.is_file():
        return [(path, Path(path.name))]
    matches = sorted(glob.glob(text, recursive=True)) if glob.has_magic(text) else []  # noqa: PTH207
    if not matches:
        raise DataError(f"input {text}: no such file or folder, and no pattern that matches one.")
    return [pair for match in matches for pair in _expand(glob.escape(match) if not Path(match).exists() else match)]
