"""What every worker needs to know, and how it makes a map of it."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..bundle import Bundle
from ..detector import Detector, open_detector
from ..errors import SalienceError
from ..images import ImageSource
from ..load_options import LoadOptions
from ..low_level import PRESETS, Preset
from ..manifest import MANIFEST_FILE
from ..methods.cgd import ClampedDescentDetector
from ..saliency import Kind, SaliencyMap

# What serves whole groups, or more than a picture, and the command that does it instead.
_ELSEWHERE = {"gicd": "salience cosaliency", "lps": "salience promote"}


@dataclass(frozen=True)
class Settings:
    """How maps are made.

    Attributes:
        bundle: its folder, which every worker sees under this path.
        kind: what is written, see `SaliencyMap.render`.
        threshold: of masks; None for half of the map's maximum, at least .3.
        load: how the bundle is opened.
        target: of `cgd`, the class; None for the one that is seen.
        preset: of `cgd`, the parameters.
    """

    bundle: Path
    kind: Kind = "map"
    threshold: float | None = None
    load: LoadOptions = field(default_factory=LoadOptions)
    target: str | None = None
    preset: Preset = PRESETS["default"]

    def check(self) -> None:
        """Raise SalienceError where the bundle cannot serve single pictures, or has no use for a setting."""
        method = Bundle(self.bundle).manifest.method
        if method in _ELSEWHERE:
            raise SalienceError(
                f"bundle {self.bundle}: holds {method}, which needs more than one picture at a time; "
                f"use: {_ELSEWHERE[method]}."
            )
        if method != "cgd" and (self.target is not None or self.preset != PRESETS["default"]):
            raise SalienceError(f"bundle {self.bundle}: holds {method}, expected cgd for --class, --preset and --set.")

    def identity(self, column: str | None) -> str:
        """JSON of all that decides what the results hold; where and how fast they are made does not."""
        manifest = (self.bundle / MANIFEST_FILE).read_bytes()
        found = {
            "bundle": hashlib.sha256(manifest).hexdigest(),
            "kind": self.kind,
            "threshold": self.threshold,
            "precision": self.load.precision,
            "class": self.target,
            "parameters": asdict(self.preset),
            "column": column,
        }
        return json.dumps(found, indent=1)

    def open(self) -> tuple[Detector, Callable[[ImageSource], SaliencyMap]]:
        """The detector, and what makes a map of a picture with it.

        Raises:
            BundleError: the bundle is missing or damaged.
            BackendUnavailableError: what was asked for cannot run here.
            SalienceError: the bundle has no such class.
        """
        detector = open_detector(self.bundle, self.load)
        if isinstance(detector, ClampedDescentDetector):
            target = detector.class_index(self.target)
            return detector, lambda image: detector.locate(image, target, preset=self.preset)
        return detector, detector.predict
