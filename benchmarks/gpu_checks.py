"""Parts of the GPU check that compare: the maps of five methods on the GPU with those of the CPU in fp32."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks import gpu_kernels
from benchmarks.gpu_material import Maps, Material, maps_of, prepare_scenes, relative_error, scores
from benchmarks.gpu_record import Row, Setting
from benchmarks.gpu_torch import without_tf32
from benchmarks.peers import reason
from salience.export.compilers.trt import supported_targets
from salience.export.verify import GRADIENT_TOLERANCE, METRIC_TOLERANCE, TENSOR_TOLERANCE
from salience.runtime import load
from salience.runtime.backends.trt_library import import_tensorrt
from salience.runtime.detector import Detector, Prepared
from salience.runtime.errors import BackendUnavailableError, EngineError
from salience.runtime.evaluation.metrics import Scores
from salience.runtime.manifest import Precision
from salience.runtime.methods import METHODS

Open = Callable[[str, Precision], Detector]

# A GPU's convolutions take other algorithms than the CPU's, and maps come of several graphs in a row.
_DEVICE_FACTOR = 10
# Its maps are steps on the picture here, and say nothing of an object.
_WITHOUT_SCORES = ("cgd",)
_ABSURD_BATCH, _ABSURD_DEVICE = 1 << 20, 99


def pytorch(setting: Setting) -> Iterator[Row]:
    """The exported graphs' modules in PyTorch, on our loops."""
    without_tf32()
    material = Material(setting.folder, setting.quick)

    def opened(method: str, precision: Precision) -> Detector:
        return material.torch_detector(method, precision, setting.device)

    yield from _compare(material, "PyTorch", ("fp32", "fp16", "bf16"), opened)


def onnxruntime(setting: Setting) -> Iterator[Row]:
    """ONNX Runtime's CUDA provider, inputs and outputs bound."""
    material = Material(setting.folder, setting.quick)
    opened = _served(material, setting, backend="onnxruntime", kernels="none")
    yield from _compare(material, "ONNX Runtime", ("fp32", "fp16-weights", "fp16"), opened)


def tensorrt(setting: Setting) -> Iterator[Row]:
    """Engines of TensorRT, built here."""
    yield from _engines(setting, "tensorrt", ())


def tensorrt_rtx(setting: Setting) -> Iterator[Row]:
    """Engines of TensorRT-RTX, built for this GPU."""
    target = _capability(setting.device)
    known = supported_targets(import_tensorrt("tensorrt-rtx", "tensorrt-rtx"))
    if target not in known:
        yield Row(
            form="TensorRT-RTX", measure="builds for this GPU",
            note=f"compute capability {target} is not among {', '.join(known)}",
        )  # fmt: skip
        return
    yield from _engines(setting, "tensorrt-rtx", (target,))


def providers(setting: Setting) -> Iterator[Row]:
    """TensorRT and TensorRT-RTX as execution providers of ONNX Runtime; one that is not in the build says so."""
    material = Material(setting.folder, setting.quick)
    for provider in ("tensorrt", "tensorrt-rtx"):
        form = f"ONNX Runtime, {provider} provider"
        opened = _served(material, setting, backend="onnxruntime", provider=provider, kernels="none")
        try:
            yield from _compare(material, form, ("fp32", "fp16"), opened)
        except BackendUnavailableError as error:
            yield Row(form=form, measure="starts", note=str(error))


def operators(setting: Setting) -> Iterator[Row]:
    """ONNX Runtime on the GPU with the fused kernels, beside itself with their bodies."""
    library = gpu_kernels.build()
    material = Material(setting.folder, setting.quick)
    plain, fused = (_served(material, setting, backend="onnxruntime", kernels=kernels) for kernels in ("none", library))
    precisions: tuple[Precision, ...] = ("fp32", "fp16")
    for method in METHODS:
        prepared, _ = prepare_scenes(material.reference(method), material.pictures)
        for precision in precisions:
            expected, found = (maps_of(opened(method, precision), prepared) for opened in (plain, fused))
            form = f"ONNX Runtime, fused kernels, {precision}"
            yield _error_row(method, form, found, expected, _limit(material, method, precision, prepared, expected))


