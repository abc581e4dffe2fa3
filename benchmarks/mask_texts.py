"""Tables of `benchmarks.mask_threshold`, for the terminal and for benchmarks/README."""

from collections.abc import Iterable
from typing import Any

from benchmarks.markdown_text import change, markdown_table, share

Rows = list[dict[str, Any]]
Cells = tuple[list[str], list[list[str]]]


def mask_rules(results: dict[str, Any]) -> str:
    """Rules for the threshold, by the IoU of their masks."""
    return markdown_table(*rule_cells(results["rules"]))


def mask_specks(results: dict[str, Any]) -> str:
    """Shares below which a component is a speck, by the IoU of the boxes."""
    return markdown_table(*speck_cells(results["specks"]))


def mask_maximums(results: dict[str, Any]) -> str:
    """Maximums of maps with and without an object."""
    return markdown_table(*maximum_cells(results["maximums"]))


def rule_cells(rows: Rows) -> Cells:
    """A line for each rule, a column for each part: mean IoU, and the count of empty masks where there are any."""
    cells = {
        (row["rule"], _title(row)): share(row["iou"], 4) + (f", {row['empty']} empty" if row["empty"] else "")
        for row in rows
    }
    return _pivot("threshold", cells)


def speck_cells(rows: Rows) -> Cells:
    """A line for each share, a column for each part: mean IoU, and its change with its standard error."""
    cells = {
        (share(row["share"], 3), _title(row)): f"{share(row['iou'])}, {change(row['change'], 3)} ± "
        f"{share(row['change_error'])}"
        for row in rows
    }
    return _pivot("smallest component, share of the largest", cells)


def maximum_cells(rows: Rows) -> Cells:
    """A line for each kind of image."""
    columns = ["maps", "images", "count", "maximums of the maps", "with a box"]
    table = [
        [
            row["maps"],
            row["kind"],
            f"{row['images']}",
            f"{share(row['least'])} to {share(row['most'])}",
            f"{row['boxes']}",
        ]
        for row in rows
    ]
    return columns, table


def time_cells(rows: Rows) -> Cells:
    """A line for each call."""
    return ["call", "CPU time"], [[row["call"], f"{row['cpu_ms']:.0f} ms"] for row in rows]


def _title(row: dict[str, Any]) -> str:
    return f"{row['maps']}: {row['part']}"


def _pivot(corner: str, cells: dict[tuple[str, str], str]) -> Cells:
    """Lines and columns in the order of their first cell."""
    lines, columns = _unique(line for line, _ in cells), _unique(column for _, column in cells)
    return [corner, *columns], [[line, *(cells[line, column] for column in columns)] for line in lines]


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
