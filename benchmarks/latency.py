"""Latency of every method: our runtime on every backend and precision beside PyTorch and what it exports, in one run.

    python -m benchmarks.latency --methods multis lps --batches 1 8 --threads 2 --json latency.json --plot latency.png
    python -m benchmarks.latency --check latency.json --allow 0.15

Networks have the papers' sizes and random weights, on which speed does not depend. The engine part is timed, on
prepared network inputs: `lps` and `cgd` with T = 10, `gicd` both passes over a group. The forms of a method take turns
in another order every round, each after a pause and an untimed call. `--check` compares ratios to eager PyTorch, never
times.
"""

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from benchmarks.arithmetic import measure_peak, operations
from benchmarks.evidence import Evidence
from benchmarks.exported import ExportedForms
from benchmarks.forms import Call, Form, OurForms, Workload
from benchmarks.fresh import Measure, in_new_process
from benchmarks.latency_check import compare, lines
from benchmarks.latency_record import Peak, Record, Row, Settings, with_ratios
from benchmarks.latency_table import markdown, plot, tables
from benchmarks.networks import write_bundle, write_calibration, write_checkpoint
from benchmarks.peers import TorchForms, reason
from benchmarks.photo_steps import measure_photo_steps
from benchmarks.turns import take_turns
from salience.runtime.errors import SalienceError
from salience.runtime.files import write_atomic
from salience.runtime.methods import METHODS

SIZE, SIZE_OF = (224, 224), {"lps": (256, 256)}
_COLD_STARTS = 3
_SEED = 0


def main() -> None:
    """Measure, print, write, check."""
    options = parse()
    baseline = Record.read(options.check) if options.check else None
    record = measure(options)
    for table in tables(record):
        Console(width=170).print(table)
    if options.json:
        if options.add and options.json.exists():
            record = Record.read(options.json).joined(record)
        record.write(options.json)
    if options.markdown:
        write_atomic(options.markdown, markdown(record).encode())
    if options.plot:
        plot(record, options.plot)
    if baseline:
        found = compare(baseline, record, allow=options.allow)
        print(*lines(found, allow=options.allow), sep="\n")
        raise SystemExit(1 if found.worse else 0)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description="Latency of every method beside PyTorch and what it exports.")
    switch = argparse.BooleanOptionalAction
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--backbone", default="vgg16", choices=["vgg16", "mobilenet_v2"])
    parser.add_argument("--backends", nargs="+", default=["onnxruntime", "openvino"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "int8"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8], help="pictures in a call of the engine")
    parser.add_argument("--threads", nargs="+", type=int, default=[2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=10, help="T of lps and cgd")
    parser.add_argument(
        "--group", type=int, default=4, help="pictures in a group of gicd, more where a batch is larger"
    )
    parser.add_argument(
        "--peers", action=switch, default=True, help="without them, eager PyTorch alone stands beside ours"
    )
    parser.add_argument("--memory", action=switch, default=True, help="peak memory and cold start, in new processes")
    parser.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="of all network inputs")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--add", action="store_true", help="keep the methods that the JSON file holds already")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--check", type=Path, metavar="BASELINE.json", help="exit with 1 where a ratio became worse")
    parser.add_argument("--allow", type=float, default=0.15, help="the share by which a ratio may become larger")
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace) -> Record:
    """The whole run, one method at a time in memory."""
    evidence = Evidence.gather()
    peaks = tuple(measure_peak(threads) for threads in options.threads)
    sizes = {method: input_size(method, options) for method in options.methods}
    rows: list[Row] = []
    for method, size in sizes.items():
        with tempfile.TemporaryDirectory() as folder:
            workload = Workload(
                method, options.backbone, size, Path(folder), iterations=options.iterations, group=options.group
            )
            rows += MethodRun(workload, all_forms(options)).measure(options, peaks)
    steps = measure_photo_steps(rounds=options.rounds, seed=_SEED, threads=options.threads[0])
    return Record(
        settings=Settings(
            backbone=options.backbone, sizes=sizes, iterations=options.iterations, group=options.group
        ),
        rounds=options.rounds, seed=_SEED, evidence=evidence, peaks=peaks, rows=tuple(rows), photo_steps=steps,
    )  # fmt: skip


def input_size(method: str, options: argparse.Namespace) -> tuple[int, int]:
    """Height and width of the network's input."""
    return tuple(options.size) if options.size else SIZE_OF.get(method, SIZE)


def all_forms(options: argparse.Namespace) -> list[Form]:
    """What is compared, in the order of the tables."""
    found = []
    for batch in options.batches:
        for threads in options.threads:
            found += [
                Form("salience", batch, threads, backend, precision)
                for backend in options.backends
                for precision in options.precisions
            ]
            found.append(Form("eager", batch, threads))
            if options.peers:
                found += [
                    Form("compile", batch, threads),
                    Form("export", batch, threads, "onnxruntime"),
                    Form("export", batch, threads, "openvino"),
                    Form("export", batch, threads, "openvino", "default"),
                ]
    return found


