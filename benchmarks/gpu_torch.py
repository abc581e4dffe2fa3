"""The graphs of a method run by PyTorch itself, as engines of our runtime: what a GPU without other engines can show.

A detector on these engines loops as on any other, its tensors on the device.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from salience.export.graph import Graph
from salience.export.graphs.lps import Embed, Refine
from salience.export.graphs.multis import FusedMap
from salience.export.operators import maxout_fusion_node
from salience.runtime.backends.engine import Engine, EngineOptions, Feeds
from salience.runtime.backends.session import Session
from salience.runtime.errors import EngineError
from salience.runtime.manifest import GraphEntry, Precision
from salience.training.networks.lps import shuffle
from salience.training.networks.multis import maxout_fusion

# A loop has two states of addresses; a session whose buffers are new in every call would capture for ever.
_MOST_GRAPHS = 8


class TorchEngine(Engine):
    """One graph's module in eager PyTorch; the sessions of one with `replayed` capture CUDA graphs and replay them."""

    name = "pytorch"

    def __init__(self, graph: Graph, precision: Precision, device: str, *, replayed: bool = False) -> None:
        super().__init__(
            graph.entry({precision: graph.name}).at(precision), f"pytorch {device} {graph.name} {precision}"
        )
        self.module = without_nodes(graph.at(precision)).to(device).eval().requires_grad_(False)
        self.device = torch.device(device)
        self.on_gpu = self.device.type == "cuda"
        self.replayed = replayed

    @classmethod
    def unavailable(cls, options: EngineOptions) -> str | None:
        """See `Engine.unavailable`."""
        return None

    @classmethod
    def open_graph(cls, path: Path, interface: GraphEntry, options: EngineOptions) -> Self:
        """There are no files of it."""
        return _no_file(path)

    def session(self, batch: int = 1) -> "TorchSession":
        """See `Engine.session`."""
        return TorchSession(self, batch)

    def call(self, given: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Outputs in their order, for inputs in theirs."""
        with torch.no_grad():
            found = self.module(*given)
        return (found,) if isinstance(found, Tensor) else tuple(found)

    def _run(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        given = [torch.from_numpy(feeds[name]).to(self.device) for name in self.inputs]
        return {name: y.cpu().numpy() for name, y in zip(self.outputs, self.call(given), strict=True)}


class TorchSession(Session[Tensor]):
    """Tensors of PyTorch as buffers."""

    def __init__(self, engine: TorchEngine, batch: int) -> None:
        self._engine = engine
        self._bound: dict[str, Tensor] = {}
        self._captured: dict[tuple[int, ...], torch.cuda.CUDAGraph] = {}
        super().__init__(engine.inputs, engine.outputs, batch=batch, label=engine.label)

    def _allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Tensor:
        return torch.from_numpy(np.empty(shape, dtype)).to(self._engine.device)

    def _bind(self, name: str, buffer: Tensor, *, is_input: bool) -> None:
        self._bound[name] = buffer

    def _upload(self, buffer: Tensor, array: NDArray[Any]) -> None:
        buffer.copy_(torch.from_numpy(array))

    def _download(self, buffer: Tensor) -> NDArray[Any]:
        return np.array(buffer.cpu().numpy())

    def _execute(self) -> None:
        addresses = self._addresses()
        known = addresses in self._captured
        if not self._engine.replayed or (not known and len(self._captured) == _MOST_GRAPHS):
            self._compute()
            return
        if not known:
            self._captured[addresses] = self._capture()
        self._captured[addresses].replay()

    def _addresses(self) -> tuple[int, ...]:
        return tuple(buffer.data_ptr() for buffer in self._bound.values())

    def _compute(self) -> None:
        found = self._engine.call([self._bound[name] for name in self._engine.inputs])
        for name, values in zip(self._engine.outputs, found, strict=True):
            self._bound[name].copy_(values)

    def _capture(self) -> torch.cuda.CUDAGraph:
        """The graph of one run on the bound buffers; it writes to the outputs alone, so runs before it do no harm."""
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(2):
                self._compute()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._compute()
        return graph


def without_tf32() -> None:
    """Let fp32 be fp32 from now on; PyTorch's convolutions take 10 bits of 23 otherwise."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def without_nodes(module: torch.nn.Module) -> torch.nn.Module:
    """`module` with PyTorch's own operations where nodes of the domain `salience` stand while it is traced."""
    for part in module.modules():
        if isinstance(part, Embed):
            part.fused, part.join = False, shuffle
        elif isinstance(part, Refine):
            part.fused = False
        elif isinstance(part, FusedMap) and part.fusion is maxout_fusion_node:
            part.fusion = maxout_fusion
    return module


def _no_file(path: Path) -> NoReturn:
    raise EngineError(f"pytorch: {path.name} was given, expected a graph of the exporter; PyTorch reads no ONNX files.")
