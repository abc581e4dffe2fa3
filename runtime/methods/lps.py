"""`lps`: promotes a prior, which any detector may have made: embed the picture once, then refine the prior."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from ..backends.engine import Engine
from ..backends.onnxrt import OnnxRuntimeEngine
from ..backends.session import Session
from ..detector import Detector, Prepared
from ..driver import LoopPool, iterate
from ..errors import ImageError, SalienceError
from ..images import MAX_PIXELS, ImageSource, decode_map
from ..saliency import SaliencyMap

# A map, or what makes one of a picture (H, W, 3) uint8 RGB: another bundle's `predict`, or any function.
PriorMap: TypeAlias = "ImageSource | SaliencyMap"
Prior: TypeAlias = "PriorMap | Callable[[NDArray[np.uint8]], PriorMap]"
EmptyPrior = Literal["error", "keep"]


@dataclass(frozen=True, eq=False)
class PreparedPair(Prepared):
    """A picture, and its prior (1, 1, h, w) float32 at the network's size."""

    prior: NDArray[np.float32]


class PromoterDetector(Detector):
    """Serves LPS, which makes a better map of a picture and a prior; see `promote`."""

    graphs = ("embed", "refine")
    standalone = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._resize = OnnxRuntimeEngine.open(self.bundle, "prior", "fp32", self.host)
        self._loops = LoopPool(lambda batch: RefineLoop(self.engines, batch))

    def promote(
        self, image: ImageSource, prior: Prior, iterations: int = 1, *, empty: EmptyPrior = "error"
    ) -> SaliencyMap:
        """The map that `iterations` rounds make of `prior`.

        A constant prior gives a map of .5, an inverted one the inverted map. In a bundle of hard weighting a prior
        that exceeds .5 nowhere or everywhere stays as it is.

        Args:
            image: as for `Detector.predict`.
            prior: a saliency map in [0, 1] of any size, which is stretched over the picture: whatever
                `images.decode_map` reads, or a `SaliencyMap`; or a function that makes one of the decoded picture,
                such as another detector's `predict`.
            iterations: at least 1; the paper takes 1, its code 3.
            empty: what to do with a prior that is 0 or 1 everywhere and so names no object or no background:
                "error", or "keep" it as the result.

        Raises:
            ImageError: the picture or the prior cannot be read, or the prior holds NaN or values outside of [0, 1],
                or is empty.
            EngineError: the engine failed.
        """
        pair = self.prepare_pair(image, prior, empty=empty)
        return self.finish(pair, self.refine([pair], iterations)[0, -1])

    def promote_steps(
        self, image: ImageSource, prior: Prior, iterations: int, *, empty: EmptyPrior = "error"
    ) -> list[SaliencyMap]:
        """The maps after each of the `iterations`; arguments as for `promote`."""
        pair = self.prepare_pair(image, prior, empty=empty)
        (maps,) = self.refine([pair], iterations, every=True)
        return [self.finish(pair, values) for values in maps]

    def prepare_pair(
        self, image: ImageSource, prior: Prior, *, empty: EmptyPrior = "error", max_pixels: int = MAX_PIXELS
    ) -> PreparedPair:
        """Decode a picture and its prior and bring both to the network's size; see `promote`."""
        if empty not in get_args(EmptyPrior):
            raise SalienceError(f"empty {empty!r} is not known: choose one of {', '.join(get_args(EmptyPrior))}.")
        prepared = self.prepare(image, max_pixels=max_pixels)
        found = prior(prepared.image) if callable(prior) else prior
        values = decode_map(found.values if isinstance(found, SaliencyMap) else found, max_pixels=max_pixels)
        if empty == "error":
            _check_regions(values)
        return PreparedPair(prepared.image, prepared.tensor, self._stretch(values))

    def refine(self, pairs: Sequence[PreparedPair], iterations: int, *, every: bool = False) -> NDArray[np.float32]:
        """The maps (N, 1, 1, h, w) of N prepared pairs after `iterations`, or (N, T, 1, h, w) after each of these."""
        if iterations < 1:
            raise SalienceError(f"iterations {iterations}: expected at least 1.")
        if not pairs:
            return np.zeros((0, iterations if every else 1, 1, *self.bundle.manifest.input_size), dtype=np.float32)
        images, priors = (np.concatenate([getattr(p, name) for p in pairs]) for name in ("tensor", "prior"))
        maps: list[NDArray[np.float32]] = []
        with self._loops.take(len(pairs)) as loop:

            def watch(state: State) -> None:
                if every:
                    maps.append(loop.read())

            last = iterate(loop, Problem(images, priors, iterations), watch=watch)
        return np.stack(maps or [last], axis=1)

    def try_out(self, image: NDArray[np.uint8]) -> SaliencyMap:
        """See `Detector.try_out`; of the picture's own brightness as the prior."""
        return self.promote(image, image.mean(axis=2, dtype=np.float32) / 255, empty="keep")

    def _stretch(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """A map (H, W) at the network's size, (1, 1, h, w)."""
        prior: NDArray[np.float32] = self._resize.run({"map": values})["prior"]
        # Resizing rounds, and a region that is empty must not become nearly so.
        return np.full_like(prior, values[0, 0]) if values.min() == values.max() else prior

    def infer(self, prepared: Sequence[Prepared]) -> NDArray[np.float32]:
        """The maps (N, 1, h, w) after one iteration, of N pairs that `prepare_pair` made."""
        pairs = [pair for pair in prepared if isinstance(pair, PreparedPair)]
        if not pairs or len(pairs) < len(prepared):
            self.require_standalone()
        return self.refine(pairs, 1)[:, -1]


@dataclass(frozen=True, eq=False)
class Problem:
    """Network input (N, 3, h, w), priors (N, 1, h, w), and the number of rounds."""

    images: NDArray[np.float32]
    priors: NDArray[np.float32]
    iterations: int


@dataclass(frozen=True)
class State:
    """Rounds done and wanted; the maps themselves stay on the device."""

    iteration: int
    iterations: int


class RefineLoop:
    """The two sessions of a batch size, linked: what `embed` leaves and what `refine` returns stays on the device."""

    def __init__(self, engines: dict[str, Engine], batch: int) -> None:
        self.embed: Session[Any] = engines["embed"].session(batch)
        self.refine: Session[Any] = engines["refine"].session(batch)
        for name in engines["embed"].outputs:
            self.embed.link(name, name, to=self.refine)
        for name in ("prior", "iteration"):
            self.refine.link(f"next_{name}", name)

    def init(self, problem: Problem) -> State:
        """Feed the pictures, embed them, feed the priors."""
        self.embed.feed("input", problem.images)
        self.embed.run()
        self.refine.feed("prior", problem.priors)
        self.refine.feed("iteration", np.zeros(1, dtype=np.int64))
        return State(0, problem.iterations)

    def step(self, state: State) -> State:
        """One round; what was the next prior is the prior now."""
        self.refine.run()
        return State(state.iteration + 1, state.iterations)

    def done(self, state: State) -> bool:
        """Whether all rounds are done."""
        return state.iteration >= state.iterations

    def finish(self, state: State) -> NDArray[np.float32]:
        """The last maps, see `read`."""
        return self.read()

    def read(self) -> NDArray[np.float32]:
        """The maps (N, 1, h, w) of the round just done, copied from the device."""
        return self.refine.read("next_prior")


def _check_regions(values: NDArray[np.float32]) -> None:
    """Raise ImageError if a prior names no object or no background."""
    low, high = float(values.min()), float(values.max())
    if high == 0 or low == 1:
        raise ImageError(
            f"prior: is {high:g} everywhere, expected an object and a background; "
            "give another prior, or keep such priors as they are: empty='keep', or --empty keep."
        )
