"""How the classifier of `cgd` is fine-tuned (section 4.1)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ..data.classes import LAYOUTS, ClassDataset, class_names, without_repeats
from ..data.dataset import Augmentation
from ..data.scenes import scenes_of_kinds
from ..networks.cgd import ClassifierOutput
from ..optim import OptimiserSettings
from ..preprocessing import Preprocessing
from ..recipe import Recipe

Strategy = Literal["all", "last-faster", "last"]
# The backbone's rate, as a factor on that of the last layer, in the three methods of table 1.
BACKBONE_RATES: dict[Strategy, float] = {"all": 1.0, "last-faster": 0.1, "last": 0.0}


class ClassScorer:
    """Share of pictures whose class is the first, or among the first five, that the network names."""

    def __init__(self) -> None:
        self.records: list[tuple[bool, bool]] = []

    def add(self, prediction: Tensor, batch: Mapping[str, Tensor]) -> None:
        """See `Scorer`; `prediction` are logits (N, K)."""
        label = batch["label"][:, None]
        ranked = prediction.argsort(dim=1, descending=True)
        hits = (ranked == label)[:, :5].tolist()
        self.records += [(row[0], any(row)) for row in hits]

    def scores(self) -> dict[str, float]:
        """See `Scorer`."""
        count = max(len(self.records), 1)
        return {name: sum(row[place] for row in self.records) / count for place, name in enumerate(("top1", "top5"))}


class ClassifierRecipe(Recipe):
    """Cross entropy on labelled pictures, of `layout` class folders or VOC's (the class of the largest object).

    `strategy` is table 1's: update "all" layers at one rate, all but the last "last-faster", or the "last" alone.
    """

    layout: Literal["folders", "voc"] = "folders"
    strategy: Strategy = "all"
    smoothing: float = Field(default=0.0, ge=0, lt=1)

    def defaults(self) -> OptimiserSettings:
        """The paper names neither rate nor length; these suit a pretrained classifier."""
        return OptimiserSettings(
            optimiser="sgd", rate=1e-3, backbone_rate=BACKBONE_RATES[self.strategy], momentum=0.9, decay=5e-4,
            schedule="cosine", epochs=10, batch=16, clip=5.0,
        )  # fmt: skip

    def read(self, root: Path) -> Sequence[Any]:
        """Labelled pictures."""
        return LAYOUTS[self.layout](root)

    def merge(self, samples: Sequence[Any]) -> Sequence[Any]:
        """Each picture once."""
        return without_repeats(samples)

    def synthetic(self, count: int, *, seed: int) -> Sequence[Any]:
        """Scenes whose objects' colour is their class."""
        return scenes_of_kinds(count, seed=seed)

    def network_settings(self, samples: Sequence[Any]) -> dict[str, Any]:
        """The classes."""
        return {"classes": class_names(samples)}

    def dataset(
        self,
        network: Any,
        samples: Sequence[Any],
        preprocessing: Preprocessing,
        *,
        augmentation: Augmentation,
        seed: int,
        workers: int,
    ) -> ClassDataset:
        """Pictures with their class's number."""
        return ClassDataset(samples, network.settings.classes, preprocessing, augmentation, seed)

    def checks(self, network: Any, samples: Sequence[Any], preprocessing: Preprocessing) -> ClassDataset:
        """Likewise, as they are."""
        return ClassDataset(samples, network.settings.classes, preprocessing)

    def loss(self, network: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Loss and logits (N, K) of a batch with `image` and `label`."""
        output: ClassifierOutput = network(batch["image"])
        logits = output.logits.float()
        return F.cross_entropy(logits, batch["label"], label_smoothing=self.smoothing), logits

    def scorer(self) -> ClassScorer:
        """An empty one."""
        return ClassScorer()
