"""Pieces of work that may be done twice without harm, and left out when they are done."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias

from ..errors import DataError, SalienceError
from ..files import write_atomic
from ..images import ImageSource
from ..jobs import Job
from . import columns, shards

_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"

# Key and picture -> PNG, or why there is none.
Attempt: TypeAlias = "Callable[[str, ImageSource], bytes | SalienceError]"


@dataclass(frozen=True)
class Failure:
    """An input that gave no map.

    Attributes:
        source: the file.
        key: of a shard's sample, or the number of a table's row; empty for a file, or for all of it.
        message: why.
    """

    source: Path
    key: str
    message: str


@dataclass
class Report:
    """What came of some inputs: how many maps there are, and what gave none."""

    written: int = 0
    failures: list[Failure] = field(default_factory=list)

    def count(self, source: Path, key: str, result: bytes | SalienceError) -> None:
        """Add one result."""
        if isinstance(result, SalienceError):
            self.failures.append(Failure(source, key, str(result)))
        else:
            self.written += 1

    def add(self, other: "Report") -> None:
        """Add what came of other inputs."""
        self.written += other.written
        self.failures += other.failures


class Unit(Protocol):
    """What a worker does in one piece; results have fixed names and appear whole."""

    @property
    def name(self) -> str:
        """As a path, no two equal."""

    @property
    def source(self) -> Path:
        """The input, or the first of several."""

    def earlier(self) -> Report | None:
        """What an earlier run has done, None where there is something left to do."""

    def run(self, attempt: Attempt) -> Report:
        """Do what is left.

        Raises:
            OSError: a result cannot be written.
        """


@dataclass(frozen=True)
class Pictures:
    """Some pictures of a folder."""

    name: str
    jobs: tuple[Job, ...]

    @property
    def source(self) -> Path:
        """See `Unit.source`."""
        return self.jobs[0].source

    def earlier(self) -> Report | None:
        """See `Unit.earlier`."""
        return Report(len(self.jobs)) if all(is_whole(job.target) for job in self.jobs) else None

    def run(self, attempt: Attempt) -> Report:
        """See `Unit.run`; a map that cannot be written is a failure of its own."""
        report = Report()
        for job in self.jobs:
            result: bytes | SalienceError = b""
            if not is_whole(job.target):
                result = _written(job, attempt(str(job.source), job.source))
            report.count(job.source, "", result)
        return report


@dataclass(frozen=True)
class Shard:
    """A tar file; what became of it is kept in `record`, which is written last."""

    name: str
    source: Path
    target: Path
    record: Path
    extension: str | None

    def earlier(self) -> Report | None:
        """See `Unit.earlier`."""
        try:
            found = json.loads(self.record.read_bytes())
            if self.target.stat().st_size != found["bytes"]:
                return None
            failures = [Failure(self.source, key, message) for key, message in found["failures"]]
            return Report(found["written"], failures)
        # A record that is not there or damaged says nothing.
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def run(self, attempt: Attempt) -> Report:
        """See `Unit.run`."""
        report = Report()
        with shards.write_shard(self.target) as shard:
            for key, found in shards.read_pictures(self.source, self.extension):
                result = found if isinstance(found, SalienceError) else attempt(key, found)
                if not isinstance(result, SalienceError):
                    shard.add(key, result)
                report.count(self.source, key, result)
        failures = [(failure.key, failure.message) for failure in report.failures]
        done = {"bytes": self.target.stat().st_size, "written": report.written, "failures": failures}
        write_atomic(self.record, json.dumps(done).encode())
        return report


@dataclass(frozen=True)
class RowGroup:
    """A row group of a Parquet file; its maps become a part of the file's result, see `Table`."""

    name: str
    source: Path
    part: Path
    group: int
    column: str
    first_row: int
    rows: int

    def earlier(self) -> Report | None:
        """See `Unit.earlier`."""
        return table_report(self.source, self.part, self.rows)

    def run(self, attempt: Attempt) -> Report:
        """See `Unit.run`."""
        report = Report()
        with columns.write_table(self.part) as table:
            pictures = columns.read_rows(self.source, self.group, self.column, self.rows)
            for row, found in enumerate(pictures, self.first_row):
                result = found if isinstance(found, SalienceError) else attempt(str(row), found)
                table.add(row, result)
                report.count(self.source, str(row), result)
        return report


def table_report(source: Path, path: Path, rows: int) -> Report | None:
    """What a written table of so many rows holds; None where it is not there or not whole."""
    errors = columns.stored_errors(path, rows) if path.exists() else None
    if errors is None:
        return None
    failures = [Failure(source, str(row), message) for row, message in errors.items()]
    return Report(rows - len(failures), failures)


def is_whole(path: Path) -> bool:
    """Whether a PNG file is there to its end."""
    try:
        with path.open("rb") as file:
            file.seek(-len(_PNG_END), os.SEEK_END)
            return file.read() == _PNG_END
    except OSError:
        return False


def _written(job: Job, result: bytes | SalienceError) -> bytes | SalienceError:
    if not isinstance(result, SalienceError):
        try:
            write_atomic(job.target, result)
        except OSError as error:
            return DataError(f"{job.target}: cannot be written ({error.strerror or error}).")
    return result
