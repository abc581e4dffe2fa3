"""Dynamic batching: what waits at the same time, and may share an engine call, shares it."""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from ..apart import each_apart

ItemT = TypeVar("ItemT")
FoundT = TypeVar("FoundT")
KeyT = TypeVar("KeyT", bound=Hashable)


@dataclass(frozen=True, eq=False)
class _Entry:
    item: Any
    future: asyncio.Future[Any]
    since: float


class Batcher(Generic[KeyT, ItemT, FoundT]):
    """Runs items in engine calls of up to `batch`, the longest waiting first; to be used in one event loop.

    Args:
        infer: the results of some items of one key; called in a thread.
        calls: of `infer` at once.
        batch: items in one call, at most.
        delay_s: how long an item waits for others where a call is free.
        watch: told the key and size of every call.
    """

    def __init__(
        self,
        infer: Callable[[KeyT, Sequence[ItemT]], Sequence[FoundT]],
        *,
        calls: int = 1,
        batch: int = 1,
        delay_s: float = 0.0,
        watch: Callable[[KeyT, int], None] = lambda key, size: None,
    ) -> None:
        self._infer, self._watch = infer, watch
        self._batch, self._delay_s = batch, delay_s if batch > 1 else 0.0
        self._free = calls
        self._pool = ThreadPoolExecutor(calls, thread_name_prefix="engine")
        self._waiting: dict[KeyT, deque[_Entry]] = {}

    async def run(self, key: KeyT, item: ItemT) -> FoundT:
        """The result of one item. One that is cancelled before its call takes no part in it."""
        loop = asyncio.get_running_loop()
        entry = _Entry(item, loop.create_future(), loop.time())
        self._waiting.setdefault(key, deque()).append(entry)
        self._dispatch()
        found: FoundT = await entry.future
        return found

    def close(self) -> None:
        """Let the threads end; waits for calls that run."""
        self._pool.shutdown()

    def _dispatch(self) -> None:
        """Start calls while one is free and something is due; else come back when something is."""
        loop = asyncio.get_running_loop()
        while self._free:
            key = self._oldest()
            if key is None:
                return
            waiting = self._waiting[key]
            due = waiting[0].since + self._delay_s
            if len(waiting) < self._batch and loop.time() < due:
                loop.call_at(due, self._dispatch)
                return
            entries = [waiting.popleft() for _ in range(min(self._batch, len(waiting)))]
            self._start(key, entries)

    def _oldest(self) -> KeyT | None:
        """The key that has waited longest; those whose askers have gone are dropped."""
        for key, waiting in list(self._waiting.items()):
            kept = deque(entry for entry in waiting if not entry.future.done())
            if kept:
                self._waiting[key] = kept
            else:
                del self._waiting[key]
        return min(self._waiting, key=lambda key: self._waiting[key][0].since, default=None)

    def _start(self, key: KeyT, entries: list[_Entry]) -> None:
        self._free -= 1
        self._watch(key, len(entries))
        loop = asyncio.get_running_loop()
        call = loop.run_in_executor(self._pool, each_apart, partial(self._infer, key), [e.item for e in entries])
        call.add_done_callback(lambda call: self._settle(entries, call))

    def _settle(self, entries: list[_Entry], call: asyncio.Future[list[Any]]) -> None:
        self._free += 1
        for entry, found in zip(entries, call.result(), strict=True):
            if entry.future.done():
                continue
            if isinstance(found, Exception):
                entry.future.set_exception(found)
            else:
                entry.future.set_result(found)
        self._dispatch()
