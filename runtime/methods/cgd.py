"""`cgd`: descends the gradient of a classifier's cost on the picture; what that takes away is the object."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends.engine import Engine
from ..backends.session import Session
from ..detector import Detector, Prepared
from ..driver import LoopPool, iterate
from ..errors import SalienceError
from ..images import ImageSource
from ..low_level import PRESETS, Descent, Preset, saliency_map
from ..saliency import SaliencyMap

# How each way of scaling the gradient is told to the graph, and limits that are none.
_SCALINGS: dict[str, list[float]] = {"relative": [1, 0, 0], "plain": [0, 1, 0], "channel": [0, 0, 1]}
_NO_LIMITS = (-1e30, 1e30)


@dataclass(frozen=True, eq=False)
class ObjectMap(SaliencyMap):
    """The map of one class's object, and what the classifier says of the picture.

    Attributes:
        target: the number of that class.
        logits: (K,) float32 of the unchanged picture.
        names: of the K classes.
    """

    target: int
    logits: NDArray[np.float32]
    names: tuple[str, ...]

    def __repr__(self) -> str:
        return f"ObjectMap({self.label!r}, {super().__repr__()})"

    @property
    def label(self) -> str:
        """The name of the class."""
        return self.names[self.target]

    @property
    def probability(self) -> float:
        """Of the class, in the unchanged picture."""
        return float(self._probabilities()[self.target])

    def classes(self, count: int = 5) -> list[tuple[str, float]]:
        """The likeliest classes and their probabilities, the softmax of the logits."""
        shares = self._probabilities()
        order = np.argsort(-shares, kind="stable")[:count]
        return [(self.names[index], float(shares[index])) for index in order]

    def _probabilities(self) -> NDArray[np.float64]:
        shares: NDArray[np.float64] = np.exp(self.logits.astype(np.float64) - self.logits.max())
        shares /= shares.sum()
        return shares


@dataclass(frozen=True, eq=False)
class Descended:
    """One picture after the loop: X(T) (3, h, w), the logits (K,) of X(0), and the class's number."""

    image: NDArray[np.float32]
    logits: NDArray[np.float32]
    target: int


class ClampedDescentDetector(Detector):
    """Serves CGD, which finds a class's object with any classifier; see `locate`."""

    graphs = ("descend",)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._loops = LoopPool(lambda batch: DescentLoop(self.engines["descend"], batch))

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes, in the order of the logits."""
        return self.bundle.manifest.classes

    def locate(
        self, image: ImageSource, target: str | int | None = None, *, preset: Preset = PRESETS["default"]
    ) -> ObjectMap:
        """The map of a class's object.

        Args:
            image: as for `Detector.predict`.
            target: name or number of the class; None for the one that the classifier sees.
            preset: the parameters; an entry of `low_level.PRESETS`, or one of your own.

        Raises:
            ImageError: the picture cannot be read.
            SalienceError: there is no such class.
            EngineError: the engine failed.
        """
        chosen = self.class_index(target)
        prepared = self.prepare(image)
        (found,) = self.descend([prepared], [chosen], preset.descent)
        return self.object_map(prepared, found, preset)

    def class_index(self, target: str | int | None) -> int | None:
        """The number of a class given by number, by name, or by one of a name's synonyms, which commas part.

        A text that is both a name and a number is the name.

        Raises:
            SalienceError: there is none, or several; the message names some that look alike.
        """
        if target is None:
            return None
        text = str(target).strip().casefold()
        folded = [name.casefold() for name in self.names]
        found = [i for i, name in enumerate(folded) if name == text]
        found = found or [i for i, name in enumerate(folded) if text in name.split(", ")]
        found = found if isinstance(target, str) else []
        if not found and text.isdecimal() and int(text) < len(self.names):
            return int(text)
        if len(found) == 1:
            return found[0]
        word = re.compile(rf"\b{re.escape(text)}\b")
        alike = [f"{i}, {folded[i]}" for i in found] or [name for name in folded if word.search(name)]
        alike = alike or difflib.get_close_matches(text, folded, n=3)
        hint = f"; such as: {' | '.join(alike[:3])}" if alike else ""
        raise SalienceError(
            f"class {target!r}: {len(found) or 'none'} of that name, expected 0 to {len(folded) - 1} or one name{hint}."
        )

    def descend(self, prepared: Sequence[Prepared], targets: Sequence[int | None], descent: Descent) -> list[Descended]:
        """Run the loop on N pictures, each towards its class or the one that the classifier sees."""
        if not prepared:
            return []
        wanted = np.zeros((len(prepared), len(self.names)), dtype=np.float32)
        for row, target in zip(wanted, targets, strict=True):
            if target is not None:
                row[target] = 1
        images = np.concatenate([p.tensor for p in prepared])
        with self._loops.take(len(prepared)) as loop:
            return iterate(loop, Problem(images, wanted, descent))

    def object_map(self, prepared: Prepared, found: Descended, preset: Preset) -> ObjectMap:
        """The map at the picture's size."""
        whole = self.finish(prepared, self._map(prepared, found, preset)[None])
        return ObjectMap(whole.values, whole.image, found.target, found.logits, self.names)

    def infer(
        self, prepared: Sequence[Prepared], *, target: str | int | None = None, preset: Preset = PRESETS["default"]
    ) -> NDArray[np.float32]:
        """Maps (N, 1, h, w) of a class's objects, of the class that the classifier sees in each picture by default."""
        found = self.descend(prepared, [self.class_index(target)] * len(prepared), preset.descent)
        maps = [self._map(p, d, preset) for p, d in zip(prepared, found, strict=True)]
        return np.array(maps, dtype=np.float32).reshape(-1, 1, *self.bundle.manifest.input_size)

    def _map(self, prepared: Prepared, found: Descended, preset: Preset) -> NDArray[np.float32]:
        if not np.isfinite(found.image).all():
            raise SalienceError(f"{self.backend}: the descent left NaN or infinity; use another precision or backend.")
        return saliency_map(prepared.tensor[0], found.image, refinement=preset.refinement)


