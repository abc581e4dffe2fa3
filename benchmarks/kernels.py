"""The fused kernels beside the function bodies that they replace, on the CPU.

    make native
    python -m benchmarks.kernels --kernels build/native/runtime/kernels/libsalience_kernels.so --json FILE

First each operator alone, as a model of one node at a network's sizes: the time of the body over that of the kernel,
and what the kernel must read and write beside what this machine's memory moves, which is measured in the same run by
copying as much. Then whole bundles of random weights, with and without the kernels, and for `cgd` eager autograd. All
forms take turns.
"""

import argparse
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from rich.console import Console
from rich.table import Table

from benchmarks.evidence import Evidence
from benchmarks.forms import Call, Form, Workload, engine_call
from benchmarks.networks import write_bundle, write_checkpoint
from benchmarks.peers import TorchForms
from benchmarks.run_record import Row, Run
from benchmarks.turns import take_turns
from salience.export.operators import model_of_node
from salience.runtime import load
from salience.runtime.backends.engine import available_cores
from salience.runtime.backends.onnxrt import CONFIG

Arrays = dict[str, np.ndarray]


class OperatorRow(Row):
    """One operator at one size: medians in milliseconds; `bytes` are read and written once each.

    `copy_ms` is how long this machine takes to copy half as many, which moves as much.
    """

    operator: str
    sizes: str
    bytes: int
    body_ms: float
    kernel_ms: float
    ratio: float
    copy_ms: float


class EndRow(Row):
    """One whole use, without and with kernels; medians in milliseconds and the median of the rounds' ratios."""

    use: str
    without_ms: float
    with_ms: float
    ratio: float


@dataclass(frozen=True)
class Case:
    """An operator with its inputs (name -> array), attributes and the number of its outputs."""

    operator: str
    sizes: str
    inputs: Arrays
    attributes: Mapping[str, Any]
    outputs: int = 1
    unread: Sequence[str] = ()

    def model(self) -> bytes:
        """A graph of the one node, with its body."""
        model = model_of_node(self.operator, self.inputs, self.attributes, outputs=self.outputs)
        return bytes(model.SerializeToString())


