"""Fixtures that the tests of all stages share."""

import os
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
SMALL_SETTINGS: dict[str, dict[str, Any]] = {
    "multis": {"backbone": "mobilenet_v2", "width": 4, "hidden": 8, "norm": True},
    "arn": {"backbone": "mobilenet_v2", "width": 32, "norm": True},
    "lps": {"backbone": "mobilenet_v2", "width": 8, "embedding": 48},
    "cgd": {"backbone": "squeezenet1_0", "classes": ("cat", "dog", "car", "cup", "tree")},
    "gicd": {"backbone": "mobilenet_v2", "width": 8, "norm": True},
}
SIZE = (64, 96)
# What `bundle_of` builds; int8 calibrates, and has its own tests.
FLOAT_PRECISIONS: tuple[Any, ...] = ("fp32", "fp16", "fp16-weights")


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


def small_checkpoint(folder: Path, method: str, **changes: Any) -> Path:
    """A small random checkpoint of `method` whose maps follow the picture; `changes` of its settings."""
    torch = pytest.importorskip("torch")
    from torchvision.models.mobilenetv2 import InvertedResidual

    from salience.training.checkpoint import CheckpointHeader, build_network, save_checkpoint
    from salience.training.networks.arn import SelfAttention
    from salience.training.preprocessing import Preprocessing

    settings = SMALL_SETTINGS[method] | changes
    with torch.random.fork_rng():
        torch.manual_seed(7)
        network: Any = build_network(method, settings)
        if method == "gicd":  # a classifier that has a view, so that the group counts
            torch.nn.init.normal_(network.backbone.classifier[-1].weight, std=0.2)
        for module in network.modules():
            # True statistics in batch norm: with the initial ones a random network's maps ignore the picture.
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None
            # As in trained networks; else every residual block of this random one doubles the rounding of fp16.
            if isinstance(module, InvertedResidual) and module.use_res_connect:
                torch.nn.init.constant_(module.conv[-1].weight, 0.3)
            # Maps that are not flat: their last layers start small.
            if isinstance(module, torch.nn.ConvTranspose2d) and module.out_channels == 1:
                module.weight.data *= (2 / (4 * module.in_channels)) ** 0.5 / 0.01
            # An attention that counts: its scale starts at 0.
            if isinstance(module, SelfAttention):
                torch.nn.init.constant_(module.scale, 0.5)
        torch.nn.Module.train(network)  # all of it, also a backbone that stays as it is in training
        with torch.no_grad():
            for _ in range(4):
                priors = [torch.rand(16, 1, *SIZE)] if method == "lps" else []
                network(torch.randn(16, 3, *SIZE), *priors)
    path = folder / f"{method}-small.safetensors"
    header = CheckpointHeader(method=method, network=settings, preprocessing=Preprocessing(size=SIZE))
    save_checkpoint(path, network.eval(), header)
    return path


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this run, which the processes of pytest-xdist share; nothing in it is written twice."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


def made_once(path: Path, make: Callable[[], object]) -> Path:
    """`path`, made by the first process that asks for it; the others wait."""
    with FileLock(f"{path}.lock"):
        if not path.exists():
            make()
    return path


@pytest.fixture(scope="session")
def checkpoints(shared: Path) -> dict[str, Path]:
    """A small random checkpoint of every method."""
    return {
        method: made_once(shared / f"{method}-small.safetensors", partial(small_checkpoint, shared, method))
        for method in SMALL_SETTINGS
    }


@pytest.fixture(scope="session")
def checkpoint(checkpoints: dict[str, Path]) -> Path:
    """The one of `multis`."""
    return checkpoints["multis"]


@pytest.fixture(scope="session")
def bundle_of(shared: Path, checkpoints: dict[str, Path]) -> Callable[[str], Path]:
    """Method -> a bundle of its small checkpoint in every precision, verified on ONNX Runtime and OpenVINO."""

    def make(method: str) -> None:
        from salience.export.pipeline import BuildSettings, build

        output = shared / method
        settings = BuildSettings(output=output, precisions=FLOAT_PRECISIONS, engines=("onnxruntime", "openvino"))
        build(method, checkpoints[method], settings, step=lambda name: nullcontext())

    @cache
    def made(method: str) -> Path:
        return made_once(shared / method, partial(make, method))

    return made


@pytest.fixture(scope="session")
def bundle(bundle_of: Callable[[str], Path]) -> Path:
    """The bundle of `multis`."""
    return bundle_of("multis")


@pytest.fixture(scope="session")
def pairs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve synthetic scenes as images/ and masks/."""
    return save_scenes(tmp_path_factory.mktemp("pairs"), 12)


def save_scenes(folder: Path, count: int) -> Path:
    """Synthetic scenes as images/ and masks/ with two folders in each."""
    pytest.importorskip("torch")
    from salience.training.data.scenes import scenes

    for index, scene in enumerate(scenes(count, seed=3)):
        image, mask = scene.load()
        for kind, values in (("images", image), ("masks", mask.astype(np.uint8) * 255)):
            path = folder / kind / ("left" if index % 2 else "right") / f"{index:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(path)
    return folder
