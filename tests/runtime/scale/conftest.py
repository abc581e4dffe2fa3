"""A Ray cluster on this machine, and what its results are compared with."""

import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from salience.runtime import Detector, load
from salience.runtime.bundle import DEFAULT_BUNDLE


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of two CPUs, which this process is in."""
    pytest.importorskip("ray")
    # Ray warns of its own deprecated parts when it is imported.
    with warnings.catch_warnings(action="ignore"):
        import ray.data

        ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200 << 20, log_to_driver=False)
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def detector() -> Detector:
    """The packaged bundle as the workers open it."""
    return load(DEFAULT_BUNDLE, device="cpu", threads=1)
