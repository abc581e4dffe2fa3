"""Every method behind the same three steps: prepare on the host, infer in one engine call, finish on the host."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import Any, Generic, TypeVar

from ..detector import Detector, Prepared
from ..errors import SalienceError
from ..low_level import PRESETS
from ..methods.cgd import ClampedDescentDetector, Descended
from ..methods.gicd import GroupDetector, GroupPass
from ..methods.lps import PromoterDetector
from ..saliency import SaliencyMap
from .queries import Options, Query

DetectorT = TypeVar("DetectorT", bound=Detector)


class Adapter(ABC, Generic[DetectorT]):
    """A detector, as the service calls it.

    A query falls apart into units: its pictures, or one unit for a whole group. Units of any queries may share an
    engine call where their `key` is equal.
    """

    def __init__(self, detector: DetectorT, max_pixels: int) -> None:
        self.detector = detector
        self.max_pixels = max_pixels

    def units(self, query: Query) -> list[Query]:
        """A query for every unit."""
        priors = query.priors or (None,) * len(query.images)
        return [
            Query((image,), () if prior is None else (prior,), query.options)
            for image, prior in zip(query.images, priors, strict=True)
        ]

    def key(self, options: Options) -> Hashable:
        """Units with an equal key may share an engine call."""
        return None

    def prepare(self, unit: Query) -> Any:
        """Decode a unit.

        Raises:
            ImageError: a picture cannot be read.
        """
        return self.detector.prepare(unit.images[0], max_pixels=self.max_pixels)

    @abstractmethod
    def infer(self, units: Sequence[Any], options: Sequence[Options]) -> Sequence[Any]:
        """What the networks make of prepared units, whose options have equal keys.

        Raises:
            EngineError: the engine failed.
        """

    def finish(self, prepared: Any, found: Any, options: Options) -> list[SaliencyMap]:
        """The maps of a unit."""
        return [self.detector.finish(prepared, found)]


class PictureAdapter(Adapter[Detector]):
    """`multis` and `arn`."""

    def infer(self, units: Sequence[Prepared], options: Sequence[Options]) -> Sequence[Any]:
        """See `Adapter.infer`."""
        return list(self.detector.infer(units))


class PromoterAdapter(Adapter[PromoterDetector]):
    """`lps`."""

    def key(self, options: Options) -> Hashable:
        """See `Adapter.key`."""
        return options.iterations

    def prepare(self, unit: Query) -> Any:
        """See `Adapter.prepare`."""
        return self.detector.prepare_pair(
            unit.images[0], unit.priors[0], empty=unit.options.empty, max_pixels=self.max_pixels
        )

    def infer(self, units: Sequence[Any], options: Sequence[Options]) -> Sequence[Any]:
        """See `Adapter.infer`."""
        return list(self.detector.refine(units, options[0].iterations)[:, -1])


class ObjectAdapter(Adapter[ClampedDescentDetector]):
    """`cgd`."""

    def key(self, options: Options) -> Hashable:
        """See `Adapter.key`."""
        return options.preset

    def prepare(self, unit: Query) -> Any:
        """See `Adapter.prepare`; an unknown class is told before any work."""
        self.detector.class_index(unit.options.target)
        return super().prepare(unit)

    def infer(self, units: Sequence[Prepared], options: Sequence[Options]) -> Sequence[Descended]:
        """See `Adapter.infer`."""
        targets = [self.detector.class_index(option.target) for option in options]
        return self.detector.descend(units, targets, PRESETS[options[0].preset].descent)

    def finish(self, prepared: Prepared, found: Descended, options: Options) -> list[SaliencyMap]:
        """See `Adapter.finish`."""
        return [self.detector.object_map(prepared, found, PRESETS[options.preset])]


class GroupAdapter(Adapter[GroupDetector]):
    """`gicd`: all pictures of a request are one group."""

    def units(self, query: Query) -> list[Query]:
        """See `Adapter.units`."""
        return [query]

    def prepare(self, unit: Query) -> list[Prepared]:
        """See `Adapter.prepare`; all pictures together may have `max_pixels`."""
        left, members = self.max_pixels, []
        for index, image in enumerate(unit.images):
            try:
                members.append(self.detector.prepare(image, max_pixels=left))
            except SalienceError as error:
                raise type(error)(f"picture {index + 1} of the group: {error}") from error
            left -= members[-1].image.shape[0] * members[-1].image.shape[1]
        return members

    def infer(self, units: Sequence[list[Prepared]], options: Sequence[Options]) -> Sequence[list[Any]]:
        """See `Adapter.infer`; one group after another."""
        return [self._segment(members) for members in units]

    def finish(self, prepared: list[Prepared], found: list[Any], options: Options) -> list[SaliencyMap]:
        """See `Adapter.finish`."""
        return [self.detector.finish(member, values) for member, values in zip(prepared, found, strict=True)]

    def _segment(self, members: list[Prepared]) -> list[Any]:
        values = {index: each for index, _, each in GroupPass(self.detector, members.__getitem__, len(members)).maps()}
        return [values[index] for index in range(len(members))]


def adapt(detector: Detector, max_pixels: int) -> Adapter[Any]:
    """The adapter of a detector's method."""
    kinds: tuple[tuple[type[Detector], type[Adapter[Any]]], ...] = (
        (PromoterDetector, PromoterAdapter),
        (ClampedDescentDetector, ObjectAdapter),
        (GroupDetector, GroupAdapter),
    )
    chosen = next((adapter for kind, adapter in kinds if isinstance(detector, kind)), PictureAdapter)
    return chosen(detector, max_pixels)
