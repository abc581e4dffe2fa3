"""One loop for every iterative method: what a step does to the state is the method's, when to stop too."""

from collections.abc import Callable
from typing import Protocol, TypeVar

ProblemT = TypeVar("ProblemT", contravariant=True)
StateT = TypeVar("StateT")
ResultT = TypeVar("ResultT", covariant=True)


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
