"""How a bundle is opened: the options of `load`, shared by the commands, the service, Ray and Triton."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

from .backends.engine import EngineOptions
from .commands import parse_pairs
from .manifest import Precision
from .native import Kernels
from .option_groups import option

BackendName = Literal["auto", "onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"]
ProviderName = Literal["cpu", "cuda", "tensorrt", "tensorrt-rtx"]

# Typer reads one list of words, not a union of two.
_PRECISIONS: Any = Literal.__getitem__(("auto", *get_args(Precision)))


@dataclass(frozen=True)
class LoadOptions:
    """Engine, precision and device; see `detector.load` for each.

    Attributes:
        backend: inference engine; "auto" chooses.
        precision: of the graphs; "auto" takes the bundle's default.
        device: "auto", "cpu", "cuda" or "cuda:N".
        threads: CPU threads of one engine call; None chooses.
        provider: ONNX Runtime's execution provider.
        provider_options: for that provider on a GPU, over our defaults.
        cuda_graph: whether ONNX Runtime captures the steps of loops into CUDA graphs.
        kernels: fused kernels for ONNX Runtime: a library's path, "none" or "auto".
    """

    backend: BackendName = option("auto", "Inference engine.")
    precision: Precision | Literal["auto"] = option(
        "auto",
        "Of the graphs; auto: the bundle's default.",
        given_as=_PRECISIONS,
    )
    device: str = option("auto", "auto, cpu, cuda or cuda:N.")
    threads: int | None = option(None, "CPU threads of one engine call. [as many as make all cores work]", min=1)
    provider: ProviderName | None = option(None, "ONNX Runtime's execution provider.")
    provider_options: Mapping[str, str] = option(
        {},
        "On a GPU: NAME=VALUE for ONNX Runtime's provider; may be repeated.",
        "--provider-option",
        given_as=list[str] | None,
        convert=partial(parse_pairs, flag="--provider-option"),
    )
    cuda_graph: bool = option(False, "On a GPU: ONNX Runtime captures the steps of loops into CUDA graphs.")
    kernels: Kernels = option("auto", "Fused kernels for ONNX Runtime: a library's path, none, or auto.", given_as=str)

    @property
    def only_onnxruntime(self) -> bool:
        """Whether an option is ONNX Runtime's alone."""
        return self.provider is not None or bool(self.provider_options) or self.cuda_graph

    @property
    def asks_for_gpu(self) -> bool:
        """Whether the options name a GPU, or take one where no device is named."""
        return self.device.startswith("cuda") or (self.only_onnxruntime and self.provider != "cpu")

    def engine(self, device: str) -> EngineOptions:
        """The options of an engine on `device`; kernels are chosen per engine."""
        return EngineOptions(
            device=device,
            threads=self.threads,
            provider=self.provider,
            provider_options=self.provider_options,
            cuda_graph=self.cuda_graph,
        )
