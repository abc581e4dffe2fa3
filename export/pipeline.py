"""From a checkpoint to a bundle: trace, verify, compile, write."""

import datetime
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import nn

from salience.runtime.backends import BACKENDS
from salience.runtime.backends.engine import Engine, EngineOptions
from salience.runtime.bundle import Bundle
from salience.runtime.commands import parse_settings
from salience.runtime.detector import Detector, load
from salience.runtime.errors import CheckpointError, ExportError, VerificationError
from salience.runtime.manifest import (
    HOST_GRAPHS,
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
from salience.runtime.methods import METHODS
from salience.runtime.tables import entry
from salience.runtime.tuning import tune
from salience.training.checkpoint import CheckpointHeader
from salience.training.data.folders import Sample
from salience.training.data.layouts import read_set
from salience.training.preprocessing import Preprocessing

from .bundle import check_target, file_entries, file_sha256, new_folder, write_manifest
from .compilers import COMPILERS
from .graph import Graph, MethodExport
from .graphs import GRAPHS
from .int8 import Pictures, Step, find_pictures, quantize
from .processing import postprocess_graph, preprocess_graph
from .provenance import provenance_of
from .tracing import halve_weights, trace
from .verify import (
    Reference,
    channels_first,
    check_graph,
    check_metric,
    check_prior,
    check_processing,
    reference_scores,
    reference_type,
    scene_inputs,
)

EngineName = Literal["onnxruntime", "openvino", "tensorrt-rtx", "tensorrt"]


@dataclass(frozen=True)
class BuildSettings:
    """What to build.

    Attributes:
        output: the bundle's folder.
        precisions: the first is the default of the bundle.
        engines: `onnxruntime` and `openvino` are verified on, the others compiled for.
        size: network input (height, width); None keeps the checkpoint's.
        images: folder with images/ and masks/ for the check by metric.
        calibration: folder with images/ and masks/ that int8 is made with; none of them may be among `images`.
        verify: False compares nothing, for benchmarks of random weights; the record says that nothing passed.
        tune: time every engine of the CPU that was verified on, see `runtime.tuning`.
        profile: smallest, best and largest batch of compiled engines.
        targets: CUDA compute capabilities of compiled engines; empty for the builder's usual ones.
        options: the method's own, as its `MethodExport` names them.
    """

    output: Path
    precisions: tuple[Precision, ...] = ("fp32",)
    engines: tuple[EngineName, ...] = ("onnxruntime",)
    size: tuple[int, int] | None = None
    images: Path | None = None
    calibration: Path | None = None
    verify: bool = True
    tune: bool = False
    profile: tuple[int, int, int] = (1, 1, 16)
    targets: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Build:
    """A bundle in the making."""

    header: CheckpointHeader
    network: nn.Module
    export: MethodExport
    preprocessing: Preprocessing
    folder: Path
    settings: BuildSettings
    provenance: dict[str, Any]
    step: Step
    entries: dict[str, GraphEntry] = field(default_factory=dict)
    engines: list[EngineEntry] = field(default_factory=list)
    record: Verification = field(default_factory=lambda: Verification(passed=False, tensors=()))
    references: dict[str, Reference] = field(default_factory=dict)

    def add_processing(self) -> None:
        """Write and check the graphs before and after the network."""
        size = self.preprocessing.size
        models = {
            "preprocess": preprocess_graph(self.preprocessing),
            "postprocess": postprocess_graph(size),
            **self.export.host_graphs(size),
        }
        with self.step(", ".join(models)):
            for name, model in models.items():
                onnx.save(model, self.folder / f"{name}.onnx")
                self.entries[name] = GraphEntry(
                    inputs=_specs(model.graph.input),
                    outputs=_specs(model.graph.output),
                    files={"fp32": f"{name}.onnx"},
                )
            preprocess, postprocess = (self._open("onnxruntime", n, "fp32") for n in ("preprocess", "postprocess"))
            self._note(tensors=check_processing(preprocess, postprocess, self.preprocessing))
            if "prior" in models:
                self._note(tensors=check_prior(self._open("onnxruntime", "prior", "fp32"), size))

    def add_graph(self, graph: Graph) -> None:
        """Trace, verify and compile one graph in every precision but int8, see `add_int8`."""
        files: dict[Precision, str] = {}
        for precision in self.settings.precisions:
            files[precision] = f"{graph.name}.onnx" if precision == "fp32" else f"{graph.name}.{precision}.onnx"
            if precision != "int8":
                with self.step(f"trace {graph.name} {precision}"):
                    if precision == "fp16-weights" and "fp32" in files:
                        model = halve_weights(onnx.load(self.folder / files["fp32"]))
                    else:
                        model = trace(graph, precision)
                    onnx.save(model, self.folder / files[precision])
        self.entries[graph.name] = graph.entry(files)
        if self.settings.verify:
            with self.step(f"run {graph.name} in PyTorch"):
                self.references[graph.name] = reference_type(graph)(graph, scene_inputs(self.preprocessing))
        self.verify_graph(graph, [precision for precision in files if precision != "int8"])

    def add_int8(self, graphs: Sequence[Graph], pictures: Pictures) -> None:
        """Write, verify and compile the int8 file of every graph that has layers; the others' is that of fp32."""
        models = {graph.name: self._fp32(graph) for graph in graphs}
        found = quantize(
            graphs, models, self.export, self.preprocessing, pictures,
            serving=partial(self._serving_fp32, models), verify=self.settings.verify, step=self.step,
        )  # fmt: skip
        if found.record is not None:
            self.record = self.record.model_copy(update={"quantization": found.record})
        for graph in graphs:
            files = dict(self.entries[graph.name].files)
            if graph.name not in found.models:
                files["int8"] = f"{graph.name}.onnx"
            onnx.save(found.models.get(graph.name, models[graph.name]), self.folder / files["int8"])
            self.entries[graph.name] = graph.entry(files)
            self.verify_graph(graph, ["int8"])

    def _fp32(self, graph: Graph) -> ModelProto:
        files = self.entries[graph.name].files
        if "fp32" in files:
            return onnx.load(self.folder / files["fp32"])
        with self.step(f"trace {graph.name} fp32"):
            return trace(graph, "fp32")

    @contextmanager
    def _serving_fp32(self, models: Mapping[str, ModelProto]) -> Iterator[list[Detector]]:
        """The bundle as it serves in fp32 on the CPU, by every engine that it is verified on."""
        fp32: Precision = "fp32"
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for graph in (graph for graph in self.entries if graph in HOST_GRAPHS):
                shutil.copy(self.folder / f"{graph}.onnx", folder)
            entries = dict(self.entries)
            for graph, model in models.items():
                onnx.save(model, folder / f"{graph}.onnx")
                entries[graph] = entries[graph].model_copy(update={"files": {fp32: f"{graph}.onnx"}})
            manifest = self.manifest().model_copy(
                update={"graphs": entries, "engines": (), "default_precision": fp32, "files": file_entries(folder)}
            )
            write_manifest(folder, manifest)
            yield [load(folder, backend=engine, device="cpu") for engine in self.runnable()]

    def verify_graph(self, graph: Graph, precisions: Sequence[Precision]) -> None:
        """Compare the files of one graph with PyTorch, then compile them."""
        for precision in precisions:
            for engine in self.runnable(precision) if self.settings.verify else ():
                with self.step(f"verify {graph.name} {precision} on {engine}"):
                    opened = self._open(engine, graph.name, precision)
                    self._note(tensors=check_graph(self.references[graph.name], precision, opened))
        self._check_passed()
        for precision in precisions:
            for engine in (name for name in self.settings.engines if name in COMPILERS):
                with self.step(f"compile {graph.name} {precision} for {engine}"):
                    self._compile(graph, precision, engine)

    def check_maps(self, samples: Sequence[Sample]) -> None:
        """Measure what approximations cost; where real images are given, compare the maps by metric too."""
        if not self.settings.verify:
            return
        found = self.export.approximations(self.network, scene_inputs(self.preprocessing).split(1))
        self.record = self.record.model_copy(update={"approximations": tuple(found)})
        if not samples:
            return
        with self.step("maps of PyTorch"):
            predict = partial(self.export.predict, self.network)
            expected = reference_scores(predict, samples, self._prepare())
        # The detector that will serve the bundle needs a manifest to read; the final one follows.
        write_manifest(self.folder, self.manifest())
        for precision in self.settings.precisions:
            for engine in self.runnable(precision):
                with self.step(f"maps of {precision} on {engine}"):
                    serve = partial(self.export.serve, self._detector(engine, precision))
                    check = check_metric(
                        expected, serve, samples, precision, engine, follows_gradients=self.export.follows_gradients
                    )
                    self._note(metrics=[check])
        self._check_passed()

    def manifest(self) -> Manifest:
        """The manifest of what stands in the folder."""
        return Manifest(
            method=self.header.method,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            input_size=self.preprocessing.size,
            default_precision=self.settings.precisions[0],
            graphs=self.entries,
            engines=tuple(self.engines),
            files=file_entries(self.folder),
            classes=self.export.classes(self.network),
            provenance=self.provenance,
        )

    def write(self) -> Manifest:
        """Write the record of all checks, and the manifest."""
        passed = self.settings.verify and all(check.passed for check in self._checks())
        self.record = self.record.model_copy(update={"passed": passed})
        (self.folder / VERIFICATION_FILE).write_text(self.record.model_dump_json(indent=1) + "\n")
        manifest = self.manifest()
        write_manifest(self.folder, manifest)
        return manifest

    def runnable(self, precision: Precision = "fp32") -> list[EngineName]:
        """The engines that a graph of `precision` can be verified on; ONNX Runtime is one but for bf16."""
        return [name for name in _verifying(self.settings) if _refusal(name, precision) is None]

    def _prepare(self) -> Callable[[NDArray[np.uint8]], torch.Tensor]:
        """What makes PyTorch's input of a picture: the resize of training, or see `MethodExport.follows_gradients`."""
        if not self.export.follows_gradients:
            return lambda image: self.preprocessing(channels_first(image))[None]
        preprocess = self._open("onnxruntime", "preprocess", "fp32")
        return lambda image: torch.from_numpy(preprocess.run({"image": image})["input"])

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
        interface = self.entries[graph]
        path = self.folder / interface.files[precision]
        engine: Engine = engine_type.open_graph(path, interface.at(precision), EngineOptions())
        return engine

    def _detector(self, engine_name: str, precision: Precision) -> Detector:
        detector_type = entry(METHODS, self.header.method, what="method")
        engines = {graph: self._open(engine_name, graph, precision) for graph in detector_type.graphs}
        detector: Detector = detector_type(Bundle(self.folder), engines, precision, None)
        return detector

    def _note(self, *, tensors: Iterable[TensorCheck] = (), metrics: Iterable[MetricCheck] = ()) -> None:
        self.record = self.record.model_copy(
            update={"tensors": (*self.record.tensors, *tensors), "metrics": (*self.record.metrics, *metrics)}
        )

    def _checks(self) -> list[TensorCheck | MetricCheck]:
        return [*self.record.tensors, *self.record.metrics]

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
    export: MethodExport = parse_settings(entry(GRAPHS, method, what="method"), settings.options, "--option")
    check_target(settings.output)
    _check_engines(settings, step)
    header, network = export.load(checkpoint)
    if header.method != method:
        raise CheckpointError(f"checkpoint {checkpoint}: holds {header.method}, expected {method}.")
    source = {"checkpoint": checkpoint.name}
    if checkpoint.is_file():
        source["checkpoint_sha256"] = file_sha256(checkpoint)
    return build_network_bundle(header, network, export, settings, step=step, source=source)


def build_network_bundle(
    header: CheckpointHeader,
    network: nn.Module,
    export: MethodExport,
    settings: BuildSettings,
    *,
    step: Step,
    source: dict[str, str],
) -> Manifest:
    """As `build`, of a network in memory, such as a classifier of one's own for `cgd`.

    Args:
        header: what the network is and takes.
        network: in eval mode.
        export: how its method leaves PyTorch.
        settings: see `BuildSettings`; its `options` are not looked at.
        step: as for `build`.
        source: where the network comes from, for the manifest.
    """
    check_target(settings.output)
    preprocessing = header.preprocessing
    if settings.size is not None:
        preprocessing = preprocessing.model_copy(update={"size": settings.size})
    provenance = provenance_of(source, header, network, export)
    pictures = None
    if "int8" in settings.precisions:
        pictures = find_pictures(settings.calibration, settings.images, verify=settings.verify)
    with new_folder(settings.output) as folder:
        making = Build(header, network, export, preprocessing, folder, settings, provenance, step)
        making.add_processing()
        graphs = export.graphs(network, preprocessing.size)
        for graph in graphs:
            making.add_graph(graph)
        if pictures is not None:
            making.add_int8(graphs, pictures)
        making.check_maps(pictures.judged if pictures else _pairs(settings.images))
        manifest = making.write()
        if settings.tune:
            with step("tune"):
                tune(folder, making.runnable())
            manifest = Bundle(folder).manifest
        return manifest


def _check_engines(settings: BuildSettings, step: Step) -> None:
    """Before any work: whether every precision can be verified on an engine named; says on which it cannot.

    Raises:
        BackendUnavailableError: an engine to verify on is not installed.
        ExportError: a precision can be verified on none.
    """
    engines = _verifying(settings)
    for name in engines:
        entry(BACKENDS, name, what="engine").require(EngineOptions())
    for precision in settings.precisions if settings.verify else ():
        reasons = {name: reason for name in engines if (reason := _refusal(name, precision))}
        if len(reasons) == len(engines):
            raise ExportError(
                f"precision {precision}: can be compared with PyTorch on no engine named "
                f"({'; '.join(reasons.values())}); add --engine openvino."
            )
        for name in reasons:
            with step(f"{precision} is not verified on {name}, which cannot run it"):
                pass


def _verifying(settings: BuildSettings) -> list[EngineName]:
    """The engines that graphs are verified on; ONNX Runtime is always one, for those before and after the network."""
    return ["onnxruntime", *(e for e in settings.engines if e not in ("onnxruntime", *COMPILERS))]


def _refusal(name: str, precision: Precision) -> str | None:
    reason: str | None = entry(BACKENDS, name, what="engine").refuses(precision, EngineOptions())
    return reason


def _pairs(folder: Path | None) -> list[Sample]:
    return read_set(folder) if folder else []


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
