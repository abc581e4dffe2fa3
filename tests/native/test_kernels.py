"""The fused kernels in ONNX Runtime, beside the function bodies that they replace."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from salience.export.operators import DOMAIN, attach_functions, model_of_node
from salience.export.opset import IR_VERSION, OPSET
from salience.runtime import BackendUnavailableError, EngineError, load
from salience.runtime.bundle import DEFAULT_BUNDLE
from salience.runtime.native import kernel_library as chosen_library

onnxruntime = pytest.importorskip("onnxruntime")
Arrays = dict[str, NDArray[Any]]
STRIDES = [f"stride{k}" for k in range(1, 6)]


def run(model: onnx.ModelProto, inputs: Arrays, kernels: Path | None, profile: Path | None = None) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if kernels is not None:
        options.register_custom_ops_library(str(kernels))
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: list[Any] = session.run(None, inputs)
    if profile is not None:
        session.end_profiling()
    return found


def noise(*shape: int, scale: float = 1.0) -> NDArray[np.float32]:
    return (scale * np.random.default_rng(len(shape) + sum(shape)).standard_normal(shape)).astype(np.float32)


def shares(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(sum(shape)).random(shape, dtype=np.float32)


def maxout(kind: Any = np.float32) -> Any:
    maps = {f"map{k}": noise(2, 1, 33, 31 + 0 * k, scale=k).astype(kind) for k in (2, 3, 4)}
    return "MaxoutFusion", maps | {"weights": shares(2, 3).astype(kind)}, 1, {}


def subpixel(kind: Any = np.float32, strides: tuple[int, ...] = (2, 4, 8, 16, 32)) -> Any:
    maps = {f"map{k}": noise(2, 3 * s * s, 96 // s, 192 // s).astype(kind) for k, s in enumerate(strides, start=1)}
    return "SubpixelConcat", maps, 1, {f"stride{k}": stride for k, stride in enumerate(strides, start=1)}


def relu() -> Any:
    return "ReluBackward", {"grad": noise(3, 7, 9), "activation": np.maximum(noise(3, 7, 9, scale=2), 0)}, 1, {}


def clip() -> Any:
    activation = np.clip(noise(3, 5, 70, scale=4), -1, 6)
    return "ClipBackward", {"grad": noise(3, 5, 70), "activation": activation}, 1, {"low": -1.0, "high": 6.0}


def pool() -> Any:
    activation = np.maximum(np.rint(noise(2, 3, 10, 66)), 0)  # with many windows of several largest elements
    largest = activation.reshape(2, 3, 5, 2, 33, 2).max(axis=(3, 5))
    return "PoolReluBackward", {"grad": noise(2, 3, 5, 33), "activation": activation, "largest": largest}, 1, {}


def centred() -> Any:
    return "CentredNorm", {"rows": noise(2, 13, 4099)}, 2, {}


def anchors(salient: float | None = None) -> Any:
    rows = noise(2, 13, 4099)
    rows -= rows.mean(axis=2, keepdims=True)
    prior = shares(2, 1, 4099)
    chosen = prior if salient is None else np.full_like(prior, salient)
    inputs = {"embedding": rows, "norm": (rows**2).sum(axis=1, keepdims=True), "salient": chosen}
    return "AnchorDistance", inputs | {"prior": prior, "iteration": np.full(1, 2, np.float32)}, 1, {"sharpness": 1.5}


CASES: dict[str, Callable[[], Any]] = {
    "MaxoutFusion": maxout,
    "MaxoutFusion fp16": lambda: maxout(np.float16),
    "SubpixelConcat": subpixel,
    "SubpixelConcat fp16": lambda: subpixel(np.float16),
    "SubpixelConcat odd strides": lambda: subpixel(strides=(1, 2, 3, 6, 12)),
    "ReluBackward": relu,
    "ClipBackward": clip,
    "PoolReluBackward": pool,
    "CentredNorm": centred,
    "AnchorDistance": anchors,
    "AnchorDistance, mostly salient": lambda: anchors(0.9),
    "AnchorDistance, nothing salient": lambda: anchors(0.0),
    "AnchorDistance, all salient": lambda: anchors(1.0),
}


@pytest.mark.parametrize("case", CASES)
def test_a_kernel_gives_what_its_body_gives(kernel_library: Path, tmp_path: Path, case: str) -> None:
    operator, inputs, outputs, attributes = CASES[case]()
    model = model_of_node(operator, inputs, attributes, outputs=outputs)
    expected = run(model, inputs, None)
    found = run(model, inputs, kernel_library, tmp_path / "profile")
    # The kernel is what ran: the profile knows it by the operator's name, and none of the body's nodes.
    (profile,) = tmp_path.glob("profile*.json")
    assert f'"op_name" : "{operator}"' in profile.read_text()
    half = next(iter(inputs.values())).dtype == np.float16
    # Sums of 13 to 4099 numbers in another order; half precision is rounded once here and after each step there.
    tolerance = 1e-3 if half else 2e-6 * max(1.0, float(np.abs(expected[-1]).max()))
    for one, other in zip(expected, found, strict=True):
        assert np.abs(one.astype(np.float64)).max() > 0
        assert one.shape == other.shape
        np.testing.assert_allclose(other.astype(np.float64), one.astype(np.float64), rtol=0, atol=tolerance)


def test_a_result_takes_the_memory_of_no_input_that_is_needed_again(kernel_library: Path) -> None:
    inputs = {"grad": noise(1, 2, 8, 8), "activation": np.maximum(noise(1, 2, 8, 8, scale=3), 0)}
    text = f"""<ir_version: {IR_VERSION}, opset_import: ["": {OPSET}, "{DOMAIN}": 1]>
        g (float[1, 2, 8, 8] grad, float[1, 2, 8, 8] activation) => (float[1, 2, 8, 8] sum) {{
            twice = Add (grad, grad)
            masked = salience.ReluBackward (twice, activation)
            sum = Add (masked, twice)
        }}"""
    model = onnx.parser.parse_model(text)
    attach_functions(model)
    (found,) = run(model, inputs, kernel_library)
    doubled = 2 * inputs["grad"]
    np.testing.assert_array_equal(found, np.where(inputs["activation"] > 0, doubled, 0) + doubled)


@pytest.mark.parametrize(
    ("operator", "shapes", "attributes", "message"),
    [
        ("MaxoutFusion", [(1, 1, 4, 4), (1, 1, 4, 5), (1, 1, 4, 4), (1, 3)], {}, "three maps of one shape"),
        ("MaxoutFusion", [(1, 1, 4, 4)] * 3 + [(1, 2)], {}, "expected weights (N, 3)"),
        ("SubpixelConcat", [(1, 4, 2, 2)] * 5, dict.fromkeys(STRIDES, 3), "N, C * stride^2"),
        ("SubpixelConcat", [(1, 4, 2, 2)] * 5, dict.fromkeys(STRIDES, 0), "stride 0"),
        ("ReluBackward", [(2, 3), (3, 2)], {}, "a gradient of the activation's shape"),
        ("PoolReluBackward", [(1, 1, 2, 2), (1, 1, 5, 4), (1, 1, 2, 2)], {}, "twice the gradient's height"),
        ("CentredNorm", [(2, 3)], {}, "expected rows (N, C, P)"),
        ("AnchorDistance", [(1, 3, 5), (1, 1, 5), (1, 1, 4), (1, 1, 5), (1,)], {"sharpness": 1.0}, "rows (N, 1, P)"),
    ],
)  # fmt: skip
def test_senseless_sizes_are_refused_in_a_sentence(
    kernel_library: Path, operator: str, shapes: list[tuple[int, ...]], attributes: dict[str, float], message: str
) -> None:
    inputs: Arrays = {f"in{k}": np.zeros(shape, np.float32) for k, shape in enumerate(shapes)}
    model = model_of_node(operator, inputs, attributes, outputs=2 if operator == "CentredNorm" else 1)
    for value in model.graph.input:  # shapes unknown to the model, so that the kernel is the first to see them
        kind = value.type.tensor_type.elem_type
        value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, kind or TensorProto.FLOAT, None))
    with pytest.raises(Exception, match=rf"salience\.{operator}: got .*{re.escape(message)}"):
        run(model, inputs, kernel_library)


@pytest.mark.parametrize("method", ["multis", "lps", "cgd"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "fp16-weights"])
def test_bundles_give_the_same_maps_with_kernels(
    kernel_library: Path, bundle_of: Callable[[str], Path], photos: Any, method: str, precision: Any
) -> None:
    plain, fused = (
        load(bundle_of(method), backend="onnxruntime", precision=precision, kernels=choice)
        for choice in ("none", kernel_library)
    )
    assert "with fused kernels" in fused.backend
    assert "with fused kernels" not in plain.backend
    one, other = plain.try_out(photos["coffee"]).grey(), fused.try_out(photos["coffee"]).grey()
    assert one.max() > one.min()
    assert int(np.abs(one.astype(int) - other.astype(int)).max()) <= 1


def test_kernels_are_chosen_by_argument_variable_and_package(
    kernel_library: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("SALIENCE_KERNELS", raising=False)
    assert chosen_library(kernel_library, on_gpu=True) == kernel_library.resolve()
    monkeypatch.setenv("SALIENCE_KERNELS", str(kernel_library))
    assert chosen_library("auto", on_gpu=False) == kernel_library.resolve()
    assert chosen_library("none", on_gpu=False) is None
    assert "with fused kernels" in load(backend="onnxruntime").backend
    monkeypatch.setenv("SALIENCE_KERNELS", "none")
    monkeypatch.setattr("salience.runtime.native.FOLDER", kernel_library.parent)
    assert chosen_library("auto", on_gpu=False) is None
    monkeypatch.delenv("SALIENCE_KERNELS")
    assert chosen_library("auto", on_gpu=False) == kernel_library
    assert chosen_library("auto", on_gpu=True) is None
    monkeypatch.setattr("salience.runtime.native.FOLDER", tmp_path)
    assert chosen_library("auto", on_gpu=False) is None


def test_kernels_that_cannot_be_loaded_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailableError, match=r"kernels .*none\.so: no such file; expected a library"):
        load(kernels=tmp_path / "none.so")
    text = tmp_path / "text.so"
    text.write_text("no library")
    with pytest.raises(BackendUnavailableError, match=r"kernels .*text\.so: cannot be loaded .*; build them again"):
        load(backend="onnxruntime", kernels=text)
    with pytest.raises(EngineError, match=r"kernels .*text\.so: are for onnxruntime, got backend openvino"):
        load(DEFAULT_BUNDLE, backend="openvino", kernels=text)
