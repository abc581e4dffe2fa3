"""Random networks of the papers' sizes and the bundles made of them, for benchmarks of speed."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.forms import Workload
from salience.export.graph import MethodExport
from salience.export.graphs import GRAPHS
from salience.export.pipeline import BuildSettings, build_network_bundle
from salience.runtime.tables import entry
from salience.training.checkpoint import CheckpointHeader, build_network, load_checkpoint, save_checkpoint
from salience.training.data.scenes import scenes
from salience.training.preprocessing import Preprocessing

SCENES = 12


def write_checkpoint(workload: Workload) -> None:
    """The workload's network with random weights: default settings, so the paper's.

    `gicd` on VGG16 weighs channels as in the released form, which it is compared with where that takes the size.
    """
    settings: dict[str, Any] = {"backbone": workload.backbone}
    if (workload.method, workload.backbone, workload.size) == ("gicd", "vgg16", (224, 224)):
        settings["induction"] = "released"
    torch.manual_seed(0)
    network: Any = build_network(workload.method, settings).eval()
    scale = getattr(network, "input_scale", {})
    header = CheckpointHeader(
        method=workload.method, network=settings, preprocessing=Preprocessing(size=workload.size, **scale)
    )
    save_checkpoint(workload.checkpoint, network, header)


def write_calibration(folder: Path) -> Path:
    """Synthetic scenes in `images/` and `masks/`, from which int8 takes its ranges."""
    for index, scene in enumerate(scenes(SCENES)):
        image, mask = scene.load()
        for kind, values in (("images", image), ("masks", mask.astype(np.uint8) * 255)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(folder / kind / f"{index:02d}.png")
    return folder


def write_bundle(workload: Workload, precision: Any, calibration: Path) -> None:
    """The workload's bundle of one precision, compared with nothing: what random weights compute means nothing.

    In int8 are all layers that may be; a trained network keeps those in fp32 that change its maps.

    Raises:
        SalienceError: the method has no such precision.
    """
    header, network = load_checkpoint(workload.checkpoint)
    export: MethodExport = entry(GRAPHS, workload.method, what="method")()
    settings = BuildSettings(
        output=workload.bundle(precision), precisions=(precision,), verify=False, calibration=calibration
    )
    build_network_bundle(
        header, network, export, settings, step=lambda name: nullcontext(), source={"weights": "random"}
    )
