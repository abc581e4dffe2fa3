"""Labelled pictures for classifiers: from class folders, or from the layout of PASCAL VOC."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from xml.etree import ElementTree

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from salience.runtime.errors import DataError
from salience.runtime.images import SUFFIXES, decode

from ..preprocessing import Preprocessing
from .dataset import Augmentation, Loadable, augmented

# An annotation of VOC is a few kilobytes.
_ANNOTATION_LIMIT_BYTES = 1 << 20


class Labelled(Loadable, Protocol):
    """A sample with a class."""

    @property
    def label(self) -> str:
        """The class's name."""


@dataclass(frozen=True)
class LabelledPicture:
    """A picture and the name of its class; `name` is `<set>/<path, without suffix>`."""

    name: str
    image: Path
    label: str

    def load(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Image (H, W, 3) uint8 RGB, and an empty mask (H, W): nothing says where the object is."""
        image = decode(self.image)
        return image, np.zeros(image.shape[:2], dtype=np.bool_)


def read_class_folders(root: Path) -> list[LabelledPicture]:
    """The pictures of `root/CLASS/**`, or of `root/images/CLASS/**` where that exists, sorted.

    Raises:
        DataError: there are no pictures in class folders.
    """
    base = root / "images" if (root / "images").is_dir() else root
    found = [
        LabelledPicture(f"{root.name}/{path.relative_to(base).with_suffix('').as_posix()}", path, folder.name)
        for folder in _folders(base)
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    ]
    if not found:
        raise DataError(f"data {root}: no pictures in class folders; expected {base}/CLASS/*.jpg, or layout=voc.")
    return found


def read_voc(root: Path) -> list[LabelledPicture]:
    """Return the images of `root/JPEGImages`, each with the class of its largest annotated object (one box).

    Raises:
        DataError: a folder is missing, or an annotation is not VOC's; the message names it.
    """
    annotations, images = root / "Annotations", root / "JPEGImages"
    paths = sorted(annotations.glob("*.xml")) if annotations.is_dir() else []
    if not paths or not images.is_dir():
        raise DataError(f"data {root}: expected Annotations/*.xml and JPEGImages/*.jpg, the layout of PASCAL VOC.")
    found = []
    for path in paths:
        image = images / f"{path.stem}.jpg"
        if not image.is_file():
            raise DataError(f"data {root}: {path.name} has no picture {image}.")
        found.append(LabelledPicture(f"{root.name}/{path.stem}", image, _largest_class(path)))
    return found


def without_repeats(samples: Iterable[LabelledPicture]) -> list[LabelledPicture]:
    """Samples without files that have the bytes of an earlier one: one picture has one class."""
    seen: dict[str, LabelledPicture] = {}
    for sample in samples:
        seen.setdefault(hashlib.sha256(sample.image.read_bytes()).hexdigest(), sample)
    return list(seen.values())


@dataclass
class ClassDataset(Dataset[dict[str, Tensor]]):
    """Items are `image` (3, H, W) float32 and `label` () int64, an index into `classes`; see `SaliencyDataset`."""

    samples: Sequence[Labelled]
    classes: Sequence[str]
    preprocessing: Preprocessing
    augmentation: Augmentation = "none"
    seed: int = 0
    epoch: int = 0

    def __post_init__(self) -> None:
        for sample in self.samples:
            if sample.label not in self.classes:
                raise DataError(
                    f"image {sample.name}: is of class {sample.label}, expected one of {len(self.classes)} that are "
                    f"trained ({', '.join(self.classes[:5])}{', ...' if len(self.classes) > 5 else ''})."
                )

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        sample = self.samples[index]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed((self.seed * 1_000_003 + self.epoch) * 1_000_003 + index)
            image, _ = augmented(sample, self.augmentation, self.preprocessing.size)
        label = torch.tensor(self.classes.index(sample.label))
        return {"image": self.preprocessing.normalise(image), "label": label}


def class_names(samples: Iterable[Labelled]) -> tuple[str, ...]:
    """The classes of `samples`, sorted.

    Raises:
        DataError: fewer than two.
    """
    names = tuple(sorted({sample.label for sample in samples}))
    if len(names) < 2:
        raise DataError(f"classes: got {', '.join(names) or 'none'}, expected at least two to tell apart.")
    return names


LAYOUTS: dict[str, Callable[[Path], list[LabelledPicture]]] = {"folders": read_class_folders, "voc": read_voc}


def _folders(base: Path) -> list[Path]:
    if not base.is_dir():
        raise DataError(f"data {base}: no such folder.")
    return sorted(path for path in base.iterdir() if path.is_dir() and not path.name.startswith("."))


def _largest_class(path: Path) -> str:
    """Return the class of the largest object; of equally large ones the first."""
    if path.stat().st_size > _ANNOTATION_LIMIT_BYTES:
        raise DataError(f"annotation {path}: larger than {_ANNOTATION_LIMIT_BYTES >> 10} KB, which is not VOC's.")
    try:
        # Expat refuses entities that grow, and loads none from outside.
        root = ElementTree.parse(path).getroot()  # noqa: S314
        areas = [_object_area(item) for item in root.iter("object")]
    except (ElementTree.ParseError, LookupError, OverflowError, ValueError) as error:
        raise DataError(f"annotation {path}: is not in VOC's form ({error}).") from error
    if not areas:
        raise DataError(f"annotation {path}: names no object.")
    return max(areas, key=lambda found: found[1])[0]


def _object_area(item: ElementTree.Element) -> tuple[str, int]:
    """Return the class of one annotated object and the area of its box in pixels."""
    box = item.find("bndbox")
    if box is None:
        raise ValueError("an object without bndbox")
    left, top, right, bottom = (float(box.findtext(k, "")) for k in ("xmin", "ymin", "xmax", "ymax"))
    name = item.findtext("name", "").strip()
    if not name:
        raise ValueError("an object without a name")
    return name, int((right - left) * (bottom - top))
