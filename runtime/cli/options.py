"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..detector import BackendName
from ..low_level import PresetName

BundleOption = Annotated[Path | None, typer.Option(help="Folder made by build_engine.py. [the bundle in the package]")]
BackendOption = Annotated[BackendName, typer.Option(help="Inference engine.")]
PrecisionOption = Annotated[
    Literal["auto", "fp32", "fp16", "fp16-weights", "bf16", "int8"],
    typer.Option(help="Of the graphs; auto: the bundle's default."),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, help="CPU threads of one engine call. [as many as make all cores work]")
]
ProviderOption = Annotated[
    Literal["cpu", "cuda", "tensorrt", "tensorrt-rtx"] | None,
    typer.Option(help="ONNX Runtime's execution provider."),
]
ProviderOptionsOption = Annotated[
    list[str] | None,
    typer.Option("--provider-option", help="On a GPU: NAME=VALUE for ONNX Runtime's provider; may be repeated."),
]
CudaGraphOption = Annotated[
    bool, typer.Option("--cuda-graph", help="On a GPU: ONNX Runtime captures the steps of loops into CUDA graphs.")
]
ThresholdOption = Annotated[
    float | None, typer.Option(min=0.0, max=1.0, help="Of masks. [half of the map's maximum, at least .3]")
]
ClassOption = Annotated[
    str | None, typer.Option("--class", help="cgd: the class to find, by name or number. [the one seen]")
]
PresetOption = Annotated[PresetName, typer.Option(help="cgd: parameters to start from.")]
ParameterOption = Annotated[
    list[str] | None, typer.Option("--set", help="cgd: NAME=VALUE, such as iterations=5; may be repeated.")
]
