"""Fixtures of the tests of engines and sessions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from salience.runtime.backends import BACKENDS
from salience.runtime.backends.engine import Engine
from salience.runtime.tables import entry

from .small_graphs import CPU, CPU_BACKENDS, open_small


@pytest.fixture(params=CPU_BACKENDS)
def cpu_backend(request: pytest.FixtureRequest) -> str:
    """Each backend that serves the CPU."""
    name: str = request.param
    if reason := entry(BACKENDS, name, what="backend").unavailable(CPU):
        pytest.skip(reason)
    return name


@pytest.fixture
def open_graph(cpu_backend: str, tmp_path: Path) -> Callable[..., Engine]:
    """Name of a small graph -> its engine; see `open_small`."""

    def opened(name: str, *, backend: str = cpu_backend, **changes: Any) -> Engine:
        return open_small(name, backend, tmp_path, **changes)

    return opened


@pytest.fixture
def affine(open_graph: Callable[..., Engine]) -> Engine:
    """x, count -> 2 x + 1, count + 1."""
    return open_graph("affine")
