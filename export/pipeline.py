"""From a checkpoint to a bundle: trace, verify, compile, write."""

import datetime
import platform
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import onnx
from torch import nn

import salience
from salience.runtime.backends import BACKENDS
from salience.runtime.backends.engine import Engine, EngineOptions
from salience.runtime.errors import CheckpointError, VerificationError
from salience.runtime.manifest import (
    VERIFICATION_FILE,
    EngineEntry,
    GraphEntry,
    Manifest,
    MetricCheck,
    Precision,
    TensorCheck,
    TensorSpec,
    Verification,
)
from salience.runtime.tables import entry
from salience.training.checkpoint import CheckpointHeader, load_checkpoint
from salience.training.preprocessing import Preprocessing

from .bundle import check_target, file_entries, file_sha256, new_folder, write_manifest
from .compilers import COMPILERS
from .graph import Graph
from .graphs import GRAPHS
from .processing import postprocess_graph, preprocess_graph
from .tracing import trace
from .verify import Reference, check_graph, check_metric, check_processing

EngineName = Literal["onnxruntime", "openvino", "tensorrt-rtx", "tensorrt"]
Step = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class BuildSettings:
    """What to build.

    Attributes:
        output: the bundle's folder.
        precisions: the first is the default of the bundle.
        engines: `onnxruntime` and `openvino` are verified on, the others compiled for.
        size: network input (height, width); None keeps the checkpoint's.
        images: folder with images/ and masks/ for the check by metric.
        profile: smallest, best and largest batch of compiled engines.
        targets: CUDA compute capabilities of compiled engines; empty for the builder's usual ones.
    """

    output: Path
    precisions: tuple[Precision, ...] = ("fp32",)
    engines: tuple[EngineName, ...] = ("onnxruntime",)
    size: tuple[int, int] | None = None
    images: Path | None = None
    profile: tuple[int, int, int] = (1, 1, 16)
    targets: tuple[str, ...] = ()


@dataclass
class Build:
    """A bundle in the making."""

    header: CheckpointHeader
    preprocessing: Preprocessing
    folder: Path
    settings: BuildSettings
    step: Step
    entries: dict[str, GraphEntry] = field(default_factory=dict)
    engines: list[EngineEntry] = field(default_factory=list)
    tensors: list[TensorCheck] = field(default_factory=list)
    metrics: list[MetricCheck] = field(default_factory=list)

    def add_processing(self) -> None:
        """Write and check the graphs before and after the network."""
        models = {
            "preprocess": preprocess_graph(self.preprocessing),
            "postprocess": postprocess_graph(self.preprocessing.size),
        }
        with self.step("preprocess and postprocess"):
            for name, model in models.items():
                onnx.save(model, self.folder / f"{name}.onnx")
                self.entries[name] = GraphEntry(
                    inputs=_specs(model.graph.input),
                    outputs=_specs(model.graph.output),
                    files={"fp32": f"{name}.onnx"},
                )
            self.tensors += check_processing(*self._processing(), self.preprocessing)

    def add_graph(self, graph: Graph) -> None:
        """Trace, verify and compile one graph in every precision."""
        files: dict[Precision, str] = {}
        for precision in self.settings.precisions:
            files[precision] = f"{graph.name}.onnx" if precision == "fp32" else f"{graph.name}.{precision}.onnx"
            with self.step(f"trace {graph.name} {precision}"):
                onnx.save(trace(graph, precision), self.folder / files[precision])
        self.entries[graph.name] = GraphEntry(inputs=graph.inputs, outputs=graph.outputs, files=files)
        reference = Reference(graph, self.preprocessing, self.settings.images)
        for precision in self.settings.precisions:
            for engine in self._runnable():
                with self.step(f"verify {graph.name} {precision} on {engine}"):
                    self._verify(reference, precision, engine)
        self._check_passed()
        for precision in self.settings.precisions:
            for engine in (name for name in self.settings.engines if name in COMPILERS):
                with self.step(f"compile {graph.name} {precision} for {engine}"):
                    self._compile(graph, precision, engine)

    def manifest(self, provenance: dict[str, Any]) -> Manifest:
        """The manifest of what stands in the folder."""
        return Manifest(
            method=self.header.method,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            input_size=self.preprocessing.size,
            default_precision=self.settings.precisions[0],
            graphs=self.entries,
            engines=tuple(self.engines),
            files=file_entries(self.folder),
            provenance=provenance,
        )

    def verification(self) -> Verification:
        """The record of all checks."""
        return Verification(
            passed=all(check.passed for check in self._checks()),
            tensors=tuple(self.tensors),
            metrics=tuple(self.metrics),
        )

    def _runnable(self) -> list[EngineName]:
        """The engines that a graph can be verified on; ONNX Runtime is always one."""
        return ["onnxruntime", *(e for e in self.settings.engines if e not in ("onnxruntime", *COMPILERS))]

    def _verify(self, reference: Reference, precision: Precision, engine_name: EngineName) -> None:
        engine = self._open(engine_name, reference.graph.name, precision)
        self.tensors += check_graph(reference, precision, engine)
        if reference.samples:
            self.metrics.append(check_metric(reference, precision, engine, self._processing()))

    def _compile(self, graph: Graph, precision: Precision, builder: Any) -> None:
        compiler = entry(COMPILERS, builder, what="compiler")
        onnx_file = self.folder / self.entries[graph.name].files[precision]
        compiled = compiler(onnx_file, profile=self.settings.profile, targets=self.settings.targets)
        name = f"{graph.name}.{precision}.{builder}.engine"
        (self.folder / name).write_bytes(compiled.plan)
        self.engines.append(
            EngineEntry(
                graph=graph.name,
                precision=precision,
                builder=builder,
                builder_version=compiled.builder_version,
                targets=compiled.targets,
                profile=compiled.profile,
                file=name,
                build_s=round(compiled.build_s, 3),
                bytes=len(compiled.plan),
            )
        )

    def _open(self, engine_name: str, graph: str, precision: Precision) -> Engine:
        engine_type = entry(BACKENDS, engine_name, what="engine")
        path = self.folder / self.entries[graph].files[precision]
        engine: Engine = engine_type.open_graph(path, self.entries[graph], EngineOptions())
        return engine

    def _processing(self) -> tuple[Engine, Engine]:
        return self._open("onnxruntime", "preprocess", "fp32"), self._open("onnxruntime", "postprocess", "fp32")

    def _checks(self) -> list[TensorCheck | MetricCheck]:
        return [*self.tensors, *self.metrics]

    def _check_passed(self) -> None:
        failed = [check for check in self._checks() if not check.passed]
        if failed:
            raise VerificationError(
                f"{len(failed)} of {len(self._checks())} checks against PyTorch failed, no bundle "
                f"was written: {'; '.join(map(_describe, failed[:4]))}."
            )


