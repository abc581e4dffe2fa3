"""Between the runs of a loop nothing is copied: by our counters, by the libraries' calls, and by their addresses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from salience.runtime import Bundle, EngineError
from salience.runtime.backends import BACKENDS
from salience.runtime.backends.engine import Engine
from salience.runtime.backends.session import Session
from salience.runtime.driver import iterate
from salience.runtime.methods.lps import Problem, RefineLoop
from salience.runtime.tables import entry
from tests.conftest import SIZE

from .small_graphs import CPU, looped, start

Open = Callable[..., Engine]
Address = Callable[[Session[Any], str], int]


@pytest.fixture
def address(cpu_backend: str, monkeypatch: pytest.MonkeyPatch) -> Address:
    """Where the library itself reads or writes a tensor of a session; before a session is opened."""
    if cpu_backend == "openvino":
        return lambda session, name: session._request.get_tensor(name).data.ctypes.data  # type: ignore[attr-defined]
    from onnxruntime import IOBinding

    bound: dict[tuple[Any, str], int] = {}
    for method in ("bind_ortvalue_input", "bind_ortvalue_output"):
        genuine = getattr(IOBinding, method)

        def noted(binding: Any, name: str, value: Any, genuine: Callable[..., None] = genuine) -> None:
            genuine(binding, name, value)
            bound[binding, name] = value.data_ptr()

        monkeypatch.setattr(IOBinding, method, noted)
    return lambda session, name: bound[session._binding, name]  # type: ignore[attr-defined]


@pytest.fixture
def copied(cpu_backend: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls by which the library copies between arrays and its tensors, as they come."""
    calls: list[str] = []

    def count(owner: Any, name: str) -> None:
        genuine = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return genuine(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)

    if cpu_backend == "openvino":
        import openvino

        # Its tensors are views for numpy: `infer` is what copies.
        for name in ("infer", "set_tensors", "set_input_tensors", "set_output_tensors"):
            count(openvino.InferRequest, name)
        return calls
    import onnxruntime

    for name in ("numpy", "ortvalue_from_numpy", "ortvalue_from_shape_and_type", "update_inplace"):
        count(onnxruntime.OrtValue, name)
    for name in ("copy_outputs_to_cpu", "bind_cpu_input", "bind_input", "bind_output", "get_outputs"):
        count(onnxruntime.IOBinding, name)
    count(onnxruntime.InferenceSession, "run")
    return calls


def counts(*sessions: Session[Any]) -> list[tuple[int, int]]:
    return [(session.copies.to_device, session.copies.to_host) for session in sessions]


def test_copies_are_counted_and_a_loop_makes_none(affine: Engine) -> None:
    session = looped(affine)
    assert counts(session) == [(2, 0)]
    for _ in range(10):
        session.run()
    assert counts(session) == [(2, 0)]
    session.read("x_next")
    assert counts(session) == [(2, 1)]


def test_a_refused_call_is_no_copy(affine: Engine) -> None:
    session = looped(affine)
    for call in (lambda: session.feed("x", start(3)["x"]), lambda: session.read("x_next")):
        with pytest.raises(EngineError):
            call()
    assert counts(session) == [(2, 0)]


def test_the_library_copies_nothing_in_a_loop(copied: list[str], affine: Engine, cpu_backend: str) -> None:
    session = looped(affine)
    copied.clear()
    for _ in range(10):
        session.run()
    assert copied == []
    session.read("x_next")
    affine.run(start())
    # The calls are the ones that are meant: reading, and a run by itself, make them.
    assert copied == {"openvino": ["infer"]}.get(
        cpu_backend, ["numpy", "bind_cpu_input", "bind_cpu_input", "bind_output", "bind_output", "copy_outputs_to_cpu"]
    )


def test_a_loop_swaps_two_buffers(address: Address, affine: Engine) -> None:
    session = looped(affine)
    first, second = address(session, "x"), address(session, "x_next")
    assert first != second
    for run in range(1, 11):
        session.run()
        places = (first, second) if run % 2 == 0 else (second, first)
        assert (address(session, "x"), address(session, "x_next")) == places


