"""Sessions of the TensorRT backends against stand-ins for the two libraries: no GPU is at hand."""

import gc
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from salience.runtime.backends.engine import EngineOptions
from salience.runtime.backends.trt import TensorRtEngine, TensorRtRtxEngine
from salience.runtime.backends.trt_session import TensorRtSession
from salience.runtime.errors import EngineError

from .trt_fakes import CUDA, INTERFACE, PLAN, FakeCuda, Libraries, assert_computed, feeds


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> Libraries:
    return Libraries(monkeypatch)


@pytest.fixture
def cuda(libraries: Libraries) -> FakeCuda:
    return libraries.cuda


@pytest.fixture
def plan_file(tmp_path: Path) -> Path:
    file = tmp_path / "net.fp32.tensorrt-rtx.engine"
    file.write_bytes(PLAN)
    return file


@pytest.fixture
def engine(libraries: Libraries, plan_file: Path) -> TensorRtRtxEngine:
    return TensorRtRtxEngine.open_graph(plan_file, INTERFACE, CUDA)


def feed(session: TensorRtSession, given: dict[str, NDArray[Any]]) -> None:
    for name, array in given.items():
        session.feed(name, array)


def read(session: TensorRtSession) -> dict[str, NDArray[Any]]:
    return {name: session.read(name) for name in ("map", "mean")}


def powers(given: dict[str, NDArray[Any]], count: int) -> NDArray[Any]:
    """The map after `count` runs of which each takes the map before it as its image."""
    found = given["image"]
    for _ in range(count):
        found = found * given["weight"][:, None, None].astype(np.float32)
    return found


def assert_all_freed(cuda: FakeCuda) -> None:
    """Everything was freed, each buffer once, and no thread's stack was left with a context."""
    assert not cuda.memory
    assert not cuda.streams
    assert not cuda.contexts
    assert not cuda.strays
    assert not cuda.stack
    assert sum(event.startswith("alloc") for event in cuda.events) == cuda.events.count("free")


def assert_refused(call: Callable[[], object], message: str) -> None:
    # Without a name for the error, whose traceback would hold the session.
    with pytest.raises(EngineError, match=message):
        call()


@pytest.mark.parametrize("batch", [1, 3, 4])
@pytest.mark.parametrize("backend", [TensorRtEngine, TensorRtRtxEngine])
def test_computes_what_the_graph_does(libraries: Libraries, plan_file: Path, backend: Any, batch: int) -> None:
    session = backend.open_graph(plan_file, INTERFACE, CUDA).session(batch)
    for seed in range(2):
        given = feeds(batch, seed)
        feed(session, given)
        session.run()
        assert_computed(read(session), given)
    assert not libraries.cuda.stack


def test_binds_and_shapes_once(cuda: FakeCuda, engine: TensorRtRtxEngine) -> None:
    session = engine.session(2)
    feed(session, feeds(2))
    cuda.events.clear()
    for _ in range(3):
        session.run()
    assert cuda.events == ["execute", "synchronize"] * 3


def test_what_was_fed_is_the_callers_again(engine: TensorRtRtxEngine) -> None:
    session, given = engine.session(2), feeds(2)
    for name, array in given.items():
        scratch = array.copy()
        session.feed(name, scratch)
        scratch.fill(7)
    session.run()
    assert_computed(read(session), given)


def test_what_was_read_stays_as_it_is(engine: TensorRtRtxEngine) -> None:
    session, given = engine.session(2), feeds(2)
    feed(session, given)
    session.run()
    kept = read(session)
    feed(session, feeds(2, seed=1))
    session.run()
    assert_computed(kept, given)


def test_takes_arrays_that_are_not_contiguous(engine: TensorRtRtxEngine) -> None:
    session, given = engine.session(4), {name: array[::-1] for name, array in feeds(4).items()}
    feed(session, given)
    session.run()
    assert_computed(read(session), given)


