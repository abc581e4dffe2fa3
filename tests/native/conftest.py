"""The native libraries, as `make native` built them."""

import os
import subprocess
from pathlib import Path

import pytest


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
