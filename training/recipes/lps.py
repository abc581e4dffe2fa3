"""How `lps` is trained (Zeng et al., section 4.3 and algorithm 1; the released code's two stages).

The first stage is a run of its own with `--network stage=backbone`; its checkpoint is the second's `--weights`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.utils.data import Dataset

from salience.runtime.evaluation.image_metrics import ImageMetrics, ImageScorer
from salience.runtime.evaluation.metrics import Scores, average, stretch

from ..data.dataset import Augmentation
from ..data.priors import PriorChecks, PriorDataset, add_priors
from ..losses import soft_iou_loss, structure_loss
from ..networks.lps import PromoterOutput, PromoterSettings
from ..optim import OptimiserSettings
from ..preprocessing import Preprocessing
from ..recipe import Recipe, Scorer


class PromotionScorer:
    """Scores promoted maps beside their priors, for each folder of priors by itself.

    `gain` is the mean over the folders of: increase of max F, plus increase of weighted F, minus increase of MAE.
    The other scores are those of the promoted maps, as means over the folders. With several folders
    `f_max_1`, `f_weighted_1` and `mae_1` are the changes on the first of them, and so on.
    """

    def __init__(self) -> None:
        self.records: list[tuple[int, ImageMetrics, ImageMetrics]] = []
        self._images = ImageScorer(full=True)

    def add(self, prediction: Tensor, batch: Mapping[str, Tensor]) -> None:
        """See `Scorer`; `batch` holds `prior`, `mask` and `source`."""
        rows = zip(_grey(batch["prior"]), _grey(prediction), batch["mask"], batch["source"].tolist(), strict=True)
        for prior, promoted, mask, source in rows:
            truth = mask[0].cpu().numpy() > 0.5
            before, after = (self._images.measure(stretch(values), truth) for values in (prior, promoted))
            self.records.append((source, before, after))

    def scores(self) -> dict[str, float]:
        """See `Scorer`."""
        found = {source: self._averages(source) for source in sorted({source for source, _, _ in self.records})}
        changes = {source: _changes(*pair) for source, pair in found.items()}
        promoted = [_chosen(after) for _, after in found.values()]
        scores = {"gain": float(np.mean([c["f_max"] + c["f_weighted"] - c["mae"] for c in changes.values()]))}
        scores |= {name: float(np.mean([each[name] for each in promoted])) for name in promoted[0]}
        if len(changes) > 1:
            for source, change in changes.items():
                scores |= {f"{name}_{source + 1}": change[name] for name in ("f_max", "f_weighted", "mae")}
        return scores

    def _averages(self, source: int) -> tuple[Scores, Scores]:
        """Scores of the priors of one folder, and of what became of them."""
        pairs = [(before, after) for folder, before, after in self.records if folder == source]
        return average(before for before, _ in pairs), average(after for _, after in pairs)


class PromoterRecipe(Recipe):
    """Binary cross entropy of each pixel's class, with anchors from a spoilt mask.

    `flip` is the share of pixels whose label is flipped for the anchors. `samples` is the number of pixels of
    an image that enter the loss (all of them enter the anchors); 0 for all. Not in the paper, and off by default:
    `rough` is the share of masks that are spoilt as a weak detector would, see `rough_prior`. `iou` adds that much
    soft IoU loss of the pixels in the loss, `structure` that much of the structure loss, which needs `samples` 0.
    With priors on disk, `real` is the probability that an item takes one instead of a spoilt mask, and `degrade` the
    probability that this one is made worse, see `degraded`.
    """

    flip: float = Field(default=0.05, ge=0, le=0.5)
    samples: int = Field(default=4096, ge=0)
    rough: float = Field(default=0.0, ge=0, le=1)
    real: float = Field(default=0.5, ge=0, le=1)
    degrade: float = Field(default=0.5, ge=0, le=1)
    iou: float = Field(default=0.0, ge=0)
    structure: float = Field(default=0.0, ge=0)

    augmentation: ClassVar[Augmentation] = "flip+crop0.9"
    learns_maps: ClassVar[bool] = True

    def defaults(self) -> OptimiserSettings:
        """Return the released settings of stage two; stage one differs in its batch of 15 alone."""
        return OptimiserSettings(optimiser="adam", rate=1e-3, backbone_rate=0.1, epochs=36, batch=3)

    def labels(self, mask: Tensor) -> dict[str, Tensor]:
        """The prior that stands for a detector's map; `mask` and it (1, H, W) float32."""
        if self.rough and float(torch.rand(())) < self.rough:
            return {"prior": rough_prior(mask)}
        flipped = torch.rand(mask.shape) < self.flip
        return {"prior": torch.where(flipped, 1 - mask, mask)}

    def with_priors(self, samples: Sequence[Any], folders: Sequence[Path]) -> Sequence[Any]:
        """See `add_priors`."""
        return add_priors(samples, folders)

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
        """Items with a spoilt mask or a prior from disk."""
        return PriorDataset(
            samples, preprocessing, self.labels, augmentation, seed, real=self.real, degrade=self.degrade
        )

    def checks(self, network: Any, samples: Sequence[Any], preprocessing: Preprocessing) -> Dataset[dict[str, Tensor]]:
        """Validation items: the priors on disk where there are any, else spoilt masks."""
        return PriorChecks(samples, preprocessing, self.labels)

    def scorer(self) -> Scorer:
        """See `PromotionScorer`."""
        return PromotionScorer()

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Loss and saliency map of a batch with `image`, `mask` and `prior`.

        While training with `samples` the map is that of the sampled pixels alone, (N, samples). In validation it is
        the promoted prior, (N, 1, H, W).
        """
        samples = self.samples if network.training and self.samples else None
        output: PromoterOutput = network(batch["image"], batch["prior"], samples=samples)
        truth = batch["mask"].flatten(1)
        if output.pixels is not None:
            truth = truth.gather(1, output.pixels)
        logits = output.logits.float()
        saliency = logits.sigmoid()
        total = F.binary_cross_entropy_with_logits(logits, truth)
        if self.iou:
            total = total + self.iou * soft_iou_loss(saliency[:, None, None], truth[:, None, None])
        if output.pixels is not None:
            return total, saliency
        saliency = saliency.view_as(batch["mask"])
        if self.structure:
            total = total + self.structure * structure_loss(saliency, batch["mask"])
        return total, saliency if network.training else _with_votes(network, batch["prior"], saliency)


def rough_prior(mask: Tensor) -> Tensor:
    """`mask` (1, H, W) as a weak detector might see it: blurred, with parts missing and others too many."""
    size = mask.shape[1:]
    grain, gain, noise = (float(low + (high - low) * torch.rand(())) for low, high in ((8, 40), (1, 5), (0.3, 3)))
    blurred = F.interpolate(F.adaptive_avg_pool2d(mask[None], int(grain)), size=size, mode="bilinear")
    spots = int(torch.randint(3, 12, ()))
    field = F.interpolate(torch.randn(1, 1, spots, spots), size=size, mode="bicubic")
    return (gain * (2 * blurred - 1) + noise * field)[0].sigmoid()


def _with_votes(network: Any, prior: Tensor, saliency: Tensor) -> Tensor:
    """The map after one iteration, in which the prior may have votes (`PromoterSettings.prior_votes`)."""
    settings: PromoterSettings = network.settings
    votes = settings.prior_votes if settings.stage == "embedding" else 0
    return (votes * prior + saliency) / (votes + 1)


def _grey(maps: Tensor) -> Any:
    """Maps (N, 1, H, W) in [0, 1] as (N, H, W) uint8."""
    return (maps[:, 0].float() * 255).round().byte().cpu().numpy()


def _chosen(scores: Scores) -> dict[str, float]:
    return {name: float(getattr(scores, name)) for name in ("f_max", "mae", "f_weighted", "s")}


def _changes(before: Scores, after: Scores) -> dict[str, float]:
    first, second = _chosen(before), _chosen(after)
    return {name: second[name] - first[name] for name in first}
