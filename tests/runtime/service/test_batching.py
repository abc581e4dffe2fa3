"""Dynamic batching, without a network."""

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from salience.runtime.service.batching import Batcher


class Engine:
    """Doubles numbers; notes its calls; a negative number fails its call."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.calls: list[tuple[str, list[int]]] = []
        self.seconds = seconds
        self.now = self.most = 0
        self._lock = threading.Lock()

    def __call__(self, key: str, items: Sequence[int]) -> list[int]:
        with self._lock:
            self.calls.append((key, list(items)))
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(self.seconds)
        with self._lock:
            self.now -= 1
        if any(item < 0 for item in items):
            raise ValueError("negative")
        return [2 * item for item in items]


def run(batcher: Batcher[str, int, int], *asked: tuple[str, int]) -> list[int | BaseException]:
    async def all_of_them() -> list[int | BaseException]:
        return await asyncio.gather(*(batcher.run(*each) for each in asked), return_exceptions=True)

    try:
        return asyncio.run(all_of_them())
    finally:
        batcher.close()


def test_what_waits_together_shares_a_call() -> None:
    engine = Engine()
    found = run(Batcher(engine, batch=4, delay_s=0.05), *(("a", number) for number in range(6)))
    assert found == [0, 2, 4, 6, 8, 10]
    assert [items for _, items in engine.calls] == [[0, 1, 2, 3], [4, 5]]


def test_another_key_is_another_call() -> None:
    engine = Engine()
    found = run(Batcher(engine, batch=4, delay_s=0.05), ("a", 1), ("b", 2), ("a", 3))
    assert found == [2, 4, 6]
    assert sorted(engine.calls) == [("a", [1, 3]), ("b", [2])]


def test_a_lone_item_waits_no_longer_than_the_delay() -> None:
    engine = Engine()
    start = time.monotonic()
    assert run(Batcher(engine, batch=64, delay_s=0.05), ("a", 1)) == [2]
    assert 0.05 <= time.monotonic() - start < 2


def test_a_batch_of_one_does_not_wait() -> None:
    engine = Engine()
    start = time.monotonic()
    assert run(Batcher(engine, batch=1, delay_s=5), ("a", 1)) == [2]
    assert time.monotonic() - start < 2


def test_calls_run_at_once_up_to_their_number() -> None:
    engine = Engine(seconds=0.05)
    found = run(Batcher(engine, calls=3), *(("a", number) for number in range(9)))
    assert found == [2 * number for number in range(9)]
    assert engine.most == 3


def test_one_that_fails_does_not_take_the_others_with_it() -> None:
    found = run(Batcher(Engine(), batch=3, delay_s=0.05), ("a", 1), ("a", -1), ("a", 3))
    assert (found[0], found[2]) == (2, 6)
    assert isinstance(found[1], ValueError)


def test_the_longest_waiting_key_is_next() -> None:
    engine = Engine(seconds=0.02)
    run(Batcher(engine, batch=2), ("a", 1), ("b", 2), ("c", 3), ("b", 4))
    assert [key for key, _ in engine.calls] == ["a", "b", "c"]


def test_what_is_given_up_before_its_call_takes_no_part() -> None:
    engine = Engine(seconds=0.1)
    batcher: Batcher[str, int, int] = Batcher(engine)

    async def leave() -> int:
        first = asyncio.create_task(batcher.run("a", 1))
        second = asyncio.create_task(batcher.run("a", 2))
        third = asyncio.create_task(batcher.run("a", 3))
        await asyncio.sleep(0.02)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        await first
        return await third

    assert asyncio.run(leave()) == 6
    batcher.close()
    assert [items for _, items in engine.calls] == [[1], [3]]


def test_sizes_are_told() -> None:
    sizes: list[tuple[str, int]] = []
    batcher: Batcher[str, int, int] = Batcher(
        Engine(), batch=2, delay_s=0.05, watch=lambda key, size: sizes.append((key, size))
    )
    run(batcher, ("a", 1), ("a", 2), ("a", 3))
    assert sizes == [("a", 2), ("a", 1)]
