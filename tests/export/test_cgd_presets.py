"""The shipped presets of `cgd` on photographs with real classifiers: F falls (Clamped descent, sec. 3.1)."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from salience.export.graphs.cgd import ClampedDescentExport, Descend
from salience.runtime.low_level import PRESETS, Descent, PresetName
from salience.runtime.methods.cgd import loop_settings
from salience.training.networks.cgd import Classifier

WEIGHTS = {
    "squeezenet1_0": "squeezenet1_0-imagenet.safetensors",
    "mobilenet_v2": "mobilenet_v2-imagenet.safetensors",
    "timm:tf_efficientnet_lite0": "efficientnet_lite0-imagenet.safetensors",
}


@pytest.fixture(scope="module", params=WEIGHTS)
def classifier(request: pytest.FixtureRequest) -> Classifier:
    """A classifier with its ImageNet weights, from SALIENCE_MODELS or the folder models beside SALIENCE_DATA."""
    beside = Path(os.environ["SALIENCE_DATA"]).parent / "models" if "SALIENCE_DATA" in os.environ else None
    folder = os.environ.get("SALIENCE_MODELS", beside)
    if not folder:
        pytest.skip("SALIENCE_MODELS and SALIENCE_DATA are not set: the ImageNet weights are not here")
    path = Path(folder) / WEIGHTS[request.param]
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    _, network = ClampedDescentExport(classifier=request.param).load(path)
    assert isinstance(network, Classifier)
    return network


@torch.no_grad()
def costs(network: Classifier, images: torch.Tensor, descent: Descent) -> NDArray[np.float64]:
    """F of X(0) to X(T), (T + 1, N), of images (N, 3, H, W) in grey levels."""
    settings = [torch.from_numpy(values) for values in loop_settings(descent).values()]
    blank = torch.zeros(len(images), len(network.settings.classes))
    state: tuple[torch.Tensor, ...] = (images, blank, blank, torch.tensor([0]))
    descend, found = Descend(network), []
    for _ in range(descent.iterations + 1):
        *state, _, cost = descend(*state, *settings)
        found.append(cost.numpy().astype(np.float64))
    return np.stack(found)


@pytest.mark.parametrize("name", ["default", "paper"])
def test_f_falls_on_photographs(
    name: PresetName, classifier: Classifier, photos: Mapping[str, NDArray[np.uint8]]
) -> None:
    planes = [torch.from_numpy(photo.transpose(2, 0, 1).copy())[None].float() for photo in photos.values()]
    images = torch.cat([torch.nn.functional.interpolate(plane, (224, 224), mode="area") for plane in planes])
    found = costs(classifier, images, PRESETS[name].descent)
    # "Significantly reduced" in the paper's words.
    assert (found[-1] < 0.75 * found[0]).all()
    # No step raises F by more than a few hundredths of the whole way.
    assert (np.diff(found, axis=0).max(axis=0) < 0.05 * (found[0] - found[-1])).all()