def build(method: str, checkpoint: Path, settings: BuildSettings, *, step: Step) -> Manifest:
    """Turn `checkpoint` into the bundle `settings.output`.

    Args:
        method: what the checkpoint must hold.
        checkpoint: a file written by training.
        settings: see `BuildSettings`.
        step: gives a context for each step, to show progress.

    Raises:
        CheckpointError: the checkpoint does not fit.
        ExportError: a step failed; nothing was written.
        VerificationError: a graph differs from PyTorch by more than the tolerance; nothing was written.
    """
    generator = entry(GRAPHS, method, what="method")
    check_target(settings.output)
    _check_engines(settings)
    header, network = load_checkpoint(checkpoint)
    if header.method != method:
        raise CheckpointError(f"checkpoint {checkpoint}: holds {header.method}, expected {method}.")
    preprocessing = header.preprocessing
    if settings.size is not None:
        preprocessing = preprocessing.model_copy(update={"size": settings.size})
    with new_folder(settings.output) as folder:
        making = Build(header, preprocessing, folder, settings, step)
        making.add_processing()
        for graph in generator(network, preprocessing.size):
            making.add_graph(graph)
        record = making.verification()
        (folder / VERIFICATION_FILE).write_text(record.model_dump_json(indent=1) + "\n")
        manifest = making.manifest(_provenance(checkpoint, header, network))
        write_manifest(folder, manifest)
    return manifest


def _check_engines(settings: BuildSettings) -> None:
    """Before any work: raise BackendUnavailableError where an engine to verify on is not installed."""
    for name in ("onnxruntime", *settings.engines):
        if name not in COMPILERS:
            entry(BACKENDS, name, what="engine").require(EngineOptions())


def _provenance(checkpoint: Path, header: CheckpointHeader, network: nn.Module) -> dict[str, Any]:
    tools = ("torch", "onnx", "onnxscript", "onnxruntime", "openvino", "tensorrt_rtx", "tensorrt")
    return {
        "checkpoint": checkpoint.name,
        "checkpoint_sha256": file_sha256(checkpoint),
        "parameters": sum(p.numel() for p in network.parameters()),
        "network": header.network,
        "preprocessing": header.preprocessing.model_dump(mode="json"),
        "training": header.training,
        "versions": {"salience": salience.__version__, "python": platform.python_version()}
        | {tool: version for tool in tools if (version := _version(tool))},
    }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _specs(values: Sequence[Any]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            name=value.name,
            dtype=onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name,
            shape=tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim),
        )
        for value in values
    )


def _describe(check: TensorCheck | MetricCheck) -> str:
    if isinstance(check, TensorCheck):
        return (
            f"{check.graph} {check.precision} on {check.backend}, batch {check.batch}, {check.inputs}: relative error "
            f"{check.relative:.2e}, allowed {check.tolerance:.0e}"
        )
    return (
        f"{check.precision} on {check.backend}, {check.images} images: max F {check.f_max_reference:.4f} -> "
        f"{check.f_max:.4f}, MAE {check.mae_reference:.4f} -> {check.mae:.4f}, allowed change {check.tolerance:.0e}"
    )
