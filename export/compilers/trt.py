"""TensorRT and TensorRT-RTX compile an ONNX file into an engine.

Both libraries have the same API. TensorRT builds for the GPU that is present and needs one; TensorRT-RTX
builds for a list of GPUs and needs none. Types are the file's own (a strongly typed network): nothing here
turns fp32 into fp16.
"""

import ctypes
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from salience.runtime.backends.trt_library import Builder, import_tensorrt, message_log
from salience.runtime.errors import BackendUnavailableError, ExportError

DEFAULT_TARGETS = ("8.0", "8.6", "8.9", "12.0")
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR


@dataclass(frozen=True)
class CompiledEngine:
    """An engine and what it is good for.

    `plan` is the engine file's content; `builder` and `builder_version` name the library that alone reads
    it; `targets` are the CUDA compute capabilities that it runs on, such as "8.6"; `profile` is the
    smallest, best and largest size of dimension 0; `build_s` is the time of parsing and building.
    """

    plan: bytes
    builder: Builder
    builder_version: str
    targets: tuple[str, ...]
    profile: tuple[int, int, int]
    build_s: float


def compile_tensorrt(onnx_file: Path, *, profile: tuple[int, int, int], targets: Sequence[str] = ()) -> CompiledEngine:
    """Compile `onnx_file` for the first GPU of this machine.

    Args:
        onnx_file: a graph whose dimensions, but for dimension 0 of its inputs, are fixed.
        profile: smallest, best and largest size of dimension 0; a graph with no free dimension keeps its own.
        targets: must be empty, since TensorRT builds for the GPU that is present.

    Raises:
        BackendUnavailableError: TensorRT is not installed, or there is no GPU.
        ExportError: a wrong profile or target, or TensorRT cannot parse or build the graph.
    """
    if targets:
        raise ExportError(
            f"tensorrt: targets {', '.join(targets)} given, expected none, since it builds for the GPU of "
            "this machine; leave them out, or build with tensorrt-rtx."
        )
    _check_profile(profile)
    # Without a GPU the builder fails with a null pointer or a crash, so the driver is asked first.
    tensorrt = import_tensorrt("tensorrt", "tensorrt")
    return _compile(tensorrt, "tensorrt", onnx_file, profile, (_gpu_capability(),))


def compile_tensorrt_rtx(
    onnx_file: Path, *, profile: tuple[int, int, int], targets: Sequence[str] = ()
) -> CompiledEngine:
    """Compile `onnx_file` for the GPUs of `targets`, on any machine.

    Args:
        onnx_file: a graph whose dimensions, but for dimension 0 of its inputs, are fixed.
        profile: smallest, best and largest size of dimension 0; a graph with no free dimension keeps its own.
        targets: CUDA compute capabilities such as "8.6"; DEFAULT_TARGETS if empty.

    Raises:
        BackendUnavailableError: TensorRT-RTX is not installed.
        ExportError: a wrong profile or target, or TensorRT-RTX cannot parse or build the graph.
    """
    _check_profile(profile)
    tensorrt = import_tensorrt("tensorrt-rtx", "tensorrt-rtx")
    chosen = tuple(dict.fromkeys(targets or DEFAULT_TARGETS))
    supported = supported_targets(tensorrt)
    unknown = [target for target in chosen if target not in supported]
    if unknown:
        raise ExportError(
            f"tensorrt-rtx {tensorrt.__version__}: compute capability {', '.join(unknown)} given, expected "
            f"any of {', '.join(supported)}; choose among these."
        )
    return _compile(tensorrt, "tensorrt-rtx", onnx_file, profile, chosen)


