"""Whether one package that the GPU check uses is there and works.

    python -m benchmarks.gpu_probe torch-cuda

prints a `Found` as JSON. Each package is asked in a process of its own: one whose libraries do not fit may end it.
"""

import importlib
import shutil
import sys
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict

from benchmarks.evidence import version_of
from salience.runtime.backends.engine import EngineOptions
from salience.runtime.backends.onnxrt import OnnxRuntimeEngine
from salience.runtime.backends.trt_library import MODULES, Builder, import_tensorrt
from salience.runtime.errors import BackendUnavailableError


class Found(BaseModel):
    """Something that parts need.

    Attributes:
        version: in words, None where it is not known.
        reason: why it cannot be used, as a sentence with the remedy; None where it can.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str | None = None
    reason: str | None = None


def main() -> None:
    """Ask for the package that the argument names; any exception is a finding."""
    name = sys.argv[1]
    try:
        found = PROBES[name]()
    except BackendUnavailableError as error:
        found = Found(reason=str(error))
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        found = Found(reason=f"{name} is broken here ({type(error).__name__}: {first}); install it again")
    print(f"\n{found.model_dump_json()}", flush=True)


def torch_cuda() -> Found:
    """PyTorch that was built with CUDA and sees a GPU."""
    torch = _package("torch", "pip install 'salience[training]'")
    version = str(torch.__version__)
    if torch.version.cuda is None:
        return Found(version=version, reason=f"torch {version} is built without CUDA; install PyPI's wheel of Linux")
    version = f"{version}, CUDA {torch.version.cuda}"
    if not torch.cuda.is_available():
        return Found(version=version, reason=f"torch {version} sees no GPU; compare its CUDA with the driver's")
    return Found(version=f"{version}, cuDNN {torch.backends.cudnn.version()}")


def onnxruntime(provider: str) -> Found:
    """ONNX Runtime with one of its providers for GPUs; whether that starts is seen when it is used."""
    wheels = {name: found for name in ("onnxruntime", "onnxruntime-gpu") if (found := version_of(name))}
    version = " beside ".join(f"{name} {found}" for name, found in wheels.items())
    reason = OnnxRuntimeEngine.unavailable(EngineOptions(device="cuda", provider=provider))
    warning = ", which overwrite each other" if len(wheels) > 1 and reason is None else ""
    return Found(version=version + warning or None, reason=reason)


def tensorrt(builder: Builder) -> Found:
    """TensorRT or TensorRT-RTX; both build before they run."""
    extra: dict[Builder, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt-rtx-run"}
    return Found(version=str(import_tensorrt(builder, extra[builder]).__version__))


def pycuda() -> Found:
    """Its driver module needs the driver's library."""
    _package("pycuda.driver", "pip install pycuda, which needs nvcc and a C++ compiler")
    return Found(version=version_of("pycuda"))


def cupy() -> Found:
    """CuPy, whose wheels are named after the version of CUDA."""
    found = _package("cupy", "pip install cupy-cuda13x, or cupy-cuda12x")
    found.cuda.runtime.getDeviceCount()
    return Found(version=str(found.__version__))


def triton() -> Found:
    """What torch.compile makes kernels with on a GPU; it needs a C compiler."""
    version = str(_package("triton", "pip install triton (it comes with PyTorch on Linux)").__version__)
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        return Found(version=version, reason="triton finds no C compiler; install gcc")
    return Found(version=version)


PROBES: dict[str, Callable[[], Found]] = {
    "torch-cuda": torch_cuda,
    "onnxruntime-gpu": lambda: onnxruntime("cuda"),
    "onnxruntime-tensorrt": lambda: onnxruntime("tensorrt"),
    "onnxruntime-tensorrt-rtx": lambda: onnxruntime("tensorrt-rtx"),
    **{module: lambda builder=builder: tensorrt(builder) for builder, module in MODULES.items()},  # type: ignore[misc]
    "pycuda": pycuda,
    "cupy": cupy,
    "triton": triton,
}


def _package(module: str, remedy: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise BackendUnavailableError(f"{error.name} is not installed; {remedy}") from error


if __name__ == "__main__":
    main()
