"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..detector import BackendName

BundleOption = Annotated[Path | None, typer.Option(help="Folder made by build_engine.py. [the bundle in the package]")]
BackendOption = Annotated[BackendName, typer.Option(help="Inference engine.")]
PrecisionOption = Annotated[
    Literal["auto", "fp32", "fp16", "fp16-weights", "int8"],
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
