"""The blocks of README and benchmarks/README that `benchmarks.latency` fills: times as ratios to eager PyTorch."""

from collections.abc import Iterable
from typing import Any

from benchmarks.markdown_text import markdown_table, megabytes, ratio, seconds, sentences

Record = dict[str, Any]
BATCHES = (1, 8)


def latency(results: Record) -> str:
    """A line for each form, a column for each method: its time to eager PyTorch's at batch 1 and at batch 8."""
    rows = _at_most_threads(results["rows"])
    methods = _distinct(row["method"] for row in rows)
    table = []
    for form in _distinct(row["form"] for row in rows if row["kind"] != "eager"):
        table.append([form, *(_ratios(_at_batches(rows, method, form)) for method in methods)])
    columns = ["time to eager PyTorch's", *(f"`{method}`" for method in methods)]
    return f"{markdown_table(columns, table)}\n\n{_note(results, rows)}"


def latency_by_method(results: Record) -> str:
    """A line for each method and form, with times, memory and the start of a process."""
    rows = _at_most_threads(results["rows"])
    table = []
    for method, form in _distinct((row["method"], row["form"]) for row in rows):
        found = _at_batches(rows, method, form)
        one = found[0] or {}
        measured = [_cell(one, "p50_ms", "{:.0f} ms"), _cell(one, "share_of_peak", "{:.0%}"), _memory(one), _start(one)]
        table.append([f"`{method}`", form, *(_ratio(row) for row in found), *measured])
    batches = [f"to eager, batch {batch}" for batch in BATCHES]
    columns = ["method", "form", *batches, "a picture, batch 1", "of the peak", "peak memory", "cold start"]
    peak = max(results["peaks"], key=lambda found: found["threads"])
    note = sentences(
        f"The peak is the most that any library reached on one large product in the same run: {peak['fp32']:.0f} "
        f"GFLOP/s, {peak['int8']:.0f} int8 GOP/s."
    )
    return f"{markdown_table(columns, table)}\n\n{note}"


def photo_steps(results: Record) -> str:
    """What is done to a photograph before and after the network, beside rembg."""
    steps = results["photo_steps"]
    table = [
        [step["step"], *(_cell(step, key, "{:.1f} ms") or "not measured" for key in ("ours_ms", "rembg_ms"))]
        for step in steps["steps"]
    ]
    height, width = steps["size"]
    return markdown_table([f"photographs, network input {height} x {width}", "salience", steps["rembg"]], table)


def _at_most_threads(rows: Iterable[Record]) -> list[Record]:
    """The rows with the most threads that were measured."""
    listed = list(rows)
    most = max(row["threads"] for row in listed)
    return [row for row in listed if row["threads"] == most]


def _at_batches(rows: Iterable[Record], method: str, form: str) -> list[Record | None]:
    """The row of each of `BATCHES`."""
    found = {row["batch"]: row for row in rows if (row["method"], row["form"]) == (method, form)}
    return [found.get(batch) for batch in BATCHES]


def _ratios(rows: list[Record | None]) -> str:
    """`.47 / .42`; nothing where no batch was measured."""
    cells = [_ratio(row) for row in rows]
    return " / ".join(cell or "not measured" for cell in cells) if any(cells) else ""


def _ratio(row: Record | None) -> str:
    if row is None:
        return ""
    return ratio(row["to_eager"]) if row["to_eager"] is not None else "does not run" if row["reason"] else ""


def _note(results: Record, rows: list[Record]) -> str:
    """With what it was measured."""
    settings, evidence = results["settings"], results["evidence"]
    sizes = ", ".join(_distinct(f"{height} x {width}" for height, width in settings["sizes"].values()))
    threads = rows[0]["threads"]
    return sentences(
        f"At batch {BATCHES[0]} / {BATCHES[1]}; {settings['backbone']}, {sizes}, random weights, {threads} "
        f"thread{'s' if threads > 1 else ''} of {evidence['cpu']}, medians of {results['rounds']} alternating rounds; "
        f"`lps` and `cgd` with T = {settings['iterations']}, `gicd` with groups of {settings['group']} or of the batch."
    )


def _cell(row: Record, key: str, form: str) -> str:
    return "" if row.get(key) is None else form.format(row[key])


def _memory(row: Record) -> str:
    return "" if row.get("peak_bytes") is None else megabytes(row["peak_bytes"])


def _start(row: Record) -> str:
    return "" if row.get("cold_start_s") is None else seconds(row["cold_start_s"])


def _distinct(items: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(items))