def test_a_run_writes_to_the_buffer_that_is_bound(
    address: Address, affine: Engine, cpu_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = looped(affine)
    execute, wrote = session._execute, list[tuple[int, int]]()

    def watched() -> None:
        bound = address(session, "x_next")
        execute()
        if cpu_backend == "onnxruntime":
            outputs = dict(zip(session._outputs, session._binding.get_outputs(), strict=True))  # type: ignore[attr-defined]
            wrote.append((outputs["x_next"].data_ptr(), bound))
        else:
            wrote.append((address(session, "x_next"), bound))

    monkeypatch.setattr(session, "_execute", watched)
    for _ in range(10):
        session.run()
    assert all(found == bound for found, bound in wrote)
    assert len(set(wrote)) == 2


def test_linked_sessions_share_one_buffer(address: Address, open_graph: Open) -> None:
    first, second = open_graph("affine").session(2), open_graph("treble").session(2)
    places = address(first, "x_next"), address(second, "x")
    assert places[0] != places[1]
    first.link("x_next", "x", to=second)
    for name, array in start().items():
        first.feed(name, array)
    for _ in range(3):
        assert address(first, "x_next") == address(second, "x") == places[0]
        first.run()
        second.run()


@pytest.fixture
def promoter(bundle_of: Callable[[str], Path], cpu_backend: str) -> dict[str, Engine]:
    """The graphs of the small `lps` bundle."""
    kind, bundle = entry(BACKENDS, cpu_backend, what="backend"), Bundle(bundle_of("lps"))
    return {graph: kind.open(bundle, graph, "fp32", CPU) for graph in ("embed", "refine")}


def problem(batch: int, iterations: int = 10) -> Problem:
    rng = np.random.default_rng(batch)
    images = rng.standard_normal((batch, 3, *SIZE), dtype=np.float32)
    return Problem(images, rng.random((batch, 1, *SIZE), dtype=np.float32), iterations)


@pytest.mark.parametrize("batch", [1, 3])
def test_ten_iterations_of_a_promoter_bit_for_bit(promoter: dict[str, Engine], batch: int) -> None:
    loop, given = RefineLoop(promoter, batch), problem(batch)
    embedded = promoter["embed"].run({"input": given.images})
    feeds: dict[str, NDArray[Any]] = {"prior": given.priors, "iteration": np.zeros(1, np.int64)}

    def compare(_: object) -> None:
        found = promoter["refine"].run({**embedded, **feeds})
        feeds.update({name.removeprefix("next_"): array for name, array in found.items()})
        for name, array in found.items():
            np.testing.assert_array_equal(loop.refine.read(name), array)

    np.testing.assert_array_equal(iterate(loop, given, watch=compare), feeds["prior"])
    assert feeds["iteration"] == [10]


def test_a_promoter_never_copies_its_large_state_and_copies_its_maps_once(
    address: Address, copied: list[str], promoter: dict[str, Engine]
) -> None:
    loop = RefineLoop(promoter, 2)
    place = address(loop.embed, "embedding")
    maps = {address(loop.refine, "prior"), address(loop.refine, "next_prior")}
    assert len(maps) == 2
    calls: list[list[str]] = []

    def look(_: object) -> None:
        assert address(loop.refine, "embedding") == address(loop.embed, "embedding") == place
        assert {address(loop.refine, "prior"), address(loop.refine, "next_prior")} == maps
        assert counts(loop.embed, loop.refine) == [(1, 0), (2, 0)]
        calls.append(list(copied))
        copied.clear()

    copied.clear()
    iterate(loop, problem(2), watch=look)
    # Before the first iteration the pictures, the priors and the counter were fed.
    assert calls[0] in ([], ["update_inplace"] * 3)
    assert calls[1:] == [[]] * 9
    assert counts(loop.embed, loop.refine) == [(1, 0), (2, 1)]
