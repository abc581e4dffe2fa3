"""What `benchmarks.latency` measured as tables and as a picture, of the record alone."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.latency_record import PhotoSteps, Record, Row
from benchmarks.markdown_text import markdown_table, ratio

_NONE = "-"
_COLOURS = {
    ("salience", "fp32"): "#1f5fa8",
    ("salience", "int8"): "#2ca02c",
    ("salience", ""): "#17a2b8",
    ("eager", ""): "#555555",
    ("compile", ""): "#c9812b",
    ("export", ""): "#b9a0c9",
}

COLUMNS: dict[str, Callable[[Row], str]] = {
    "form": lambda row: row.form,
    "batch": lambda row: str(row.batch),
    "threads": lambda row: str(row.threads),
    "p50 ms": lambda row: figure(row.p50_ms),
    "p90": lambda row: figure(row.p90_ms),
    "p99": lambda row: figure(row.p99_ms),
    "images/s": lambda row: figure(row.images_per_s),
    "to eager": lambda row: _NONE if row.to_eager is None else ratio(row.to_eager),
    "GOP/s": lambda row: _NONE if row.giga_per_s is None else f"{row.giga_per_s:.0f}",
    "of peak": lambda row: _NONE if row.share_of_peak is None else f"{row.share_of_peak:.0%}",
    "memory MB": lambda row: _NONE if row.peak_bytes is None else f"{row.peak_bytes / 1e6:.0f}",
    "cold start s": lambda row: _NONE if row.cold_start_s is None else f"{row.cold_start_s:.2f}",
}


def figure(value: float | None) -> str:
    """Three digits that count."""
    if value is None:
        return _NONE
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def tables(record: Record) -> Iterator[Table]:
    """For the terminal: one a method, and the steps around the network."""
    for method, rows in by_method(record).items():
        table = Table(title=title(record, method), caption="\n".join(remarks(rows)) or None)
        for name in COLUMNS:
            table.add_column(name, justify="left" if name == "form" else "right")
        for row in rows:
            table.add_row(*(make(row) for make in COLUMNS.values()))
        yield table
    if record.photo_steps:
        table = Table(*photo_columns(record.photo_steps), title="photographs, median ms")
        for cells in photo_cells(record.photo_steps):
            table.add_row(*cells)
        yield table


def markdown(record: Record) -> str:
    """The same tables, with the machine and what its figures are measured by before them."""
    parts = [machine(record)]
    for method, rows in by_method(record).items():
        parts += [f"**{title(record, method)}**", markdown_table(tuple(COLUMNS), [cells(row) for row in rows])]
        parts += ["\n".join(f"- {remark}" for remark in found)] if (found := remarks(rows)) else []
    if record.photo_steps:
        parts.append(markdown_table(photo_columns(record.photo_steps), photo_cells(record.photo_steps)))
    return "\n\n".join(parts) + "\n"


def cells(row: Row) -> list[str]:
    """Of a row, in the order of `COLUMNS`."""
    return [make(row) for make in COLUMNS.values()]


def by_method(record: Record) -> dict[str, list[Row]]:
    """The rows of each method, in the record's order."""
    found: dict[str, list[Row]] = {}
    for row in record.rows:
        found.setdefault(row.method, []).append(row)
    return found


def title(record: Record, method: str) -> str:
    """What a method's figures are of."""
    settings = record.settings
    height, width = settings.sizes[method]
    extra = {"lps": f", T = {settings.iterations}", "cgd": f", T = {settings.iterations}"}.get(method, "")
    extra = f", groups of {settings.group} or the batch" if method == "gicd" else extra
    return f"{method}, {settings.backbone}, {height} x {width}{extra}, ms per picture"


