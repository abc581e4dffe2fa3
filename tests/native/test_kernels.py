"""The native kernels against the function bodies that they replace."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from salience.export.operators import DOMAIN, attach_functions
from salience.export.opset import IR_VERSION, OPSET

onnxruntime = pytest.importorskip("onnxruntime")
FLOATS = ctypes.POINTER(ctypes.c_float)


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> ctypes.CDLL:
    if not shutil.which("cmake") or not (shutil.which("c++") or shutil.which("g++")):
        pytest.skip("cmake and a C++ compiler are needed to build the kernels")
    build = tmp_path_factory.mktemp("build")
    for step in (["-S", str(repository), "-B", str(build)], ["--build", str(build)]):
        subprocess.run(["cmake", *step], check=True, capture_output=True)
    (library,) = [path for path in build.iterdir() if path.suffix in (".so", ".dylib", ".dll")]
    return ctypes.CDLL(str(library))


def pointer(array: np.ndarray) -> "ctypes._Pointer[ctypes.c_float]":
    return array.ctypes.data_as(FLOATS)


def fuse(kernels: ctypes.CDLL, maps: list[np.ndarray], weights: np.ndarray) -> np.ndarray:
    fused = np.empty_like(maps[0])
    batch, pixels = maps[0].shape[0], maps[0][0].size
    status = kernels.salience_maxout_fusion_f32(
        (FLOATS * len(maps))(*map(pointer, maps)), pointer(weights),
        ctypes.c_int64(batch), ctypes.c_int64(len(maps)), ctypes.c_int64(pixels), pointer(fused),
    )  # fmt: skip
    assert status == 0
    return fused


def function_body(maps: list[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """The same by the body that travels in every exported file, run by ONNX Runtime."""
    model = onnx.parser.parse_model(
        f'<ir_version: {IR_VERSION}, opset_import: ["": {OPSET}, "{DOMAIN}": 1]>'
        "g (float[n, 1, h, w] map2, float[n, 1, h, w] map3, float[n, 1, h, w] map4, float[n, 3] weights)"
        " => (float[n, 1, h, w] fused) { fused = salience.MaxoutFusion (map2, map3, map4, weights) }"
    )
    attach_functions(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {f"map{k}": values for k, values in zip((2, 3, 4), maps, strict=True)} | {"weights": weights}
    found: np.ndarray = session.run(None, feeds)[0]
    return found


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 1, 33, 31), (3, 1, 224, 224)])
def test_maxout_fusion_equals_its_body(kernels: ctypes.CDLL, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    maps = [rng.normal(0, 4, shape).astype(np.float32) for _ in range(3)]
    weights = rng.random((shape[0], 3), dtype=np.float32)
    # float32 exponentials of two libraries
    assert fuse(kernels, maps, weights) == pytest.approx(function_body(maps, weights), abs=1e-6)


def test_extreme_logits_stay_in_range(kernels: ctypes.CDLL) -> None:
    maps = [np.full((1, 1, 2, 2), value, dtype=np.float32) for value in (-1e30, 1e30, 0)]
    assert fuse(kernels, maps, np.array([[1, 0.25, 0]], dtype=np.float32)) == pytest.approx(0.25)


@pytest.mark.parametrize(("batch", "scales", "pixels"), [(-1, 3, 4), (1, 0, 4), (1, 3, -4)])
def test_senseless_sizes_are_refused(kernels: ctypes.CDLL, batch: int, scales: int, pixels: int) -> None:
    values = np.zeros(4, dtype=np.float32)
    maps = (FLOATS * 3)(*[pointer(values)] * 3)
    sizes = (ctypes.c_int64(batch), ctypes.c_int64(scales), ctypes.c_int64(pixels))
    assert kernels.salience_maxout_fusion_f32(maps, pointer(values), *sizes, pointer(values)) == -1
    assert kernels.salience_maxout_fusion_f32(None, pointer(values), *sizes, pointer(values)) == -1
