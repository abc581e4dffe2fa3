"""Fixtures that the tests of all stages share."""

import os
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
MODEL_SETTINGS = {"backbone": "mobilenet_v2", "width": 4, "hidden": 8, "norm": True}
SIZE = (64, 96)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the working tree."""
    return REPOSITORY


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of research data that SALIENCE_DATA names; tests that need it skip without."""
    folder = os.environ.get("SALIENCE_DATA")
    if not folder:
        pytest.skip("SALIENCE_DATA is not set: the research data are not here")
    return Path(folder)


@pytest.fixture(scope="session")
def photos() -> dict[str, NDArray[np.uint8]]:
    """scikit-image's bundled photographs, (H, W, 3) uint8."""
    data = pytest.importorskip("skimage.data")
    return {name: getattr(data, name)() for name in ("astronaut", "chelsea", "coffee", "rocket")}


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory, photos: dict[str, NDArray[np.uint8]]) -> Path:
    """The photographs as JPEG files."""
    folder = tmp_path_factory.mktemp("photos")
    for name, image in photos.items():
        Image.fromarray(image).save(folder / f"{name}.jpg", quality=95)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random `multis` checkpoint whose maps follow the picture."""
    torch = pytest.importorskip("torch")
    from salience.training.checkpoint import CheckpointHeader, build_network, save_checkpoint
    from salience.training.preprocessing import Preprocessing

    with torch.random.fork_rng():
        torch.manual_seed(7)
        network = build_network("multis", MODEL_SETTINGS)
        # True statistics in batch norm: with the initial ones a random network's maps ignore the picture.
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None
        network.train()
        with torch.no_grad():
            for _ in range(4):
                network(torch.randn(16, 3, *SIZE))
    path = tmp_path_factory.mktemp("checkpoint") / "multis-small.safetensors"
    header = CheckpointHeader(method="multis", network=MODEL_SETTINGS, preprocessing=Preprocessing(size=SIZE))
    save_checkpoint(path, network.eval(), header)
    return path


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """A bundle of the small checkpoint in every precision, verified on ONNX Runtime and OpenVINO."""
    from salience.export.pipeline import BuildSettings, build

    output = tmp_path_factory.mktemp("bundles") / "multis"
    settings = BuildSettings(
        output=output, precisions=("fp32", "fp16", "fp16-weights"), engines=("onnxruntime", "openvino")
    )
    build("multis", checkpoint, settings, step=lambda name: nullcontext())
    return output


@pytest.fixture(scope="session")
def pairs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve synthetic scenes as images/ and masks/."""
    pytest.importorskip("torch")
    from salience.training.data.scenes import scenes

    folder = tmp_path_factory.mktemp("pairs")
    for index, scene in enumerate(scenes(12, seed=3)):
        image, mask = scene.load()
        for kind, values in (("images", image), ("masks", mask.astype(np.uint8) * 255)):
            path = folder / kind / ("left" if index % 2 else "right") / f"{index:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(path)
    return folder
