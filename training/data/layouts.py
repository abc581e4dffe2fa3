"""Saliency sets as they are published and passed on: which folder holds pictures, which one masks.

None of these sets was at hand when this was written. The folders' names are those that public code and readmes
agree on, and the tests build tiny sets of them. What is a .mat file is not read: the masks of SOD as first
published (those passed on as PNG are), and the lists trainImgSet.mat, ... of HKU-IS (all of its pictures are).
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from salience.runtime.errors import DataError
from salience.runtime.images import SUFFIXES

from .folders import Sample

_JPEG, _PNG = frozenset({".jpg", ".jpeg"}), frozenset({".png"})


@dataclass(frozen=True)
class Layout:
    """Where a set keeps pictures and masks.

    `images` and `masks` are the names that each folder may have below the set's own ("." is that one), in upper or
    lower case. Without `masks` they lie beside the pictures, these JPEG, those PNG. `groups` says that both have a
    folder for each group; pictures at any depth are found in any case.
    """

    name: str
    images: tuple[str, ...]
    masks: tuple[str, ...] = ()
    groups: bool = False

    def __str__(self) -> str:
        inside = "GROUP/" if self.groups else ""
        images, masks = ("|".join(names) + f"/{inside}" for names in (self.images, self.masks))
        return f"{self.name} ({images} and {masks})" if self.masks else f"{self.name} ({images}*.jpg beside *.png)"


# The first that fits is taken. The names of one set are those of copies of others, too.
LAYOUTS = (
    Layout("ours", ("images",), ("masks",)),
    Layout("DUTS-TR", ("DUTS-TR-Image",), ("DUTS-TR-Mask",)),
    Layout("DUTS-TE", ("DUTS-TE-Image",), ("DUTS-TE-Mask",)),
    Layout("DUT-OMRON", ("DUT-OMRON-image",), ("pixelwiseGT-new-PNG",)),
    Layout("ECSSD", ("images",), ("ground_truth_mask",)),
    Layout("HKU-IS", ("imgs",), ("gt",)),
    Layout("PASCAL-S", ("datasets/imgs/pascal",), ("datasets/masks/pascal",)),
    Layout("CoSal2015", ("Image", "img"), ("GroundTruth", "gt"), groups=True),
    Layout("CoCA", ("image",), ("binary",), groups=True),
    Layout("iCoseg", ("images",), ("ground_truth",), groups=True),
    Layout("copies", ("image", "images", "img", "imgs", "im"), ("mask", "masks", "gt", "gts", "GroundTruth")),
    Layout("MSRA10K", ("Imgs",)),
    Layout("MSRA-B", (".",)),
)


@dataclass(frozen=True)
class _Set:
    """The folders of one set; `images` and `masks` are the same where masks lie beside the pictures."""

    root: Path
    images: Path
    masks: Path

    @property
    def name(self) -> str:
        return Path(os.path.normpath(self.root.absolute())).name


def read_set(root: Path) -> list[Sample]:
    """The pictures of a set and their masks, sorted by name, `<set>/<path below images, without suffix>`.

    The set is `root` or the only one in a folder of it, in one of `LAYOUTS`. A mask is where its grey level is above
    128 (`decode_mask`), graded and compressed ones too: in PASCAL-S a pixel that exactly half of the people chose
    (128) is not salient, as PySODMetrics has it. A mask of another scale, such as 0 and 1, is an ImageError when it is
    loaded. Masks without a picture are passed over.

    Raises:
        DataError: there is no set or more than one, pictures lack masks, or two share a name.
    """
    if not root.is_dir():
        raise DataError(f"data {root}: no such folder; expected a set, such as a folder with images/ and masks/.")
    found = _locate(root)
    beside = found.images == found.masks
    images = _by_stem(found.images, _JPEG if beside else SUFFIXES, deep=not beside)
    masks = _by_stem(found.masks, _PNG if beside else SUFFIXES, deep=not beside)
    lonely = sorted(images.keys() - masks.keys())
    if lonely:
        raise DataError(
            f"data {root}: {len(lonely)} of {len(images)} images have no mask ({_some(lonely)}); expected "
            f"{found.masks}/<same path and stem>.png."
        )
    return [Sample(f"{found.name}/{stem}", images[stem], (masks[stem],)) for stem in sorted(images)]


def _locate(root: Path) -> _Set:
    """The set that `root` is, or else the one that a folder of it is."""
    own = _match(root)
    if own:
        return own
    _require_masks(root)
    folders = _folders(root)
    below = [found for folder in folders if (found := _match(folder))]
    if len(below) == 1:
        return below[0]
    names = _some(folder.name + "/" for folder in folders) or "no folders"
    if below:
        raise DataError(
            f"data {root}: holds {len(below)} sets ({_some(found.name for found in below)}), expected one; give those "
            "that you mean, each by its own folder."
        )
    for folder in folders:
        _require_masks(folder)
    raise DataError(
        f"data {root}: in no layout that is known; got {names}, expected one of: {', '.join(map(str, LAYOUTS))}."
    )


def _match(root: Path) -> _Set | None:
    """`root` as a set of the first layout that fits."""
    for layout in LAYOUTS:
        images = _folder(root, layout.images)
        masks = _folder(root, layout.masks) if layout.masks else images
        if images and masks and (images != masks or _holds_pairs(images)):
            return _Set(root, images, masks)
    return None


def _require_masks(root: Path) -> None:
    """Raise DataError where `root`, which is no set, has a folder of pictures as sets do."""
    pairs = [(layout, _folder(root, layout.images)) for layout in LAYOUTS if layout.masks]
    images = next((folder for _, folder in pairs if folder), None)
    if images:
        wanted = dict.fromkeys(name for layout, folder in pairs if folder == images for name in layout.masks)
        raise DataError(
            f"data {root}: has pictures in {images.relative_to(root).as_posix()}/ and no folder of their masks; "
            f"expected it beside them, called {', '.join(wanted)}."
        )


def _folder(root: Path, names: Iterable[str]) -> Path | None:
    """The first of `names` that is a folder below `root`, its parts in upper or lower case."""
    for name in names:
        found = [root]
        for part in Path(name).parts:
            below = sorted(
                child for folder in found for child in folder.iterdir() if child.name.lower() == part.lower()
            )
            found = [child for child in below if child.is_dir()]
        if found:
            return found[0]
    return None


def _folders(root: Path) -> list[Path]:
    """Not those that macOS leaves in archives, which mirror the true ones."""
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith((".", "__MACOSX")))


def _holds_pairs(folder: Path) -> bool:
    jpeg, png = ({path.stem for path in folder.iterdir() if path.suffix.lower() in s} for s in (_JPEG, _PNG))
    return not jpeg.isdisjoint(png)


def _by_stem(folder: Path, suffixes: frozenset[str], *, deep: bool) -> dict[str, Path]:
    """The pictures of `folder`, or those at any depth, by path without suffix; hidden ones are passed over."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*") if deep else folder.iterdir()):
        inside = path.relative_to(folder)
        if path.suffix.lower() not in suffixes or any(part.startswith(".") for part in inside.parts):
            continue
        first = found.setdefault(inside.with_suffix("").as_posix(), path)
        if first != path:
            raise DataError(
                f"data {folder}: {first.name} and {path.name} differ in their suffix only; expected one file of a "
                "name; remove one, or keep pictures and masks apart."
            )
    if not found:
        raise DataError(f"data {folder}: no images; expected files ending in {', '.join(sorted(suffixes))}.")
    return found


def files_by_stem(folder: Path) -> dict[str, Path]:
    """Return the image files of `folder` at any depth, by their path below it without suffix.

    Raises:
        DataError: there are none, or two differ in their suffix only.
    """
    return _by_stem(folder, SUFFIXES, deep=True)


def _some(names: Iterable[str], limit: int = 5) -> str:
    listed = list(names)
    return ", ".join(listed[:limit]) + (", ..." if len(listed) > limit else "")
