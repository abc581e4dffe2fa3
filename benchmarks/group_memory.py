"""Peak memory and time of `gicd` on a group, by what may be kept between its two passes.

    python -m benchmarks.group_memory --backbone vgg16 --pictures 100 --memory 0 512MB 4GB --json group_memory.json

Pictures are noise and weights random. Memory is above the loaded model and the pictures' own, each in its own process.
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.memory import peak_bytes
from salience.export.graphs.gicd import GradientInducedExport
from salience.export.pipeline import BuildSettings, build_network_bundle
from salience.runtime import GroupDetector, load
from salience.runtime.detector import Prepared
from salience.runtime.groups import parse_bytes
from salience.runtime.methods.gicd import GroupPass
from salience.training.checkpoint import CheckpointHeader
from salience.training.networks.gicd import GradientInduced, GradientInducedSettings
from salience.training.preprocessing import Preprocessing


def main() -> None:
    """Measure and print; `--json FILE` keeps the figures."""
    parser = argparse.ArgumentParser(description="Peak memory of gicd.")
    parser.add_argument("--backbone", default="vgg16", choices=["vgg16", "mobilenet_v2"])
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--memory", nargs="+", default=["0", "512MB", "4GB"])
    parser.add_argument("--backend", default="onnxruntime", choices=["onnxruntime", "openvino"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        bundle = make_bundle(options.backbone, Path(folder) / "gicd")
        for memory in options.memory:
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                rows.append(pool.submit(run, bundle, options.backend, options.pictures, memory).result())
    table = Table("--memory", "peak MB", "seconds", title=f"{options.backbone}, {options.pictures} pictures")
    for row in rows:
        table.add_row(row["memory"], f"{row['peak_bytes'] / 1e6:.0f}", f"{row['seconds']:.1f}")
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


def make_bundle(backbone: Any, output: Path) -> Path:
    """Of random weights."""
    torch.manual_seed(0)
    network = GradientInduced(GradientInducedSettings(backbone=backbone)).eval()
    header = CheckpointHeader(method="gicd", network=network.settings.model_dump(), preprocessing=Preprocessing())
    settings = BuildSettings(output=output)
    build_network_bundle(header, network, GradientInducedExport(), settings, step=lambda name: nullcontext(), source={})
    return output


def run(bundle: Path, backend: Any, pictures: int, memory: str) -> dict[str, Any]:
    """One group in this process."""
    detector = load(bundle, backend=backend)
    if not isinstance(detector, GroupDetector):
        raise SystemExit(f"{bundle}: expected a bundle of gicd.")
    size = detector.bundle.manifest.input_size

    def prepare(index: int) -> Prepared:
        noise = np.random.default_rng(index).integers(0, 256, (*size, 3), dtype=np.uint8)
        return detector.prepare(noise)

    def group(count: int) -> None:
        for _ in GroupPass(detector, prepare, count, memory_bytes=parse_bytes(memory)).maps():
            pass

    group(2)  # what the runtime sets aside for good
    start = time.monotonic()
    peak = peak_bytes(lambda: group(pictures))
    return {"memory": memory, "peak_bytes": peak, "seconds": time.monotonic() - start}


if __name__ == "__main__":
    main()
