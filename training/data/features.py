"""What a frozen backbone makes of a data set never changes, so it can be computed once and kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .groups import GroupDataset
from .loading import batches


@dataclass
class _Draws(Dataset[dict[str, Tensor]]):
    """Every picture of every group in turn, each drawn anew in every pass over the data."""

    data: GroupDataset
    passes: int

    def __post_init__(self) -> None:
        self.places = [(name, m) for name, members in self.data.groups.items() for m in range(len(members))]

    def __len__(self) -> int:
        return len(self.places) * self.passes

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.data.seed * 1_000_003 + index)
            image, mask = self.data.draw(*self.places[index % len(self.places)])
        return {"image": image, "mask": mask}


@dataclass
class FeatureGroups(Dataset[dict[str, Tensor]]):
    """As `GroupDataset`, with the `columns` that a network computed instead of `image`.

    Row `v * pictures + p` of each column is draw v of picture p; `members` says which pictures a class has.
    """

    columns: dict[str, Tensor]
    members: Sequence[range]
    pictures: int
    seed: int
    most: int
    rounds: int
    epoch: int = 0

    def __len__(self) -> int:
        return len(self.members) * self.rounds

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed((self.seed * 1_000_003 + self.epoch) * 1_000_003 + index)
            rows = self._rows(self.members[index % len(self.members)])
        return {name: column[rows].float() for name, column in self.columns.items()}

    def _rows(self, members: range) -> Tensor:
        """Pictures without repeats, a draw of each."""
        chosen = torch.randperm(len(members))[: self.most] + members.start
        draws = len(self.columns["mask"]) // self.pictures
        return torch.randint(draws, chosen.shape) * self.pictures + chosen


@torch.no_grad()
def cached_groups(
    data: GroupDataset, compute: Callable[[Tensor], dict[str, Tensor]], *, draws: int, batch: int, workers: int
) -> FeatureGroups:
    """Keep what `compute` makes of `draws` draws of every picture of `data`, floats as fp16.

    Args:
        data: whose `draw` is taken.
        compute: network input (N, 3, H, W) -> named tensors of N rows.
        draws: of every picture.
        batch: pictures per call of `compute`.
        workers: processes that decode.
    """
    source = _Draws(data, draws)
    columns: dict[str, Tensor] = {}
    start = 0
    for part in batches(DataLoader(source, batch_size=batch, num_workers=workers)):
        found = compute(part["image"])
        for name, values in {**found, "mask": part["mask"].bool()}.items():
            kind = torch.float16 if values.is_floating_point() else values.dtype
            if name not in columns:
                columns[name] = torch.empty(len(source), *values.shape[1:], dtype=kind)
            columns[name][start : start + len(values)] = values
        start += len(part["mask"])
    sizes = [len(members) for members in data.groups.values()]
    ends = torch.tensor(sizes).cumsum(0).tolist()
    members = [range(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    return FeatureGroups(columns, members, sum(sizes), data.seed, data.most, data.rounds)
