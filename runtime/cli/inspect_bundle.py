"""`salience inspect`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.table import Column, Table

from ..bundle import DEFAULT_BUNDLE, Bundle
from ..commands import report_errors
from ..manifest import Quantization, TensorCheck, Tuning, Verification


@report_errors
def inspect_bundle(
    bundle: Annotated[Path | None, typer.Argument(help="The bundle's folder. [the bundle in the package]")] = None,
) -> None:
    """Show graphs, shapes, precisions, engines, provenance and verification of a bundle; checks every file."""
    opened = Bundle(bundle or DEFAULT_BUNDLE)
    manifest = opened.manifest
    console = Console(markup=False)
    size = " x ".join(map(str, manifest.input_size))
    console.print(f"{manifest.method}: input {size}, made {manifest.created}, every file as its checksum says")
    if manifest.classes:
        console.print(f"{len(manifest.classes)} classes: {' | '.join(manifest.classes[:5])} ...")
    console.print(_graphs(opened))
    if manifest.engines:
        console.print(_engines(opened))
    if manifest.tuning:
        console.print(timings_table(manifest.tuning))
    console.print(_provenance(opened))
    record = opened.verification()
    console.print(_checks(record) if record else "no verification record")
    if record and record.quantization:
        console.print(_kept_layers(record.quantization))


def _graphs(bundle: Bundle) -> Table:
    table = _table("Graphs", "graph", "inputs", "outputs", "files")
    for name, graph in bundle.manifest.graphs.items():
        files = [f"{precision}: {file}, {_size(bundle, file)}" for precision, file in graph.files.items()]
        columns = ["\n".join(f"{spec.name} {spec}" for spec in specs) for specs in (graph.inputs, graph.outputs)]
        table.add_row(name, *columns, "\n".join(files))
    return table


def _engines(bundle: Bundle) -> Table:
    table = _table("Engines", "graph", "precision", "builder", "compute capability", "batch", "size", "built in")
    for engine in bundle.manifest.engines:
        smallest, best, largest = engine.profile
        table.add_row(
            engine.graph,
            engine.precision,
            f"{engine.builder} {engine.builder_version}",
            ", ".join(engine.targets),
            f"{smallest} to {largest}, best {best}",
            _size(bundle, engine.file),
            f"{engine.build_s:.1f} s",
        )
    return table


def timings_table(tuning: Tuning) -> Table:
    """What `load` chooses the engine of the CPU by."""
    title = f"Speed on the CPU, {tuning.cores} cores, median of {tuning.rounds} calls"
    table = _table(title, "precision", "backend", "threads", "a picture", "")
    for precision in dict.fromkeys(timing.precision for timing in tuning.timings):
        rows = [timing for timing in tuning.timings if timing.precision == precision]
        for place, timing in enumerate(sorted(rows, key=lambda timing: timing.milliseconds)):
            chosen = "" if place else "chosen"
            table.add_row(precision, timing.backend, str(timing.threads), f"{timing.milliseconds:.1f} ms", chosen)
    return table


def _kept_layers(record: Quantization) -> Table:
    kept = [layer for layer in record.layers if layer.kept]
    title = (
        f"int8: ranges of {record.calibrated} pictures, {len(kept)} of {len(record.layers)} layers stay fp32 "
        f"({record.kept_share:.1%} of the multiply-adds)"
    )
    table = _table(title, "graph", "layer that stays fp32", "change of the maps by it alone")
    for layer in sorted(kept, key=lambda layer: -(layer.relative or 0)):
        table.add_row(layer.graph, layer.layer, f"{layer.relative:.1e}")
    return table


def _provenance(bundle: Bundle) -> Table:
    table = _table("Provenance", "", "")
    table.show_header = False
    for key, value in bundle.manifest.provenance.items():
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
        table.add_row(key, text)
    return table


def _checks(record: Verification) -> Table:
    verdict = "passed" if record.passed else "FAILED"
    table = _table(f"Verification: {verdict}", "what", "on", "relative error", "largest", "allowed")
    worst: dict[tuple[str, str, str], TensorCheck] = {}
    for check in record.tensors:
        key = (check.graph, check.precision, check.backend)
        worst[key] = max(worst.get(key, check), check, key=lambda c: c.relative)
    for check in worst.values():
        table.add_row(
            f"{check.graph} {check.precision}",
            check.backend,
            f"{check.relative:.1e}",
            f"{check.max_abs:.1e}",
            f"{check.tolerance:.0e}",
        )
    for loss in record.approximations:
        table.add_row(
            f"{loss.option}: {loss.kept}",
            loss.inputs,
            f"map changes by {loss.mean_abs:.1e}",
            f"{loss.max_abs:.1e}",
            "as measured",
        )
    for metric in record.metrics:
        table.add_row(
            f"max F and MAE, {metric.images} images, {metric.precision}",
            metric.backend,
            f"F {metric.f_max_reference:.4f} -> {metric.f_max:.4f}",
            f"MAE {metric.mae_reference:.4f} -> {metric.mae:.4f}",
            f"{metric.tolerance:.0e}",
        )
    return table


def _table(title: str, *headers: str) -> Table:
    """Cells fold where the terminal is narrow: half a checksum or file name is of no use."""
    return Table(*(Column(header, overflow="fold") for header in headers), title=title, title_justify="left")


def _size(bundle: Bundle, file: str) -> str:
    return decimal(bundle.manifest.files[file].bytes)