def test_a_linked_output_is_the_next_input(cuda: FakeCuda, engine: TensorRtRtxEngine) -> None:
    session, given = engine.session(2), feeds(2)
    session.link("map", "image")
    feed(session, given)
    cuda.events.clear()
    for _ in range(5):
        session.run()
    # No copies, and no memory beyond what the session began with.
    assert set(cuda.events) == {"execute", "synchronize"}
    np.testing.assert_array_equal(session.read("map"), powers(given, 5))
    assert (session.copies.to_device, session.copies.to_host) == (2, 1)
    session.run()
    np.testing.assert_array_equal(session.read("map"), powers(given, 6))


def test_two_links_swap_both_pairs(engine: TensorRtRtxEngine) -> None:
    session, given = engine.session(3), feeds(3)
    session.link("map", "image")
    session.link("mean", "weight")
    feed(session, given)
    image, weight = given["image"], given["weight"]
    for _ in range(3):
        session.run()
        image = image * weight[:, None, None].astype(np.float32)
        weight = image.mean((1, 2)).astype(np.float16)
    np.testing.assert_array_equal(session.read("map"), image)
    np.testing.assert_array_equal(session.read("mean"), weight)


def test_sessions_are_linked_without_copies(cuda: FakeCuda, engine: TensorRtRtxEngine) -> None:
    first, second, given = engine.session(2), engine.session(2), feeds(2)
    first.link("map", "image", to=second)
    feed(first, given)
    second.feed("weight", given["weight"])
    cuda.events.clear()
    for _ in range(2):
        first.run()
        second.run()
    assert set(cuda.events) == {"execute", "synchronize"}
    np.testing.assert_array_equal(second.read("map"), powers(given, 2))
    # The next image of the first, run while the second holds the map of the one before.
    later = feeds(2, seed=1) | {"weight": given["weight"]}
    first.feed("image", later["image"])
    first.run()
    np.testing.assert_array_equal(second.read("map"), powers(given, 2))
    second.run()
    np.testing.assert_array_equal(second.read("map"), powers(later, 2))


def test_linked_sessions_share_one_buffer(cuda: FakeCuda, engine: TensorRtRtxEngine) -> None:
    first, second = engine.session(2), engine.session(2)
    _, writes, reads = (cuda.contexts[number].addresses for number in sorted(cuda.contexts))
    assert not set(writes.values()) & set(reads.values())
    first.link("map", "image", to=second)
    assert reads["image"] == writes["map"]
    # The second's own buffer for the image went.
    assert len(cuda.memory) == 7


@pytest.mark.parametrize("end", [TensorRtSession.close, lambda session: None], ids=["closed", "forgotten"])
def test_a_shared_buffer_outlives_the_session_that_wrote_it(
    cuda: FakeCuda, engine: TensorRtRtxEngine, end: Callable[[TensorRtSession], None]
) -> None:
    first, second, given = engine.session(2), engine.session(2), feeds(2)
    first.link("map", "image", to=second)
    feed(first, given)
    first.run()
    end(first)
    del first
    assert len(cuda.memory) == 4
    second.feed("weight", given["weight"])
    second.run()
    np.testing.assert_array_equal(second.read("map"), powers(given, 2))
    second.close()
    engine.close()
    assert_all_freed(cuda)


def test_sessions_of_two_engines_are_linked(libraries: Libraries, plan_file: Path) -> None:
    engines = [TensorRtRtxEngine.open_graph(plan_file, INTERFACE, CUDA) for _ in range(2)]
    (first, second), given = (engine.session(2) for engine in engines), feeds(2)
    first.link("map", "image", to=second)
    feed(first, given)
    first.run()
    engines[0].close()
    second.feed("weight", given["weight"])
    second.run()
    np.testing.assert_array_equal(second.read("map"), powers(given, 2))
    engines[1].close()
    assert_all_freed(libraries.cuda)


def test_sessions_and_their_engine_are_independent(cuda: FakeCuda, engine: TensorRtRtxEngine) -> None:
    given = {batch: feeds(batch, seed=batch) for batch in (1, 2, 3, 4)}
    sessions = {batch: engine.session(batch) for batch in (1, 2, 3)}
    assert len(cuda.streams) == len(cuda.contexts) == 4
    for batch, session in sessions.items():
        feed(session, given[batch])
    assert_computed(engine.run(given[4]), given[4])
    for session in sessions.values():
        session.run()
    assert_computed(engine.run(given[2]), given[2])
    for batch, session in sessions.items():
        assert_computed(read(session), given[batch])


