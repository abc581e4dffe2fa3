"""The blocks of README and benchmarks/README that `benchmarks.quality` fills: scores, and what a precision changes."""

from collections.abc import Iterable
from typing import Any

from benchmarks.markdown_text import change, error, markdown_table, sentences, share
from benchmarks.quality_rows import MARKED_CHANGE, NOT_BUILT
from benchmarks.quality_studies import PRIORS, SINGLE

Record = dict[str, Any]

_SETS = {"ecssd": "ECSSD", "horses": "horses", "coseg": "co-segmentation"}
_BACKENDS = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
_REFERENCE = ("fp32", "onnxruntime")


def quality(results: Record) -> str:
    """A line for each method and set; a column for each precision, its largest change on any backend."""
    rows = results["rows"]
    precisions = _distinct(row["precision"] for row in rows if row["precision"] not in (None, "fp32"))
    backends = " and ".join(_BACKENDS.get(name, name) for name in _distinct(row["backend"] for row in rows))
    columns = ["method", "set (pictures)", "max F", "MAE", *(f"`{precision}`" for precision in precisions)]
    table = []
    for line in _lines(rows):
        by_precision = [[row for row in line if row["precision"] == precision] for precision in precisions]
        table.append([*_head(line), *(_largest_changes(found) for found in by_precision)])
    note = (
        f"Max F and MAE are of `fp32` on ONNX Runtime; beside them stands how a precision changes the two, at most, on "
        f"{backends}. Bold: by more than {share(MARKED_CHANGE)}.{_int8_layers(results['bundles'])}"
    )
    return f"{markdown_table(columns, table)}\n\n{sentences(note)}"


def pretrained(results: Record) -> str:
    """A line for each method that sees one picture, with its scores on every set, and for the stored maps of CSNet."""
    found = {
        (_name(row), row["set"]): row
        for row in results["rows"]
        if (row["precision"], row["backend"]) == _REFERENCE and row["method"] in SINGLE - {"cgd"}
    }
    priors = next(r for r in results["rows"] if (r["method"], r["form"], r["set"]) == ("lps", PRIORS, "ecssd"))
    found["CSNet's maps", "ecssd"] = priors
    columns = ["test parts", *(f"{title}: {score}" for title in _SETS.values() for score in ("max F", "MAE"))]
    table = []
    for name in _distinct(name for name, _ in found):
        rows = [found.get((name, set_name)) for set_name in _SETS]
        table.append([name, *(cell for row in rows for cell in (_pair(row) if row else ("", "")))])
    return markdown_table(columns, table)


def quality_by_backend(results: Record) -> str:
    """A line for each method and set; a column for each precision and backend but the reference."""
    rows = results["rows"]
    pairs = _distinct((row["precision"], row["backend"]) for row in rows if row["precision"])
    others = [pair for pair in pairs if pair != _REFERENCE]
    titles = [f"`{precision}`, {_BACKENDS.get(backend, backend)}" for precision, backend in others]
    table = []
    for line in _lines(rows):
        cells = [[row for row in line if (row["precision"], row["backend"]) == pair] for pair in others]
        table.append([*_head(line, full=True), *(_largest_changes(found) for found in cells)])
    return markdown_table(["method", "set (pictures)", "max F", "MAE", "S", "mean E", *titles], table)


def int8_ways(results: Record) -> str:
    """A line for each way to make int8, with its changes on each backend."""
    rows = {(row["way"], row["backend"]): row for row in results["rows"]}
    backends = _distinct(backend for _, backend in rows)
    table = []
    for way in _distinct(way for way, _ in rows):
        found = [rows[way, backend] for backend in backends]
        table.append([way, *(f"{share(row['map_change'], 4)}, {_with_error(row)}" for row in found)])
    return markdown_table(["all layers int8 by", *(_BACKENDS.get(name, name) for name in backends)], table)


def _with_error(row: Record) -> str:
    """The change of max F, and its standard error."""
    return f"{change(row['f_change'])} ± {share(row['f_error'], 4)}"


def _int8_layers(bundles: Record) -> str:
    """A sentence on the layers of int8 files that are not."""
    texts = [
        f"`{method}` {found['int8']['fp32']} of {found['int8']['layers']} ({found['int8']['fp32_share']:.0%})"
        for method, found in bundles.items()
        if "int8" in found
    ]
    return (
        f" Layers that stay fp32 in `int8`, and their part of the multiply-adds: {', '.join(texts)}." if texts else ""
    )


def _lines(rows: Iterable[Record]) -> list[list[Record]]:
    """The rows of each method, form and set."""
    lines: dict[tuple[str, str, str], list[Record]] = {}
    for row in rows:
        lines.setdefault((row["method"], row["form"], row["set"]), []).append(row)
    return list(lines.values())


def _head(line: list[Record], *, full: bool = False) -> list[str]:
    """Method, set and the scores of the reference, or of the yardstick."""
    first = line[0]
    counts = _distinct(str(row["images"]) for row in line if row["images"])
    head = [_name(first), f"{_SETS.get(first['set'], first['set'])} ({', '.join(counts)})"]
    keys = ("f_max", "mae", "s", "e_mean") if full else ("f_max", "mae")
    for row in line:
        if row["precision"] is None or (row["precision"], row["backend"]) == _REFERENCE:
            scores = [error(row[key]) if key == "mae" else share(row[key]) for key in keys if row[key] is not None]
            return [*head, *(scores or [_state(row), *[""] * (len(keys) - 1)])]
    return [*head, *[""] * len(keys)]


def _name(row: Record) -> str:
    """Method and form."""
    return f"`{row['method']}`, {row['form']}" if row["form"] else f"`{row['method']}`"


def _pair(row: Record) -> tuple[str, str]:
    """Max F and MAE."""
    return share(row["f_max"]), error(row["mae"])


def _largest_changes(rows: list[Record]) -> str:
    """The largest change of max F and that of MAE; why there is none, if there is none."""
    measured = [row for row in rows if row["change_f_max"] is not None]
    if not measured:
        return ", ".join(_distinct(_state(row) for row in rows))
    changes = [max((row[key] for row in measured), key=abs) for key in ("change_f_max", "change_mae")]
    cells = [f"**{change(value)}**" if abs(value) > MARKED_CHANGE else change(value) for value in changes]
    failed = [_state(row) for row in rows if row["state"] == "failed"]
    return ", ".join([*cells, *failed])


def _state(row: Record) -> str:
    """Why a row has no change."""
    return {"scored": "no fp32 beside it", "not built": NOT_BUILT}.get(row["state"], "failed")


def _distinct(items: Iterable[Any]) -> list[Any]:
    """Each once, in order, without None."""
    return [item for item in dict.fromkeys(items) if item is not None]