def _compile(
    tensorrt: Any,
    library: Builder,
    onnx_file: Path,
    profile: tuple[int, int, int],
    targets: tuple[str, ...],
) -> CompiledEngine:
    started = time.perf_counter()
    log = message_log(tensorrt)
    subject = f"{library} {tensorrt.__version__}: {onnx_file.name}"
    builder = tensorrt.Builder(log)
    # From TensorRT 11 on every network is strongly typed and the flag may go.
    flag = getattr(tensorrt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = tensorrt.OnnxParser(network, log)
    _parse(parser, onnx_file, subject)
    config = builder.create_builder_config()
    served = _add_profile(builder, config, network, profile, subject)
    if library == "tensorrt-rtx":
        _set_targets(tensorrt, config, targets, subject)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ExportError(f"{subject}: cannot be built ({log.summary()}); change the graph, or use another engine.")
    return CompiledEngine(
        plan=bytes(plan),
        builder=library,
        builder_version=str(tensorrt.__version__),
        targets=targets,
        profile=served,
        build_s=time.perf_counter() - started,
    )


def _parse(parser: Any, onnx_file: Path, subject: str) -> None:
    if not onnx_file.is_file():
        raise ExportError(f"{subject}: got no file at {onnx_file}, expected an ONNX file; export the graph first.")
    if parser.parse_from_file(str(onnx_file)):
        return
    problems = [_problem(parser.get_error(index)) for index in range(parser.num_errors)]
    raise ExportError(
        f"{subject}: cannot be parsed ({'; '.join(problems) or 'no reason given'}), expected an ONNX graph "
        "of operators that the parser knows; change the graph, or use another engine."
    )


def _problem(error: Any) -> str:
    text = " ".join(str(error.desc()).split()).rstrip(".")
    where = " ".join(part for part in (error.node_operator(), error.node_name()) if part)
    return f"{where}: {text}" if where else text


def _add_profile(
    builder: Any, config: Any, network: Any, profile: tuple[int, int, int], subject: str
) -> tuple[int, int, int]:
    """Give every free dimension 0 the sizes of `profile`; the sizes that the engine serves.

    A graph with no free dimension serves the one size that its first input has.
    """
    shapes = {tensor.name: tuple(tensor.shape) for tensor in map(network.get_input, range(network.num_inputs))}
    free = {name: shape for name, shape in shapes.items() if -1 in shape}
    wrong = [f"{name} {shape}" for name, shape in free.items() if -1 in shape[1:]]
    if wrong:
        raise ExportError(
            f"{subject}: input {', '.join(wrong)} is free (-1) beyond dimension 0, expected fixed sizes "
            "there; export the graph with a fixed height and width."
        )
    if not free:
        size = next((shape[0] for shape in shapes.values() if shape), 1)
        return size, size, size
    ranges = builder.create_optimization_profile()
    for name, shape in free.items():
        ranges.set_shape(name, *((size, *shape[1:]) for size in profile))
    if config.add_optimization_profile(ranges) < 0:
        raise ExportError(f"{subject}: the profile {profile} was refused; choose other batch sizes.")
    return profile


def _set_targets(tensorrt: Any, config: Any, targets: tuple[str, ...], subject: str) -> None:
    supported = supported_targets(tensorrt)
    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        if not config.set_compute_capability(supported[target], index):
            raise ExportError(
                f"{subject}: compute capability {target} was refused beside {', '.join(targets)}; build for fewer."
            )


def supported_targets(tensorrt: Any) -> dict[str, Any]:
    """Compute capability -> the library's own name of it, for instance "8.6" -> SM86."""
    members = tensorrt.ComputeCapability.__members__
    return {f"{name[2:-1]}.{name[-1]}": member for name, member in members.items() if name.startswith("SM")}


def _check_profile(profile: tuple[int, int, int]) -> None:
    if len(profile) != 3 or not 1 <= profile[0] <= profile[1] <= profile[2]:
        raise ExportError(
            f"profile {profile}: expected the smallest, best and largest batch with 1 <= smallest <= best <= "
            "largest; for instance (1, 1, 8)."
        )


def _gpu_capability() -> str:
    """The compute capability of the first GPU, from the CUDA driver itself: no package is needed for it."""
    remedy = "build on the machine that will run the engine, or use tensorrt-rtx, which builds without a GPU"
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise BackendUnavailableError(f"tensorrt: no NVIDIA driver on this machine ({error}); {remedy}") from error
    count, device, major, minor = (ctypes.c_int() for _ in range(4))
    status = (
        driver.cuInit(0)
        or driver.cuDeviceGetCount(ctypes.byref(count))
        or driver.cuDeviceGet(ctypes.byref(device), 0)
        or driver.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
        or driver.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device)
    )
    if status or not count.value:
        raise BackendUnavailableError(
            f"tensorrt: no usable NVIDIA GPU on this machine (driver status {status}, {count.value} found); {remedy}"
        )
    return f"{major.value}.{minor.value}"
