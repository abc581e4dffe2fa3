"""Sessions of the CPU backends: what single runs give, bit for bit, and every misuse an error of one sentence."""

import gc
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from numpy.typing import NDArray

from salience.runtime import EngineError
from salience.runtime.backends.engine import Engine
from salience.runtime.backends.session import Session
from salience.runtime.manifest import TensorSpec

from .small_graphs import looped, start

Open = Callable[..., Engine]

X = start()["x"]


def by_single_runs(engine: Engine, feeds: dict[str, NDArray[Any]], count: int) -> dict[str, NDArray[Any]]:
    """Outputs by name, without the ending `_next`, of `count` runs that each copy everything."""
    for _ in range(count):
        feeds = {name.removesuffix("_next"): array for name, array in engine.run(feeds).items()}
    return feeds


def assert_same(session: Session[Any], expected: dict[str, NDArray[Any]]) -> None:
    for name, array in expected.items():
        found = session.read(f"{name}_next")
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)


def is_one_sentence(error: BaseException) -> bool:
    return re.fullmatch(r"[^\n]+\.", str(error)) is not None and not re.search(r"\. [A-Z]", str(error))


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("runs", [1, 2, 3, 10])
def test_a_loop_gives_what_single_runs_give(affine: Engine, batch: int, runs: int) -> None:
    session = looped(affine, batch)
    for _ in range(runs):
        session.run()
    assert_same(session, by_single_runs(affine, start(batch), runs))
    assert session.read("count_next") == [runs]


def test_a_run_does_not_write_over_what_it_reads(open_graph: Open) -> None:
    session = open_graph("turning").session(2)
    session.link("x_next", "x")
    session.feed("x", X)
    for run in range(1, 7):
        session.run()
        np.testing.assert_array_equal(session.read("x_next"), np.roll(X, -run, axis=1))


def test_every_run_of_a_loop_can_be_read(affine: Engine) -> None:
    session, feeds = looped(affine), start()
    for _ in range(5):
        session.run()
        feeds = by_single_runs(affine, feeds, 1)
        assert_same(session, feeds)


def test_without_links_the_same_run_can_be_repeated(affine: Engine) -> None:
    session = affine.session(2)
    for name, array in start().items():
        session.feed(name, array)
    for _ in range(3):
        session.run()
        assert_same(session, by_single_runs(affine, start(), 1))


def test_a_loop_begins_anew_when_it_is_fed(affine: Engine) -> None:
    session = looped(affine)
    for seed in (1, 2):
        for name, array in start(seed=seed).items():
            session.feed(name, array)
        for _ in range(3):
            session.run()
        assert_same(session, by_single_runs(affine, start(seed=seed), 3))


def test_one_input_can_be_fed_in_the_middle(affine: Engine) -> None:
    session = looped(affine)
    for _ in range(3):
        session.run()
    session.feed("count", np.array([40]))
    session.run()
    expected = by_single_runs(affine, start(), 4)
    np.testing.assert_array_equal(session.read("x_next"), expected["x"])
    assert session.read("count_next") == [41]


def test_every_type_and_a_scalar(open_graph: Open) -> None:
    engine = open_graph("types")
    feeds: dict[str, NDArray[Any]] = {
        "half": np.array([[0.5, 1]], np.float16),
        "byte": np.array([3], np.uint8),
        "word": np.array([1], np.int32),
        "scalar": np.array(7),
        "bit": np.array([True]),
    }
    session = engine.session()
    for name, array in feeds.items():
        session.link(f"{name}_next", name)
        session.feed(name, array)
    for _ in range(3):
        session.run()
    expected = by_single_runs(engine, feeds, 3)
    assert_same(session, expected)
    assert {name: array.tolist() for name, array in expected.items()} == {
        "half": [[4, 8]], "byte": [24], "word": [27], "scalar": 10, "bit": [False],
    }  # fmt: skip


def test_arrays_are_the_callers(affine: Engine) -> None:
    session, feeds = looped(affine), start()
    scratch = np.repeat(feeds["x"], 2, axis=0)
    session.feed("x", scratch[::2])
    scratch[:] = 7
    session.run()
    first = session.read("x_next")
    kept = first.copy()
    session.run()
    session.run()
    np.testing.assert_array_equal(first, kept)
    first[:] = 7
    assert_same(session, by_single_runs(affine, feeds, 3))


