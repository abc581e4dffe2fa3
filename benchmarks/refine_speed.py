"""Time and peak memory of `lps`: the exported graphs against the released form, in eager PyTorch and exported.

    python -m benchmarks.refine_speed --backbone vgg16 --size 256 256 --rank 128

All forms compute the same maps from the same random weights, on which speed does not depend. Times are medians of
alternating rounds in one process; peak memory is of one picture, above the loaded model, each in its own process.
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.memory import peak_bytes
from salience.export.graphs.lps import Embed, PromoterExport, Refine
from salience.export.tracing import trace
from salience.runtime.backends import BACKENDS
from salience.runtime.backends.engine import Engine, EngineOptions
from salience.runtime.driver import iterate
from salience.runtime.methods.lps import Problem, RefineLoop
from salience.runtime.tables import entry
from salience.training.networks.lps import Promoter, PromoterSettings
from tests.released_lps import ReleasedForm

Arrays = tuple[np.ndarray, np.ndarray]
Form = Callable[[Arrays, int], np.ndarray]


def main() -> None:
    """Measure and print; `--json FILE` keeps the figures."""
    parser = argparse.ArgumentParser(description="Speed and memory of lps against its released form.")
    parser.add_argument("--backbone", default="vgg16", choices=["vgg16", "mobilenet_v2"])
    parser.add_argument("--size", type=int, nargs=2, default=(256, 256))
    parser.add_argument("--iterations", type=int, nargs="+", default=(1, 10))
    parser.add_argument("--rank", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--backend", default="onnxruntime", choices=["onnxruntime", "openvino"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        export_all(Path(folder), options)
        memory = {
            (name, t): in_new_process(name, t, Path(folder), options) for name in FORMS for t in options.iterations
        }
        forms = {name: make(Path(folder), options) for name, make in FORMS.items()}
        inputs = picture(options.size)
        errors = {name: largest_change(forms, name, inputs, max(options.iterations)) for name in forms}
        times = measure(forms, inputs, options.iterations, options.rounds)
    report(times, memory, errors, options)
    change = algebra_alone(options)
    Console(width=110).print(
        f"the rewritten iterations in PyTorch change the released form's map by {change:.1e} at most"
    )


def picture(size: tuple[int, int]) -> Arrays:
    """Network input of noise with a brighter box, and a prior that has the box at another place."""
    image = np.random.default_rng(0).standard_normal((1, 3, *size), dtype=np.float32)
    image[:, :, size[0] // 3 : size[0] * 2 // 3, size[1] // 3 : size[1] * 2 // 3] += 2
    prior = np.full((1, 1, *size), 0.1, dtype=np.float32)
    prior[:, :, size[0] // 4 : size[0] // 2, size[1] // 4 : size[1] // 2] = 0.9
    return image, prior


def random_network(options: Any) -> Promoter:
    """The same weights in every process, scaled so that the maps are neither flat nor of two values."""
    torch.manual_seed(0)
    network = Promoter(PromoterSettings(backbone=options.backbone)).eval()
    with torch.no_grad():
        logits = network(*map(torch.from_numpy, picture(options.size))).logits
        cast("torch.nn.Conv2d", network.project).weight *= 2 / logits.std()
    return network


def export_all(folder: Path, options: Any) -> None:
    """Ours in full and at `rank`, and the released form with its loop unrolled."""
    network = random_network(options)
    for name, rank in (("ours", None), ("ranked", options.rank)):
        for graph in PromoterExport(rank=rank).graphs(network, tuple(options.size)):
            onnx.save(trace(graph, "fp32"), folder / f"{name}-{graph.name}.onnx")
    image, prior = map(torch.from_numpy, picture(options.size))
    for t in options.iterations:
        program = torch.onnx.export(
            ReleasedForm(network, iterations=t), (image, prior), dynamo=True, opset_version=20,
            input_names=["image", "prior"], output_names=["map"], verbose=False,
        )  # fmt: skip
        cast("torch.onnx.ONNXProgram", program).save(folder / f"released-{t}.onnx")


def ours(folder: Path, options: Any, *, name: str = "ours") -> Form:
    """The two graphs in the loop that serves them."""
    network = random_network(options)
    engine_type = entry(BACKENDS, options.backend, what="backend")
    rank = options.rank if name == "ranked" else None
    engines: dict[str, Engine] = {
        graph.name: engine_type.open_graph(folder / f"{name}-{graph.name}.onnx", graph.entry({"fp32": "x"}),
                                           EngineOptions())
        for graph in PromoterExport(rank=rank).graphs(network, tuple(options.size))
    }  # fmt: skip
    loop = RefineLoop(engines, batch=1)
    return lambda inputs, t: iterate(loop, Problem(*inputs, t))


def ranked(folder: Path, options: Any) -> Form:
    """Ours, with the leading directions alone."""
    return ours(folder, options, name="ranked")


def released_eager(folder: Path, options: Any) -> Form:
    """The released form in PyTorch."""
    form = ReleasedForm(random_network(options))

    def run(inputs: Arrays, t: int) -> np.ndarray:
        with torch.inference_mode():
            found: np.ndarray = form(*map(torch.from_numpy, inputs), t).numpy()
        return found

    return run


def released_exported(folder: Path, options: Any) -> Form:
    """The released form, exported with its loop unrolled, in ONNX Runtime."""
    import onnxruntime

    sessions = {
        t: onnxruntime.InferenceSession(str(folder / f"released-{t}.onnx"), providers=["CPUExecutionProvider"])
        for t in options.iterations
    }

    def run(inputs: Arrays, t: int) -> np.ndarray:
        found: np.ndarray = sessions[t].run(None, dict(zip(("image", "prior"), inputs, strict=True)))[0]
        return found

    return run


FORMS: dict[str, Callable[[Path, Any], Form]] = {
    "ours": ours, "ranked": ranked, "released_eager": released_eager, "released_exported": released_exported,
}  # fmt: skip


def in_new_process(name: str, iterations: int, folder: Path, options: Any) -> int:
    """Peak bytes of one picture above the loaded model."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak, name, iterations, folder, options).result()


