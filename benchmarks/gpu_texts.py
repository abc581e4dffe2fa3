"""A record of the GPU check as Markdown: whole, and as the block of README."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.gpu_record import PartResult, Record, Row
from benchmarks.markdown_text import markdown_table, sentences
from benchmarks.report_blocks import Block, Grid, Heading, Text, as_markdown

# Of parts about speed, in README.
_SHOWN = ("speed", "p50", "p99", "of the matrix peak")


def report(record: Record) -> str:
    """All of it: what was there, how every part ended, and its rows."""
    found = [[name, item.version or "", item.reason or ""] for name, item in record.machine.found.items()]
    parts = [[p.name, p.title, p.status, f"{p.seconds:.0f}", p.reason] for p in record.parts]
    blocks: list[Block] = [
        Text(_where(record)),
        Heading(2, "What is there"),
        Grid(["what", "version", "why it cannot be used"], found),
        Heading(2, "Parts"),
        Grid(["part", "title", "status", "seconds", "reason"], parts),
        *(block for part in record.parts if part.rows for block in _part_blocks(part)),
    ]
    return as_markdown("GPU check", blocks)


def gpu(results: dict[str, Any]) -> str:
    """README's block: on which card, how every part ended, the speed of every method, and what was never run."""
    record = Record.model_validate(results)
    ran = [part for part in record.parts if part.status != "not run"]
    texts = [sentences(_where(record))]
    if ran:
        texts.append(markdown_table(["checked", "ended", "checks", "reason"], map(_part_line, ran)))
    figures = [row for part in ran for row in _figures(part.rows)]
    if peaks := [f"{row.form} {_cell(row)}" for row in figures if row.measure == "peak"]:
        texts.append(sentences(f"The card reached: {', '.join(peaks)}."))
    rows = [row for row in figures if row.method and row.measure in _SHOWN]
    if rows:
        columns, lines = pivot(rows)
        texts.append(markdown_table(columns, lines))
    return "\n\n".join([*texts, *map(sentences, _never_run(record))])


def pivot(rows: Iterable[Row]) -> tuple[list[str], list[list[str]]]:
    """Figures with a line for each method and form, and a column for each measure and batch."""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        cells.setdefault((row.method, row.form), {})[_column(row)] = _cell(row)
    titles = list(dict.fromkeys(title for line in cells.values() for title in line))
    return ["method", "form", *titles], [
        [*key, *(line.get(title, "") for title in titles)] for key, line in cells.items()
    ]


def number(value: float) -> str:
    """At most three digits that count: 12300, 1.23, .0123, 1.23e-05."""
    if not math.isfinite(value):
        return "no number" if math.isnan(value) else "infinite"
    text = f"{float(f'{value:.3g}'):g}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def _where(record: Record) -> str:
    """The card, when, and with what."""
    cards = ", ".join(f"{card.name}, driver {card.driver}" for card in record.machine.gpus) or "a machine without a GPU"
    evidence = record.evidence
    commit = f"commit {evidence.commit[:12]}{' with changes' if evidence.changed else ''}, " if evidence.commit else ""
    quick = ", in its quick form" if record.quick else ""
    return f"Checked{quick} on {cards}; {commit}{evidence.date[:10]}."


def _never_run(record: Record) -> list[str]:
    """A sentence for each reason, with the parts that did not run for it."""
    reasons: dict[str, list[str]] = {}
    for part in record.parts:
        if part.status == "not run":
            reasons.setdefault(part.reason, []).append(part.title)
    return [f"Not run ({reason}): {'; '.join(titles)}." for reason, titles in reasons.items()]


def _part_line(part: PartResult) -> list[str]:
    checks = [row for row in part.rows if row.passed is not None]
    passed = sum(row.passed is True for row in checks)
    return [part.title, part.status, f"{passed} of {len(checks)}" if checks else "", part.reason]


def _part_blocks(part: PartResult) -> list[Block]:
    """A table of checks, one of figures."""
    checks = [row for row in part.rows if row not in _figures(part.rows)]
    figures = _figures(part.rows)
    blocks: list[Block] = [Heading(2, part.title)]
    if checks:
        columns = ["method", "form", "batch", "measure", "value", "limit", "passed", "note"]
        blocks.append(Grid(columns, [_check_line(row) for row in checks]))
    if figures:
        blocks.append(Grid(*pivot(figures)))
    return blocks


def _figures(rows: Sequence[Row]) -> list[Row]:
    """The rows that nothing was expected of and that have a place in a table of measures."""
    return [row for row in rows if row.passed is None and (row.value is not None or row.batch is not None)]


def _check_line(row: Row) -> list[str]:
    verdict = {True: "yes", False: "no", None: ""}[row.passed]
    batch = "" if row.batch is None else str(row.batch)
    limit = "" if row.limit is None else _with_unit(row.limit, row.unit)
    value = "" if row.value is None else _with_unit(row.value, row.unit)
    return [row.method, row.form, batch, row.measure, value, limit, verdict, row.note]


def _column(row: Row) -> str:
    return row.measure if row.batch is None else f"{row.measure}, batch {row.batch}"


def _cell(row: Row) -> str:
    return (row.note or "not measured") if row.value is None else _with_unit(row.value, row.unit)


def _with_unit(value: float, unit: str) -> str:
    return f"{number(value)} {unit}".strip()
