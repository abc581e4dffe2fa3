"""Training runs of the smallest networks on scenes, for tests."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from safetensors.torch import load_file

from salience.runtime.tables import entry
from salience.training.checkpoint import CheckpointHeader, build_network
from salience.training.data.scenes import KINDS, Scene, scenes, scenes_of_kinds
from salience.training.fit import fit
from salience.training.optim import OptimiserSettings
from salience.training.preprocessing import Preprocessing
from salience.training.recipes import RECIPES
from salience.training.run_state import FitSettings

NETWORK = {"backbone": "mobilenet_v2", "width": 4, "hidden": 8, "norm": True}
# The smallest networks, and recipes with everything on that draws at random.
NETWORKS: dict[str, dict[str, Any]] = {
    "multis": NETWORK,
    "arn": {"backbone": "mobilenet_v2", "width": 32, "norm": True},
    "lps": {"backbone": "mobilenet_v2", "width": 4, "embedding": 16, "stride": 8},
    "cgd": {"backbone": "mobilenet_v2", "classes": tuple(sorted(KINDS))},
    "gicd": {"backbone": "mobilenet_v2", "width": 4, "norm": True},
}
RECIPE_SETTINGS: dict[str, dict[str, Any]] = {
    "multis": {"iou": 1},
    "arn": {"iou": 1},
    "lps": {"samples": 1024, "rough": 0.5},
    "cgd": {"strategy": "last-faster"},
    "gicd": {"bce": 1, "rounds": 4, "most": 3, "cache": 2},
}
SIZE = (64, 64)


class Drawn:
    """A scene that is drawn once: drawing it takes as long as a step of these networks."""

    def __init__(self, scene: Scene) -> None:
        self.name, self.label = scene.name, scene.label
        self._pair = scene.load()

    def load(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        return self._pair


@cache
def drawn(count: int, *, seed: int = 0, kinds: bool = False) -> list[Drawn]:
    """The same scenes whenever they are asked for."""
    return [Drawn(scene) for scene in (scenes_of_kinds if kinds else scenes)(count, seed=seed)]


def run(
    output: Path,
    *,
    epochs: int,
    method: str = "multis",
    images: int = 24,
    rate: float = 2e-3,
    resume: bool = False,
    optimiser: dict[str, Any] | None = None,
    **changes: object,
) -> list[float]:
    """Train and return the loss of each epoch; `optimiser` and `changes` are further settings."""
    torch.manual_seed(0)
    network = build_network(method, NETWORKS[method])
    recipe = entry(RECIPES, method, what="method")(**RECIPE_SETTINGS[method])
    settings = FitSettings(
        output,
        OptimiserSettings(
            optimiser="adamw", rate=rate, schedule="cosine", epochs=epochs, batch=8, clip=1.0, **optimiser or {}
        ),
        **{"accumulate": 2, "augmentation": "strong", "seed": 3} | changes,  # type: ignore[arg-type]
    )
    header = CheckpointHeader(method=method, network=NETWORKS[method], preprocessing=Preprocessing(size=SIZE))
    fabric = Fabric(accelerator="cpu", devices=1)
    kinds = method in ("cgd", "gicd")
    history = fit(
        network, recipe, header, train=drawn(images, kinds=kinds), validate=drawn(4, seed=1, kinds=kinds),
        settings=settings, fabric=fabric, resume=resume,
    )  # fmt: skip
    return [record.loss for record in history]


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint."""
    return load_file(path)
