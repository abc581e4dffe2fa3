"""TensorRT-RTX builds engines on any machine, so these are real; it stands in for TensorRT too."""

import ctypes
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from salience.export.compilers import COMPILERS
from salience.export.compilers.trt import DEFAULT_TARGETS, compile_tensorrt, compile_tensorrt_rtx
from salience.runtime.errors import BackendUnavailableError, ExportError
from salience.runtime.tables import entry

OPENING = '<ir_version: 10, opset_import: ["": 20, "salience": 1]>'
MAXOUT = """
<domain: "salience", opset_import: ["": 20]>
MaxoutFusion (map2, map3, map4, weights) => (fused) {
    axes = Constant <value = int64[2] {2, 3}> ()
    planes = Unsqueeze (weights, axes)
    weight2, weight3, weight4 = Split <axis = 1, num_outputs = 3> (planes)
    saliency2 = Sigmoid (map2)
    saliency3 = Sigmoid (map3)
    saliency4 = Sigmoid (map4)
    weighted2 = Mul (saliency2, weight2)
    weighted3 = Mul (saliency3, weight3)
    weighted4 = Mul (saliency4, weight4)
    fused = Max (weighted2, weighted3, weighted4)
}
"""


def write(path: Path, body: str) -> Path:
    """The ONNX text `body`, checked, as a file."""
    model = onnx.parser.parse_model(OPENING + body)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def convolution(folder: Path, dtype: str, size: str = "8, 8") -> Path:
    """A 3x3 convolution from (batch, 4, H, W) to (batch, 64, H, W), with 2304 weights."""
    body = f"""
    conv ({dtype}[batch, 4, {size}] image, {dtype}[64, 4, 3, 3] kernel)
        => ({dtype}[batch, 64, {size}] features) {{
        sums = Conv <pads = [1, 1, 1, 1]> (image, kernel)
        features = Relu (sums)
    }}"""
    file = write(folder / f"conv.{dtype}.onnx", body)
    model = onnx.load(file)
    weights = np.random.default_rng(0).normal(0, 0.1, (64, 4, 3, 3))
    kernel = weights.astype(np.float16 if dtype == "float16" else np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(kernel, "kernel"))
    del model.graph.input[1]
    onnx.save(model, file)
    return file


@pytest.fixture
def rtx() -> Any:
    return pytest.importorskip("tensorrt_rtx")


@pytest.fixture
def conv_file(tmp_path: Path) -> Path:
    return convolution(tmp_path, "float")


def test_every_compiler_of_the_table_can_be_imported() -> None:
    assert {name: callable(entry(COMPILERS, name, what="compiler")) for name in COMPILERS} == {
        "tensorrt": True,
        "tensorrt-rtx": True,
    }


def test_importing_compilers_and_backend_loads_no_gpu_library() -> None:
    code = (
        "import salience.export.compilers.trt, salience.runtime.backends.trt\n"
        "print(sorted({'tensorrt', 'tensorrt_rtx', 'pycuda', 'torch', 'onnx'} & sys.modules.keys()))"
    )
    source = Path(__file__).parents[2] / "src"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(source)!r})\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("dtype", ["float", "float16"])
def test_builds_an_engine_with_a_free_batch(rtx: Any, tmp_path: Path, dtype: str) -> None:
    engine = compile_tensorrt_rtx(convolution(tmp_path, dtype), profile=(1, 2, 4))
    assert len(engine.plan) > 1000
    assert (engine.builder, engine.builder_version) == ("tensorrt-rtx", rtx.__version__)
    assert engine.targets == DEFAULT_TARGETS
    assert engine.profile == (1, 2, 4)
    assert 0 < engine.build_s < 60


def test_the_file_decides_the_precision(rtx: Any, tmp_path: Path) -> None:
    single = compile_tensorrt_rtx(convolution(tmp_path, "float"), profile=(1, 1, 1))
    half = compile_tensorrt_rtx(convolution(tmp_path, "float16"), profile=(1, 1, 1))
    # 2304 weights take 2 bytes less each; half of that leaves room for other kernels.
    assert len(single.plan) - len(half.plan) > 2304