def test_threads_have_a_session_each(cuda: FakeCuda, engine: TensorRtRtxEngine) -> None:
    wrong: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            session = engine.session(1 + seed)
            for turn in range(20):
                given = feeds(1 + seed, seed=100 * seed + turn)
                feed(session, given)
                session.run()
                assert_computed(read(session), given)
                assert_computed(engine.run(given), given)
            del session
            assert not cuda.stack
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    engine.close()
    assert_all_freed(cuda)


@pytest.mark.parametrize("batch", [0, 5])
def test_a_batch_outside_the_profile_is_refused_as_in_a_run(
    cuda: FakeCuda, engine: TensorRtRtxEngine, batch: int
) -> None:
    contexts = len(cuda.contexts)
    with pytest.raises(EngineError, match=rf"image got \({batch}, 2, 2\), expected from \(1, 2, 2\)") as by_run:
        engine.run(feeds(batch))
    with pytest.raises(EngineError) as by_session:
        engine.session(batch)
    assert str(by_session.value) == str(by_run.value)
    assert not cuda.events
    assert len(cuda.contexts) == contexts


def test_all_is_freed_at_the_end(cuda: FakeCuda, engine: TensorRtRtxEngine) -> None:
    session = engine.session(2)
    session.link("map", "image")
    feed(session, feeds(2))
    session.run()
    engine.run(feeds(4))
    assert cuda.memory
    session.close()
    session.close()
    assert len(cuda.memory) == 4
    engine.close()
    assert_all_freed(cuda)


def test_a_session_keeps_its_engine_open(libraries: Libraries, plan_file: Path) -> None:
    session, given = TensorRtRtxEngine.open_graph(plan_file, INTERFACE, CUDA).session(2), feeds(2)
    gc.collect()
    feed(session, given)
    session.run()
    assert_computed(read(session), given)
    del session
    assert_all_freed(libraries.cuda)


def test_a_session_may_go_on_another_thread(cuda: FakeCuda, engine: TensorRtRtxEngine) -> None:
    held = [engine.session(2)]
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    engine.close()
    assert_all_freed(cuda)


CALLS: dict[str, Callable[[TensorRtSession], object]] = {
    "feed": lambda session: session.feed("image", feeds(2)["image"]),
    "run": lambda session: session.run(),
    "read": lambda session: session.read("map"),
    "link": lambda session: session.link("map", "image"),
}


@pytest.mark.parametrize("name", CALLS)
def test_closing_the_engine_ends_its_sessions(cuda: FakeCuda, engine: TensorRtRtxEngine, name: str) -> None:
    session = engine.session(2)
    session.link("mean", "weight")
    feed(session, feeds(2))
    session.run()
    engine.close()
    assert_all_freed(cuda)
    message = r"net\.fp32\..*got a call after close\(\).*ask an open engine for a new one"
    assert_refused(partial(CALLS[name], session), message)
    assert_refused(lambda: engine.session(2), r"got a call after close\(\), expected an open engine")
    session.close()


def test_links_to_and_from_a_closed_session_are_refused(cuda: FakeCuda, engine: TensorRtRtxEngine) -> None:
    session, closed, given = engine.session(2), engine.session(2), feeds(2)
    closed.close()
    assert_refused(lambda: session.link("map", "image", to=closed), r"got a call after close\(\)")
    assert_refused(lambda: closed.link("map", "image", to=session), r"got a call after close\(\)")
    feed(session, given)
    session.run()
    assert_computed(read(session), given)


def test_a_link_to_another_gpu_is_refused(libraries: Libraries, plan_file: Path) -> None:
    libraries.cuda.gpus = [(8, 6), (8, 6)]
    first, second = (
        TensorRtRtxEngine.open_graph(plan_file, INTERFACE, EngineOptions(device=device)).session(2)
        for device in ("cuda:0", "cuda:1")
    )
    blocks = set(libraries.cuda.memory)
    assert_refused(lambda: first.link("map", "image", to=second), "map cannot be linked to a session on another GPU")
    assert set(libraries.cuda.memory) == blocks


