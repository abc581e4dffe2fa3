"""Maps, or pictures to make maps of, and their masks: paired by path below their folders, without suffix."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from ..images import SUFFIXES
from ..splits import Part, read_part


@dataclass(frozen=True)
class Pair:
    """One map and its mask.

    Attributes:
        name: path below the masks folder, without suffix, such as `Aero/img_1001`.
        source: the saliency map, or the picture that a detector makes it of.
        mask: the ground truth.
        picture: the photo for reports, where one is at hand.
    """

    name: str
    source: Path
    mask: Path
    picture: Path | None = None


@dataclass(frozen=True)
class PairSet:
    """What `find_pairs` found.

    Attributes:
        pairs: sorted by name.
        unmasked: names of the sources that have no mask and are therefore not scored.
    """

    pairs: tuple[Pair, ...]
    unmasked: tuple[str, ...] = ()

    @property
    def warning(self) -> str | None:
        """One sentence on the sources without mask, None when there are none."""
        if not self.unmasked:
            return None
        return f"maps without a mask, not scored: {len(self.unmasked)} ({_some(self.unmasked)})."


def find_pairs(
    sources: Path,
    masks: Path,
    *,
    pictures: Path | None = None,
    splits: Path | None = None,
    part: Part | None = None,
) -> PairSet:
    """Pair the files below two folders by relative path without suffix, nested folders included.

    Hidden files and folders are passed over, and so are files that are not images by their suffix.

    Args:
        sources: folder of saliency maps, or of pictures to make them of.
        masks: folder of ground truth; it says which images are scored.
        pictures: folder of photos to show in reports; images without one are scored all the same.
        splits: JSON file `{"<set>": {"train": [names], "val": [...], "test": [...]}}`, where the set is
            called as the parent folder of `masks` (`ecssd/masks` -> `ecssd`); only `part` is scored.
        part: which part of `splits`.

    Raises:
        DataError: a folder is missing or without images, two files of a folder share a name, a mask has no
            source (a missing map never raises the score), or the split file does not fit.
    """
    if sources.resolve() == masks.resolve():
        raise DataError(f"maps {sources}: the same folder as the masks, all scores would be perfect; name another.")
    truth, found = _by_name(masks), _by_name(sources)
    photos = _by_name(pictures) if pictures else {}
    wanted = _wanted(truth, masks, splits, part)
    missing = [name for name in wanted if name not in found]
    if missing:
        raise DataError(
            f"maps {sources}: {len(missing)} of {len(wanted)} masks have no map ({_some(missing)}); expected "
            f"files of the same path and name as below {masks}, whatever their suffix."
        )
    return PairSet(
        pairs=tuple(Pair(name, found[name], truth[name], photos.get(name)) for name in wanted),
        unmasked=tuple(sorted(found.keys() - truth.keys())),
    )


def _by_name(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"folder {folder}: does not exist; expected a folder of images.")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        hidden = any(piece.startswith(".") for piece in inside.parts)
        if hidden or path.suffix.lower() not in SUFFIXES or not path.is_file():
            continue
        first = found.setdefault(inside.with_suffix("").as_posix(), path)
        if first != path:
            raise DataError(
                f"folder {folder}: {first.name} and {path.name} differ in their suffix only; expected one "
                f"image of a name; remove one of them, or keep pictures, maps and masks apart."
            )
    if not found:
        raise DataError(f"folder {folder}: no images; expected files ending in {', '.join(sorted(SUFFIXES))}.")
    return found


def _wanted(truth: Iterable[str], masks: Path, splits: Path | None, part: Part | None) -> list[str]:
    """Names to score, sorted: all of `truth`, or those of a part."""
    if splits is None and part is None:
        return sorted(truth)
    if splits is None or part is None:
        given, lacking = ("splits", "part") if part is None else ("part", "splits")
        raise DataError(f"evaluation: --{given} was given without --{lacking}; expected both or neither.")
    names = read_part(splits, part, set_name=Path(os.path.normpath(masks.absolute())).parent.name)
    missing = sorted(names.difference(truth))
    if missing:
        raise DataError(
            f"splits {splits}: {len(missing)} of {len(names)} names of {part!r} have no mask below {masks} "
            f"({_some(missing)}); expected all of them."
        )
    return sorted(names)


def _some(names: Iterable[str], limit: int = 5) -> str:
    listed = list(names)
    return ", ".join(listed[:limit]) + (", ..." if len(listed) > limit else "")
