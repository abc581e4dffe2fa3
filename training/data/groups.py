"""Groups of pictures for co-saliency, made of a plain saliency set by the jigsaw strategy (GICD, section 3.4)."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from salience.runtime.errors import DataError

from ..preprocessing import Preprocessing
from .dataset import Augmentation, Loadable, augmented
from .loading import batches

# A draw is a jigsaw in three of four cases: the paper adds three jigsaws to every picture.
JIGSAW_SHARE = 0.75
# Words of file names that name no class.
_GENERIC = frozenset({
    "coco", "frame", "group", "im", "image", "images", "img", "imgs", "jpeg", "jpg", "mask", "masks", "photo", "pic",
    "picture", "png", "test", "train", "val", "valid",
})  # fmt: skip


def class_groups(
    samples: Sequence[Loadable], *, least: int, classes: int = 2, label: Callable[[Loadable], str] | None = None
) -> dict[str, list[Loadable]]:
    """Samples by class, in the samples' order; classes of fewer than `least` are left out.

    Args:
        samples: named `<set>/<class>/<picture>`, or `<set>/<picture>` where a set is one class.
        least: pictures that a class needs.
        classes: how many must be left.
        label: the class of a sample; None for the one that its name says.

    Raises:
        DataError: fewer than `classes` are left.
    """
    found: dict[str, list[Loadable]] = {}
    for sample in samples:
        name = label(sample) if label else sample.name.rpartition("/")[0]
        found.setdefault(name, []).append(sample)
    kept = {name: members for name, members in found.items() if len(members) >= least}
    if len(kept) < classes:
        raise DataError(
            f"groups: {len(kept)} of {len(found)} classes have at least {least} pictures, expected {classes} or more; "
            "classes are the folders below images/, the words of file names with --recipe classes=names, or the "
            "network's with --recipe classes=classifier."
        )
    return kept


def class_by_name(name: str) -> str:
    """Return the class that a sample's folder or file name states, in lower case; "" where it states none.

    A sample in a folder of its set has that folder. Else the class is the words of the file name before its first
    digit; words such as `train` or `mask` and single letters do not count: `pets/Abyssinian_12` is `abyssinian`,
    `set/mask_cat.0` is `cat`, `set/drift-straight_00010` is `drift straight`, and `set/image_0001` states no class.
    Equal names of several sets are one class, since an object may not be its own distractor.
    """
    folder, _, stem = name.partition("/")[2].rpartition("/")
    if folder:
        return folder.lower()
    words = re.findall(r"[^\W\d_]{2,}", re.split(r"\d", stem.lower(), maxsplit=1)[0])
    return " ".join(word for word in words if word not in _GENERIC)


def named_class(sample: Loadable) -> str:
    """Return the class of a sample by `class_by_name`; a set whose names state none is one class, the set's name."""
    return class_by_name(sample.name) or sample.name.partition("/")[0].lower()


@torch.no_grad()
def relabelled(
    data: "GroupDataset", classify: Callable[[Tensor], Tensor], *, least: int, batch: int = 16, workers: int = 0
) -> "GroupDataset":
    """Return `data` with a class from `classify` for the images that lie in no folder of their set.

    Args:
        data: groups by folder.
        classify: network input (N, 3, H, W) -> the class of each image, (N,) int64.
        least: images that a class needs.
        batch: images per call of `classify`.
        workers: processes that load images.
    """
    samples = [sample for members in data.groups.values() for sample in members]
    loose = [sample for sample in samples if sample.name.count("/") <= 1]
    loader = DataLoader(_Plain(loose, data.preprocessing), batch_size=batch, num_workers=workers)
    numbers = [int(number) for images in batches(loader) for number in classify(images["image"])]
    classes = {sample.name: f"class {number}" for sample, number in zip(loose, numbers, strict=True)}

    def label(sample: Loadable) -> str:
        return classes.get(sample.name) or sample.name.rpartition("/")[0]

    return replace(data, groups=class_groups(samples, least=least, label=label))


@dataclass
class _Plain(Dataset[dict[str, Tensor]]):
    """Samples as network input, without augmentation: `image` (3, H, W) float32."""

    samples: Sequence[Loadable]
    preprocessing: Preprocessing

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        image, _ = augmented(self.samples[index], "none", self.preprocessing.size)
        return {"image": self.preprocessing.normalise(image)}


