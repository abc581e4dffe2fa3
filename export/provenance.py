"""Where a bundle comes from, as its manifest says it."""

import platform
from importlib import metadata
from typing import Any

from torch import nn

import salience
from salience.training.checkpoint import CheckpointHeader

from .graph import MethodExport


def provenance_of(
    source: dict[str, str], header: CheckpointHeader, network: nn.Module, export: MethodExport
) -> dict[str, Any]:
    """What the manifest says of where a bundle comes from; `source` is of the checkpoint."""
    tools = ("torch", "onnx", "onnxscript", "onnxruntime", "openvino", "tensorrt_rtx", "tensorrt")
    # Class names stand in the manifest itself.
    settings = {name: value for name, value in header.network.items() if name != "classes"}
    return {
        **source,
        "parameters": sum(p.numel() for p in network.parameters()),
        "network": settings,
        "options": export.model_dump(mode="json", exclude_none=True),
        "preprocessing": header.preprocessing.model_dump(mode="json"),
        "training": header.training,
        "versions": {"salience": salience.__version__, "python": platform.python_version()}
        | {tool: version for tool in tools if (version := _version(tool))},
    }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
