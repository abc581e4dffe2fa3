"""Distillation: a network learns from the maps of others as well as from masks (Hinton et al., 2015)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from salience.runtime.errors import CheckpointError

from .checkpoint import file_sha256, load_checkpoint
from .preprocessing import Preprocessing

# Methods whose map depends on one picture alone.
TEACHERS = ("multis", "arn")
PUPILS = (*TEACHERS, "lps")


class Teachers(nn.Module):
    """The mean map of several networks, each of the picture and of its mirror image.

    Args:
        files: checkpoints of `TEACHERS`.
        share: of the teachers' map in what is learned, the mask has the rest.
        preprocessing: of the network that learns; the teachers must take the same mean and deviation.

    Raises:
        CheckpointError: a file is of another method, or takes other input.
    """

    def __init__(self, files: Sequence[Path], share: float, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.share = share
        self.networks = nn.ModuleList(_teacher(path, preprocessing) for path in files)
        self.requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        """`image` (N, 3, H, W) normalised -> (N, 1, H, W) in [0, 1]."""
        maps = [network(image).saliency.float() for network in self.networks]
        mirrored = [network(image.flip(3)).saliency.float().flip(3) for network in self.networks]
        return torch.stack([*maps, *mirrored]).mean(dim=0)

    @torch.no_grad()
    def soften(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`batch` with its `mask` moved towards the teachers' map of its `image`."""
        taught = torch.lerp(batch["mask"], self(batch["image"]), self.share)
        return {**batch, "mask": taught}


def open_teachers(method: str, files: Sequence[Path], share: float, preprocessing: Preprocessing) -> Teachers:
    """`Teachers` for a network of `method`.

    Raises:
        CheckpointError: as `Teachers`; or the method does not learn the map of a picture.
    """
    if method not in PUPILS:
        raise CheckpointError(
            f"--teacher: {method} does not learn from maps of single pictures, as {', '.join(PUPILS)} do."
        )
    return Teachers(files, share, preprocessing)


def teachers_origin(files: Sequence[Path], share: float) -> dict[str, Any]:
    """What a checkpoint's header says of the teachers."""
    if not files:
        return {}
    return {"teachers": {"share": share, "files": {path.name: file_sha256(path) for path in files}}}


def _teacher(path: Path, preprocessing: Preprocessing) -> nn.Module:
    header, network = load_checkpoint(path)
    if header.method not in TEACHERS:
        raise CheckpointError(f"teacher {path}: a checkpoint of {header.method}, expected {' or '.join(TEACHERS)}.")
    theirs, ours = ((p.mean, p.std) for p in (header.preprocessing, preprocessing))
    if theirs != ours:
        raise CheckpointError(f"teacher {path}: takes pictures normalised by {theirs}, the network by {ours}.")
    kept: nn.Module = network.to(memory_format=torch.channels_last).eval()
    return kept
