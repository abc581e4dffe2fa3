"""What `benchmarks.quality` scores: the sets of each method, and the stored maps that reports compare it with."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.method_maps import Forms, group_maps, low_level_maps, promoted_maps, single_maps, stored_maps
from salience.runtime.evaluation.pairs import Pair

Maps = Callable[[Any, Iterable[Pair]], Iterator[Forms]]


@dataclass(frozen=True)
class Study:
    """What of a method is scored on one set.

    Attributes:
        method: as in the bundle's manifest.
        set_name: folder of the set.
        maps: makes the maps with the method's detector.
        forms: names of the maps that it gives.
        sources: folder of what the maps are made of.
        most: pictures at most, the first by name.
        yardstick: what needs no network of the method's, and a name for it.
    """

    method: str
    set_name: str
    maps: Maps = single_maps
    forms: tuple[str, ...] = ("",)
    sources: str = "images"
    most: int | None = None
    yardstick: tuple[str, Maps] | None = None


def prior_maps(detector: Any, pairs: Iterable[Pair]) -> Iterator[Forms]:
    """The stored maps; no detector is asked."""
    return stored_maps(pairs)


PRIORS = "the priors"
_TIMES = ("T = 1", "T = 10")
STUDIES = (
    *(Study(method, name) for method in ("multis", "arn") for name in ("ecssd", "horses", "coseg")),
    Study("lps", "coseg", promoted_maps, _TIMES, sources="priors_contrast", yardstick=(PRIORS, prior_maps)),
    Study("lps", "ecssd", promoted_maps, _TIMES, sources="priors_csnet", yardstick=(PRIORS, prior_maps)),
    Study("gicd", "coseg", group_maps),
    Study("cgd", "ecssd", most=50, yardstick=("low-level map alone", low_level_maps)),
)
# Methods that see one picture and nothing else.
SINGLE = frozenset(study.method for study in STUDIES if study.maps is single_maps)
# Of each set: what made the stored maps, and their folder.
STORED = {
    "ecssd": ("CSNet, stored maps", "priors_csnet"),
    "horses": ("CSNet, stored maps", "priors_csnet"),
    "coseg": ("contrast, stored maps", "priors_contrast"),
}


def stored_studies(methods: Iterable[str]) -> list[Study]:
    """The stored maps of the very pictures that the studies of these methods have."""
    chosen = set(methods)
    wanted = dict.fromkeys((study.set_name, study.most) for study in STUDIES if study.method in chosen)
    return [Study(STORED[name][0], name, prior_maps, sources=STORED[name][1], most=most) for name, most in wanted]
