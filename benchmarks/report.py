"""The full report of `benchmarks.quality`: HTML with pictures, and Markdown and JSON without any."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.quality_rows import Row
from benchmarks.report_blocks import Block, Grid, Heading, Text, as_html, as_markdown
from benchmarks.report_contents import (
    SHEETS,
    attribute_values,
    by_kind,
    comparisons,
    curves_file,
    relations_of,
    set_blocks,
    sheet_file,
    shown_rows,
)
from benchmarks.report_intervals import f_max_estimate, mean_estimate
from benchmarks.report_rules import rule_sentences
from benchmarks.report_runs import Ablations, TrainingRun
from benchmarks.report_training import TRAINING_CURVES, ablation_blocks, draw_training, training_blocks
from salience.runtime.evaluation.figures import draw_many_curves
from salience.runtime.files import write_atomic

_TITLE = "Quality of every method"


@dataclass(frozen=True)
class Contents:
    """What a report is made of.

    Attributes:
        header: evidence, part, limit, metrics and bundles.
        rows: of the methods and of the stored maps they are compared with.
        single: methods that see nothing but the picture.
        ablations, runs: from files, where they were asked for.
    """

    header: dict[str, Any]
    rows: Sequence[Row]
    single: frozenset[str]
    ablations: Ablations | None = None
    runs: Sequence[TrainingRun] = ()

    @property
    def sets(self) -> dict[str, list[Row]]:
        """The rows of each set, stored maps first."""
        names = dict.fromkeys(row.set_name for row in self.rows)
        ordered = sorted(self.rows, key=lambda row: not row.yardstick)
        return {name: [row for row in ordered if row.set_name == name] for name in names}


def write_report(folder: Path, contents: Contents) -> Path:
    """Write report.html, report.md, report.json, curves and contact sheets; the path of the page.

    Contact sheets show the data's pictures, which are not ours to pass on: their folder tells git to ignore it.
    """
    for name, rows in contents.sets.items():
        if shown := shown_rows(rows):
            named = {_curve_title(row): row.detail.curves for row in shown if row.detail}
            write_atomic(folder / curves_file(name), draw_many_curves(named))
        for row in shown:
            for word, sheet in row.detail.sheets.items() if row.detail else ():
                write_atomic(folder / sheet_file(row, word), sheet)
    if contents.runs:
        write_atomic(folder / TRAINING_CURVES, draw_training(contents.runs))
    write_atomic(folder / SHEETS / ".gitignore", b"*\n")
    blocks = report_blocks(contents)
    write_atomic(folder / "report.md", as_markdown(_TITLE, blocks).encode())
    write_atomic(folder / "report.json", _by_line(report_record(contents)).encode())
    write_atomic(folder / "report.html", as_html(_TITLE, blocks).encode())
    return folder / "report.html"


def report_blocks(contents: Contents) -> list[Block]:
    """All chapters."""
    return [
        *_facts(contents.header),
        *(block for name, rows in contents.sets.items() for block in set_blocks(name, rows, contents.single)),
        *ablation_blocks(contents.ablations),
        *training_blocks(contents.runs),
        Heading(2, "How to read this"),
        *map(Text, rule_sentences()),
    ]


def report_record(contents: Contents) -> dict[str, Any]:
    """The JSON file.

    The `pictures` of a row are in the order of its set's `names`, of which it may have the first only; `kinds` are
    indices of them.
    """
    return {
        **contents.header,
        "rules": rule_sentences(),
        "sets": {name: _set_record(rows) for name, rows in contents.sets.items()},
        "rows": [_row_record(row) for rows in contents.sets.values() for row in rows],
        "comparisons": [
            {**_key(found.row), "against": found.yardstick.title, "f_max": found.f_max.model_dump(),
             "mae": found.mae.model_dump()}
            for rows in contents.sets.values() for found in comparisons(rows)
        ],
        "ablations": contents.ablations.model_dump(exclude={"runs"}) if contents.ablations else None,
        "training": [
            {
                "method": run.method,
                "folder": run.folder,
                "hours": run.hours,
                "epochs": [epoch.model_dump() for epoch in run.epochs],
            }
            for run in contents.runs
        ],
    }  # fmt: skip


def _set_record(rows: Iterable[Row]) -> dict[str, Any]:
    """Names and attributes of the row with the most pictures, which has those of every other."""
    largest = max((row.detail for row in rows if row.detail), key=lambda detail: len(detail.pairs), default=None)
    if largest is None:
        return {"names": [], "attributes": {}}
    return {"names": list(largest.names), "attributes": _rounded(attribute_values(largest))}


def _row_record(row: Row) -> dict[str, Any]:
    detail = row.detail
    if row.scores is None or detail is None:
        return {**_key(row), "reason": row.reason}
    return {
        **_key(row),
        **row.scores.model_dump(),
        "intervals": {
            "f_max": f_max_estimate(detail.f_curves).model_dump(),
            "mae": mean_estimate(detail.mae).model_dump(),
        },
        "threshold": detail.threshold,
        "kinds": by_kind(detail),
        "relations": [found.model_dump() for found in relations_of(detail, attribute_values(detail))],
        "pictures": {"mae": _rounded(detail.mae), "f": _rounded(detail.f), "s": _rounded(detail.s)},
        "curves": detail.curves.model_dump(exclude={"false_positive_rate"}),
    }


def _key(row: Row) -> dict[str, Any]:
    return {
        "method": row.method, "form": row.form, "set": row.set_name, "precision": row.precision, "backend": row.backend,
    }  # fmt: skip


def _by_line(record: dict[str, Any]) -> str:
    """JSON with a line for each value, and for each item of a list of records."""
    parts = []
    for key, value in record.items():
        text = _json(value)
        if isinstance(value, list) and value:
            text = "[\n  " + ",\n  ".join(map(_json, value)) + "\n ]"
        parts.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _json(value: Any) -> str:
    return json.dumps(_rounded(value), separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def _rounded(value: Any) -> Any:
    """Floats to 4 digits that count behind the point, None for those that are no number; arrays as lists."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    if hasattr(value, "tolist"):
        return _rounded(value.tolist())
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    return value


def _curve_title(row: Row) -> str:
    return f"{row.title}, {len(row.detail.pairs) if row.detail else 0} pictures"


def _facts(header: dict[str, Any]) -> list[Block]:
    """What was measured, where and when."""
    evidence = header["evidence"]
    limit = f", the first {header['limit']} of each set" if header["limit"] else ""
    rows = [
        ["pictures", f"part {header['part']}{limit}"],
        ["metrics", header["metrics"]],
        ["commit", f"{(evidence['commit'] or 'none')[:12]}{', with changes' if evidence['changed'] else ''}"],
        ["date", evidence["date"]],
        ["machine", f"{evidence['cpu']}, {evidence['cores']} cores, {evidence['system']}"],
        ["versions", ", ".join(f"{name} {version}" for name, version in evidence["versions"].items())],
        *(
            [
                f"bundle of {method}",
                f"{found['backbone'] or ''} {found.get('checkpoint', '')}, {', '.join(found['precisions'])}",
            ]
            for method, found in header["bundles"].items()
        ),
    ]
    return [Grid(["what", "which"], rows)]
