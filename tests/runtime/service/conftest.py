"""Services of small bundles, and small photographs."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.runtime.service.page_visit import CHROMIUM
from tests.runtime.service.running import METHODS, Running, running


@pytest.fixture(scope="session")
def bundles(bundle_of: Callable[[str], Path]) -> dict[str, Path]:
    """A small bundle of every method; skips where the service cannot run."""
    if find_spec("kserve") is None:
        pytest.skip("kserve is not installed: pip install 'salience[serve]'")
    return {method: bundle_of(method) for method in METHODS}


@pytest.fixture(scope="session")
def service(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service of all five methods."""
    arguments = [part for name, folder in bundles.items() for part in ("--bundle", f"{name}={folder}")]
    with running(tmp_path_factory.mktemp("service"), *arguments, "--max-bytes", "4000000", "--reload", "1") as found:
        yield found


@pytest.fixture(scope="session")
def jpegs(tmp_path_factory: pytest.TempPathFactory, photos: dict[str, NDArray[np.uint8]]) -> dict[str, Path]:
    """The photographs at a third of their size, each another one."""
    folder = tmp_path_factory.mktemp("jpegs")
    found = {}
    for name, pixels in photos.items():
        image = Image.fromarray(pixels)
        image.resize((image.width // 3, image.height // 3)).save(folder / f"{name}.jpg")
        found[name] = folder / f"{name}.jpg"
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window; its library keeps an event loop running, which no other module's tests can bear."""
    sync_api: Any = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not there: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=str(CHROMIUM), headless=True, args=["--no-sandbox", "--force-color-profile=srgb"]
        )
        yield found
        found.close()