def _peak(name: str, iterations: int, folder: Path, options: Any) -> int:
    only = argparse.Namespace(**{**vars(options), "iterations": [iterations]})
    form = FORMS[name](folder, only)
    inputs = picture(options.size)
    return peak_bytes(lambda: form(inputs, iterations))


def largest_change(forms: dict[str, Form], name: str, inputs: Arrays, iterations: int) -> float:
    """Of a pixel, from the released form in PyTorch."""
    expected = forms["released_eager"](inputs, iterations)
    return float(np.abs(forms[name](inputs, iterations) - expected).max())


def algebra_alone(options: Any) -> float:
    """The largest change of a pixel by the rewriting itself, both sides in PyTorch: no other convolutions between."""
    network = random_network(options)
    image, prior = map(torch.from_numpy, picture(options.size))
    refine, iteration, found = Refine(network), torch.zeros(1, dtype=torch.int64), prior
    with torch.inference_mode():
        state = Embed(network, None)(image)
        for _ in range(max(options.iterations)):
            found, iteration = refine(*state, found, iteration)
        expected = ReleasedForm(network)(image, prior, max(options.iterations))
    return float((found - expected).abs().max())


def measure(
    forms: dict[str, Form], inputs: Arrays, iterations: list[int], rounds: int
) -> dict[tuple[str, int], list[float]]:
    """Seconds of each form and T, the forms taking turns."""
    times: dict[tuple[str, int], list[float]] = {(name, t): [] for name in forms for t in iterations}
    for _ in range(rounds):
        for (name, t), found in times.items():
            start = time.perf_counter()
            forms[name](inputs, t)
            found.append(time.perf_counter() - start)
    return times


def report(times: Any, memory: Any, errors: dict[str, float], options: Any) -> None:
    """A table on standard output, and the same figures as JSON."""
    medians = {key: statistics.median(found) for key, found in times.items()}
    first, last = min(options.iterations), max(options.iterations)
    table = Table(title=f"lps {options.backbone}, {options.size[0]} x {options.size[1]}, {options.backend}")
    for column in ("form", "T", "median s", "to ours", f"to its T = {first}", "peak MB", f"change at T = {last}"):
        table.add_column(column, justify="right")
    rows = []
    for (name, t), seconds in medians.items():
        row = {
            "form": name, "iterations": t, "median_s": seconds, "to_ours": seconds / medians["ours", t],
            "to_first": seconds / medians[name, first], "peak_bytes": memory[name, t], "change": errors[name],
        }  # fmt: skip
        rows.append(row)
        table.add_row(
            name, str(t), f"{seconds:.3f}", f"{row['to_ours']:.2f}", f"{row['to_first']:.2f}",
            f"{memory[name, t] / 1e6:.0f}", f"{errors[name]:.1e}",
        )  # fmt: skip
    Console(width=110).print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