def errors(setting: Setting) -> Iterator[Row]:
    """What a user is told where the GPU has too little memory, or is not there."""
    bundle = Material(setting.folder, setting.quick).bundle("multis")
    detector = load(bundle, backend="onnxruntime", device=setting.device)
    yield _told(
        "a batch far too large",
        lambda: detector.engines["saliency"].session(_ABSURD_BATCH).run(),
        ("memory", "batch"),
    )
    yield _told(
        "a GPU that is not there",
        lambda: load(bundle, backend="onnxruntime", device=f"cuda:{_ABSURD_DEVICE}"),
        (str(_ABSURD_DEVICE),),
    )
    usable = maps_of(detector, prepare_scenes(detector, 1)[0])
    yield Row(form="the engine goes on after both", measure="finite maps", passed=bool(np.isfinite(usable).all()))


def _engines(setting: Setting, backend: Any, targets: tuple[str, ...]) -> Iterator[Row]:
    material = Material(setting.folder, setting.quick)

    def opened(method: str, precision: Precision) -> Detector:
        bundle = material.bundle(method, precision, engine=backend, targets=targets)
        return load(bundle, backend=backend, device=setting.device, precision=precision)

    yield from _compare(material, backend, ("fp32", "fp16", "bf16"), opened)
    # One graph each, whose maps are their own check.
    yield from _compare(material, backend, ("int8",), opened, methods=("multis", "arn"))


def _served(material: Material, setting: Setting, **options: Any) -> Open:
    """Detectors on the device, of ONNX files."""

    def opened(method: str, precision: Precision) -> Detector:
        return load(material.bundle(method, precision), device=setting.device, precision=precision, **options)

    return opened


def _compare(
    material: Material,
    form: str,
    precisions: Sequence[Precision],
    opened: Open,
    *,
    methods: Sequence[str] = tuple(METHODS),
) -> Iterator[Row]:
    """Maps by `opened` beside the CPU's; what fails is a row, and the others go on."""
    for method in methods:
        reference = material.reference(method)
        prepared, masks = prepare_scenes(reference, material.pictures)
        expected = maps_of(reference, prepared)
        best = None if method in _WITHOUT_SCORES else scores(reference, prepared, expected, masks)
        for precision in precisions:
            name = f"{form}, {precision}"
            try:
                detector = opened(method, precision)
                found = maps_of(detector, prepared)
            except BackendUnavailableError:
                raise
            # Of any library; the others go on.
            except Exception as error:
                yield Row(method=method, form=name, measure="runs", passed=False, note=reason(error))
                continue
            yield _error_row(method, name, found, expected, _limit(material, method, precision, prepared, expected))
            if best is not None:
                yield from _score_rows(method, name, scores(detector, prepared, found, masks), best, precision)


def _limit(
    material: Material, method: str, precision: Precision, prepared: Sequence[Prepared], expected: Maps
) -> float:
    """What the relative error may be; of gradients three times PyTorch's own on the CPU, see `GradientReference`."""
    if precision == "fp32":
        return _DEVICE_FACTOR * (GRADIENT_TOLERANCE if method == "cgd" else TENSOR_TOLERANCE)[precision]
    if method != "cgd":
        return TENSOR_TOLERANCE[precision]
    rounded = material.torch_detector(method, "fp16" if precision == "fp16-weights" else precision, "cpu")
    return max(GRADIENT_TOLERANCE[precision], 3 * relative_error(maps_of(rounded, prepared), expected))


def _error_row(method: str, form: str, found: Maps, expected: Maps, limit: float) -> Row:
    error = relative_error(found, expected)
    return Row(method=method, form=form, measure="relative error", value=error, limit=limit, passed=error <= limit)


def _score_rows(method: str, form: str, found: Scores, expected: Scores, precision: Precision) -> Iterator[Row]:
    limit = METRIC_TOLERANCE[precision]
    for measure, change in (
        ("change of max F", found.f_max - expected.f_max),
        ("change of MAE", found.mae - expected.mae),
    ):
        yield Row(method=method, form=form, measure=measure, value=change, limit=limit, passed=abs(change) <= limit)


def _told(what: str, call: Callable[[], object], words: Sequence[str]) -> Row:
    """Whether `call` raises our error with all `words`."""
    try:
        call()
    except (EngineError, BackendUnavailableError) as error:
        missing = [word for word in words if word not in str(error)]
        return Row(form=what, measure="a sentence", passed=not missing, note=str(error))
    return Row(form=what, measure="a sentence", passed=False, note="nothing was refused")


def _capability(device: str) -> str:
    import torch

    return ".".join(map(str, torch.cuda.get_device_capability(torch.device(device))))
