"""What CUDA, ONNX Runtime, TensorRT and OpenVINO say when they fail, as one sentence with the remedy."""

import re

from ..errors import BackendUnavailableError, EngineError

# Texts by which the libraries tell of a failure, what to do about it, and the error that it is. The first that is found
# counts: a graph that is being captured, for one, may not allocate.
_KNOWN: tuple[tuple[re.Pattern[str], str, type[EngineError]], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), remedy, kind)
    for pattern, remedy, kind in (
        (
            r"cuda graph|graph capture|stream is capturing|StreamCapture|previous error during capture",
            "the graph cannot be captured as it is: leave cuda_graph (--cuda-graph) out",
            EngineError,
        ),
        (
            r"out of memory|OutOfMemory|OUT_OF_MEMORY|bad_alloc|failed to allocate memory|could not be allocated",
            "there is too little memory: take a smaller batch or another precision, or free some; on a GPU the "
            "provider option gpu_mem_limit bounds what ONNX Runtime keeps for an engine",
            EngineError,
        ),
        (
            r"no kernel image|NoKernelImage|NO_BINARY_FOR_GPU|ARCH_MISMATCH|device kernel image is invalid",
            "the library has no code for this GPU's architecture: install a version that has, or ask for device cpu",
            BackendUnavailableError,
        ),
        (
            r"invalid device[ _](id|ordinal)|INVALID_DEVICE",
            "there is no GPU of this number: nvidia-smi lists them, and CUDA_VISIBLE_DEVICES may hide some",
            BackendUnavailableError,
        ),
        (
            r"driver version is insufficient|InsufficientDriver|SYSTEM_DRIVER_MISMATCH",
            "the driver is older than the CUDA libraries: update the NVIDIA driver, or ask for device cpu",
            BackendUnavailableError,
        ),
        (
            r"unknown provider option",
            "leave the provider option out, or look up its name for this version of ONNX Runtime",
            EngineError,
        ),
    )
)


def failure(subject: str, error: object, *, line: int = 0) -> EngineError:
    """The error to raise for what a library said.

    Args:
        subject: what failed, such as "onnxruntime net.onnx: failed while running".
        error: the library's exception, or its text.
        line: of a text of several lines, the one to show.
    """
    said = f"{subject} ({summary(error, line=line)})"
    for pattern, remedy, kind in _KNOWN:
        if pattern.search(f"{error!s} {type(error).__name__}"):
            return kind(f"{said}; {remedy}.")
    return EngineError(f"{said}.")


def summary(error: object, *, line: int = 0) -> str:
    """One line of what a library said, without its full stop; the exception's name where it said nothing."""
    text = str(error).strip()
    return text.splitlines()[line].rstrip(" .;") if text else type(error).__name__