def machine(record: Record) -> str:
    """A sentence on the machine, and one on its peaks."""
    found, versions = record.evidence, record.evidence.versions
    peaks = "; ".join(
        f"{peak.threads} threads {peak.fp32:.0f} GFLOP/s fp32 and {peak.int8:.0f} GOP/s int8" for peak in record.peaks
    )
    tools = ", ".join(f"{tool} {versions[tool]}" for tool in ("torch", "onnxruntime", "openvino") if tool in versions)
    return (
        f"{found.cpu}, {found.cores} cores ({', '.join(found.flags)}); {tools}; {record.rounds} rounds. "
        f"Measured peak: {peaks}."
    )


def remarks(rows: Sequence[Row]) -> list[str]:
    """Why forms have no figures, and what they do of their own accord; once for all batches and threads."""
    found = [f"{row.form}: {text}" for row in rows for text in (row.reason, row.note) if text]
    return list(dict.fromkeys(found))


def photo_columns(steps: PhotoSteps) -> tuple[str, str, str]:
    """The header of the steps around the network."""
    return f"step, network input {steps.size[0]} x {steps.size[1]}", "salience ms", f"{steps.rembg} ms"


def photo_cells(steps: PhotoSteps) -> list[list[str]]:
    """A line for each step."""
    return [[step.step, figure(step.ours_ms), figure(step.rembg_ms)] for step in steps.steps]


def plot(record: Record, path: Path) -> None:
    """Bars of every form's time relative to eager PyTorch: a line of panels a method, a column a batch and threads."""
    from matplotlib.figure import Figure

    methods = by_method(record)
    columns = sorted({(row.batch, row.threads) for row in record.rows})
    names = list(dict.fromkeys(row.form for row in record.rows))
    height = 0.9 + len(methods) * (0.24 * len(names) + 0.5)
    canvas = Figure(figsize=(1.9 + 3.9 * len(columns), height), layout="constrained")
    panels = canvas.subplots(len(methods), len(columns), squeeze=False, sharex=True, sharey=True)
    for line, (method, rows) in zip(panels, methods.items(), strict=True):
        for panel, (batch, threads) in zip(line, columns, strict=True):
            chosen = [row for row in rows if (row.batch, row.threads) == (batch, threads)]
            draw(panel, chosen, names)
            panel.set_title(f"{method}, batch {batch}, {threads} threads", fontsize=9, loc="left")
    _scale(panels, [row.to_eager for row in record.rows if row.to_eager])
    canvas.suptitle(
        f"Time per picture, eager PyTorch = 1 ({record.settings.backbone}, {record.evidence.cpu})", fontsize=10
    )
    canvas.savefig(path, dpi=150)


def draw(panel: Any, rows: Sequence[Row], names: Sequence[str]) -> None:
    """One panel: a bar for each form, with its ratio; forms without figures have a dash."""
    found = {row.form: row for row in rows}
    for place, name in enumerate(names):
        row = found.get(name)
        value = row.to_eager if row else None
        if row and value:
            panel.barh(place, value, height=0.75, color=colour(row))
        panel.annotate(
            ratio(value) if value else _NONE, (value or 1, place), xytext=(3, 0), textcoords="offset points",
            va="center", fontsize=7,
        )  # fmt: skip
    panel.axvline(1, color="#999999", linewidth=0.8, zorder=0)
    panel.set_yticks(range(len(names)), names, fontsize=7.5)
    panel.set_ylim(len(names) - 0.4, -0.6)
    panel.tick_params(axis="x", labelsize=7.5)
    panel.spines[["top", "right"]].set_visible(False)


def colour(row: Row) -> str:
    """By kind, ours by precision too."""
    return _COLOURS.get((row.kind, row.precision)) or _COLOURS[row.kind, ""]


def _scale(panels: Any, ratios: Sequence[float]) -> None:
    """Logarithmic where small bars could not be told apart."""
    low, high = min(ratios, default=1.0), max(ratios, default=1.0)
    for panel in panels.flat:
        if high / low > 8:
            panel.set_xscale("log")
            panel.set_xlim(low / 1.6, high * 2)
            panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        else:
            panel.set_xlim(0, high * 1.2)