@dataclass
class MethodRun:
    """The forms of one method on their way to rows.

    Attributes:
        workload: what they compute.
        forms: all of them.
        failures: why a form cannot be measured.
        notes: what is to be said of a form.
        first: seconds of the first call of each form.
    """

    workload: Workload
    forms: list[Form]
    failures: dict[Form, str] = field(default_factory=dict)
    notes: dict[Form, list[str]] = field(default_factory=dict)
    first: dict[Form, float] = field(default_factory=dict)

    def measure(self, options: argparse.Namespace, peaks: Iterable[Peak]) -> list[Row]:
        """A row for every form."""
        self.prepare()
        rows = {form: Row.of(self.workload, form) for form in self.forms}
        if options.memory:
            for form in self.working():
                rows[form] = self.with_new_processes(form, rows[form])
        calls = self.open()
        for form, seconds in self.time(calls, options.rounds).items():
            rows[form] = rows[form].timed(seconds)
        calls.clear()
        gc.collect()
        peak = {found.threads: found for found in peaks}
        for form in self.working():
            if form.kind == "salience":
                count = operations(self.workload, form.precision, form.batch)
                rows[form] = rows[form].counted(count, peak[form.threads].of(form.precision))
        return with_ratios([self.explained(form, row) for form, row in rows.items()])

    def prepare(self) -> None:
        """Write the network, its bundles, and what PyTorch exports."""
        write_checkpoint(self.workload)
        calibration = write_calibration(self.workload.folder / "calibration")
        for precision in dict.fromkeys(form.precision for form in self.forms if form.kind == "salience"):
            try:
                write_bundle(self.workload, precision, calibration)
            except SalienceError as error:
                self.fail(str(error), kind="salience", precision=precision)
        plain = TorchForms(self.workload)
        for batch in dict.fromkeys(form.batch for form in self.forms if form.kind == "export"):
            try:
                plain.export(batch)
            except Exception as error:  # of PyTorch's exporter, of any kind
                self.fail(reason(error), kind="export", batch=batch)

    def open(self) -> dict[Form, Call]:
        """The forms that can be opened and run once."""
        plain, exported = TorchForms(self.workload), ExportedForms(self.workload)
        openers: dict[str, OurForms | TorchForms | ExportedForms] = {
            "salience": OurForms(self.workload), "eager": plain, "compile": plain, "export": exported,
        }  # fmt: skip
        calls: dict[Form, Call] = {}
        for form in self.working():
            try:
                calls[form] = openers[form.kind].open(form)
                start = time.perf_counter()
                calls[form]()
                self.first[form] = time.perf_counter() - start
            except SalienceError as error:
                self.failures[form] = str(error)
            except Exception as error:  # of other libraries, of any kind
                if form.kind in ("salience", "eager"):
                    raise
                self.failures[form] = reason(error)
        for form, note in exported.notes.items():
            self.note(form, note)
        return {form: call for form, call in calls.items() if form not in self.failures}

    def time(self, calls: dict[Form, Call], rounds: int) -> dict[Form, list[float]]:
        """Seconds of every round, with a bar on standard error."""
        with Progress(console=Console(stderr=True), transient=True) as progress:
            bar = progress.add_task(self.workload.method, total=rounds * len(calls))
            return take_turns(
                calls, rounds=rounds, seed=_SEED, known=self.first, done=lambda form: progress.advance(bar)
            )

    def with_new_processes(self, form: Form, row: Row) -> Row:
        """At the least batch with peak memory, and with the cold start of ours and of eager PyTorch."""
        # The first call of what compiles then is no part of a call.
        if form.kind == "compile" or form.batch > min(other.batch for other in self.forms):
            return row
        size = self.in_new_processes("memory", form, 1)
        found: dict[str, float | None] = {"peak_bytes": None if size is None else int(size)}
        if form.kind != "export":
            found["cold_start_s"] = self.in_new_processes("cold start", form, _COLD_STARTS)
        return row.model_copy(update=found)

    def in_new_processes(self, what: Measure, form: Form, count: int) -> float | None:
        """The median of `count` processes, None where one fails."""
        try:
            return statistics.median(in_new_process(what, self.workload, form) for _ in range(count))
        except RuntimeError as error:
            self.note(form, f"{what}: {error}")
            return None

    def working(self) -> list[Form]:
        """The forms that have not failed."""
        return [form for form in self.forms if form not in self.failures]

    def fail(self, why: str, **fields: object) -> None:
        """Note the failure of all forms with these fields."""
        fitting = [form for form in self.forms if all(getattr(form, name) == fields[name] for name in fields)]
        self.failures |= dict.fromkeys(fitting, why)

    def note(self, form: Form, text: str) -> None:
        """Say something of a form."""
        self.notes.setdefault(form, []).append(text)

    def explained(self, form: Form, row: Row) -> Row:
        """With the reason of its failure and its notes."""
        update = {"reason": self.failures.get(form, ""), "note": "; ".join(self.notes.get(form, []))}
        return row.model_copy(update=update)


if __name__ == "__main__":
    main()
