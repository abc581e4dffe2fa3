"""Tensors that leave a session and enter another, on the device: nothing is copied, nothing is written over."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from salience.runtime import EngineError
from salience.runtime.backends.engine import Engine
from salience.runtime.backends.session import Held, Session

from .small_graphs import looped, of_every_type, start

Open = Callable[..., Engine]

X = start()["x"]


def fed(engine: Engine, batch: int = 2, seed: int = 0) -> Session[Any]:
    """A session of `affine` without links, ready to run."""
    session = engine.session(batch)
    for name, array in start(batch, seed).items():
        session.feed(name, array)
    return session


def passed_on(open_graph: Open, held: Held[Any], batch: int = 2) -> Any:
    """Three times what is held, by another session."""
    session = open_graph("treble").session(batch)
    session.put("x", held)
    session.run()
    return session.read("y")


def counts(session: Session[Any]) -> tuple[int, int]:
    return session.copies.to_device, session.copies.to_host


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_what_was_taken_is_what_another_session_reads(open_graph: Open, batch: int) -> None:
    first, second = fed(open_graph("affine"), batch), open_graph("treble").session(batch)
    first.run()
    expected = first.read("x_next")
    second.put("x", first.take("x_next"))
    second.run()
    np.testing.assert_array_equal(second.read("y"), 3 * expected)
    np.testing.assert_array_equal(expected, 2 * start(batch)["x"] + 1)


def test_neither_taking_nor_putting_is_a_copy(open_graph: Open) -> None:
    first, second = fed(open_graph("affine")), open_graph("treble").session(2)
    for _ in range(4):
        first.run()
        second.put("x", first.take("x_next"))
        second.run()
    assert counts(first) == (2, 0)
    assert counts(second) == (0, 0)


def test_later_runs_do_not_touch_what_was_taken(open_graph: Open) -> None:
    session, taken = fed(open_graph("affine")), []
    for seed in range(4):
        session.feed("x", start(seed=seed)["x"])
        session.run()
        taken.append(session.take("x_next"))
    # In another order than they came, and each twice.
    for seed in (2, 0, 3, 1, 2, 0):
        np.testing.assert_array_equal(passed_on(open_graph, taken[seed]), 3 * (2 * start(seed=seed)["x"] + 1))


def test_a_session_runs_on_after_its_output_was_taken(open_graph: Open) -> None:
    session = fed(open_graph("affine"))
    session.run()
    session.take("x_next")
    session.run()
    np.testing.assert_array_equal(session.read("x_next"), 2 * X + 1)


def test_what_was_taken_outlives_its_session(open_graph: Open) -> None:
    session = fed(open_graph("affine"))
    session.run()
    held = session.take("x_next")
    del session
    np.testing.assert_array_equal(passed_on(open_graph, held), 3 * (2 * X + 1))


def test_what_was_put_can_be_replaced(open_graph: Open) -> None:
    first, second = fed(open_graph("affine")), open_graph("treble").session(2)
    first.run()
    held = first.take("x_next")
    second.put("x", held)
    second.run()
    first.feed("x", -X)
    first.run()
    second.put("x", first.take("x_next"))
    second.run()
    np.testing.assert_array_equal(second.read("y"), 3 * (1 - 2 * X))
    second.put("x", held)
    second.run()
    np.testing.assert_array_equal(second.read("y"), 3 * (2 * X + 1))


def test_a_session_takes_in_its_own_output(open_graph: Open) -> None:
    session = fed(open_graph("affine"))
    for _ in range(3):
        session.run()
        session.put("x", session.take("x_next"))
    session.run()
    expected = X
    for _ in range(4):
        expected = 2 * expected + 1
    np.testing.assert_array_equal(session.read("x_next"), expected)


def test_a_tensor_that_is_held_knows_its_size(open_graph: Open) -> None:
    session = fed(open_graph("affine"), 5)
    session.run()
    held, count = session.take("x_next"), session.take("count_next")
    assert (held.shape, held.spec.name, held.nbytes) == ((5, 3), "x_next", 5 * 3 * 4)
    assert (count.shape, count.nbytes) == ((1,), 8)


def test_half_precision_takes_two_bytes(open_graph: Open) -> None:
    session = open_graph("types").session(3)
    feeds = of_every_type()
    for name, array in feeds.items():
        session.feed(name, array)
    session.run()
    sizes = {name: session.take(f"{name}_next").nbytes for name in feeds}
    assert sizes == {"half": 12, "byte": 3, "word": 4, "scalar": 8, "bit": 3}


def test_nothing_can_be_taken_without_a_run(open_graph: Open) -> None:
    session = fed(open_graph("affine"))
    with pytest.raises(EngineError, match="x_next was taken with no run since the inputs were fed"):
        session.take("x_next")
    session.run()
    session.feed("x", X)
    with pytest.raises(EngineError, match="x_next was taken with no run"):
        session.take("x_next")


def test_what_was_put_needs_a_run_before_it_is_read(open_graph: Open) -> None:
    first, second = fed(open_graph("affine")), open_graph("treble").session(2)
    first.run()
    second.feed("x", X)
    second.run()
    second.put("x", first.take("x_next"))
    with pytest.raises(EngineError, match="call run"):
        second.read("y")


def test_linked_tensors_stay_where_they_are(open_graph: Open) -> None:
    loop, other = looped(open_graph("affine")), fed(open_graph("affine"))
    loop.run()
    other.run()
    with pytest.raises(EngineError, match="x_next is linked, so it cannot be taken"):
        loop.take("x_next")
    with pytest.raises(EngineError, match="x is linked, so nothing else can be put there"):
        loop.put("x", other.take("x_next"))
    first, second = open_graph("affine").session(2), open_graph("treble").session(2)
    first.link("x_next", "x", to=second)
    with pytest.raises(EngineError, match="x is linked"):
        second.put("x", other.take("x_next"))


def test_tensors_of_other_shapes_types_and_names_are_refused(open_graph: Open, cpu_backend: str) -> None:
    first, second = fed(open_graph("affine"), 3), open_graph("treble").session(2)
    first.run()
    held, count = first.take("x_next"), first.take("count_next")
    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: second.put("x", held), r"x: got float32 \(3, 3\), expected float32 \(2, 3\)"),
        (lambda: second.put("x", count), r"x: got int64 \(1,\), expected float32 \(2, 3\)"),
        (lambda: second.put("z", held), "input 'z' is not known; the graph has x"),
        (lambda: second.put("y", held), "input 'y' is not known"),
        (lambda: first.take("x"), "output 'x' is not known; the graph has x_next, count_next"),
    ]
    for call, message in refused:
        with pytest.raises(EngineError, match=message) as caught:
            call()
        assert re.fullmatch(rf"{cpu_backend} [^\n]+\.", str(caught.value))
        assert not re.search(r"\. [A-Z]", str(caught.value))
    # A refused call leaves the session as it was.
    second.feed("x", X)
    second.run()
    np.testing.assert_array_equal(second.read("y"), 3 * X)
