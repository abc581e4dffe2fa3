"""From nothing to the first map, in C++ and in Python: wall-clock time and peak memory of whole processes.

    python -m benchmarks.native_start --tool build/tool/salience-map --kernels LIBRARY --json FILE

The tool is `runtime/cpp/examples/tool`, built against an installed package where `stb_image.h` is (libstb-dev). Both
sides open the same bundle of random weights, check its files, read the same PNG picture and write its map; `lps` also
reads a prior, `gicd` gets a group of three. The processes take turns.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.table import Table
from skimage import data

from benchmarks.evidence import Evidence
from benchmarks.forms import Workload
from benchmarks.networks import write_bundle, write_checkpoint
from benchmarks.run_record import Row, Run

_PYTHON = """
import sys
from salience.runtime import load
bundle, kernels, output, prior, *pictures = sys.argv[1:]
detector = load(bundle, backend="onnxruntime", kernels=kernels)
if prior:
    found = detector.promote(pictures[0], prior)
elif len(pictures) > 1:
    found = detector.predict_group(pictures)[0]
else:
    found = detector.predict(pictures[0])
found.save(output)
"""
# A small process between: the peak memory of a child counts that of its parent at the time it was made.
_WATCH = """
import os, sys, time
start = time.perf_counter()
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(child, 0)
print(time.perf_counter() - start, usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


class StartRow(Row):
    """One method: medians of the processes' seconds, and their peak resident bytes."""

    method: str
    bundle_bytes: int
    cpp_s: float
    python_s: float
    cpp_bytes: int
    python_bytes: int


def run_process(command: list[str]) -> tuple[float, int]:
    """Seconds and peak resident bytes of a process; raises where it fails."""
    done = subprocess.run([sys.executable, "-S", "-c", _WATCH, *command], capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr.strip()}")
    seconds, kilobytes = done.stdout.split()[-2:]
    return float(seconds), int(kilobytes) * 1024


def commands(bundle: Path, method: str, tool: Path, kernels: Path, folder: Path) -> dict[str, list[str]]:
    """The same work on both sides."""
    pictures = [str(folder / f"{name}.png") for name in ("astronaut", "chelsea", "coffee")]
    pictures = pictures if method == "gicd" else pictures[:1]
    prior = str(folder / "prior.png") if method == "lps" else ""
    extra = (["--prior", prior] if prior else []) + (["--group", *pictures[1:]] if len(pictures) > 1 else [])
    return {
        "cpp": [str(tool), str(bundle), pictures[0], *extra, str(folder / "cpp.png")],
        "python": [
            sys.executable,
            "-c",
            _PYTHON,
            str(bundle),
            str(kernels),
            str(folder / "python.png"),
            prior,
            *pictures,
        ],
    }


def measure(method: str, tool: Path, kernels: Path, folder: Path, rounds: int) -> StartRow:
    """Processes of both sides in turns; the first of each, which fills the file cache, does not count."""
    workload = Workload(method, "mobilenet_v2", (224, 224), folder / method)
    workload.folder.mkdir()
    write_checkpoint(workload)
    write_bundle(workload, "fp32", workload.folder)
    bundle = workload.bundle("fp32")
    sides = commands(bundle, method, tool, kernels, folder)
    found: dict[str, list[tuple[float, int]]] = {side: [] for side in sides}
    for command in sides.values():
        run_process(command)
    for _ in range(rounds):
        for side, command in sides.items():
            found[side].append(run_process(command))
    (cpp_s, cpp_bytes), (python_s, python_bytes) = (
        [statistics.median(column) for column in zip(*found[side], strict=True)] for side in ("cpp", "python")
    )
    return StartRow(
        method=method, bundle_bytes=sum(file.stat().st_size for file in bundle.iterdir()), cpp_s=cpp_s,
        python_s=python_s, cpp_bytes=int(cpp_bytes), python_bytes=int(python_bytes),
    )  # fmt: skip


def write_pictures(folder: Path) -> None:
    """Three photographs, and a prior for the first."""
    for name in ("astronaut", "chelsea", "coffee"):
        Image.fromarray(getattr(data, name)()).save(folder / f"{name}.png")
    Image.fromarray(data.astronaut()).convert("L").save(folder / "prior.png")


def main() -> None:
    """Measure and print; `--json FILE` keeps the figures."""
    parser = argparse.ArgumentParser(description="Cold start and memory of C++ and Python.")
    parser.add_argument("--tool", type=Path, required=True)
    parser.add_argument("--kernels", type=Path, required=True, help="what the tool's library has linked")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pictures(folder)
        methods = ("multis", "arn", "lps", "gicd", "cgd")
        rows = tuple(measure(m, options.tool, options.kernels, folder, options.rounds) for m in methods)
    run = Run[StartRow](rounds=options.rounds, evidence=Evidence.gather(), rows=rows)
    table = Table("method", "bundle MB", "C++ s", "Python s", "C++ MB", "Python MB")
    for row in run.rows:
        sizes = (row.bundle_bytes, row.cpp_bytes, row.python_bytes)
        bundle_mb, cpp_mb, python_mb = (f"{size / 1e6:.0f}" for size in sizes)
        table.add_row(row.method, bundle_mb, f"{row.cpp_s:.2f}", f"{row.python_s:.2f}", cpp_mb, python_mb)
    Console(width=100).print(table)
    if options.json:
        run.write(options.json)


if __name__ == "__main__":
    main()
