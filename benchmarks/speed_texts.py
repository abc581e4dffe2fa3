"""The blocks of README and benchmarks/README that `throughput`, `choices` and `curves` fill."""

from typing import Any

from benchmarks.curve_record import PANELS
from benchmarks.curve_record import Record as Curves
from benchmarks.markdown_text import markdown_table, megabytes, ratio, seconds, sentences

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


def kernels(results: Record) -> str:
    """Each operator alone: kernel against body, and against what the memory moves."""
    table = [
        [
            f"`{row['operator']}`", row["sizes"], f"{row['bytes'] / 1e6:.0f}", f"{row['body_ms']:.2f}",
            f"{row['kernel_ms']:.2f}", ratio(row["ratio"]), f"{row['copy_ms'] / row['kernel_ms']:.0%}",
        ]
        for row in results["rows"]
    ]  # fmt: skip
    columns = ["operator", "sizes", "MB moved", "body, ms", "kernel, ms", "body / kernel", "of a copy's speed"]
    evidence = results["evidence"]
    note = sentences(
        f"{evidence['cores']} cores of {evidence['cpu']}, medians of {results['rounds']} rounds in which body, kernel "
        "and a copy of as many bytes take turns; what fits the last cache beats a copy that does not."
    )
    return f"{markdown_table(columns, table)}\n\n{note}"


def kernel_uses(results: Record) -> str:
    """Whole uses without and with kernels."""
    table = [
        [row["use"], f"{row['without_ms']:.1f}", f"{row['with_ms']:.1f}", ratio(row["ratio"])]
        for row in results["uses"]
    ]
    return markdown_table(["one picture, beside kernels", "ms", "with kernels, ms", "ratio"], table)


def native_start(results: Record) -> str:
    """Cold start and memory of C++ beside Python."""
    table = [
        [
            f"`{row['method']}`", megabytes(row["bundle_bytes"]), seconds(row["cpp_s"]), seconds(row["python_s"]),
            megabytes(row["cpp_bytes"]), megabytes(row["python_bytes"]),
        ]
        for row in results["rows"]
    ]  # fmt: skip
    columns = ["method", "bundle", "C++", "Python", "C++, peak memory", "Python, peak memory"]
    note = sentences(
        f"Whole processes that load a bundle (MobileNetV2, random weights) and write one map; medians of "
        f"{results['rounds']} alternating rounds on {results['evidence']['cores']} cores."
    )
    return f"{markdown_table(columns, table)}\n\n{note}"


def serving(results: Record) -> str:
    """A service under load, beside the bare engine."""
    rows = [serving_row(row) for row in results["rows"]]
    columns = ["network", "load", "maps/s", "of the bare engine", "p50", "p99", "503", "failed", "memory"]
    note = sentences(
        "`multis` on JPEG files of 400 x 300 (vgg16 with random weights at 224 x 224, fp32; `packaged` is the network "
        f"of the package), service and clients on the same {results['evidence']['cores']} cores. `full`: eight clients "
        f"that ask again as soon as they are answered, medians of {results['rounds']} rounds in turns with the bare "
        "engine on prepared pictures. The others ask at random times, at a share of that rate; times are of accepted "
        "requests, from when they were due. Memory: after a tenth of the time, and at the end."
    )
    return f"{markdown_table(columns, rows)}\n\n{note}"


def serving_row(row: Record) -> list[str]:
    """One load."""
    full = not row["load"]
    memory = "" if full else f"{megabytes(row['memory_before_bytes'])}, {megabytes(row['memory_after_bytes'])}"
    return [
        row["network"], "full" if full else f"{row['load']:.0%}, {row['seconds']:.0f} s", f"{row['images_per_s']:.1f}",
        f"{row['images_per_s'] / row['engine_per_s']:.0%}" if full else "", f"{row['p50_ms']:.0f} ms",
        f"{row['p99_ms']:.0f} ms", str(row["refused"]), str(row["failed"]), memory,
    ]  # fmt: skip


def scale_out(results: Record) -> str:
    """Workers on a Ray cluster of one machine."""
    table = [
        [str(row["workers"]), f"{row['images_per_s']:.1f}", f"{row['steady_images_per_s']:.1f}", f"{row['to_one']:.2f}"]
        for row in results["rows"]
    ]
    columns = ["workers of one core", "images/s", "without their start", "gain"]
    note = sentences(f"Medians of {results['rounds']} alternating rounds on {results['evidence']['cores']} cores.")
    return f"{markdown_table(columns, table)}\n\n{note}"


def page_load(results: Record) -> str:
    """Weight and speed of the service's page."""
    (row,) = results["rows"]
    return sentences(
        f"{row['files']} files of {row['bytes'] / 1000:.0f} KB together, uncompressed; {row['usable_ms']:.0f} ms until "
        f"models and examples are there, {row['first_map_ms']:.0f} ms from choosing an example to its map (medians of "
        f"{results['rounds']} visits with nothing cached, browser and service on the same "
        f"{results['evidence']['cores']} cores)."
    )


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
