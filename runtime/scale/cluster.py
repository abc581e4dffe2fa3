"""A Ray cluster: started on this machine, or joined, and how its CPUs and GPUs are shared out."""

import contextlib
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..backends.engine import available_cores
from ..errors import BackendUnavailableError, SalienceError

# Of the store that the workers share; what passes through it are names.
_STORE_BYTES = 128 << 20
_REACH_S = 10.0


@dataclass(frozen=True)
class Share:
    """How many workers there are, and what each of them gets."""

    workers: int
    threads: int
    gpus: float


def load_ray() -> Any:
    """Ray, with Ray Data; BackendUnavailableError with the remedy where it is missing."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise BackendUnavailableError("work on many workers needs Ray: pip install 'salience[ray]'.") from error
    return ray


@contextlib.contextmanager
def joined(address: str) -> Iterator[Any]:
    """Ray, on a cluster that this process takes part in; one that it is in already is used as it is.

    Args:
        address: "local" starts one on this machine, which ends with the block; "auto" finds one that runs on this
            machine; else HOST:PORT of its head.

    Raises:
        BackendUnavailableError: Ray is missing.
        SalienceError: there is no such cluster.
    """
    # Else Ray reports to its makers, and the logs of its core go to this terminal.
    for name, value in (("RAY_USAGE_STATS_ENABLED", "0"), ("RAY_BACKEND_LOG_LEVEL", "fatal")):
        os.environ.setdefault(name, value)
    ray = load_ray()
    if ray.is_initialized():
        yield ray
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address == "local":
        options |= {
            "num_cpus": available_cores(), "include_dashboard": False, "object_store_memory": _STORE_BYTES,
        }  # fmt: skip
    try:
        _check_reachable(address)
        with _silent():
            ray.init(address=address, **options)
    except (OSError, ValueError, OverflowError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise SalienceError(
            f"--ray {address}: no cluster ({reason}); expected local, auto, or HOST:PORT of one that runs."
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise OSError where nothing answers at HOST:PORT; Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), _REACH_S).close()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Nothing on the standard error of this process, not even by Ray's core, which tells of its level of logging."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def share_out(ray: Any, workers: int | None, gpus: float, threads: int | None) -> Share:
    """What each worker gets of the cluster that `ray` is in.

    Args:
        ray: see `joined`.
        workers: how many; None for one a GPU's share, or on CPUs about four a machine.
        gpus: of each, 0 for none.
        threads: of each, that many CPUs; None for an equal part of all.

    Raises:
        SalienceError: the cluster has not enough.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return divide([node for node in nodes if node.get("CPU", 0) >= 1], workers, gpus, threads)


def divide(nodes: list[Mapping[str, float]], workers: int | None, gpus: float, threads: int | None = None) -> Share:
    """As `share_out`, of the resources of each machine."""
    smallest = min((int(node["CPU"]) for node in nodes), default=0)
    if workers is None:
        # Calls that run side by side, each by few threads, give the most pictures a second.
        few = threads or (1 if gpus else max(1, smallest // 4))
        workers = max(1, _places(nodes, few, gpus))
    if threads is None:
        threads = max(1, min(smallest, sum(int(node["CPU"]) for node in nodes) // workers))
        while threads > 1 and _places(nodes, threads, gpus) < workers:
            threads -= 1
    places = _places(nodes, threads, gpus)
    if places < workers:
        each = f"{threads} CPU" + (f" and {gpus:g} GPU" if gpus else "")
        raise SalienceError(f"--workers {workers}: each needs {each}, and the cluster has room for {places}.")
    return Share(workers, threads, gpus)


def _places(nodes: list[Mapping[str, float]], threads: int, gpus: float) -> int:
    """How many workers find room; one that has a part of a GPU has it of a single one."""
    found = 0
    for node in nodes:
        room = int(node["CPU"]) // threads
        found += min(room, int(node.get("GPU", 0)) * int(1 / gpus)) if gpus else room
    return found
