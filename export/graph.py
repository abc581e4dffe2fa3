"""What a method hands to the exporter."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from salience.runtime.manifest import TensorSpec


@dataclass(frozen=True, eq=False)
class Graph:
    """One graph of a method.

    Attributes:
        name: the file's stem and the key in the manifest.
        module: what is traced; may hold symbolic nodes of the `salience` domain.
        reference: the same in plain PyTorch, what the graph is verified against.
        inputs: names, types and shapes; a string dimension is free, and the first one is the batch.
        outputs: likewise.
    """

    name: str
    module: nn.Module
    reference: nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class InPrecision(nn.Module):
    """`module` with weights and arithmetic of `dtype`, its inputs and outputs staying fp32.

    Where sums need fp32, the module itself says `.float()`, which is nothing in an fp32 graph.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module = copy.deepcopy(module).to(dtype)
        self.dtype = dtype

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """As `module`."""
        found = self.module(*(x.to(self.dtype) for x in inputs))
        return found.float() if isinstance(found, Tensor) else tuple(y.float() for y in found)
