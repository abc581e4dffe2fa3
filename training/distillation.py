"""Distillation: a network learns from the maps of others as well as from masks (Hinton et al., 2015).

The teachers' maps are computed once and kept in a folder, so a run that is resumed, and the next run, find them.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from salience.runtime.errors import CheckpointError, DataError, SalienceError
from salience.runtime.files import write_atomic
from salience.runtime.images import SUFFIXES, decode, decode_grey
from salience.runtime.png_writer import encode_png

from .checkpoint import file_sha256, load_checkpoint
from .data.dataset import Loadable
from .data.priors import PriorSample

_BATCH = 8
# Maps are smooth where they matter: this side loses nothing that a network of 352 x 352 learns.
_STORED_SIDE = 352

Teacher = Callable[[Sequence[NDArray[np.uint8]]], list[NDArray[np.float32]]]


@dataclass(frozen=True)
class TaughtSample:
    """A sample whose target is a blend of its mask and the teachers' map; without a mask it is the map alone."""

    sample: Loadable
    map: Path
    share: float

    @property
    def name(self) -> str:
        """The sample's own name."""
        return self.sample.name

    def load(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Image (H, W, 3) uint8 RGB and its target (H, W) uint8, 255 for salient."""
        image, mask = self.sample.load()
        levels = Image.fromarray(decode_grey(self.map)).resize(image.shape[1::-1], Image.Resampling.BILINEAR)
        taught = np.asarray(levels, dtype=np.float32)
        if self.share < 1:
            taught = self.share * taught + (1 - self.share) * 255 * mask.astype(np.float32)
        return image, np.rint(taught).astype(np.uint8)


@dataclass(frozen=True)
class Unlabelled:
    """An image without a mask; `name` is `<set>/<path, without suffix>`."""

    name: str
    image: Path

    def load(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Image (H, W, 3) uint8 RGB, and an empty mask (H, W), which no one learns."""
        image = decode(self.image)
        return image, np.zeros(image.shape[:2], dtype=np.bool_)


def read_unlabelled(root: Path) -> list[Unlabelled]:
    """Return the images below `root/images`, or below `root` where there is no such folder, sorted.

    Raises:
        DataError: there are none.
    """
    base = root / "images" if (root / "images").is_dir() else root
    paths = sorted(p for p in base.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not paths:
        raise DataError(f"--unlabelled {root}: no images; expected files ending in {', '.join(sorted(SUFFIXES))}.")
    return [
        Unlabelled(f"{root.resolve().name}/{path.relative_to(base).with_suffix('').as_posix()}", path) for path in paths
    ]


def taught(
    samples: Sequence[Loadable],
    teachers: Sequence[Path],
    *,
    share: float,
    folder: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Any]:
    """Return `samples` with blended targets; maps that `folder` lacks are computed.

    Args:
        samples: images with masks, or without (`Unlabelled`: their target is the teachers' map alone).
        teachers: checkpoints or bundles of methods that map one image to one map.
        share: of the teachers' mean map in the target; the mask has the rest.
        folder: keeps a PNG for each sample, in a subfolder named by the teachers' contents.
        progress: called with the number of maps done and in all.

    Raises:
        CheckpointError: a teacher's method needs more than an image.
        SalienceError: a teacher cannot be opened.
    """
    place = folder / _teachers_key(teachers)
    paths = [place / f"{sample.name}.png" for sample in samples]
    missing = [(sample, path) for sample, path in zip(samples, paths, strict=True) if not path.exists()]
    if missing:
        opened = [open_teacher(path) for path in teachers]
        for done, (path, levels) in enumerate(_mean_maps(missing, opened), start=1):
            write_atomic(path, encode_png(levels))
            progress(done, len(missing))
    return [_with_map(sample, path, share) for sample, path in zip(samples, paths, strict=True)]


def teachers_origin(teachers: Sequence[Path], share: float) -> dict[str, Any]:
    """Return what a checkpoint's header says of the teachers."""
    if not teachers:
        return {}
    return {"teachers": {"share": share, "files": {path.name: _content(path) for path in teachers}}}


def open_teacher(path: Path) -> Teacher:
    """Open a checkpoint (.safetensors) or a bundle (a folder) as a function from images to maps of any size.

    Raises:
        CheckpointError: its method needs more than an image.
    """
    return _bundle_teacher(path) if path.is_dir() else _checkpoint_teacher(path)


def _with_map(sample: Any, path: Path, share: float) -> Any:
    if isinstance(sample, PriorSample):
        return replace(sample, sample=TaughtSample(sample.sample, path, share))
    return TaughtSample(sample, path, 1.0 if isinstance(sample, Unlabelled) else share)


def _mean_maps(
    wanted: Sequence[tuple[Loadable, Path]], teachers: Sequence[Teacher]
) -> Iterator[tuple[Path, NDArray[np.uint8]]]:
    """Each path with the mean map of all teachers, of the image and of its mirror image."""
    for start in range(0, len(wanted), _BATCH):
        part = wanted[start : start + _BATCH]
        images = [sample.load()[0] for sample, _ in part]
        mirrored = [np.ascontiguousarray(image[:, ::-1]) for image in images]
        sums = [np.zeros((_STORED_SIDE, _STORED_SIDE), dtype=np.float64) for _ in part]
        for teacher in teachers:
            for total, plain, turned in zip(sums, teacher(images), teacher(mirrored), strict=True):
                total += _stored(plain) + _stored(turned)[:, ::-1]
        for (_, path), total in zip(part, sums, strict=True):
            yield path, np.rint(total / (2 * len(teachers)) * 255).astype(np.uint8)


def _stored(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """A map of any size at the size that is kept."""
    side = (_STORED_SIDE, _STORED_SIDE)
    return np.asarray(Image.fromarray(values).resize(side, Image.Resampling.BILINEAR)).clip(0, 1)


def _checkpoint_teacher(path: Path) -> Teacher:
    header, network = load_checkpoint(path)
    if not hasattr(network, "maps_single_images"):
        raise CheckpointError(
            f"teacher {path}: {header.method} needs more than an image; expected a method such as multis or arn."
        )
    network = network.to(memory_format=torch.channels_last).eval()

    @torch.no_grad()
    def maps(images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        tensors = [header.preprocessing(torch.from_numpy(image.transpose(2, 0, 1).copy())) for image in images]
        found: Tensor = network(torch.stack(tensors).contiguous(memory_format=torch.channels_last)).saliency
        return [values[0].numpy() for values in found.float()]

    return maps


def _bundle_teacher(path: Path) -> Teacher:
    from salience.runtime import load

    detector = load(path)
    if not detector.standalone:
        raise CheckpointError(f"teacher {path}: {detector.bundle.manifest.method} needs more than an image.")
    return lambda images: [found.values for found in detector.predict_batch(images)]


def _teachers_key(teachers: Sequence[Path]) -> str:
    return hashlib.sha256(" ".join(sorted(map(_content, teachers))).encode()).hexdigest()[:16]


def _content(path: Path) -> str:
    """SHA-256 of a checkpoint, or of a bundle's manifest, which lists those of its files."""
    file = path / "manifest.json" if path.is_dir() else path
    if not file.is_file():
        raise SalienceError(f"--teacher {path}: expected a checkpoint (.safetensors) or the folder of a bundle.")
    return file_sha256(file)
