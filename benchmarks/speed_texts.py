"""The blocks of README and benchmarks/README that `throughput`, `choices` and `curves` fill."""

from typing import Any

from benchmarks.curve_record import PANELS
from benchmarks.curve_record import Record as Curves
from benchmarks.markdown_text import markdown_table, ratio, sentences

Record = dict[str, Any]


def throughput(results: Record) -> str:
    """A line for each network and folder."""
    rows = {(row["network"], row["size"], row["form"]): row for row in results["rows"]}
    table = []
    for network, size in dict.fromkeys(key[:2] for key in rows):
        loop, predict = (rows[network, size, form] for form in ("one by one", "salience predict"))
        table.append([
            network, f"{predict['pictures']} of {size}", f"{loop['images_per_s']:.1f}, CPU {loop['cpu']:.0%}",
            f"{predict['images_per_s']:.1f}, CPU {predict['cpu']:.0%}", ratio(predict["to_loop"]),
            f"{predict['over_engine']:+.0%}",
        ])  # fmt: skip
    columns = ["network", "JPEG files", "one by one, images/s", "`salience predict`", "ratio", "over the engine alone"]
    evidence = results["evidence"]
    note = sentences(
        f"ONNX Runtime, {evidence['cores']} cores of {evidence['cpu']}, medians of {results['rounds']} rounds. One by "
        "one is `load().predict(file).save(target)` in a loop; the engine alone gets pictures prepared already."
    )
    return f"{markdown_table(columns, table)}\n\n{note}"


def choices(results: Record) -> str:
    """The time of what was chosen over that of the other, by backend and precision."""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for row in results["rows"]:
        column = f"{row['backend']} {row['precision']}"
        cells.setdefault((row["choice"], row["what"]), {})[column] = ratio(row["ratio"])
    columns = list(dict.fromkeys(column for found in cells.values() for column in found))
    table = [[*key, *(found.get(column, "") for column in columns)] for key, found in cells.items()]
    return markdown_table(["choice", "timed", *columns], table)


def curves(results: Record) -> str:
    """The slope of every curve."""
    record = Curves.model_validate(results)
    table = [
        [
            PANELS[curve.panel].title or "Memory, gicd", curve.name, curve.describe(),
            f"{curve.worst:.0%}{f' up to {curve.limit}' if curve.limit else ''}",
        ]
        for curve in record.curves
    ]  # fmt: skip
    head = markdown_table(["against", "curve", "slope", "worst point off by"], table)
    return f"{head}\n\n{sentences(record.title() + '.')}"
