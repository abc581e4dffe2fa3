"""Maps, or pictures to make maps of, and their masks: paired by path below their folders, without suffix."""

import os
from collections.abc import Iterable, Mapping, Sequence
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

    @property
    def group(self) -> str:
        """First folder of the name, such as `Aero`: the source of the image; `.` where the name has no folder."""
        first, slash, _ = self.name.partition("/")
        return first if slash else "."


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
    return find_method_pairs({"": sources}, masks, pictures=pictures, splits=splits, part=part)[""]


def find_method_pairs(
    sources: Mapping[str, Path],
    masks: Path,
    *,
    pictures: Path | None = None,
    splits: Path | None = None,
    part: Part | None = None,
) -> dict[str, PairSet]:
    """Pair the files of several methods with the same masks, as `find_pairs` does for one.

    Args:
        sources: folder of each method, by the method's name.
        masks, pictures, splits, part: as for `find_pairs`.

    Raises:
        DataError: as `find_pairs`; it names every method that lacks maps, and which.
    """
    for folder in sources.values():
        if folder.resolve() == masks.resolve():
            raise DataError(f"maps {folder}: the same folder as the masks, all scores would be perfect; name another.")
    truth = _by_name(masks)
    found = {name: _by_name(folder) for name, folder in sources.items()}
    photos = _by_name(pictures) if pictures else {}
    wanted = _wanted(truth, masks, splits, part)
    missing = [
        f"maps {folder}: {len(lacking)} of {len(wanted)} masks have no map ({_some(lacking)})"
        for name, folder in sources.items()
        if (lacking := [image for image in wanted if image not in found[name]])
    ]
    if missing:
        raise DataError(
            f"{'; '.join(missing)}; expected files of the same path and name as below {masks}, whatever their suffix."
        )
    return {
        name: PairSet(
            pairs=tuple(Pair(image, maps[image], truth[image], photos.get(image)) for image in wanted),
            unmasked=tuple(sorted(maps.keys() - truth.keys())),
        )
        for name, maps in found.items()
    }


def parse_methods(texts: Sequence[str]) -> dict[str, Path]:
    """Read `DIR` or `NAME=DIR` of each method; without a name the method is called as its folder.

    Raises:
        DataError: two methods have the same name, or a name cannot name a folder of the report.
    """
    methods: dict[str, Path] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not equals or Path(text).is_dir():
            name, folder = Path(os.path.normpath(Path(text).absolute())).name, text
        if name in {"", ".", ".."} or "/" in name:
            raise DataError(f"method {text!r}: the name {name!r} is no name of a folder; expected NAME=DIR.")
        if name in methods:
            raise DataError(f"method {text!r}: {methods[name]} has the name {name!r} too; expected NAME=DIR for one.")
        methods[name] = Path(folder)
    return methods


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