def test_profile_and_targets_reach_the_engine(rtx: Any, conv_file: Path) -> None:
    plan = compile_tensorrt_rtx(conv_file, profile=(1, 1, 2), targets=("8.6",)).plan
    # Building is deterministic, so a difference below comes from the argument alone.
    assert compile_tensorrt_rtx(conv_file, profile=(1, 1, 2), targets=("8.6",)).plan == plan
    assert compile_tensorrt_rtx(conv_file, profile=(1, 1, 64), targets=("8.6",)).plan != plan
    assert compile_tensorrt_rtx(conv_file, profile=(1, 1, 2), targets=("8.9",)).plan != plan


def test_named_targets_are_kept_once_and_in_order(rtx: Any, conv_file: Path) -> None:
    engine = compile_tensorrt_rtx(conv_file, profile=(1, 1, 1), targets=["8.9", "8.6", "8.9"])
    assert engine.targets == ("8.9", "8.6")


@pytest.mark.parametrize("dtype", ["float", "float16"])
def test_builds_the_maxout_function_from_its_body(rtx: Any, tmp_path: Path, dtype: str) -> None:
    maps = ", ".join(f"{dtype}[batch, 1, 8, 8] map{level}" for level in (2, 3, 4))
    body = f"""
    fusion ({maps}, {dtype}[batch, 3] weights) => ({dtype}[batch, 1, 8, 8] saliency) {{
        saliency = salience.MaxoutFusion (map2, map3, map4, weights)
    }}"""
    engine = compile_tensorrt_rtx(write(tmp_path / "maxout.onnx", body + MAXOUT), profile=(1, 1, 4))
    assert len(engine.plan) > 1000


def test_a_graph_of_fixed_size_keeps_its_batch(rtx: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "fixed.onnx", "fixed (float[3, 4] x) => (float[3, 4] y) { y = Relu (x) }")
    assert compile_tensorrt_rtx(file, profile=(1, 2, 8)).profile == (3, 3, 3)


@pytest.mark.parametrize("compiler", [compile_tensorrt, compile_tensorrt_rtx])
@pytest.mark.parametrize("profile", [(0, 1, 2), (2, 1, 4), (1, 5, 4), (1, 2)])
def test_rejects_a_wrong_profile(compiler: Callable[..., Any], profile: Any, conv_file: Path) -> None:
    with pytest.raises(ExportError, match=r"profile .*: expected the smallest, best and largest batch"):
        compiler(conv_file, profile=profile)


def test_rejects_an_unknown_target_and_lists_the_known(rtx: Any, conv_file: Path) -> None:
    with pytest.raises(ExportError, match=r"compute capability 9\.0 given, .*8\.0, 8\.6, 8\.9, 12\.0"):
        compile_tensorrt_rtx(conv_file, profile=(1, 1, 1), targets=("8.6", "9.0"))


def test_rejects_free_height_and_width(rtx: Any, tmp_path: Path) -> None:
    file = convolution(tmp_path, "float", size="height, width")
    with pytest.raises(ExportError, match=r"image \(-1, 4, -1, -1\) is free .*expected fixed sizes"):
        compile_tensorrt_rtx(file, profile=(1, 1, 1))


def test_an_unparsable_file_is_one_sentence(rtx: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "broken.onnx"
    file.write_bytes(b"no ONNX at all")
    with pytest.raises(ExportError, match=r"broken\.onnx: cannot be parsed \(.*Failed to parse"):
        compile_tensorrt_rtx(file, profile=(1, 1, 1))
    assert capfd.readouterr() == ("", "")


def test_an_unknown_operator_is_named(rtx: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "odd.onnx", "odd (float[N, 4] x) => (float[N, 4] y) { y = salience.Strange (x) }")
    with pytest.raises(ExportError, match=r"odd\.onnx: cannot be parsed \(Strange: .*Plugin not found") as caught:
        compile_tensorrt_rtx(file, profile=(1, 1, 1))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(rtx: Any, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"got no file at .*absent\.onnx"):
        compile_tensorrt_rtx(tmp_path / "absent.onnx", profile=(1, 1, 1))


@pytest.mark.parametrize(
    ("compiler", "module", "extra"),
    [(compile_tensorrt, "tensorrt", "tensorrt"), (compile_tensorrt_rtx, "tensorrt_rtx", "tensorrt-rtx")],
)
def test_a_missing_library_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, conv_file: Path, compiler: Callable[..., Any], module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BackendUnavailableError, match=rf"{module} is not installed; .*'salience\[{extra}\]'"):
        compiler(conv_file, profile=(1, 1, 1))


