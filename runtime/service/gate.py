"""How many requests may be under way, and what those beyond it are told."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import SalienceError
from .metrics import Metrics


class BusyError(SalienceError):
    """A request that is refused for now.

    Attributes:
        retry_s: when to ask again, in whole seconds.
    """

    def __init__(self, message: str, retry_s: int) -> None:
        super().__init__(message)
        self.retry_s = retry_s


class Gate:
    """Counts the requests under way.

    Args:
        limit: of them.
        metrics: see `Metrics`.

    Attributes:
        draining: whether new requests are refused since the service is about to stop.
        entered: requests so far that got a place.
    """

    def __init__(self, limit: int, metrics: Metrics) -> None:
        self.draining = False
        self.entered = 0
        self._limit, self._metrics = limit, metrics
        self._inside = 0
        # A running mean of the time from one answer to the next, while others wait.
        self._pace_s, self._left = 0.1, 0.0

    @property
    def inside(self) -> int:
        """Requests under way."""
        return self._inside

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Hold a place while the block runs.

        Raises:
            BusyError: there is none, or the service is about to stop.
        """
        if self.draining:
            raise BusyError("service: is about to stop; ask another one, or again later.", 1)
        if self._inside >= self._limit:
            self._metrics.refused.inc()
            wait_s = min(60, math.ceil(self._pace_s * self._limit))
            raise BusyError(f"service: {self._limit} requests are under way; ask again in {wait_s} s.", wait_s)
        self._inside += 1
        self.entered += 1
        self._metrics.in_flight.set(self._inside)
        try:
            yield
        finally:
            self._inside -= 1
            self._metrics.in_flight.set(self._inside)
            self._note_leaving(time.monotonic())

    def _note_leaving(self, now: float) -> None:
        if self._inside and self._left:
            self._pace_s += 0.05 * (now - self._left - self._pace_s)
        self._left = now if self._inside else 0.0
