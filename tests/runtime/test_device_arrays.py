"""Tensors of other libraries in sessions, and the other way round: the same memory, and no copy."""

import gc
import re
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from salience.runtime import EngineError
from salience.runtime.backends.device_arrays import Device, View, read_shared
from salience.runtime.backends.engine import Engine, EngineOptions
from salience.runtime.backends.session import Session
from salience.runtime.backends.trt import TensorRtEngine

from .gpu_fakes import CudaTensor, FakeGpu
from .small_graphs import looped, of_every_type, open_small, start
from .trt_fakes import INTERFACE, PLAN, FakeCuda, Libraries, assert_computed, feeds

Open = Callable[..., Engine]

X = start()["x"]


def counts(session: Session[Any]) -> tuple[int, int]:
    return session.copies.to_device, session.copies.to_host


def library(name: str, array: NDArray[Any]) -> Any:
    """A tensor of `name` with the content of `array`."""
    return array.copy() if name == "numpy" else pytest.importorskip("torch").from_numpy(array.copy())


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_runs_read_a_shared_tensor_as_it_is_then(open_graph: Open, name: str) -> None:
    session, tensor = open_graph("treble").session(2), library(name, X)
    session.share("x", tensor)
    for factor in (1, 2, 4):
        tensor *= factor
        session.run()
        np.testing.assert_array_equal(np.from_dlpack(session.view("y")), 3 * np.from_dlpack(tensor))
    np.testing.assert_array_equal(np.from_dlpack(tensor), 8 * X)
    assert counts(session) == (0, 0)


def test_every_type_and_a_scalar(open_graph: Open) -> None:
    session = open_graph("types").session(3)
    given = of_every_type()
    for name, array in given.items():
        session.share(name, array)
    session.run()
    for name in given:
        found = np.from_dlpack(session.view(f"{name}_next"))
        assert (found.dtype, found.shape) == (given[name].dtype, given[name].shape)
        np.testing.assert_array_equal(found, session.read(f"{name}_next"))


def test_views_are_the_sessions_memory(open_graph: Open) -> None:
    torch = pytest.importorskip("torch")
    session = open_graph("treble").session(2)
    session.feed("x", X)
    session.run()
    first, again = torch.from_dlpack(session.view("y")), np.asarray(session.view("y"))
    assert first.data_ptr() == again.ctypes.data
    np.testing.assert_array_equal(first.numpy(), 3 * X)
    session.feed("x", X + 1)
    session.run()
    np.testing.assert_array_equal(first.numpy(), 3 * (X + 1))
    assert counts(session) == (2, 0)


def test_a_linked_output_is_viewed_where_it_is(affine: Engine) -> None:
    session = looped(affine)
    for _ in range(3):
        session.run()
        np.testing.assert_array_equal(np.asarray(session.view("x_next")), session.read("x_next"))


def test_a_view_outlives_its_session(open_graph: Open) -> None:
    session = open_graph("treble").session(2)
    session.feed("x", X)
    session.run()
    array = np.from_dlpack(session.view("y"))
    del session
    gc.collect()
    np.testing.assert_array_equal(array, 3 * X)


def test_a_session_keeps_what_is_shared_until_it_is_replaced(open_graph: Open) -> None:
    session, tensor = open_graph("treble").session(2), pytest.importorskip("torch").from_numpy(X.copy())
    session.share("x", tensor)
    kept = weakref.ref(tensor)
    del tensor
    gc.collect()
    session.run()
    np.testing.assert_array_equal(session.read("y"), 3 * X)
    assert kept() is not None
    session.feed("x", X)
    gc.collect()
    assert kept() is None


def test_feeding_leaves_a_shared_tensor_and_one_that_was_put_alone(open_graph: Open) -> None:
    session, tensor = open_graph("treble").session(2), X.copy()
    session.share("x", tensor)
    session.feed("x", X + 9)
    session.run()
    np.testing.assert_array_equal(session.read("y"), 3 * (X + 9))
    np.testing.assert_array_equal(tensor, X)

    source, other = open_graph("treble").session(2), open_graph("treble").session(2)
    source.feed("x", X)
    source.run()
    held = source.take("y")
    other.put("x", held)
    session.put("x", held)
    session.feed("x", X + 9)
    other.run()
    np.testing.assert_array_equal(other.read("y"), 3 * (3 * X))


def test_a_shared_input_counts_as_fed(open_graph: Open) -> None:
    session = open_graph("treble").session(2)
    session.share("x", X.copy())
    with pytest.raises(EngineError, match="y was viewed with no run since the inputs were fed"):
        session.view("y")
    session.run()
    session.share("x", X.copy())
    with pytest.raises(EngineError, match="call run"):
        session.read("y")


def test_what_cannot_be_shared_is_refused_in_a_sentence(open_graph: Open, cpu_backend: str) -> None:
    torch = pytest.importorskip("torch")
    session = open_graph("treble").session(2)
    refused: list[tuple[Any, str]] = [
        (X.astype(float), r"x: got float64 \(2, 3\), expected float32 \(2, 3\), what the session was opened for"),
        (X[:1], r"x: got float32 \(1, 3\), expected float32 \(2, 3\)"),
        (X.astype(">f4"), r"x: got >f4 \(2, 3\)"),
        (torch.zeros(3, 2).T, r"x: got a tensor that is not contiguous, expected C order; share \.contiguous\(\)"),
        (CudaTensor(X), r"x: got a tensor on cuda:0, expected one on cpu; .*\.to\('cpu'\)"),
        (torch.zeros(2, 3, requires_grad=True), r"does not give its memory away \(.*detach"),
        (torch.zeros(2, 3, dtype=torch.bfloat16), "does not give its memory away"),
        ([[1.0]], "x: got list, expected a tensor with DLPack or __cuda_array_interface__"),
    ]
    for tensor, message in refused:
        with pytest.raises(EngineError, match=message) as caught:
            session.share("x", tensor)
        assert re.fullmatch(rf"{cpu_backend} [^\n]+\.", str(caught.value))
    with pytest.raises(EngineError, match="input 'y' is not known"):
        session.share("y", X)
    with pytest.raises(EngineError, match="output 'x' is not known"):
        session.view("x")
    with pytest.raises(EngineError, match=r"run\(\) was called before x"):
        session.run()


