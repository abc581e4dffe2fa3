"""What a method hands to the exporter."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from salience.runtime.detector import Detector
from salience.runtime.manifest import Approximation, GraphEntry, Precision, TensorSpec
from salience.training.checkpoint import CheckpointHeader, load_checkpoint

from .bfloat16 import fold_norms

Outputs = Tensor | tuple[Tensor, ...]

# What is computed in, where it is not fp32.
_ARITHMETIC: dict[Precision, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True, eq=False)
class Graph:
    """One graph of a method.

    Attributes:
        name: the file's stem and the key in the manifest.
        module: what is traced; may hold symbolic nodes of the `salience` domain.
        reference: what the outputs should be, in plain PyTorch, from network input (N, 3, h, w).
        inputs: names, types and shapes; a string dimension is free, and the first one is the batch.
        outputs: likewise.
        feeds: the graph's inputs, from network input (N, 3, h, w); None where that is the input.
        half: names of tensors that are float16 in the fp16 file, such as what stays on the device between graphs.
        minds_types: the module says itself what is computed in which type; else all of it is in that of the file.
        takes_gradients: the module calls `torch.func`'s gradients, which `reverse_mode` turns into a forward graph.
        int8_outputs: the outputs before which layers may be int8; None for all.
    """

    name: str
    module: nn.Module
    reference: Callable[[Tensor], Outputs]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    feeds: Callable[[Tensor], tuple[Tensor, ...]] | None = None
    half: tuple[str, ...] = ()
    minds_types: bool = False
    takes_gradients: bool = False
    int8_outputs: tuple[str, ...] | None = None

    def entry(self, files: dict[Precision, str]) -> GraphEntry:
        """As the manifest describes it."""
        return GraphEntry(inputs=self.inputs, outputs=self.outputs, files=files, half=self.half)

    def at(self, precision: Precision) -> nn.Module:
        """What is traced for `precision`; takes the inputs as `*inputs`."""
        return InPrecision(self, _ARITHMETIC.get(precision, torch.float32))


class InPrecision(nn.Module):
    """A graph's module with weights of `dtype`, and arithmetic of it unless the module minds its types.

    Inputs and outputs stay fp32 but for those of `Graph.half` in fp16. Where sums need fp32, the module itself says
    `.float()`, which is nothing in an fp32 graph.
    """

    def __init__(self, graph: Graph, dtype: torch.dtype) -> None:
        super().__init__()
        self.module = copy.deepcopy(graph.module)
        if dtype == torch.bfloat16:
            fold_norms(self.module)
        self.module.to(dtype)
        self.dtype = dtype
        self.minds_types = graph.minds_types
        half = graph.half if dtype != torch.bfloat16 else ()
        self.kept = [spec.name in half or spec.dtype != "float32" for spec in graph.outputs]

    def forward(self, *inputs: Tensor) -> Outputs:
        """As the module."""
        given = inputs if self.minds_types else tuple(x.to(self.dtype) for x in inputs)
        found = self.module(*given)
        if isinstance(found, Tensor):
            return found if self.kept[0] else found.float()
        return tuple(y if kept else y.float() for y, kept in zip(found, self.kept, strict=True))


class MethodExport(BaseModel, ABC):
    """How a method leaves PyTorch; the fields of a subclass are its options."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Whether maps come of steps along a gradient on the picture. A grey level in a few pixels gives others then, so in
    # the check by metric PyTorch gets the very input that the bundle makes of a picture; and so do activations that
    # are rounded to 8 bits, so bf16 and int8 are held to be no worse rather than the same.
    follows_gradients: ClassVar[bool] = False

    def load(self, checkpoint: Path) -> tuple[CheckpointHeader, nn.Module]:
        """Header and network, in eval mode.

        Raises:
            CheckpointError: the file does not fit.
        """
        return load_checkpoint(checkpoint)

    def classes(self, network: Any) -> tuple[str, ...]:
        """Names of the classes that the method tells apart, in order; none for most."""
        return ()

    @abstractmethod
    def graphs(self, network: Any, size: tuple[int, int]) -> list[Graph]:
        """The method's graphs for network input of `size` (height, width).

        Raises:
            SalienceError: the network or an option does not allow it.
        """

    def host_graphs(self, size: tuple[int, int]) -> dict[str, ModelProto]:
        """Further graphs of `manifest.HOST_GRAPHS` beside `preprocess` and `postprocess`."""
        return {}

    def predict(self, network: Any, tensor: Tensor, image: NDArray[np.uint8]) -> Tensor:
        """PyTorch's map (1, 1, h, w) of a picture, given as network input (1, 3, h, w) and as (H, W, 3) RGB."""
        saliency: Tensor = network(tensor).saliency
        return saliency

    def serve(self, detector: Detector, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The bundle's map (H, W) of the same picture."""
        return detector.predict(image).values

    def approximations(self, network: Any, tensors: Iterable[Tensor]) -> list[Approximation]:
        """What the options cost, measured on network inputs (1, 3, h, w)."""
        return []
