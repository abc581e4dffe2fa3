"""What is done to a photograph before and after the network, beside rembg's own functions where it is installed.

rembg needs none of its networks for these; the packaged network's size is taken on both sides.
"""

import io
import statistics
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import Any

import numpy as np
from PIL import Image
from skimage import data

from benchmarks.forms import Call, Floats
from benchmarks.latency_record import PhotoStep, PhotoSteps
from benchmarks.sample_photos import PHOTOS
from benchmarks.turns import take_turns
from salience.runtime import Detector, load

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BEFORE, AFTER = "decode, resize, normalise", "map to the photograph's size, cutout"


def measure_photo_steps(*, rounds: int, seed: int, threads: int) -> PhotoSteps:
    """Milliseconds of both sides on scikit-image's photographs, encoded as JPEG."""
    detector = load(threads=threads, backend="onnxruntime", device="cpu")
    size = detector.bundle.manifest.input_size
    values = smooth_map(size)
    calls: dict[tuple[str, str, str], Call] = {}
    installed = find_spec("rembg") is not None
    for name in PHOTOS:
        encoded = jpeg(getattr(data, name)())
        for step, call in our_calls(detector, encoded, values).items():
            calls[step, "ours", name] = call
        for step, call in rembg_calls(encoded, values).items() if installed else ():
            calls[step, "rembg", name] = call
    times = take_turns(calls, rounds=rounds, seed=seed)
    version = f"rembg {metadata.version('rembg')}" if installed else "rembg is not installed"
    return PhotoSteps(size=size, rembg=version, steps=tuple(summary(times, step) for step in (BEFORE, AFTER)))


def summary(times: dict[tuple[str, str, str], list[float]], step: str) -> PhotoStep:
    """The median over all photographs and rounds of one step."""
    found = {
        side: [second * 1e3 for key, seconds in times.items() if key[:2] == (step, side) for second in seconds]
        for side in ("ours", "rembg")
    }
    return PhotoStep(
        step=step,
        ours_ms=statistics.median(found["ours"]),
        rembg_ms=statistics.median(found["rembg"]) if found["rembg"] else None,
        samples=len(found["ours"]),
    )


def our_calls(detector: Detector, encoded: bytes, values: Floats) -> dict[str, Call]:
    """As `predict` and `cutout` do it."""
    prepared = detector.prepare(encoded)
    return {
        BEFORE: lambda: detector.prepare(encoded),
        AFTER: lambda: detector.finish(prepared, values[None]).cutout(),
    }


def rembg_calls(encoded: bytes, values: Floats) -> dict[str, Call]:
    """As `rembg.remove` does it with U2-Net's session, whose network is left out."""
    bg: Any = import_module("rembg.bg")
    session_type: Any = import_module("rembg.sessions.u2net").U2netSession
    height, width = values.shape

    def read() -> Image.Image:
        opened: Image.Image = bg.fix_image_orientation(Image.open(io.BytesIO(encoded)))
        return opened

    before, after = session_type.__new__(session_type), session_type.__new__(session_type)
    before.inner_session = after.inner_session = NoNetwork(values)
    after.normalize = lambda *given: {}
    photo = read()
    photo.load()

    def finish() -> None:
        (mask,) = after.predict(photo)
        bg.naive_cutout(photo, mask)

    return {BEFORE: lambda: before.normalize(read(), _MEAN, _STD, (width, height)), AFTER: finish}


class NoNetwork:
    """Stands for rembg's ONNX Runtime session: gives a map (h, w) that is there already."""

    def __init__(self, values: Floats) -> None:
        self.name = "input"
        self._values = values

    def get_inputs(self) -> list["NoNetwork"]:
        """One, with a name."""
        return [self]

    def run(self, names: None, feeds: dict[str, Floats]) -> list[Floats]:
        """The map as (1, 1, h, w)."""
        return [self._values[None, None]]


def smooth_map(size: tuple[int, int]) -> Floats:
    """A map (h, w) in [0, 1], bright in its middle."""
    rows, columns = (np.linspace(-2, 2, side, dtype=np.float32) for side in size)
    found: Floats = np.exp(-(rows[:, None] ** 2 + columns[None] ** 2))
    return found


def jpeg(image: Any) -> bytes:
    """(H, W, 3) uint8 as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=95)
    return buffer.getvalue()
