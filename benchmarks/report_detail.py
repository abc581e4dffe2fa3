"""What a report keeps of a scored row: scores and failures picture by picture, curves, and its contact sheets."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.method_maps import Forms, Grey
from benchmarks.report_failures import kinds_of
from salience.runtime.evaluation.figures import SHOWN, Tile, draw_blocks
from salience.runtime.evaluation.metrics import Curves, MetricAccumulator
from salience.runtime.evaluation.pairs import Pair
from salience.runtime.images import decode_mask

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Detail:
    """The pictures of a row, sorted by name.

    Attributes:
        pairs: N of them.
        curves: averaged over the pictures.
        f_curves: (N, 256) F over the thresholds 255, 254, ..., 0.
        threshold: grey level of max F of the averaged curve.
        f: (N,) F at that threshold.
        mae: (N,).
        s: (N,).
        kinds: of failure.
        sheets: PNG of the best, median and worst pictures, by these words.
    """

    pairs: tuple[Pair, ...]
    curves: Curves
    f_curves: Values
    threshold: int
    f: Values
    mae: Values
    s: Values
    kinds: tuple[tuple[str, ...], ...]
    sheets: Mapping[str, bytes]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the pictures."""
        return tuple(pair.name for pair in self.pairs)

    @property
    def ranked(self) -> list[int]:
        """Indices from the best picture to the worst: by F, then MAE, then name."""
        return ranking(self.f, self.mae, self.names)


def keep(maps: Iterable[Forms], kept: dict[str, list[Grey]]) -> Iterator[Forms]:
    """The maps as they come; `kept` has them by form afterwards."""
    for forms in maps:
        for name, values in forms.items():
            kept.setdefault(name, []).append(values)
        yield forms


def detail_of(pairs: Sequence[Pair], accumulator: MetricAccumulator, maps: Sequence[Grey]) -> Detail:
    """The detail of a row whose pairs and maps the accumulator has scored, in this order."""
    curves = accumulator.curves()
    f_curves, mae = accumulator.image_curves()
    best = int(np.argmax(curves.f))
    threshold, f = 255 - best, f_curves[:, best]
    kinds = tuple(
        kinds_of(values, decode_mask(pair.mask), threshold=threshold) for pair, values in zip(pairs, maps, strict=True)
    )
    sheets = draw_sheets(pairs, maps, f=f, mae=mae)
    s = accumulator.image_structures()
    return Detail(tuple(pairs), curves, f_curves, threshold, f, mae, s, kinds, sheets)


def draw_sheets(pairs: Sequence[Pair], maps: Sequence[Grey], *, f: Values, mae: Values) -> dict[str, bytes]:
    """The best, median and worst pictures; none is in two of them."""
    order = ranking(f, mae, [pair.name for pair in pairs])
    by_pair = dict(zip(pairs, maps, strict=True))
    sheets = {}
    for word, chosen in extremes(order).items():
        tiles = [
            Tile(pairs[index], f"F at max F's threshold {f[index]:.3f}   MAE {mae[index]:.3f}") for index in chosen
        ]
        if tiles:
            sheets[word] = draw_blocks({word.capitalize(): tiles}, by_pair.__getitem__)
    return sheets


def ranking(f: Values, mae: Values, names: Sequence[str]) -> list[int]:
    """Indices from the best picture to the worst: by F, then MAE, then name."""
    return sorted(range(len(names)), key=lambda index: (-f[index], mae[index], names[index]))


def extremes(order: Sequence[int], shown: int = SHOWN) -> dict[str, Sequence[int]]:
    """The first of a ranking, those in its middle, and the last, worst first; each once."""
    count = max(1, min(shown, len(order) // 3))
    rest = order[count:]
    middle, worst = rest[:-count], rest[-count:]
    start = (len(middle) - count) // 2
    return {"best": order[:count], "median": middle[max(0, start) :][:count], "worst": worst[::-1]}
