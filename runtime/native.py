"""The fused kernels for ONNX Runtime, where they were built: in a wheel, or by `make native` in a clone."""

import os
import sys
from pathlib import Path
from typing import Literal

from .errors import BackendUnavailableError, EngineError

# A path, "none", or "auto"; what `load` takes where nothing else is asked for.
VARIABLE = "SALIENCE_KERNELS"
FOLDER = Path(__file__).parent.parent / "native"
_NAMES = {"linux": "libsalience_kernels.so", "darwin": "libsalience_kernels.dylib", "win32": "salience_kernels.dll"}

Kernels = str | os.PathLike[str] | Literal["auto", "none"]


def kernel_library(choice: Kernels, *, on_gpu: bool) -> Path | None:
    """The library of kernels to load into ONNX Runtime's sessions; None for none.

    Args:
        choice: "none"; a path; or "auto", which takes what the variable SALIENCE_KERNELS says, else the library in the
            package if it was built.
        on_gpu: whether the sessions are on a GPU, for which "auto" takes none: a node of a CPU's kernel would bring its
            tensors to the host.

    Raises:
        BackendUnavailableError: there is no such file.
    """
    wanted = os.fspath(choice)
    if wanted == "auto":
        wanted = os.environ.get(VARIABLE) or "auto"
    if wanted == "none":
        return None
    if wanted != "auto":
        path = Path(wanted)
        if not path.is_file():
            raise BackendUnavailableError(f"kernels {path}: no such file; expected a library that `make native` built.")
        return path.resolve()
    packed = FOLDER / _NAMES.get(sys.platform, "none")
    return packed if packed.is_file() and not on_gpu else None


def check_backend(choice: Kernels, backend: str) -> None:
    """Raise EngineError where kernels were named for a backend that has no use for them."""
    if os.fspath(choice) not in ("auto", "none") and backend not in ("auto", "onnxruntime"):
        raise EngineError(f"kernels {os.fspath(choice)}: are for onnxruntime, got backend {backend}; leave one out.")
