"""How `gicd` is trained (GICD, sections 3.4 and 5.1)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from salience.runtime.evaluation.image_metrics import ImageMetrics
from salience.runtime.evaluation.metrics import average

from ..data.dataset import Augmentation, Loadable
from ..data.features import FeatureGroups, cached_groups
from ..data.groups import (
    JIGSAW_SHARE,
    CheckGroups,
    GroupDataset,
    class_by_name,
    class_groups,
    join_groups,
    named_class,
    relabelled,
)
from ..data.scenes import scenes_of_kinds
from ..losses import soft_iou_loss
from ..networks.gicd import Embedding, GradientInducedOutput, resize
from ..optim import OptimiserSettings
from ..preprocessing import Preprocessing
from ..recipe import MapScorer, Recipe, Scorer

# Images per forward pass where the backbone classifies or its features are kept.
_FEATURE_BATCH = 16


class DistractorScorer:
    """Scores maps of groups as they are and of jigsaws, whose other half is a distractor.

    `f_plain` and `f_distractors` are the largest F of each kind, from its image-averaged curve; `f_max` and `mae` are
    means over the two kinds. Without jigsaws there are `f_max` and `mae` alone.
    """

    def __init__(self) -> None:
        self.records: list[tuple[bool, ImageMetrics]] = []

    def add(self, prediction: Tensor, batch: Mapping[str, Tensor]) -> None:
        """See `Scorer`; `batch` holds `mask` (N, 1, H, W) and `distractors` (N,) bool."""
        maps = MapScorer()
        maps.add(prediction, batch)
        self.records += zip(batch["distractors"].tolist(), maps.records, strict=True)

    def scores(self) -> dict[str, float]:
        """See `Scorer`."""
        kinds = {
            kind: average((image for distractor, image in self.records if distractor == kind), full=False)
            for kind in sorted({distractor for distractor, _ in self.records})
        }
        found = {
            "f_max": sum(scores.f_max for scores in kinds.values()) / len(kinds),
            "mae": sum(scores.mae for scores in kinds.values()) / len(kinds),
        }
        names = {False: "f_plain", True: "f_distractors"}
        return found | {names[kind]: scores.f_max for kind, scores in kinds.items() if len(kinds) > 1}


class GradientInducedRecipe(Recipe):
    """Soft IoU loss of the decoder's four maps (eq. 3, 4) on groups with jigsaws; a batch counts groups.

    The classes are the folders below `images/`. The pictures that lie in none are one class for each set; with
    `classes` "names" they get theirs from their file names (`class_by_name`), and with "classifier" from the network's
    own classifier. With `distractors`, validation repeats the groups as fixed jigsaws. `most` is how many pictures of
    a class an item draws, `least` how many a class needs, `rounds` how often an epoch visits each class, `jigsaw` the
    share of jigsaws. `cache` computes the frozen backbone's features of that many draws of every picture once and keeps
    them in memory (MobileNetV2 at 224: .8 MB a draw); 0 draws and computes anew each time. Not in the paper, and off by
    default: `bce` adds that much binary cross entropy of the finest map.
    """

    # After the jigsaw; `paste` and the others vary the two halves of a jigsaw, each for itself.
    augmentation: ClassVar[Augmentation] = "flip+rotate90"

    draws_samples: ClassVar[bool] = False

    classes: Literal["folders", "names", "classifier"] = "folders"
    distractors: bool = True
    most: int = Field(default=20, ge=1)
    least: int = Field(default=2, ge=1)
    rounds: int = Field(default=1, ge=1)
    jigsaw: float = Field(default=JIGSAW_SHARE, ge=0, le=1)
    cache: int = Field(default=0, ge=0)
    bce: float = Field(default=0.0, ge=0)

    def defaults(self) -> OptimiserSettings:
        """Adam as in section 5.1, on the decoder alone; the paper divides the rate by 10 at epoch 50 of 100."""
        return OptimiserSettings(
            optimiser="adam", rate=1e-4, betas=(0.9, 0.99), backbone_rate=0.0, schedule="halfway", epochs=100, batch=1
        )

    def merge(self, samples: Sequence[Any]) -> Sequence[Any]:
        """As they are: a picture may be of two groups, each with a mask of its own."""
        return samples

    def synthetic(self, count: int, *, seed: int) -> Sequence[Loadable]:
        """Scenes whose objects' colour is their class."""
        return scenes_of_kinds(count, seed=seed)

    def dataset(
        self,
        network: Any,
        samples: Sequence[Any],
        preprocessing: Preprocessing,
        *,
        augmentation: Augmentation,
        seed: int,
        workers: int,
    ) -> GroupDataset | FeatureGroups:
        """Groups by folder, file name or classifier, with cached features where the settings ask for them."""
        label = named_class if self.classes == "names" else None
        expected = 1 if self.classes == "classifier" else 2
        groups = class_groups(samples, least=self.least, classes=expected, label=label)
        data = GroupDataset(groups, preprocessing, augmentation, seed, self.most, self.rounds, self.jigsaw)
        network.eval()
        device = next(network.parameters()).device

        def embed(images: Tensor) -> Embedding:
            found: Embedding = network.embed(images.to(device, non_blocking=True))
            return found

        if self.classes == "classifier":
            data = relabelled(
                data, lambda images: embed(images).logits.argmax(dim=1), least=self.least, batch=_FEATURE_BATCH,
                workers=workers,
            )  # fmt: skip
        if not self.cache:
            return data
        return cached_groups(
            data, lambda images: _columns(embed(images)), draws=self.cache, batch=_FEATURE_BATCH, workers=workers
        )

    def checks(self, network: Any, samples: Sequence[Any], preprocessing: Preprocessing) -> CheckGroups:
        """Whole groups, and their jigsaws with `distractors`; a picture of no class is a group of its own.

        The classes are the folders, with `classes` "names" also those that file names state.
        """

        def label(sample: Loadable) -> str:
            if self.classes == "names":
                return class_by_name(sample.name) or sample.name
            return sample.name.rpartition("/")[0] if sample.name.count("/") > 1 else sample.name

        groups = class_groups(samples, least=1, classes=1, label=label)
        return CheckGroups(groups, preprocessing, distractors=self.distractors)

    def scorer(self) -> Scorer:
        """See `DistractorScorer`."""
        return DistractorScorer()

    def collate(self, items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """See `join_groups`."""
        return join_groups(items)

    def loss(self, network: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return loss and maps of a batch with `mask`, `group`, and `image` or what `cached_groups` keeps.

        The loss is the sum over the images (eq. 4) divided by the number of groups. Adam does not see that scale, but
        a group of 20 images moves the weights more than one of 4. A clipped norm (`--clip`) grows with the group too:
        a clip of 1 for the mean is a clip of 12 for groups of 12.
        """
        mask = batch["mask"]
        size = (mask.shape[2], mask.shape[3])
        given = batch["image"] if "image" in batch else _embedding(batch)
        output: GradientInducedOutput = network(given, batch["group"], size)
        maps = [resize(saliency.float(), size) for saliency in output.maps]
        mean = torch.stack([soft_iou_loss(saliency, mask) for saliency in maps]).sum()
        if self.bce:
            mean = mean + self.bce * F.binary_cross_entropy(maps[0].clamp(1e-6, 1 - 1e-6), mask)
        return mean * (len(mask) / len(batch["group"].unique())), maps[0]


def _columns(embedding: Embedding) -> dict[str, Tensor]:
    """An embedding as named tensors."""
    named = {"feature": embedding.features, "gate": embedding.gates}
    rows = {f"{name}{index}": value for name, values in named.items() for index, value in enumerate(values)}
    return rows | {"logits": embedding.logits}


def _embedding(batch: Mapping[str, Tensor]) -> Embedding:
    """What `_columns` made columns of."""

    def several(name: str) -> tuple[Tensor, ...]:
        found = [key for key in batch if key.startswith(name)]
        return tuple(batch[f"{name}{index}"] for index in range(len(found)))

    features = tuple(value.contiguous(memory_format=torch.channels_last) for value in several("feature"))
    return Embedding(features, batch["logits"], several("gate"))
