"""One loop for every iterative method: what a step does to the state is the method's, when to stop too."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

ProblemT = TypeVar("ProblemT", contravariant=True)
StateT = TypeVar("StateT")
ResultT = TypeVar("ResultT", covariant=True)
LoopT = TypeVar("LoopT")


class Iterative(Protocol[ProblemT, StateT, ResultT]):
    """A method that takes steps."""

    def init(self, problem: ProblemT) -> StateT:
        """The state before the first step."""

    def step(self, state: StateT) -> StateT:
        """The next state."""

    def done(self, state: StateT) -> bool:
        """Whether `state` is the last."""

    def finish(self, state: StateT) -> ResultT:
        """What comes of the last state."""


def iterate(
    method: Iterative[ProblemT, StateT, ResultT],
    problem: ProblemT,
    *,
    watch: Callable[[StateT], None] = lambda state: None,
) -> ResultT:
    """Take steps until done; `watch` sees the state after every one."""
    state = method.init(problem)
    while not method.done(state):
        state = method.step(state)
        watch(state)
    return method.finish(state)


class LoopPool(Generic[LoopT]):
    """Loops that wait for their next batch: their buffers are large, and making them costs time.

    Args:
        make: gives a loop for batches of a size.
    """

    def __init__(self, make: Callable[[int], LoopT]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._idle: list[tuple[int, LoopT]] = []

    @contextmanager
    def take(self, batch: int) -> Iterator[LoopT]:
        """A loop for batches of this size, this thread's alone while the block runs."""
        with self._lock:
            fitting = [item for item in self._idle if item[0] == batch]
            # Buffers of another size are let go: a run keeps to one size but for its last batch.
            self._idle = fitting[1:]
        loop = fitting[0][1] if fitting else self._make(batch)
        yield loop
        # After a failure the loop is not taken back.
        with self._lock:
            self._idle.append((batch, loop))
