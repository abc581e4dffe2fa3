"""Calls on several items of which one may be bad."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

ItemT = TypeVar("ItemT")
FoundT = TypeVar("FoundT")


def each_apart(call: Callable[[Sequence[ItemT]], Iterable[FoundT]], items: Sequence[ItemT]) -> list[FoundT | Exception]:
    """The results of one call on all items; where it fails, of a call on each, with errors in their places."""
    try:
        return list(call(items))
    except Exception as error:
        if len(items) > 1:
            return [found for item in items for found in each_apart(call, [item])]
        return [error]
