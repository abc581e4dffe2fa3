"""Saliency maps of other detectors on disk, as priors of the training samples."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from salience.runtime.errors import DataError
from salience.runtime.images import decode_grey, image_size

from .dataset import Loadable, SaliencyDataset, vary
from .folders import Sample
from .layouts import files_by_stem


@dataclass(frozen=True)
class PriorSample:
    """A sample and the maps that other detectors made of its image.

    `sources` holds, for each map, the index of the folder that it comes from.
    """

    sample: Loadable
    priors: tuple[Path, ...]
    sources: tuple[int, ...]

    @property
    def name(self) -> str:
        """The name of the sample."""
        return self.sample.name

    def load(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | NDArray[np.uint8]]:
        """See `Loadable.load`."""
        return self.sample.load()

    def load_prior(self, index: int) -> NDArray[np.uint8]:
        """Load map `index`, (H, W) uint8."""
        return decode_grey(self.priors[index])

    def with_one(self, index: int) -> "PriorSample":
        """Return the sample with map `index` alone."""
        return replace(self, priors=(self.priors[index],), sources=(self.sources[index],))


def add_priors(samples: Iterable[Any], folders: Sequence[Path]) -> list[Any]:
    """Attach the maps in `folders` to the samples of the same name; samples without a map stay as they are.

    A folder beside the images of a set, `SET/FOLDER/<path>.png`, holds maps of that set. Any other folder holds one
    folder per set, `FOLDER/SET/<path>.png`. A set is the first part of the samples' names.

    Raises:
        DataError: a folder is missing or fits no sample, or a map and its image differ in size.
    """
    found = list(samples)
    known: dict[str, list[tuple[int, Path]]] = {sample.name: [] for sample in found if isinstance(sample, Sample)}
    for index, folder in enumerate(folders):
        maps = {name: path for name, path in _maps(folder, known).items() if name in known}
        if not maps:
            raise DataError(
                f"priors {folder}: no map has the name of a sample such as {next(iter(known), 'SET/NAME')}; expected "
                "the folder beside the images of a set, or one with a folder for each set."
            )
        for name, path in maps.items():
            known[name].append((index, path))
    return [_with_priors(sample, known.get(sample.name, [])) for sample in found]


def priors_origin(samples: Iterable[Any], folders: Sequence[Path]) -> dict[str, Any]:
    """Return what the header of a checkpoint says of the priors: their folders and the number of images with one."""
    if not folders:
        return {}
    count = sum(isinstance(sample, PriorSample) for sample in samples)
    return {"priors": {"folders": ["/".join(folder.resolve().parts[-2:]) for folder in folders], "images": count}}


def _maps(folder: Path, known: Iterable[str]) -> dict[str, Path]:
    """The maps of `folder` by the names that their samples have."""
    if not folder.is_dir():
        raise DataError(f"priors {folder}: there is no such folder; expected maps named like the images.")
    owner = folder.resolve().parent.name
    beside = owner in {name.split("/")[0] for name in known}
    return {f"{owner}/{stem}" if beside else stem: path for stem, path in files_by_stem(folder).items()}


def _with_priors(sample: Any, found: Sequence[tuple[int, Path]]) -> Any:
    if not found:
        return sample
    expected = image_size(sample.image)
    for _, path in found:
        if (size := image_size(path)) != expected:
            raise DataError(
                f"prior {path}: has {size[0]} x {size[1]} pixels, its image has {expected[0]} x {expected[1]}; "
                "resize the prior to the size of the image."
            )
    return PriorSample(sample, tuple(path for _, path in found), tuple(index for index, _ in found))


@dataclass
class PriorDataset(SaliencyDataset):
    """Items of `SaliencyDataset` whose `prior` may come from disk, with the augmentation of the image.

    An item of a sample with maps takes one of them with probability `real`, and degrades it with probability
    `degrade` (see `degraded`). All other items keep the prior that `labels` makes of the mask.
    """

    real: float = 1.0
    degrade: float = 0.0

    def item(self, sample: Loadable) -> dict[str, Tensor]:
        """See `SaliencyDataset.item`."""
        if not isinstance(sample, PriorSample) or float(torch.rand(())) >= self.real:
            return super().item(sample)
        picture, target, prior = self._with_map(sample, int(torch.randint(len(sample.priors), ())))
        if float(torch.rand(())) < self.degrade:
            prior = degraded(prior)
        return {"image": self.preprocessing.normalise(picture), "mask": target, "prior": prior}

    def _with_map(self, sample: PriorSample, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Image uint8, mask and map float32 of one sample, with the same geometry."""
        (image, mask), values = sample.load(), sample.load_prior(index)
        size = self.preprocessing.size
        small = resize_map(torch.from_numpy(values.copy())[None].float() / 255, size)
        # Masks are resized without smoothing, so the map is smoothed first.
        smooth = F.interpolate(small[None], size=mask.shape, mode="bilinear")[0, 0]
        plain = mask.dtype == np.bool_
        stack = np.stack([mask.astype(np.uint8), (smooth * 255).round().to(torch.uint8).numpy()])
        picture, maps = vary(image, stack, self.augmentation, size)
        prior = small if self.augmentation == "none" else maps[1:].float() / 255
        return picture, maps[:1].float() / (1 if plain else 255), prior


