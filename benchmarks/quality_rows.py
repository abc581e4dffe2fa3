"""The rows of `benchmarks.quality`: scores of a method on a set, and their change against its fp32 on ONNX Runtime."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.markdown_text import change, error, share
from benchmarks.report_detail import Detail
from salience.runtime.evaluation.metrics import Scores

NOT_BUILT = "not built"
# A change of max F or MAE beyond this is marked.
MARKED_CHANGE = 0.005
_KEPT = ("f_max", "f_mean", "mae", "s", "e_max", "e_mean")
COLUMNS = ("method", "set", "pictures", "precision", "backend", "max F", "mean F", "MAE", "S", "mean E",
           "change of max F", "change of MAE")  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One method on one set in one precision and backend, both None for a yardstick that needs neither.

    Attributes:
        method: as in the bundle's manifest.
        form: which of the method's maps, empty where there is one.
        set_name: of the data.
        precision: of the graphs.
        backend: that ran them.
        scores: None where there are none.
        reason: why there are none: `NOT_BUILT`, or what failed.
        changes: of max F and of MAE against the reference; None where this is the reference, or there is none.
        yardstick: whether the maps are those of a folder, which reports compare methods with.
        detail: what a report needs beside the scores, where one was asked for.
    """

    method: str
    form: str
    set_name: str
    precision: str | None
    backend: str | None
    scores: Scores | None
    reason: str = ""
    changes: tuple[float, float] | None = None
    yardstick: bool = False
    detail: Detail | None = field(default=None, compare=False, repr=False)

    @property
    def pictures(self) -> tuple[str, tuple[str, ...]]:
        """The set and the names of the pictures, none where there is no detail."""
        return self.set_name, self.detail.names if self.detail else ()

    @property
    def marked(self) -> bool:
        """Whether a change exceeds `MARKED_CHANGE`."""
        return self.changes is not None and max(map(abs, self.changes)) > MARKED_CHANGE

    @property
    def title(self) -> str:
        """Method and form."""
        return f"{self.method}, {self.form}" if self.form else self.method

    def labelled(self, label: str) -> "Row":
        """The row with `label` behind its form."""
        return replace(self, form=", ".join(filter(None, [self.form, label])))

    def record(self) -> dict[str, Any]:
        """As it stands in the JSON file."""
        state = "scored" if self.scores else "not built" if self.reason == NOT_BUILT else "failed"
        found = self.scores.model_dump(include={"images", *_KEPT}) if self.scores else {}
        f_max, mae = self.changes or (None, None)
        return {
            "method": self.method,
            "form": self.form,
            "set": self.set_name,
            "precision": self.precision,
            "backend": self.backend,
            "state": state,
            "reason": self.reason,
            **{name: found.get(name) for name in ("images", *_KEPT)},
            "change_f_max": f_max,
            "change_mae": mae,
            "marked": self.marked,
        }


def with_changes(rows: Sequence[Row]) -> list[Row]:
    """The rows with their changes against fp32 on ONNX Runtime of the same method, form and set."""
    references = {
        (row.method, row.form, row.set_name): row.scores
        for row in rows
        if (row.precision, row.backend) == ("fp32", "onnxruntime") and row.scores
    }
    return [_changed(row, references.get((row.method, row.form, row.set_name))) for row in rows]


def in_order(rows: Sequence[Row]) -> list[Row]:
    """The rows of a method and set together, precisions and backends of a form one below the other."""
    sets = list(dict.fromkeys((row.method, row.set_name) for row in rows))
    forms = list(dict.fromkeys((row.method, row.form) for row in rows))
    return sorted(rows, key=lambda r: (sets.index((r.method, r.set_name)), forms.index((r.method, r.form))))


def _changed(row: Row, reference: Scores | None) -> Row:
    if row.scores is None or reference is None or row.scores is reference or row.precision is None:
        return row
    return replace(row, changes=(row.scores.f_max - reference.f_max, row.scores.mae - reference.mae))


def cells(row: Row) -> list[str]:
    """The row under `COLUMNS`; a marked change ends in `!`."""
    head = [row.title, row.set_name, str(row.scores.images) if row.scores else ""]
    head += [row.precision or "", row.backend or ""]
    if row.scores is None:
        return [*head, row.reason, *[""] * (len(COLUMNS) - len(head) - 1)]
    found = row.scores
    full = [share(value) if value is not None else "" for value in (found.s, found.e_mean)]
    return [*head, share(found.f_max), share(found.f_mean), error(found.mae), *full, *_change_cells(row)]


def _change_cells(row: Row) -> list[str]:
    if row.changes is None:
        return ["", ""]
    return [f"{change(value)}{' !' if abs(value) > MARKED_CHANGE else ''}" for value in row.changes]
