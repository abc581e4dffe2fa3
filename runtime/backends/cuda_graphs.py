"""Which CUDA graph of ONNX Runtime belongs to which buffers."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

# Graphs of one session, and of all sessions that an engine ever has: it keeps each until it is closed itself.
MOST_OF_A_SESSION = 8
MOST_OF_AN_ENGINE = 64
_NONE = -1
# While one engine captures, CUDA refuses allocations and copies of every thread of the process, and the engine would
# record the work of its other threads as well. So all engines with graphs take turns.
_TURNS = threading.Lock()


def turns(cuda_graph: bool) -> AbstractContextManager[Any]:
    """To be entered, again and again, by whatever touches the GPU."""
    return _TURNS if cuda_graph else nullcontext()


def graph_numbers() -> Iterator[int]:
    """Numbers for the graphs of one engine; 0 is ONNX Runtime's own."""
    return iter(range(1, MOST_OF_AN_ENGINE + 1))


class GraphStates:
    """The options for the next run of a session, by the addresses of its buffers.

    A graph reads and writes where it did when it was captured. So each set of addresses has a graph of its own: a loop
    whose outputs trade buffers with its inputs has two. It needs no buffer to be kept: it is only launched while all
    its addresses are bound. A session whose buffers change without end runs without graphs after the first few.

    Args:
        runtime: the module `onnxruntime`.
        numbers: of the engine, see `graph_numbers`.
    """

    def __init__(self, runtime: Any, numbers: Iterator[int]) -> None:
        self._runtime = runtime
        self._numbers = numbers
        self._known: dict[tuple[int, ...], Any] = {}
        self._without = without_graph(runtime)

    def run_options(self, addresses: tuple[int, ...]) -> Any:
        """Those that capture or launch the graph of these addresses, or run without one."""
        if addresses not in self._known and len(self._known) < MOST_OF_A_SESSION:
            number = next(self._numbers, _NONE)
            self._known[addresses] = self._without if number == _NONE else _options(self._runtime, number)
        return self._known.get(addresses, self._without)


def without_graph(runtime: Any) -> Any:
    """Options of a run whose buffers no other run has."""
    return _options(runtime, _NONE)


def _options(runtime: Any, number: int) -> Any:
    options = runtime.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(number))
    return options
