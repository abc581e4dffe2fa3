"""The object of one class in many pictures: a detector of `cgd` with its settings, as a pipeline wants it."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .detector import Prepared
from .errors import SalienceError
from .images import ImageSource
from .low_level import PRESETS, Preset, PresetName
from .methods.cgd import ClampedDescentDetector, Descended, ObjectMap


@dataclass(frozen=True, eq=False)
class PreparedFile(Prepared):
    """A picture that was read from `source`."""

    source: Path


@dataclass(frozen=True)
class ObjectFinder:
    """A detector with what it looks for, as `pipeline.run_jobs` wants one.

    Attributes:
        detector: see `ClampedDescentDetector`.
        target: the class, by name or number; None for the one that the classifier sees.
        preset: the parameters.
        tell: called with each picture's file and map, from several threads.
    """

    detector: ClampedDescentDetector
    target: str | int | None = None
    preset: Preset = PRESETS["default"]
    tell: Callable[[Path, ObjectMap], None] = lambda source, found: None

    def __post_init__(self) -> None:
        self.detector.class_index(self.target)

    @property
    def backend(self) -> str:
        """The engine, in words."""
        return self.detector.backend

    @property
    def precision(self) -> str:
        """Of the graph."""
        return self.detector.precision

    def locate(self, image: ImageSource) -> ObjectMap:
        """The map of one picture."""
        return self.detector.locate(image, self.target, preset=self.preset)

    def prepare(self, image: Path) -> PreparedFile:
        """Read one picture."""
        prepared = self.detector.prepare(image)
        return PreparedFile(prepared.image, prepared.tensor, image)

    def infer(self, prepared: Sequence[PreparedFile]) -> list[Descended]:
        """Run the loop."""
        target = self.detector.class_index(self.target)
        return self.detector.descend(prepared, [target] * len(prepared), self.preset.descent)

    def finish(self, prepared: PreparedFile, values: Descended) -> ObjectMap:
        """The map at the picture's size."""
        found = self.detector.object_map(prepared, values, self.preset)
        self.tell(prepared.source, found)
        return found


def choose_preset(name: PresetName, changes: Mapping[str, Any]) -> Preset:
    """A preset with some of its parameters changed, given as values or as text.

    Raises:
        SalienceError: there is no such preset or parameter, or a value is not possible.
    """
    if name not in PRESETS:
        raise SalienceError(f"preset {name!r}: not known, choose one of {', '.join(PRESETS)}.")
    preset, left = PRESETS[name], dict(changes)
    parts: dict[str, Any] = {}
    for part in ("descent", "refinement"):
        current = getattr(preset, part)
        known = {field.name for field in dataclasses.fields(current)}
        mine = {key: left.pop(key) for key in list(left) if key in known}
        parts[part] = dataclasses.replace(current, **{k: _as_type(k, v, getattr(current, k)) for k, v in mine.items()})
    if left:
        raise SalienceError(f"parameter {', '.join(left)}: not known, choose from {', '.join(_names(preset))}.")
    return Preset(**parts)


def _names(preset: Preset) -> Iterator[str]:
    for part in (preset.descent, preset.refinement):
        yield from (field.name for field in dataclasses.fields(part))


def _as_type(name: str, value: Any, example: Any) -> Any:
    """Text as the type of `example`."""
    if not isinstance(value, str) or isinstance(example, str):
        return value
    try:
        if isinstance(example, bool):
            return {"true": True, "false": False, "1": True, "0": False}[value.lower()]
        return type(example)(value)
    except (ValueError, KeyError):
        raise SalienceError(
            f"parameter {name}={value}: expected {'true or false' if isinstance(example, bool) else 'a number'}."
        ) from None