def test_sessions_are_chained(open_graph: Open) -> None:
    first, second = open_graph("affine").session(2), open_graph("treble").session(2)
    first.link("x_next", "x", to=second)
    for seed in range(3):
        for name, array in start(seed=seed).items():
            first.feed(name, array)
        first.run()
        second.run()
        np.testing.assert_array_equal(second.read("y"), 3 * (2 * start(seed=seed)["x"] + 1))
        # What was shared is still the first one's to read.
        np.testing.assert_array_equal(first.read("x_next"), 2 * start(seed=seed)["x"] + 1)


def test_a_chained_session_keeps_its_last_input_and_outlives_the_first(open_graph: Open) -> None:
    first, second = open_graph("affine").session(2), open_graph("treble").session(2)
    first.link("x_next", "x", to=second)
    for name, array in start().items():
        first.feed(name, array)
    first.run()
    del first
    gc.collect()
    for _ in range(2):
        second.run()
        np.testing.assert_array_equal(second.read("y"), 3 * (2 * start()["x"] + 1))


def test_a_session_keeps_its_engine(open_graph: Open) -> None:
    session = looped(open_graph("affine"))
    gc.collect()
    session.run()
    np.testing.assert_array_equal(session.read("x_next"), 2 * start()["x"] + 1)


def test_sessions_of_one_engine_are_independent(affine: Engine) -> None:
    sessions = {seed: looped(affine, batch=1 + seed, seed=seed) for seed in range(3)}
    for runs in range(1, 5):
        for session in sessions.values():
            session.run()
        affine.run(start(4))
        for seed, session in sessions.items():
            assert_same(session, by_single_runs(affine, start(1 + seed, seed), runs))


def test_threads_have_a_session_each(affine: Engine) -> None:
    expected = [by_single_runs(affine, start(1 + seed % 3, seed), 30) for seed in range(8)]

    def work(seed: int) -> None:
        for _ in range(5):
            session = looped(affine, 1 + seed % 3, seed)
            for _ in range(30):
                session.run()
                affine.run(start(seed=seed))
            assert_same(session, expected[seed])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


