"""The interface of every inference engine: open a graph of a bundle, run it."""

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from ..errors import BackendUnavailableError, EngineError
from ..manifest import GraphEntry, Precision
from .session import Session

# Of the control group that a container is (Linux, version 2).
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")

Feeds: TypeAlias = Mapping[str, NDArray[Any]]

# Provider options that are chosen by others of ours, and by which.
_CHOSEN_BY = {
    "device_id": "device",
    "enable_cuda_graph": "cuda_graph",
    "nv_cuda_graph_enable": "cuda_graph",
    "trt_cuda_graph_enable": "cuda_graph",
}


@dataclass(frozen=True)
class EngineOptions:
    """Where and how an engine runs.

    `device` is "cpu", "cuda" or "cuda:N"; `threads` bounds the CPU threads of one engine (None: all cores);
    `provider` chooses among ONNX Runtime's execution providers: "tensorrt" or "tensorrt-rtx" instead of
    plain CUDA; `kernels` is its library of fused kernels, see `native.kernel_library`.

    `provider_options` go to ONNX Runtime's provider on a GPU, by its own names and over our defaults (see
    `onnxrt_options`): `use_tf32`, `gpu_mem_limit`, `user_compute_stream` (a stream's address, decimal), ...
    `cuda_graph` lets its sessions capture their runs into CUDA graphs and launch those.
    """

    device: str = "cpu"
    threads: int | None = None
    provider: str | None = None
    kernels: Path | None = None
    provider_options: Mapping[str, str] = field(default_factory=dict, hash=False)
    cuda_graph: bool = False

    def __post_init__(self) -> None:
        kind, colon, number = self.device.partition(":")
        if kind not in ("cpu", "cuda") or (colon and not (kind == "cuda" and number.isdecimal())):
            raise EngineError(f"device {self.device!r}: expected cpu, cuda or cuda:N.")
        if self.threads is not None and self.threads < 1:
            raise EngineError(f"threads {self.threads}: expected at least 1.")
        if self.provider not in (None, "cpu", "cuda", "tensorrt", "tensorrt-rtx"):
            raise EngineError(f"provider {self.provider!r}: expected cpu, cuda, tensorrt or tensorrt-rtx.")
        if self.provider is not None and (self.provider == "cpu") == self.on_gpu:
            raise EngineError(
                f"provider {self.provider!r}: does not run on device {self.device!r}; leave one of them out."
            )
        self._check_gpu_options()

    def _check_gpu_options(self) -> None:
        given = [f"provider option {name}" for name in self.provider_options] + ["cuda_graph"] * self.cuda_graph
        if given and not self.on_gpu:
            raise EngineError(
                f"{given[0]}: is for a GPU, got device {self.device!r}; leave it out, or ask for device cuda."
            )
        for name, value in self.provider_options.items():
            if name in _CHOSEN_BY:
                raise EngineError(f"provider option {name}: is chosen by the option {_CHOSEN_BY[name]}; leave it out.")
            if not name.isidentifier() or not value:
                raise EngineError(f"provider option {name}={value}: expected a name and a value, such as use_tf32=1.")
        if self.cuda_graph and self.provider == "tensorrt":
            raise EngineError(
                "cuda_graph: provider tensorrt has one graph for all buffers, and a loop has two sets of them; "
                "leave it out, or take provider cuda."
            )

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device != "cpu"

    @property
    def device_index(self) -> int:
        """The number of the GPU, 0 where none is named."""
        return int(self.device.partition(":")[2] or 0)


class Engine(ABC):
    """One graph, ready to run; safe to call from many threads at once.

    Subclasses say how to open a file, how to run and what a session's buffers are; this class checks what is fed.
    """

    name: ClassVar[str]
    # Whether it computes there.
    on_gpu: bool = False

    def __init__(self, interface: GraphEntry, label: str) -> None:
        self.inputs = {spec.name: spec for spec in interface.inputs}
        self.outputs = {spec.name: spec for spec in interface.outputs}
        self.label = label

    @classmethod
    @abstractmethod
    def unavailable(cls, options: EngineOptions) -> str | None:
        """Why this backend cannot serve `options` on this machine, as a sentence with the remedy; or None."""

    @classmethod
    def require(cls, options: EngineOptions) -> None:
        """Raise BackendUnavailableError with the reason where `unavailable` gives one."""
        reason = cls.unavailable(options)
        if reason:
            raise BackendUnavailableError(reason)

    @classmethod
    def refuses(cls, precision: Precision, options: EngineOptions) -> str | None:
        """Why this backend lacks what graphs of `precision` need, as a sentence with the remedy; or None."""
        return None

    @classmethod
    @abstractmethod
    def open_graph(cls, path: Path, interface: GraphEntry, options: EngineOptions) -> Self:
        """Load an ONNX file, or for compiled backends an engine file, with its `interface`."""

    @classmethod
    def open(cls, bundle: Bundle, graph: str, precision: Precision, options: EngineOptions) -> Self:
        """Load `graph` of `bundle`.

        Raises:
            BundleError: the bundle lacks it.
            BackendUnavailableError: it cannot run here.
            EngineError: the backend rejects the file.
        """
        path = bundle.graph_file(graph, precision)
        reason = cls.refuses(precision, options)
        if reason:
            raise BackendUnavailableError(reason)
        return cls.open_graph(path, bundle.manifest.graphs[graph].at(precision), options)

    def run(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        """Outputs by name, for inputs by name; arrays live on the host.

        Raises:
            EngineError: an input is missing, unknown, or of another type or shape; or the engine failed.
        """
        unknown = sorted(feeds.keys() ^ self.inputs.keys())
        if unknown:
            raise EngineError(
                f"{self.label}: inputs {', '.join(feeds) or 'none'} given, expected {', '.join(self.inputs)}."
            )
        wrong = [text for name, spec in self.inputs.items() if (text := spec.mismatch(feeds[name]))]
        if wrong:
            raise EngineError(f"{self.label}: {'; '.join(wrong)}.")
        # Not `ascontiguousarray`, which makes a scalar (1,).
        return self._run({name: np.asarray(array, order="C") for name, array in feeds.items()})

    @abstractmethod
    def session(self, batch: int = 1) -> Session[Any]:
        """Buffers of its own for this graph, bound once, for a loop that copies nothing; see `Session`.

        Raises:
            EngineError: the buffers cannot be had.
        """

    @abstractmethod
    def _run(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        """Run on checked, contiguous inputs."""


def available_cores() -> int:
    """The cores that this process may use: those it may run on, and no more than its container's quota pays for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, quota_cores(_CPU_QUOTA) or cores))


def quota_cores(file: Path) -> int | None:
    """The cores of a quota, begun ones counted whole, from a file such as Linux' `cpu.max`; None for no quota."""
    try:
        quota, period = file.read_text().split()
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError, ZeroDivisionError):
        # No such file, another system, or "max", which is no quota.
        return None
