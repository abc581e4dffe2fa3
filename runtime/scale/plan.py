"""What there is to do: an input of pictures, shards or tables becomes units, without what earlier runs have done."""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import DataError
from ..jobs import Job, plan_jobs
from . import columns
from .state import state_folder
from .units import Failure, Pictures, Report, RowGroup, Shard, Unit, is_whole, table_report

_CHUNK_PICTURES = 64
_CHUNKS_PER_WORKER = 8
_ENDINGS = {".tar": "shards", ".parquet": "tables"}


@dataclass(frozen=True)
class Table:
    """A Parquet file, the parts of its result, and the result itself."""

    source: Path
    target: Path
    parts: tuple[Path, ...]

    def join(self) -> None:
        """Make the result of the parts where these are all there, and remove them."""
        if all(part.exists() for part in self.parts):
            columns.join_parts(self.parts, self.target)
            if self.parts:
                shutil.rmtree(self.parts[0].parent)


@dataclass
class Plan:
    """What there is to do.

    Attributes:
        jobs: pictures of a folder that have no map.
        units: shards and row groups that are not done.
        tables: whose parts have to be joined.
        earlier: what came of all others.
    """

    jobs: list[Job] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    earlier: Report = field(default_factory=Report)

    def cut(self, workers: int) -> list[Unit]:
        """The units, pictures in chunks small enough that all workers end at about the same time."""
        size = max(1, min(_CHUNK_PICTURES, len(self.jobs) // (workers * _CHUNKS_PER_WORKER)))
        starts = range(0, len(self.jobs), size)
        chunks = [Pictures(f"pictures-{start}", tuple(self.jobs[start : start + size])) for start in starts]
        return [*chunks, *self.units]


def make_plan(source: Path, output: Path, column: str | None) -> Plan:
    """What there is to do for a folder, searched at any depth, or a single file.

    Args:
        source: pictures, `.tar` shards, or `.parquet` files; never two of these.
        output: the folder for the results, which are not read again where it lies in `source`.
        column: of tables, see `columns.row_counts`; of shards, the extension of the pictures.

    Raises:
        DataError: nothing is found, or files of several kinds; or a result would overwrite an input.
    """
    if output.exists() and not output.is_dir():
        raise DataError(f"output {output}: is a file; expected a folder, or nothing yet.")
    if not source.exists():
        raise DataError(f"input {source}: no such file or folder.")
    if source.resolve() == output.resolve():
        raise DataError(f"input {source}: is the output folder too; choose another one.")
    files = _find(source, output)
    kinds = [ending for ending, found in files.items() if found]
    jobs = [] if source.is_file() and kinds else _find_pictures(source, output, required=not kinds)
    if len(kinds) + bool(jobs) > 1:
        found = [f"{len(files[ending])} {_ENDINGS[ending]} (such as {files[ending][0]})" for ending in kinds]
        found += [f"{len(jobs)} pictures (such as {jobs[0].source})"] if jobs else []
        raise DataError(f"input {source}: holds {' and '.join(found)}; expected one kind, give them apart.")
    if jobs:
        if column is not None:
            raise DataError(f"--column {column}: is for shards and tables, and {source} holds pictures.")
        return _plan_pictures(jobs)
    return _plan_files(source, output, files[kinds[0]], column)


def _find(source: Path, output: Path) -> dict[str, list[Path]]:
    """Files by their endings, but no hidden ones, and none below the output."""
    found: dict[str, list[Path]] = {ending: [] for ending in _ENDINGS}
    written = output.resolve()
    for path in [source] if source.is_file() else sorted(source.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(source).parts)
        wanted = path.suffix.lower() in found and not hidden and path.is_file()
        if wanted and (path == source or not path.resolve().is_relative_to(written)):
            found[path.suffix.lower()].append(path)
    return found


def _find_pictures(source: Path, output: Path, *, required: bool) -> list[Job]:
    """The pictures of a folder; where they are not required, there may be none."""
    try:
        return plan_jobs([str(source)], output)
    except DataError:
        if required:
            raise
        return []


def _plan_pictures(jobs: Sequence[Job]) -> Plan:
    left = [job for job in jobs if not is_whole(job.target)]
    return Plan(jobs=left, earlier=Report(len(jobs) - len(left)))


def _plan_files(source: Path, output: Path, files: Iterable[Path], column: str | None) -> Plan:
    plan = Plan()
    for path in files:
        name = Path(path.name) if source.is_file() else path.relative_to(source)
        target = output / name
        if target.resolve() == path.resolve():
            raise DataError(f"output {target}: is itself an input; choose another output folder.")
        if path.suffix.lower() == ".tar":
            record = state_folder(output) / "shards" / name.with_name(f"{name.name}.json")
            _add(plan, Shard(name.as_posix(), path, target, record, column))
        else:
            _plan_table(plan, path, target, state_folder(output) / "parts", name, column)
    return plan


def _plan_table(plan: Plan, path: Path, target: Path, parts: Path, name: Path, column: str | None) -> None:
    try:
        chosen, counts = columns.row_counts(path, column)
    except DataError as error:
        plan.earlier.failures.append(Failure(path, "", str(error)))
        return
    done = table_report(path, target, sum(counts))
    if done:
        plan.earlier.add(done)
        return
    groups, first = [], 0
    for index, count in enumerate(counts):
        part = parts / name / f"{index:06d}.parquet"
        groups.append(RowGroup(f"{name.as_posix()}-{index}", path, part, index, chosen, first, count))
        first += count
    for group in groups:
        _add(plan, group)
    plan.tables.append(Table(path, target, tuple(group.part for group in groups)))


def _add(plan: Plan, unit: Unit) -> None:
    done = unit.earlier()
    if done:
        plan.earlier.add(done)
    else:
        plan.units.append(unit)
