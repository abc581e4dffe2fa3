"""What a benchmark of plain rows leaves."""

from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from benchmarks.evidence import Evidence
from salience.runtime.files import write_atomic


class Row(BaseModel):
    """Of a table; a subclass names its columns."""

    model_config = ConfigDict(frozen=True, extra="forbid")


RowT = TypeVar("RowT", bound=Row)


class Run(BaseModel, Generic[RowT]):
    """Rows, each of so many rounds, and what they were measured with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rounds: int
    evidence: Evidence
    rows: tuple[RowT, ...]

    def write(self, path: Path) -> None:
        """As JSON, whole or not at all."""
        write_atomic(path, f"{self.model_dump_json(indent=1)}\n".encode())