class FakeDriver:
    """As much of libcuda as the compiler asks: one GPU of compute capability 8.6, or what is said."""

    def __init__(self, status: int = 0, count: int = 1, attribute_status: int = 0) -> None:
        self.status, self.count, self.attribute_status = status, count, attribute_status

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self.status

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self.count
        return 0

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:  # noqa: N802
        return 0 if ordinal < self.count else 101

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:  # noqa: N802
        value._obj.value = {75: 8, 76: 6}[attribute]
        return self.attribute_status


def stand_in(rtx: Any, *, flag: bool = True, builds: bool = True) -> Any:
    """TensorRT's module, made of TensorRT-RTX's, which targets a GPU as if it were present."""

    class Builder:
        flags: int | None = None

        def __init__(self, logger: Any) -> None:
            self._builder, self._logger = rtx.Builder(logger), logger

        def create_network(self, flags: int) -> Any:
            Builder.flags = flags
            return self._builder.create_network(flags)

        def create_optimization_profile(self) -> Any:
            return self._builder.create_optimization_profile()

        def create_builder_config(self) -> Any:
            config = self._builder.create_builder_config()
            config.num_compute_capabilities = 1
            config.set_compute_capability(rtx.ComputeCapability.SM86, 0)
            return config

        def build_serialized_network(self, network: Any, config: Any) -> Any:
            if builds:
                return self._builder.build_serialized_network(network, config)
            self._logger.log(rtx.ILogger.WARNING, "a mere warning")
            self._logger.log(rtx.ILogger.ERROR, "no kernel\n  for layer 7.")
            return None

    enum = rtx.NetworkDefinitionCreationFlag if flag else object()
    return SimpleNamespace(
        ILogger=rtx.ILogger,
        OnnxParser=rtx.OnnxParser,
        Builder=Builder,
        NetworkDefinitionCreationFlag=enum,
        __version__="10.13.3",
    )


@pytest.mark.parametrize("flag", [True, False])
def test_tensorrt_builds_strongly_typed_for_the_gpu_present(
    rtx: Any, monkeypatch: pytest.MonkeyPatch, conv_file: Path, flag: bool
) -> None:
    module = stand_in(rtx, flag=flag)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: FakeDriver())
    engine = compile_tensorrt(conv_file, profile=(1, 1, 2))
    assert (engine.builder, engine.builder_version, engine.targets) == ("tensorrt", "10.13.3", ("8.6",))
    assert module.Builder.flags == (1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED) if flag else 0)


def test_a_failed_build_says_what_the_library_logged(
    rtx: Any, monkeypatch: pytest.MonkeyPatch, conv_file: Path
) -> None:
    module = stand_in(rtx, builds=False)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: FakeDriver())
    with pytest.raises(ExportError, match=r"conv\.float\.onnx: cannot be built \(no kernel for layer 7\)"):
        compile_tensorrt(conv_file, profile=(1, 1, 2))


def test_tensorrt_takes_no_targets(conv_file: Path) -> None:
    with pytest.raises(ExportError, match=r"targets 8\.6 given, expected none"):
        compile_tensorrt(conv_file, profile=(1, 1, 1), targets=("8.6",))


@pytest.mark.parametrize(
    "driver", [None, FakeDriver(status=100), FakeDriver(count=0), FakeDriver(attribute_status=999)]
)
def test_tensorrt_without_a_gpu_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch, conv_file: Path, driver: FakeDriver | None
) -> None:
    def load(name: str) -> FakeDriver:
        if driver is None:
            raise OSError(f"{name}: cannot open shared object file")
        return driver

    # The module has no Builder: reaching for it before the driver answered would raise AttributeError.
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="10.13.3"))
    monkeypatch.setattr(ctypes, "CDLL", load)
    with pytest.raises(BackendUnavailableError, match=r"no (usable )?NVIDIA .*use tensorrt-rtx"):
        compile_tensorrt(conv_file, profile=(1, 1, 1))