def test_closing_waits_for_a_run_under_way(cuda: FakeCuda, engine: TensorRtRtxEngine) -> None:
    session = engine.session(2)
    session.link("map", "image")
    feed(session, feeds(2))
    ended: list[BaseException] = []

    def work(session: TensorRtSession) -> None:
        try:
            while True:
                session.run()
        except BaseException as error:
            ended.append(error.with_traceback(None))

    thread = threading.Thread(target=work, args=(session,))
    thread.start()
    while thread.is_alive() and cuda.events.count("execute") < 3:
        pass
    engine.close()
    thread.join()
    assert [type(error) for error in ended] == [EngineError]
    assert "got a call after close()" in str(ended[0])
    # A buffer may have been under way from one name to another; it goes with the session.
    del session
    assert_all_freed(cuda)


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        ("create_execution_context", "no execution context; free some memory"),
        ("Stream", "failed while opening a session .Stream failed"),
        ("set_input_shape", r"image \(2, 2, 2\) was refused"),
        ("get_tensor_shape", r"map is \(-1,\) in a session for a batch of 2, expected \(2, 2, 2\)"),
        ("another shape", r"map is \(7,\) in a session for a batch of 2, expected \(2, 2, 2\)"),
        ("mem_alloc", r"failed while allocating float32 \(2, 2, 2\) .mem_alloc failed"),
        ("set_tensor_address", "the address of image was refused"),
    ],
)
def test_a_failure_to_open_is_told_and_leaves_nothing(
    libraries: Libraries, engine: TensorRtRtxEngine, failure: str, message: str
) -> None:
    libraries.fails.add(failure)
    libraries.cuda.fails.add(failure)
    with pytest.raises(EngineError, match=rf"tensorrt-rtx net\.fp32.*: {message}"):
        engine.session(2)
    assert not libraries.cuda.memory
    assert len(libraries.cuda.contexts) == len(libraries.cuda.streams) == 1
    libraries.fails.clear()
    libraries.cuda.fails.clear()
    session, given = engine.session(2), feeds(2)
    feed(session, given)
    session.run()
    assert_computed(read(session), given)


def test_a_session_that_does_not_fit_frees_what_it_had(cuda: FakeCuda, engine: TensorRtRtxEngine) -> None:
    # Image and weight of batch 2 are 36 bytes, the map is 32 more.
    cuda.memory_bytes = 60
    with pytest.raises(EngineError, match=r"failed while allocating float32 \(2, 2, 2\) .*out of memory"):
        engine.session(2)
    assert cuda.events.count("free") == 2
    assert engine.session(1)


@pytest.mark.parametrize(
    ("failure", "name", "message"),
    [
        ("memcpy_htod_async", "feed", "failed while copying to the device .memcpy_htod_async failed"),
        ("synchronize", "feed", "failed while copying to the device .synchronize failed"),
        ("memcpy_dtoh_async", "read", "failed while copying to the host .memcpy_dtoh_async failed"),
        ("synchronize", "read", "failed while copying to the host .synchronize failed"),
        ("execute_async_v3", "run", "execution was refused"),
        ("synchronize", "run", "failed while running .synchronize failed"),
    ],
)
def test_a_failure_of_the_driver_is_told_and_overcome(
    libraries: Libraries, engine: TensorRtRtxEngine, failure: str, name: str, message: str
) -> None:
    session, given = engine.session(2), feeds(2)
    feed(session, feeds(2, seed=1))
    session.run()
    libraries.fails.add(failure)
    libraries.cuda.fails.add(failure)
    assert_refused(partial(CALLS[name], session), rf"tensorrt-rtx net\.fp32.*: {message}")
    assert not libraries.cuda.stack
    libraries.fails.clear()
    libraries.cuda.fails.clear()
    feed(session, given)
    session.run()
    assert_computed(read(session), given)
    del session
    engine.close()
    assert_all_freed(libraries.cuda)


def test_a_refused_execution_waits_for_what_was_queued(libraries: Libraries, engine: TensorRtRtxEngine) -> None:
    session = engine.session(2)
    feed(session, feeds(2))
    libraries.fails.add("execute_async_v3")
    assert_refused(session.run, "execution was refused")
    assert libraries.cuda.events[-2:] == ["execute", "synchronize"]
