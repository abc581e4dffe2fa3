"""The native libraries, as `make native` built them."""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from .library import Library


def run(*command: str | Path) -> str:
    """The output of a command, which must succeed."""
    found = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert found.returncode == 0, f"{command}: {found.stdout}{found.stderr}"
    return found.stdout


def configure(source: Path, build: Path, *settings: str) -> str:
    """Why CMake cannot configure a project, or nothing."""
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    command = ["cmake", "-S", str(source), "-B", str(build), *generator, *settings]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if found.returncode == 0 else found.stdout + found.stderr


@pytest.fixture(scope="session")
def native_build(repository: Path) -> Path:
    """The folder that `make native` built in, brought up to date; tests that need it skip where there is none."""
    folder = Path(os.environ.get("SALIENCE_NATIVE_BUILD", repository / "build" / "native"))
    if not (folder / "CMakeCache.txt").is_file():
        pytest.skip("the native libraries are not built: make native")
    done = subprocess.run(["cmake", "--build", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


@pytest.fixture(scope="session")
def kernel_library(native_build: Path) -> Path:
    """The fused kernels as a library for ONNX Runtime."""
    return native_build / "runtime" / "kernels" / "libsalience_kernels.so"


@pytest.fixture(scope="session")
def installed(native_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which they were installed."""
    prefix = tmp_path_factory.mktemp("installed")
    run("cmake", "--install", native_build, "--prefix", prefix)
    return prefix


@pytest.fixture(scope="session")
def library(native_build: Path) -> Library:
    """The C interface."""
    spec = find_spec("onnxruntime")
    assert spec is not None
    assert spec.origin is not None
    (runtime,) = (Path(spec.origin).parent / "capi").glob("libonnxruntime.so.*")
    # Loaded first, so that the name which the library asks for is there.
    ctypes.CDLL(str(runtime))
    return Library(native_build / "runtime" / "cpp" / "libsalience.so")


@pytest.fixture
def edited(tmp_path: Path) -> Callable[[Path], Path]:
    """A bundle -> a copy of it to damage."""
    return lambda bundle: shutil.copytree(bundle, tmp_path / "bundle")
