"""Access to TensorRT, TensorRT-RTX and CUDA, which are imported when they are needed."""

import contextlib
import functools
import importlib
from collections import deque
from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

from ..errors import BackendUnavailableError
from .engine import EngineOptions

Builder: TypeAlias = Literal["tensorrt", "tensorrt-rtx"]

MODULES: dict[Builder, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}


def import_tensorrt(builder: Builder, extra: str) -> Any:
    """The Python module of `builder`.

    Raises:
        BackendUnavailableError: it is missing or cannot be loaded; the message names `salience[extra]`.
    """
    module = MODULES[builder]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise BackendUnavailableError(
            f"{builder}: the package {error.name or module} is not installed; run: pip install 'salience[{extra}]'"
        ) from error
    except (ImportError, OSError) as error:
        raise BackendUnavailableError(
            f"{builder}: the package {module} is installed and cannot be loaded ({error}); "
            f"run: pip install --force-reinstall 'salience[{extra}]'"
        ) from error


def message_log(tensorrt: Any) -> Any:
    """A logger for `tensorrt` that prints nothing and keeps the latest warnings and errors.

    `summary()` gives the first errors since the last summary as one line, or the latest warning if there
    was no error.
    """

    class MessageLog(tensorrt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)
            self.warnings: deque[str] = deque(maxlen=20)
            self.errors: deque[str] = deque(maxlen=20)

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= int(tensorrt.ILogger.ERROR):
                self.errors.append(message)
            elif int(severity) <= int(tensorrt.ILogger.WARNING):
                self.warnings.append(message)

        def summary(self) -> str:
            lines = list(self.errors)[:3] or list(self.warnings)[-1:] or ["it gave no reason"]
            self.errors.clear()
            self.warnings.clear()
            return " / ".join(" ".join(line.split()).rstrip(".") for line in lines)

    return MessageLog()


def cuda_driver(name: str, extra: str) -> Any:
    """`pycuda.driver`, initialised."""
    try:
        cuda: Any = importlib.import_module("pycuda.driver")
    except ModuleNotFoundError as error:
        raise BackendUnavailableError(
            f"{name}: the package {(error.name or 'pycuda').partition('.')[0]} is not installed; "
            f"run: pip install 'salience[{extra}]'"
        ) from error
    except (ImportError, OSError) as error:
        raise BackendUnavailableError(
            f"{name}: pycuda finds no CUDA driver ({error}); install the NVIDIA driver, or ask for device "
            "cpu with another backend"
        ) from error
    try:
        cuda.init()
    except cuda.Error as error:
        raise BackendUnavailableError(
            f"{name}: no CUDA device ({error}); check nvidia-smi, or ask for device cpu with another backend"
        ) from error
    return cuda


def chosen_device(cuda: Any, options: EngineOptions, name: str) -> Any:
    """The GPU that `options` asks for."""
    count = cuda.Device.count()
    if options.device_index >= count:
        raise BackendUnavailableError(
            f"{name}: device {options.device} was asked for, and CUDA shows {count} device(s); "
            "choose one of these, or ask for device cpu with another backend"
        )
    return cuda.Device(options.device_index)


@functools.cache
def primary_context(cuda: Any, index: int) -> Any:
    """The primary context of a GPU, retained once and for as long as the process lives.

    pycuda pushes a context in order to release it and relies on the release to pop it, which CUDA does not
    do for primary contexts; so a context released per engine would stay current on its thread.
    """
    return cuda.Device(index).retain_primary_context()


@contextlib.contextmanager
def current(primary: Any) -> Iterator[None]:
    """Make a context current on this thread, whichever that is, and leave the thread as it was."""
    primary.push()
    try:
        yield
    finally:
        primary.pop()