@dataclass
class GroupDataset(Dataset[dict[str, Tensor]]):
    """Items are groups: `image` (M, 3, H, W) float32 normalised and `mask` (M, 1, H, W) float32.

    Item i is a draw of at most `most` pictures of one class, each one plain or a jigsaw with a picture of another
    class; what is drawn depends on `seed`, `epoch` and i alone. Each class has `rounds` items.
    """

    groups: Mapping[str, Sequence[Loadable]]
    preprocessing: Preprocessing
    augmentation: Augmentation = "none"
    seed: int = 0
    most: int = 20
    rounds: int = 1
    jigsaw: float = JIGSAW_SHARE
    epoch: int = 0

    def __len__(self) -> int:
        return len(self.groups) * self.rounds

    @cached_property
    def names(self) -> list[str]:
        """The classes."""
        return list(self.groups)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        name = self.names[index % len(self.names)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed((self.seed * 1_000_003 + self.epoch) * 1_000_003 + index)
            chosen = torch.randperm(len(self.groups[name]))[: self.most].tolist()
            pairs = [self.draw(name, member) for member in chosen]
        images, masks = zip(*pairs, strict=True)
        return {"image": torch.stack(images), "mask": torch.stack(masks)}

    def draw(self, name: str, member: int) -> tuple[Tensor, Tensor]:
        """Return an image of a class or a jigsaw of it, (3, H, W) float32 normalised, and its mask (1, H, W)."""
        sample = self.groups[name][member]
        if self.augmentation == "flip+rotate90":
            image, mask = self._turned(name, sample)
        else:
            image, mask = self._joined(name, sample, self.augmentation, self.preprocessing.size)
        return self.preprocessing.normalise(image), mask

    def _turned(self, name: str, sample: Loadable) -> tuple[Tensor, Tensor]:
        """Flip and rotate the whole, after the jigsaw, as the authors do; a turned image is made in the turned size."""
        turns = int(torch.randint(-1, 2, ()))
        height, width = self.preprocessing.size
        pair = self._joined(name, sample, "none", (width, height) if turns else (height, width))
        if float(torch.rand(())) < 0.5:
            pair = pair[0].flip(-1), pair[1].flip(-1)
        return pair[0].rot90(turns, (-2, -1)), pair[1].rot90(turns, (-2, -1))

    def _joined(
        self, name: str, sample: Loadable, augmentation: Augmentation, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Return the image, (3, *size) uint8, and its mask, alone or as a jigsaw."""
        if float(torch.rand(())) < self.jigsaw:
            return jigsaw(sample, self._partner(name), augmentation, size)
        return augmented(sample, augmentation, size)

    def _partner(self, name: str) -> Loadable:
        """Any picture of any other class, all pictures alike."""
        others = [sample for other, members in self.groups.items() if other != name for sample in members]
        return others[int(torch.randint(len(others), ()))]


def jigsaw(
    sample: Loadable, partner: Loadable, augmentation: Augmentation, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Join two images side by side or one above the other: (3, *size) uint8 and a mask without the partner's object."""
    height, width = size
    axis = 2 if float(torch.rand(())) < 0.5 else 1
    half = (height, width // 2) if axis == 2 else (height // 2, width)
    rest = (height, width - half[1]) if axis == 2 else (height - half[0], width)
    image, mask = augmented(sample, augmentation, half)
    other, _ = augmented(partner, augmentation, rest)
    parts = [(image, mask), (other, torch.zeros(1, *rest))]
    if float(torch.rand(())) < 0.5:
        parts.reverse()
    images, masks = zip(*parts, strict=True)
    return torch.cat(images, dim=axis), torch.cat(masks, dim=axis)


@dataclass
class WholeGroups(GroupDataset):
    """Groups as they are, for validation: all pictures of a class, none of them a jigsaw."""

    jigsaw: float = 0.0

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        members = self.groups[self.names[index]]
        pairs = [augmented(sample, "none", self.preprocessing.size) for sample in members]
        images, masks = zip(*pairs, strict=True)
        return {"image": self.preprocessing.normalise(torch.stack(images)), "mask": torch.stack(masks)}


@dataclass
class CheckGroups(WholeGroups):
    """Validation items: all groups as they are, then the groups of several images as fixed jigsaws.

    `distractors` (M,) bool of an item says which images are jigsaws. Partners are of other classes; they and the
    places of the halves depend on `seed` and the item's index alone. A group of one image has no jigsaw, because
    nothing tells its object from the distractor, and a single class has none.
    """

    distractors: bool = True

    def __len__(self) -> int:
        return len(self.names) + len(self.joined)

    @cached_property
    def joined(self) -> list[str]:
        """The classes that are validated as jigsaws too."""
        if not self.distractors or len(self.names) < 2:
            return []
        return [name for name in self.names if len(self.groups[name]) > 1]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        plain = index < len(self.names)
        item = super().__getitem__(index) if plain else self._jigsaws(index)
        return item | {"distractors": torch.full((len(item["mask"]),), not plain)}

    def _jigsaws(self, index: int) -> dict[str, Tensor]:
        name = self.joined[index - len(self.names)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed * 1_000_003 + index)
            size = self.preprocessing.size
            pairs = [jigsaw(sample, self._partner(name), "none", size) for sample in self.groups[name]]
        images, masks = zip(*pairs, strict=True)
        return {"image": self.preprocessing.normalise(torch.stack(images)), "mask": torch.stack(masks)}


def join_groups(items: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Groups as one batch: their pictures in a row, and `group` (M,) int64, which of them each belongs to."""
    joined = {name: torch.cat([item[name] for item in items]) for name in items[0]}
    sizes = torch.tensor([len(item["mask"]) for item in items])
    return joined | {"group": torch.repeat_interleave(torch.arange(len(items)), sizes)}
