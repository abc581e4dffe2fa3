"""What a method's recipe offers to the training loop."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from salience.runtime.errors import DataError
from salience.runtime.evaluation.image_metrics import ImageMetrics, ImageScorer
from salience.runtime.evaluation.metrics import average, stretch

from .data.dataset import Augmentation, Loadable, SaliencyDataset
from .data.folders import merge_identical
from .data.layouts import read_set
from .data.scenes import scenes
from .optim import OptimiserSettings
from .preprocessing import Preprocessing


class Scorer(Protocol):
    """Measures the images of a validation part and summarises them.

    Attributes:
        records: one for each image, in order; processes that share a validation exchange them.
    """

    records: list[Any]

    def add(self, prediction: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Measure the images of one batch."""

    def scores(self) -> dict[str, float]:
        """Return the scores by name; the first decides which epoch is best, and larger is better."""


class MapScorer:
    """Largest F of the averaged curve, and MAE, of maps (N, 1, H, W) at input size."""

    def __init__(self) -> None:
        self.records: list[ImageMetrics] = []
        self._images = ImageScorer(full=False)

    def add(self, prediction: Tensor, batch: Mapping[str, Tensor]) -> None:
        """See `Scorer`."""
        maps = (prediction.float() * 255).round().byte().cpu().numpy()
        for values, mask in zip(maps, batch["mask"].cpu().numpy(), strict=True):
            self.records.append(self._images.measure(stretch(values[0]), np.asarray(mask[0] > 0.5)))

    def scores(self) -> dict[str, float]:
        """See `Scorer`."""
        found = average(self.records, full=False)
        return {"f_max": found.f_max, "mae": found.mae}


class Recipe(BaseModel, ABC):
    """Loss, labels, data and schedule of a method; the fields of a subclass are its settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # How the paper varies its samples.
    augmentation: ClassVar[Augmentation] = "flip"
    # Whether an item is a sample; else it is a group of them.
    draws_samples: ClassVar[bool] = True
    # Whether a sample's target is the map of a single image, which teachers can give too.
    learns_maps: ClassVar[bool] = False

    @abstractmethod
    def defaults(self) -> OptimiserSettings:
        """The paper's optimiser and schedule."""

    @abstractmethod
    def loss(self, network: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Loss of a batch, and what the network predicts, which `scorer` takes."""

    def labels(self, mask: Tensor) -> dict[str, Tensor]:
        """Extra targets of one sample from its mask (1, H, W)."""
        return {}

    def read(self, root: Path) -> Sequence[Any]:
        """The samples of a data folder."""
        return read_set(root)

    def merge(self, samples: Sequence[Any]) -> Sequence[Any]:
        """Samples of one part of a split, those of the same picture made one."""
        return merge_identical(samples)

    def with_priors(self, samples: Sequence[Any], folders: Sequence[Path]) -> Sequence[Any]:
        """Attach the maps of other detectors in `folders` to the samples."""
        raise DataError("--priors: only lps is trained with priors; leave the option out.")

    def synthetic(self, count: int, *, seed: int) -> Sequence[Loadable]:
        """Samples that are drawn."""
        return scenes(count, seed=seed)

    def network_settings(self, samples: Sequence[Any]) -> dict[str, Any]:
        """Settings of the network that follow from the samples."""
        return {}

    def dataset(
        self,
        network: Any,
        samples: Sequence[Any],
        preprocessing: Preprocessing,
        *,
        augmentation: Augmentation,
        seed: int,
        workers: int,
    ) -> Dataset[dict[str, Tensor]]:
        """Items to learn from, by number; has an attribute `epoch`, which the loop sets and draws may depend on.

        Args:
            network: may be used where what it computes never changes.
            samples: what `read` or `synthetic` gave.
            preprocessing: of the network's input.
            augmentation: how samples are varied.
            seed: of everything that is drawn.
            workers: processes that may be used.
        """
        return SaliencyDataset(samples, preprocessing, self.labels, augmentation, seed)

    def checks(self, network: Any, samples: Sequence[Any], preprocessing: Preprocessing) -> Dataset[dict[str, Tensor]]:
        """Items to validate on."""
        return SaliencyDataset(samples, preprocessing, self.labels)

    def collate(self, items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Items of `dataset` as a batch."""
        batch: dict[str, Tensor] = default_collate(items)
        return batch

    def scorer(self) -> Scorer:
        """An empty one."""
        return MapScorer()