@dataclass(frozen=True, eq=False)
class Problem:
    """Pictures (N, 3, h, w) in grey levels, class weights (N, K), all 0 for the class that is seen, and the steps."""

    images: NDArray[np.float32]
    targets: NDArray[np.float32]
    descent: Descent


@dataclass(frozen=True)
class State:
    """Steps done and wanted; the pictures stay on the device."""

    iteration: int
    iterations: int


class DescentLoop:
    """A session whose outputs are its next inputs, so that picture, reference and class stay on the device."""

    def __init__(self, engine: Engine, batch: int) -> None:
        self.session: Session[Any] = engine.session(batch)
        for name in ("image", "reference", "target", "iteration"):
            self.session.link(f"next_{name}", name)

    def init(self, problem: Problem) -> State:
        """Feed the pictures and the settings."""
        blank = np.zeros_like(problem.targets)
        feeds: dict[str, NDArray[Any]] = {"image": problem.images, "reference": blank, "target": problem.targets}
        feeds |= {"iteration": np.zeros(1, np.int64), **loop_settings(problem.descent)}
        for name, values in feeds.items():
            self.session.feed(name, values)
        return State(0, problem.descent.iterations)

    def step(self, state: State) -> State:
        """One step of the descent; the first one also classifies."""
        self.session.run()
        return State(state.iteration + 1, state.iterations)

    def done(self, state: State) -> bool:
        """Whether all steps are done."""
        return state.iteration >= state.iterations

    def finish(self, state: State) -> list[Descended]:
        """What the last step left, copied from the device."""
        images, logits, targets = (self.session.read(f"next_{name}") for name in ("image", "reference", "target"))
        return [Descended(*row) for row in zip(images, logits, targets.argmax(axis=1).tolist(), strict=True)]


def loop_settings(descent: Descent) -> dict[str, NDArray[np.float32]]:
    """What the graph is told of the parameters, by the names of its inputs."""
    bounds = (0.0, 255.0) if descent.clip else _NO_LIMITS
    values = {
        "gamma": [descent.gamma],
        "step": [descent.step],
        "decay": [descent.decay],
        "scaling": _SCALINGS[descent.scale],
        "bounds": bounds,
    }
    return {name: np.array(value, dtype=np.float32) for name, value in values.items()}
