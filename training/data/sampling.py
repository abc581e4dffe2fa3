"""The order in which samples are drawn: all once an epoch, or sources by weight."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.data import Sampler

from salience.runtime.errors import DataError


@dataclass(frozen=True)
class DrawOrder:
    """Draws as many items an epoch as there are samples.

    Attributes:
        sources: the source of each sample.
        weights: share of each source in the draws, in any unit; empty: each sample is drawn once an epoch.
        seed: of the order.
    """

    sources: Sequence[str]
    weights: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        present = set(self.sources)
        if self.weights and present != set(self.weights):
            unknown = sorted(present ^ set(self.weights))
            raise DataError(
                f"--data: {', '.join(unknown)} has samples or a weight, not both; give every source a weight, or none."
            )

    def indices(self, epoch: int) -> list[int]:
        """Return the samples' numbers in the order of `epoch`, which depends on the seed and the epoch alone."""
        generator = torch.Generator().manual_seed(self.seed + epoch)
        if not self.weights:
            return torch.randperm(len(self.sources), generator=generator).tolist()
        chosen = [
            index
            for number, (source, count) in enumerate(sorted(self._counts().items()))
            for index in self._cycle(source, number, start=epoch * count, count=count)
        ]
        order = torch.randperm(len(chosen), generator=generator).tolist()
        return [chosen[place] for place in order]

    def drawn(self, indices: Sequence[int]) -> dict[str, int]:
        """Count the draws of each source."""
        found = Counter(self.sources[index] for index in indices)
        return {source: found[source] for source in sorted(set(self.sources))}

    def _counts(self) -> dict[str, int]:
        """Draws of each source in an epoch, by largest remainder."""
        total = sum(self.weights.values())
        exact = {source: weight / total * len(self.sources) for source, weight in self.weights.items()}
        counts = {source: int(value) for source, value in exact.items()}
        missing = len(self.sources) - sum(counts.values())
        for source in sorted(exact, key=lambda name: counts[name] - exact[name])[:missing]:
            counts[source] += 1
        return counts

    def _cycle(self, source: str, number: int, *, start: int, count: int) -> Iterator[int]:
        """Samples `start` to `start + count` of the source's endless sequence of permutations."""
        members = [index for index, name in enumerate(self.sources) if name == source]
        place = start
        while place < start + count:
            turn, offset = divmod(place, len(members))
            generator = torch.Generator().manual_seed((self.seed * 1009 + number) * 100_003 + turn)
            permutation = torch.randperm(len(members), generator=generator).tolist()
            for index in permutation[offset : offset + start + count - place]:
                yield members[index]
                place += 1


class ShareSampler(Sampler[int]):
    """The draws of one process: item k of all processes together is item k of `indices`."""

    def __init__(self, indices: Sequence[int], *, rank: int, processes: int) -> None:
        whole = len(indices) // processes * processes
        self._indices = [*indices[rank:whole:processes]]

    def __iter__(self) -> Iterator[int]:
        return iter(self._indices)

    def __len__(self) -> int:
        return len(self._indices)


def source_of(sample: Any) -> str:
    """The set that a sample comes from, the first part of its name."""
    return str(sample.name).partition("/")[0]