def test_links_and_shared_tensors_do_not_mix(affine: Engine) -> None:
    loop = looped(affine)
    with pytest.raises(EngineError, match="x is linked, so nothing can be shared with it"):
        loop.share("x", X)
    session = affine.session(2)
    session.share("x", X)
    with pytest.raises(EngineError, match="x holds a tensor that is not the session's; link before"):
        session.link("x_next", "x")


def test_a_tensor_of_a_gpu_tells_where_it_is() -> None:
    strided = CudaTensor(X, 1, strides=(12, 4))
    shared = read_shared(strided, "x")
    assert (shared.address, shared.kind, shared.number) == (X.ctypes.data, "cuda", 1)
    assert shared.mismatch((2, 3), np.dtype("float32"), Device("cuda", 1)) is None
    assert "got a tensor on cuda:1, expected one on cuda:0" in str(
        shared.mismatch((2, 3), np.dtype("float32"), Device("cuda", 0))
    )
    turned = read_shared(CudaTensor(X, 1, strides=(4, 8)), "x")
    assert "not contiguous" in str(turned.mismatch((2, 3), np.dtype("float32"), Device("cuda", 1)))


def test_a_view_on_a_gpu_has_both_interfaces_and_none_of_the_hosts() -> None:
    view = View(4096, (2, 3), np.dtype("float16"), Device("cuda", 2), None, lambda stream: ("capsule", stream))
    assert view.__cuda_array_interface__ == {"data": (4096, False), "shape": (2, 3), "typestr": "<f2", "version": 3}
    assert view.__dlpack_device__() == (2, 2)
    assert view.__dlpack__(stream=7, max_version=(1, 0)) == ("capsule", 7)
    assert not hasattr(view, "__array_interface__")
    on_host = View(4096, (2, 3), np.dtype("float16"), Device(), None)
    assert not hasattr(on_host, "__cuda_array_interface__")


def test_onnxruntime_on_a_gpu_takes_tensors_of_its_gpu_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    FakeGpu(monkeypatch)
    session = open_small("treble", "onnxruntime", tmp_path, EngineOptions(device="cuda:1")).session(2)
    bound: list[tuple[Any, ...]] = []
    monkeypatch.setattr("onnxruntime.IOBinding.bind_input", lambda binding, *arguments: bound.append(arguments))
    session.share("x", CudaTensor(X, 1))
    assert bound == [("x", "cuda", 1, np.float32, [2, 3], X.ctypes.data)]
    for tensor in (CudaTensor(X, 0), X):
        with pytest.raises(EngineError, match=r"expected one on cuda:1; .*\.to\('cuda:1'\)"):
            session.share("x", tensor)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return Libraries(monkeypatch).cuda


def on_gpu(cuda: FakeCuda, array: NDArray[Any], number: int = 0) -> CudaTensor:
    """A tensor in the stand-in's memory."""
    address = next(cuda.numbers) << 20
    cuda.memory[address] = bytearray(array.tobytes())
    return CudaTensor(array, number, data=(address, False))


def test_tensorrt_reads_and_gives_memory_of_its_gpu(cuda: FakeCuda, tmp_path: Path) -> None:
    (tmp_path / "plan").write_bytes(PLAN)
    engine = TensorRtEngine.open_graph(tmp_path / "plan", INTERFACE, EngineOptions(device="cuda"))
    session, given = engine.session(2), feeds(2)
    tensors = {name: on_gpu(cuda, array) for name, array in given.items()}
    for name, tensor in tensors.items():
        session.share(name, tensor)
    session.run()
    assert_computed({name: session.read(name) for name in ("map", "mean")}, given)
    view = session.view("map")
    address, _ = view.__cuda_array_interface__["data"]
    np.testing.assert_array_equal(np.frombuffer(cuda.memory[address], np.float32), session.read("map").ravel())
    with pytest.raises(BufferError, match="as_tensor"):
        view.__dlpack__()
    with pytest.raises(EngineError, match="expected one on cuda:0"):
        session.share("image", on_gpu(cuda, given["image"], 1))
    assert session.copies.to_device == 0


def test_tensorrt_frees_no_memory_that_is_not_its_own(cuda: FakeCuda, tmp_path: Path) -> None:
    (tmp_path / "plan").write_bytes(PLAN)
    session = TensorRtEngine.open_graph(tmp_path / "plan", INTERFACE, EngineOptions(device="cuda")).session(2)
    tensor = on_gpu(cuda, feeds(2)["image"])
    session.share("image", tensor)
    session.close()
    gc.collect()
    assert list(cuda.memory) == [tensor.__cuda_array_interface__["data"][0]]
    with pytest.raises(EngineError, match=r"got a call after close\(\)"):
        session.share("image", tensor)