@dataclass
class PriorChecks(PriorDataset):
    """Validation items: one for each map of each sample, with `source`, the index of the map's folder.

    Where no sample has a map, these are the items of `SaliencyDataset`.
    """

    def __post_init__(self) -> None:
        """Replace the samples by one for each map."""
        pairs = [
            sample.with_one(index)
            for sample in self.samples
            if isinstance(sample, PriorSample)
            for index in range(len(sample.priors))
        ]
        self.samples = pairs or self.samples

    def item(self, sample: Loadable) -> dict[str, Tensor]:
        """See `SaliencyDataset.item`."""
        source = sample.sources[0] if isinstance(sample, PriorSample) else 0
        return super().item(sample) | {"source": torch.tensor(source)}


def resize_map(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a map (1, H, W) float32 to (1, *size), with smoothing where it shrinks, as the runtime does."""
    return F.interpolate(values[None], size=size, mode="bilinear", antialias=True)[0].clamp(0, 1)


def degraded(prior: Tensor) -> Tensor:
    """Return a worse version of `prior` (1, H, W) in [0, 1]: one to three of the changes below, in random order."""
    count = int(torch.randint(1, 4, ()))
    for index in torch.randperm(len(_CHANGES))[:count].tolist():
        prior = _CHANGES[index](prior).clamp(0, 1)
    return prior


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def _blurred(prior: Tensor) -> Tensor:
    """Keep 8 to 32 grid cells along each side."""
    cells = int(_uniform(8, 33))
    coarse = F.adaptive_avg_pool2d(prior[None], cells)
    return F.interpolate(coarse, size=prior.shape[1:], mode="bilinear")[0]


def _noisy(prior: Tensor) -> Tensor:
    """Add smooth noise of a standard deviation up to .25."""
    cells = int(_uniform(4, 24))
    noise = F.interpolate(torch.randn(1, 1, cells, cells), size=prior.shape[1:], mode="bicubic")[0]
    return prior + _uniform(0.05, 0.25) * noise


def _shifted(prior: Tensor) -> Tensor:
    """Shift by up to 6 % of each side and repeat the border."""
    height, width = prior.shape[1:]
    down, right = round(_uniform(-0.06, 0.06) * height), round(_uniform(-0.06, 0.06) * width)
    rows = (torch.arange(height) - down).clamp(0, height - 1)
    columns = (torch.arange(width) - right).clamp(0, width - 1)
    return prior[:, rows][:, :, columns]


def _eroded(prior: Tensor) -> Tensor:
    """Erode or dilate by up to 3 % of the shorter side."""
    reach = max(1, round(_uniform(0.005, 0.03) * min(prior.shape[1:])))
    sign = 1 if float(torch.rand(())) < 0.5 else -1
    largest: Tensor = F.max_pool2d(sign * prior, 2 * reach + 1, stride=1, padding=reach)
    return sign * largest


def _curved(prior: Tensor) -> Tensor:
    """Raise to a power from .4 to 2.5."""
    return prior.pow(2.5 ** _uniform(-1, 1))


_CHANGES: tuple[Callable[[Tensor], Tensor], ...] = (_blurred, _noisy, _shifted, _eroded, _curved)