def cases() -> list[Case]:
    """Every operator at the sizes of a network that has it: VGG16 at 224 x 224, and the first networks of `lps`."""
    rng = np.random.default_rng(0)

    def noise(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

    def shares(*shape: int) -> np.ndarray:
        return rng.random(shape, dtype=np.float32)

    side, strides, width = 224, (2, 4, 8, 16, 32), 64
    pixels, rank = side * side, 320
    maps = {f"map{k}": noise(1, width * s * s, side // s, side // s) for k, s in enumerate(strides, start=1)}
    active = np.maximum(noise(1, 64, side, side), 0)
    pooled = active.reshape(1, 64, side // 2, 2, side // 2, 2).max(axis=(3, 5))
    rows = {"embedding": noise(1, rank, pixels), "norm": shares(1, 1, pixels) + rank}
    priors = {"salient": shares(1, 1, pixels), "prior": shares(1, 1, pixels), "iteration": np.ones(1, np.float32)}
    return [
        Case(
            "MaxoutFusion",
            f"3 maps of 8 x {side} x {side}",
            {f"map{k}": noise(8, 1, side, side) for k in (2, 3, 4)} | {"weights": shares(8, 3)},
            {},
        ),
        Case(
            "SubpixelConcat",
            f"5 levels of {width} x {side} x {side}, strides 2 to 32",
            maps,
            {f"stride{k}": stride for k, stride in enumerate(strides, start=1)},
        ),
        Case("CentredNorm", f"{rank} x {pixels}", {"rows": noise(1, rank, pixels)}, {}, outputs=2),
        Case("AnchorDistance", f"{rank} x {pixels}", rows | priors, {"sharpness": 1.0}),
        Case("ReluBackward", f"64 x {side} x {side}", {"grad": noise(*active.shape), "activation": active}, {}),
        Case(
            "ClipBackward",
            f"96 x {side // 2} x {side // 2}",
            {"grad": noise(1, 96, side // 2, side // 2), "activation": 3 * noise(1, 96, side // 2, side // 2)},
            {"low": 0.0, "high": 6.0},
        ),
        Case(
            "PoolReluBackward",
            f"64 x {side} x {side}",
            {"grad": noise(*pooled.shape), "activation": active, "largest": pooled},
            {},
            unread=("largest",),
        ),
    ]


def session(model: bytes | str, kernels: Path | None) -> onnxruntime.InferenceSession:
    """As `runtime.backends.onnxrt` opens one."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    for name, value in CONFIG.items():
        options.add_session_config_entry(name, value)
    if kernels is not None:
        options.register_custom_ops_library(str(kernels))
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def bound(opened: onnxruntime.InferenceSession, inputs: Arrays) -> tuple[Call, list[Any]]:
    """A call on buffers that are there already, and its outputs."""
    binding = opened.io_binding()
    kept = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in inputs.items()}
    for name, value in kept.items():
        binding.bind_ortvalue_input(name, value)
    found = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in opened.run(None, inputs)]
    for output, value in zip(opened.get_outputs(), found, strict=True):
        binding.bind_ortvalue_output(output.name, value)

    def call(held: Any = (binding, kept, found)) -> None:
        opened.run_with_iobinding(held[0])

    return call, found


def copy_call(bytes_moved: int) -> Call:
    """Copies half as many bytes on all cores: as many are read and written together."""
    cores = available_cores()
    part = bytes_moved // 2 // cores
    pairs = [(np.ones(part, np.uint8), np.zeros(part, np.uint8)) for _ in range(cores)]
    pool = ThreadPoolExecutor(cores)

    def call() -> None:
        list(pool.map(lambda pair: np.copyto(pair[1], pair[0]), pairs))

    return call


def measure_operator(case: Case, kernels: Path, rounds: int) -> OperatorRow:
    """Body, kernel and copy in turns; raises where the two results differ."""
    (body, wanted), (kernel, found) = (bound(session(case.model(), lib), case.inputs) for lib in (None, kernels))
    for one, other in zip(wanted, found, strict=True):
        np.testing.assert_allclose(other.numpy(), one.numpy(), rtol=1e-4, atol=1e-4)
    read = sum(array.nbytes for name, array in case.inputs.items() if name not in case.unread)
    moved = read + sum(value.numpy().nbytes for value in found)
    # AnchorDistance needs the embedding for the anchors and again for the distances, CentredNorm the rows likewise.
    moved += sum(case.inputs[name].nbytes for name in ("embedding", "rows") if name in case.inputs)
    times = take_turns({"body": body, "kernel": kernel, "copy": copy_call(moved)}, rounds=rounds, seed=0, rest_s=0.01)
    middle = {name: 1e3 * statistics.median(seconds) for name, seconds in times.items()}
    ratio = statistics.median(a / b for a, b in zip(times["body"], times["kernel"], strict=True))
    return OperatorRow(
        operator=case.operator, sizes=case.sizes, bytes=moved, body_ms=middle["body"], kernel_ms=middle["kernel"],
        ratio=ratio, copy_ms=middle["copy"],
    )  # fmt: skip


def measure_uses(kernels: Path, folder: Path, rounds: int) -> list[EndRow]:
    """The engine part of whole uses, one picture each."""
    loads = [
        Workload("multis", "vgg16", (224, 224), folder / "multis"),
        Workload("lps", "mobilenet_v2", (224, 224), folder / "lps-mobilenet", iterations=3),
        Workload("lps", "vgg16", (224, 224), folder / "lps-vgg16", iterations=3),
        Workload("cgd", "mobilenet_v2", (224, 224), folder / "cgd-mobilenet", iterations=1),
        Workload("cgd", "vgg16", (224, 224), folder / "cgd-vgg16", iterations=1),
    ]
    return [row for workload in loads for row in measure_use(workload, kernels, rounds)]


def measure_use(workload: Workload, kernels: Path, rounds: int) -> list[EndRow]:
    """Bodies against kernels; for `cgd` eager autograd against kernels too."""
    workload.folder.mkdir()
    write_checkpoint(workload)
    write_bundle(workload, "fp32", workload.folder)
    calls = {
        name: engine_call(load(workload.bundle("fp32"), backend="onnxruntime", kernels=choice), workload, 1)
        for name, choice in (("bodies", "none"), ("kernels", str(kernels)))
    }
    if workload.method == "cgd":
        calls["eager autograd"] = TorchForms(workload).open(Form("eager", 1, available_cores()))
    times = take_turns(calls, rounds=rounds, seed=0)
    steps = f", {workload.iterations} iterations" if workload.iterations > 1 and workload.method != "multis" else ""
    use = f"{workload.method} on {workload.backbone}{steps}"
    return [
        EndRow(
            use=f"{use}: {name}",
            without_ms=1e3 * statistics.median(seconds),
            with_ms=1e3 * statistics.median(times["kernels"]),
            ratio=statistics.median(a / b for a, b in zip(seconds, times["kernels"], strict=True)),
        )
        for name, seconds in times.items()
        if name != "kernels"
    ]


class KernelRun(Run[OperatorRow]):
    """The rows of operators, and of whole uses."""

    uses: tuple[EndRow, ...]


def report(run: KernelRun) -> None:
    """Both tables."""
    table = Table("operator", "sizes", "MB", "body ms", "kernel ms", "body / kernel", "copy ms", "of the copy's speed")
    for row in run.rows:
        table.add_row(
            row.operator, row.sizes, f"{row.bytes / 1e6:.0f}", f"{row.body_ms:.2f}", f"{row.kernel_ms:.2f}",
            f"{row.ratio:.2f}", f"{row.copy_ms:.2f}", f"{row.copy_ms / row.kernel_ms:.0%}",
        )  # fmt: skip
    uses = Table("use, beside kernels", "ms", "with kernels ms", "ratio")
    for end in run.uses:
        uses.add_row(end.use, f"{end.without_ms:.1f}", f"{end.with_ms:.1f}", f"{end.ratio:.2f}")
    console = Console(width=150)
    console.print(table)
    console.print(uses)


def main() -> None:
    """Measure and print; `--json FILE` keeps the figures."""
    parser = argparse.ArgumentParser(description="Fused kernels against function bodies.")
    parser.add_argument("--kernels", type=Path, required=True, help="the library that `make native` built")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--operators-only", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = tuple(measure_operator(case, options.kernels, options.rounds) for case in cases())
    uses: tuple[EndRow, ...] = ()
    if not options.operators_only:
        with tempfile.TemporaryDirectory() as folder:
            uses = tuple(measure_uses(options.kernels, Path(folder), options.rounds))
    run = KernelRun(rounds=options.rounds, evidence=Evidence.gather(), rows=rows, uses=uses)
    report(run)
    if options.json:
        run.write(options.json)


if __name__ == "__main__":
    main()
