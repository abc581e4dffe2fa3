"""The loop: init, then step and watch until done, then finish; nothing else, and in this order."""

from dataclasses import dataclass, field
from unittest.mock import Mock

import pytest

from salience.runtime.driver import iterate


@dataclass
class Counting:
    """Counts from the problem up to `last` and notes what it was asked."""

    last: int
    asked: list[str] = field(default_factory=list)

    def init(self, problem: int) -> int:
        self.asked.append(f"init {problem}")
        return problem

    def step(self, state: int) -> int:
        self.asked.append(f"step {state}")
        return state + 1

    def done(self, state: int) -> bool:
        self.asked.append(f"done {state}")
        return state >= self.last

    def finish(self, state: int) -> str:
        self.asked.append(f"finish {state}")
        return f"ended at {state}"


def test_the_order_of_calls() -> None:
    method = Counting(last=5)
    assert iterate(method, 3, watch=lambda state: method.asked.append(f"watch {state}")) == "ended at 5"
    assert method.asked == [
        "init 3",
        "done 3", "step 3", "watch 4",
        "done 4", "step 4", "watch 5",
        "done 5", "finish 5",
    ]  # fmt: skip


@pytest.mark.parametrize("steps", [1, 2, 100])
def test_as_many_steps_as_it_takes(steps: int) -> None:
    method, seen = Counting(last=steps), list[int]()
    iterate(method, 0, watch=seen.append)
    assert seen == list(range(1, steps + 1))


def test_done_before_the_first_step() -> None:
    method, seen = Counting(last=3), list[int]()
    assert iterate(method, 7, watch=seen.append) == "ended at 7"
    assert method.asked == ["init 7", "done 7", "finish 7"]
    assert not seen


def test_watching_is_optional() -> None:
    assert iterate(Counting(last=2), 0) == "ended at 2"


@pytest.mark.parametrize("where", ["init", "step", "done", "finish", "watch"])
def test_an_error_ends_the_loop_as_it_is(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    method = Counting(last=2)

    def watch(_: int) -> None:
        method.asked.append("watch")

    fail = Mock(side_effect=KeyError(where))
    if where != "watch":
        monkeypatch.setattr(method, where, fail)
    with pytest.raises(KeyError, match=where):
        iterate(method, 0, watch=fail if where == "watch" else watch)
    fail.assert_called_once()
    assert not any(call.startswith("finish") for call in method.asked)
