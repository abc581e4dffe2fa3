"""What the GPU check is given and what it records: rows, the parts that they come from, and what was there."""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict

from benchmarks.evidence import Evidence
from benchmarks.gpu_machine import Machine
from salience.runtime.files import write_atomic

Status = Literal["passed", "failed", "not run", "not finished"]


class _Model(BaseModel):
    # Numbers that are none are findings here, which JSON's null would hide.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Setting(_Model):
    """What a part is given.

    Attributes:
        device: "cuda" or "cuda:N"; "cpu" in tests.
        folder: for files of its own; parts of one check share it, and it is deleted afterwards.
        quick: whether few pictures and rounds will do.
    """

    device: str = "cuda"
    folder: Path
    quick: bool = False


class Row(_Model):
    """A finding of a part.

    Attributes:
        part: filled in by the check itself.
        method: its name; empty where the finding is of none.
        form: what computed it, in words, such as "ONNX Runtime, fp16".
        batch: pictures in a call.
        measure: what `value` is, such as "images/s" or "largest difference".
        value: None where there is none; `note` says why.
        unit: of value and limit; empty for plain numbers.
        limit: that `value` was held against.
        passed: None for a figure that nothing was expected of.
        note: in words.
    """

    part: str = ""
    method: str = ""
    form: str = ""
    batch: int | None = None
    measure: str
    value: float | None = None
    unit: str = ""
    limit: float | None = None
    passed: bool | None = None
    note: str = ""

    @property
    def says_nothing(self) -> bool:
        """Whether it has neither a value nor a verdict: it tells why there is none."""
        return self.value is None and self.passed is None


class PartResult(_Model):
    """How a part ended.

    Attributes:
        name: of the part.
        title: what it looks at.
        status: "not run" has its reason, "not finished" keeps the rows that came in time.
        reason: empty for what passed.
        seconds: that it took.
        rows: in the order in which they came.
    """

    name: str
    title: str
    status: Status
    reason: str = ""
    seconds: float = 0
    rows: tuple[Row, ...] = ()

    @classmethod
    def judged(cls, name: str, title: str, seconds: float, rows: tuple[Row, ...], *, stopped: str = "") -> Self:
        """Of a part that raised nothing, by its rows; `stopped` says why it did not come to its end."""
        wrong = [row for row in rows if row.passed is False]
        status: Status = "passed"
        reason = stopped
        if wrong:
            status, reason = "failed", "; ".join(filter(None, (_count(wrong, rows), stopped)))
        elif stopped:
            status = "not finished"
        elif not rows:
            status, reason = "failed", "it found nothing"
        elif all(row.says_nothing for row in rows):
            status, reason = "not run", rows[0].note
        return cls(name=name, title=title, status=status, reason=reason, seconds=seconds, rows=rows)


class Record(_Model):
    """A run of the check.

    Attributes:
        evidence: when, and on what host.
        machine: what a GPU check needs, and whether it was there.
        device: that was asked for.
        quick: see `Setting`.
        parts: all of them, those included that did not run.
    """

    evidence: Evidence
    machine: Machine
    device: str
    quick: bool
    parts: tuple[PartResult, ...]

    @property
    def failed(self) -> bool:
        """Whether a part failed."""
        return any(part.status == "failed" for part in self.parts)

    def write(self, path: Path) -> None:
        """As JSON, whole or not at all."""
        write_atomic(path, f"{self.model_dump_json(indent=1)}\n".encode())


def _count(wrong: list[Row], rows: tuple[Row, ...]) -> str:
    """How many checks failed, and which was the first."""
    checks = sum(row.passed is not None for row in rows)
    first = wrong[0]
    where = ", ".join(filter(None, (first.method, first.form, first.measure)))
    return f"{len(wrong)} of {checks} checks failed, the first: {where}{f' ({first.note})' if first.note else ''}"
