"""Bundles of random weights, on which speed does not depend, for `benchmarks.curves`."""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.networks import write_calibration
from salience.export.graphs import GRAPHS
from salience.export.pipeline import BuildSettings, build_network_bundle
from salience.runtime.tables import entry
from salience.training.checkpoint import CheckpointHeader, build_network
from salience.training.networks.arn import SelfAttention
from salience.training.networks.cgd import Classifier
from salience.training.preprocessing import Preprocessing


@dataclass(frozen=True)
class BundleMaker:
    """Builds each bundle when it is first asked for.

    Attributes:
        folder: where they go.
        backbone: of all networks.
        precision: of all graphs.
    """

    folder: Path
    backbone: str
    precision: Any

    def bundle(self, method: str, side: int) -> Path:
        """The bundle of `method` for network input of side x side."""
        output = self.folder / f"{method}-{side}"
        if output.exists():
            return output
        network = _random_network(method, self.backbone)
        scale: dict[str, Any] = Classifier.input_scale if method == "cgd" else {}
        header = CheckpointHeader(
            method=method,
            network=network.settings.model_dump(),
            preprocessing=Preprocessing(size=(side, side), **scale),
        )
        calibration = write_calibration(self.folder / "calibration") if self.precision == "int8" else None
        settings = BuildSettings(output=output, precisions=(self.precision,), calibration=calibration, verify=False)
        export = entry(GRAPHS, method, what="method")()
        build_network_bundle(header, network, export, settings, step=lambda name: nullcontext(), source={})
        return output


def _random_network(method: str, backbone: str) -> Any:
    torch.manual_seed(0)
    network: Any = build_network(method, {"backbone": backbone}).eval()
    for module in network.modules():
        if isinstance(module, SelfAttention):
            # Its scale starts at 0, where an optimiser of graphs might leave the attention out.
            torch.nn.init.constant_(module.scale, 0.5)
    return network