# The message, and a call on a session of `affine` for 2 and one of `sums`.
REFUSED: dict[str, Callable[[Session[Any], Session[Any]], object]] = {
    r"input 'y' is not known; the graph has x, count": lambda s, _: s.feed("y", X),
    r"input 'x_next' is not known": lambda s, _: s.feed("x_next", X),
    r"x: got float64 \(2, 3\), expected float32 \(2, 3\)": lambda s, _: s.feed("x", X.astype(float)),
    r"x: got >f4 \(2, 3\), expected float32": lambda s, _: s.feed("x", X.astype(">f4")),
    r"x: got float32 \(1, 3\), expected float32 \(2, 3\)": lambda s, _: s.feed("x", X[:1]),
    r"x: got float32 \(3,\), expected float32 \(2, 3\)": lambda s, _: s.feed("x", X[0]),
    r"count: got int64 \(\), expected int64 \(1,\)": lambda s, _: s.feed("count", np.array(0)),
    r"output 'x' is not known; the graph has x_next, count_next": lambda s, _: s.read("x"),
    r"x_next was read with no run since the inputs were fed; call run": lambda s, _: s.read("x_next"),
    r"output 'y' is not known": lambda s, _: s.link("y", "x"),
    r"input 'y' is not known": lambda s, _: s.link("x_next", "y"),
    r"x_next \(float32 \(2, 3\)\) cannot become count \(int64 \(1,\)\)": lambda s, _: s.link("x_next", "count"),
    r"input 'count' is not known; the graph has x\.": lambda s, sums: s.link("count_next", "count", to=sums),
    r"y \(float32 \(2,\)\) cannot become x \(float32 \(2, 3\)\)": lambda s, sums: sums.link("y", "x", to=s),
    r"run\(\) was called before x, count had values": lambda s, _: s.run(),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_does_not_fit_is_refused_in_a_sentence(open_graph: Open, cpu_backend: str, message: str) -> None:
    session, sums = open_graph("affine").session(2), open_graph("sums").session(2)
    with pytest.raises(EngineError, match=message) as caught:
        REFUSED[message](session, sums)
    assert str(caught.value).startswith(f"{cpu_backend} ")
    assert is_one_sentence(caught.value)
    # Nothing came of it.
    for name, array in start().items():
        session.feed(name, array)
    session.run()
    np.testing.assert_array_equal(session.read("x_next"), 2 * X + 1)


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_of_none_is_refused(affine: Engine, batch: int) -> None:
    with pytest.raises(EngineError, match=f"a session for a batch of {batch} was asked for") as caught:
        affine.session(batch)
    assert is_one_sentence(caught.value)


def test_sessions_of_other_sizes_cannot_be_linked(open_graph: Open) -> None:
    first, second = open_graph("affine").session(2), open_graph("treble").session(3)
    with pytest.raises(EngineError, match=r"x_next \(float32 \(2, 3\)\) cannot become x \(float32 \(3, 3\)\)"):
        first.link("x_next", "x", to=second)


def test_a_tensor_is_linked_once(open_graph: Open) -> None:
    first, second, third = (open_graph(name).session(2) for name in ("affine", "treble", "treble"))
    first.link("x_next", "x", to=second)
    again: list[Callable[[], None]] = [
        lambda: first.link("x_next", "x"),
        lambda: first.link("x_next", "x", to=second),
        lambda: first.link("x_next", "x", to=third),
        lambda: second.link("y", "x"),
    ]
    for call in again:
        with pytest.raises(EngineError, match="is linked already; open another session") as caught:
            call()
        assert is_one_sentence(caught.value)


def test_sessions_of_two_backends_cannot_be_linked(open_graph: Open) -> None:
    pytest.importorskip("openvino")
    first, second = (open_graph("treble", backend=name).session(2) for name in ("onnxruntime", "openvino"))
    for one, other in ((first, second), (second, first)):
        with pytest.raises(
            EngineError, match=f"^{one.label}: y cannot be linked to a session of {other.label}"
        ) as caught:
            one.link("y", "x", to=other)
        assert is_one_sentence(caught.value)


def test_reading_takes_a_run_since_the_last_feed_and_link(affine: Engine) -> None:
    session = affine.session(2)
    for name, array in start().items():
        session.feed(name, array)
    session.run()
    session.feed("x", start(seed=1)["x"])
    with pytest.raises(EngineError, match="call run"):
        session.read("x_next")
    session.run()
    session.link("x_next", "x")
    with pytest.raises(EngineError, match="call run"):
        session.read("x_next")


def test_each_input_must_have_had_a_value(open_graph: Open) -> None:
    session = open_graph("affine").session(2)
    session.link("x_next", "x")
    session.feed("count", start()["count"])
    with pytest.raises(EngineError, match="before x had values"):
        session.run()
    session.feed("x", start()["x"])
    session.run()


def test_a_failed_run_is_told_and_leaves_nothing_to_read(open_graph: Open, cpu_backend: str) -> None:
    session = open_graph("refusing").session(2)
    session.feed("x", start()["x"])
    session.feed("shape", np.array([2, 3]))
    session.run()
    session.feed("shape", np.array([7, 7]))
    with pytest.raises(EngineError, match=rf"^{cpu_backend} .*refusing\.onnx: failed while running \(") as caught:
        session.run()
    assert str(caught.value).count("\n") == 0
    with pytest.raises(EngineError, match="call run"):
        session.read("y")
    session.feed("shape", np.array([2, 3]))
    session.run()
    np.testing.assert_array_equal(session.read("y"), -start()["x"])


def test_a_run_that_fails_after_a_good_one_leaves_nothing_to_read(
    affine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = looped(affine)
    session.run()

    monkeypatch.setattr(session, "_execute", Mock(side_effect=EngineError("engine: out of memory.")))
    with pytest.raises(EngineError, match="out of memory"):
        session.run()
    with pytest.raises(EngineError, match="call run"):
        session.read("x_next")


def test_more_memory_than_there_is(affine: Engine) -> None:
    for batch in (10**15, 10**20):
        with pytest.raises(EngineError, match=rf"no buffer of float32 \({batch}, 3\) \("):
            affine.session(batch)


COUNT = TensorSpec(name="count", dtype="int64", shape=(1,))


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": (TensorSpec(name="z", dtype="float32", shape=("batch", 3)), COUNT)},
        {"inputs": (TensorSpec(name="x", dtype="float32", shape=("batch", 4)), COUNT)},
        {"outputs": (TensorSpec(name="y", dtype="float32", shape=("batch", 3)),)},
    ],
    ids=["name", "shape", "output"],
)
def test_a_graph_that_is_not_what_the_manifest_says_is_an_engine_error(
    open_graph: Open, cpu_backend: str, changes: dict[str, Any]
) -> None:
    engine = open_graph("affine", **changes)
    feeds = {
        name: np.zeros([2 if isinstance(side, str) else side for side in spec.shape], spec.dtype)
        for name, spec in engine.inputs.items()
    }

    def loop() -> None:
        session = engine.session(2)
        for name, array in feeds.items():
            session.feed(name, array)
        session.run()

    for call in (loop, lambda: engine.run(feeds)):
        with pytest.raises(EngineError, match=rf"^{cpu_backend} .*affine\.onnx: ") as caught:
            call()
        assert "\n" not in str(caught.value)
