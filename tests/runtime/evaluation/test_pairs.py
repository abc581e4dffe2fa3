"""Which maps meet which masks, and what is said when they do not."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from salience.runtime.errors import DataError
from salience.runtime.evaluation.pairs import Pair, PairSet, find_method_pairs, find_pairs, parse_methods

DATA = os.environ.get("SALIENCE_DATA", "")


def fill(folder: Path, *names: str) -> Path:
    """Empty files: pairing goes by name and opens none."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def names(found: PairSet) -> list[str]:
    return [pair.name for pair in found.pairs]


def test_pairs_by_path_and_stem_sorted(tmp_path: Path) -> None:
    masks = fill(tmp_path / "masks", "b.png", "Cow/a.png", "Bus/a.png", "v1.2.png")
    maps = fill(tmp_path / "maps", "Bus/a.JPG", "Cow/a.webp", "b.png", "v1.2.tiff")
    found = find_pairs(maps, masks)
    assert names(found) == ["Bus/a", "Cow/a", "b", "v1.2"]
    assert found.pairs[0].source == maps / "Bus/a.JPG"
    assert found.pairs[0].mask == masks / "Bus/a.png"
    assert found.pairs[0].picture is None
    assert found.warning is None


def test_pictures_are_optional_for_each_image(tmp_path: Path) -> None:
    masks = fill(tmp_path / "masks", "a.png", "b.png")
    pictures = fill(tmp_path / "images", "a.jpg", "c.jpg")
    found = find_pairs(fill(tmp_path / "maps", "a.png", "b.png"), masks, pictures=pictures)
    assert [pair.picture for pair in found.pairs] == [pictures / "a.jpg", None]


def test_hidden_and_other_files_are_passed_over(tmp_path: Path) -> None:
    clutter = (".DS_Store", "._a.png", ".thumbnails/a.png", "notes.txt", "a.json")
    masks = fill(tmp_path / "masks", "a.png", *clutter)
    (masks / "folder.png").mkdir()
    found = find_pairs(fill(tmp_path / "maps", "a.png", *clutter), masks)
    assert names(found) == ["a"]
    assert found.unmasked == ()


def test_masks_without_map_are_an_error_that_counts_and_names_them(tmp_path: Path) -> None:
    masks = fill(tmp_path / "masks", *(f"{number:02}.png" for number in range(10)))
    maps = fill(tmp_path / "maps", "00.png", "09.png")
    with pytest.raises(DataError, match=r"8 of 10 masks have no map \(01, 02, 03, 04, 05, \.\.\.\)"):
        find_pairs(maps, masks)


def test_maps_without_mask_are_reported(tmp_path: Path) -> None:
    masks = fill(tmp_path / "masks", "a.png")
    found = find_pairs(fill(tmp_path / "maps", "a.png", "b.png", "c/d.png"), masks)
    assert names(found) == ["a"]
    assert found.unmasked == ("b", "c/d")
    assert found.warning == "maps without a mask, not scored: 2 (b, c/d)."


@pytest.mark.parametrize("folder", ["maps", "masks", "images"])
def test_two_files_of_one_name_are_an_error(tmp_path: Path, folder: str) -> None:
    folders = {name: fill(tmp_path / name, "a.png") for name in ("maps", "masks", "images")}
    fill(tmp_path / folder, "a.jpg")
    with pytest.raises(DataError, match=rf"{folder}: a\.jpg and a\.png differ in their suffix only"):
        find_pairs(folders["maps"], folders["masks"], pictures=folders["images"])


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    masks = fill(tmp_path / "masks", "a.png")
    with pytest.raises(DataError, match="maps: does not exist"):
        find_pairs(tmp_path / "maps", masks)
    with pytest.raises(DataError, match="maps: no images"):
        find_pairs(fill(tmp_path / "maps", "a.txt"), masks)


def test_masks_are_not_scored_against_themselves(tmp_path: Path) -> None:
    masks = fill(tmp_path / "masks", "a.png")
    with pytest.raises(DataError, match="same folder as the masks"):
        find_pairs(tmp_path / "masks/../masks", masks)


@pytest.fixture
def splits(tmp_path: Path) -> Path:
    """The set `ecssd` of five masks, and a split file that has notes and other sets beside it."""
    fill(tmp_path / "ecssd/masks", "a.png", "b.png", "c.png", "d/e.png", "f.png")
    table = {
        "note": "test is for the final numbers only",
        "ecssd": {"train": ["a", "b"], "test": ["d/e", "c"], "left_out": ["f"]},
        "coseg": {"test_groups": ["Aero"], "test": ["Aero/1"]},
    }
    path = tmp_path / "splits.json"
    path.write_text(json.dumps(table))
    return path


def test_split_restricts_to_a_part(tmp_path: Path, splits: Path) -> None:
    masks = tmp_path / "ecssd/masks"
    # Maps of the other parts may be missing or there; neither is worth a warning.
    maps = fill(tmp_path / "maps", "a.png", "c.png", "d/e.png", "z.png")
    found = find_pairs(maps, masks, splits=splits, part="test")
    assert names(found) == ["c", "d/e"]
    assert found.unmasked == ("z",)
    with pytest.raises(DataError, match=r"1 of 2 masks have no map \(b\)"):
        find_pairs(maps, masks, splits=splits, part="train")


def test_set_is_named_by_the_folder_above_the_masks(
    tmp_path: Path, splits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps = fill(tmp_path / "maps", "c.png", "d/e.png")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    found = find_pairs(maps, Path("../ecssd/masks/."), splits=splits, part="test")
    assert names(found) == ["c", "d/e"]


def test_split_that_does_not_fit(tmp_path: Path, splits: Path) -> None:
    maps = fill(tmp_path / "maps", "c.png")
    with pytest.raises(DataError, match=r"no names for 'val' of the set 'ecssd'.*coseg, ecssd"):
        find_pairs(maps, tmp_path / "ecssd/masks", splits=splits, part="val")
    other = fill(tmp_path / "horses/masks", "c.png")
    with pytest.raises(DataError, match="set 'horses'"):
        find_pairs(maps, other, splits=splits, part="test")
    (tmp_path / "ecssd/masks/c.png").unlink()
    with pytest.raises(DataError, match=r"1 of 2 names of 'test' have no mask .*\(c\)"):
        find_pairs(maps, tmp_path / "ecssd/masks", splits=splits, part="test")


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_text("{"),
        lambda path: path.write_text("[]"),
        lambda path: path.write_bytes(b"\xff\xfe"),
        lambda path: path.write_text('{"ecssd": {"test": "c"}}'),
        lambda path: path.write_text('{"ecssd": {"test": [1]}}'),
    ],
)
def test_damaged_split_file(tmp_path: Path, splits: Path, damage: Callable[[Path], object]) -> None:
    damage(splits)
    with pytest.raises(DataError, match=r"splits .*splits\.json: .*expected JSON"):
        find_pairs(fill(tmp_path / "maps", "c.png"), tmp_path / "ecssd/masks", splits=splits, part="test")


def test_part_and_splits_go_together(tmp_path: Path, splits: Path) -> None:
    maps, masks = fill(tmp_path / "maps", "c.png"), tmp_path / "ecssd/masks"
    with pytest.raises(DataError, match="--splits was given without --part"):
        find_pairs(maps, masks, splits=splits)
    with pytest.raises(DataError, match="--part was given without --splits"):
        find_pairs(maps, masks, part="test")


@pytest.mark.skipif(not DATA, reason="SALIENCE_DATA does not name a folder of data sets")
@pytest.mark.parametrize(("data_set", "count"), [("ecssd", 120), ("coseg", 221), ("horses", 50)])
def test_test_parts_of_the_real_sets(data_set: str, count: int) -> None:
    root = Path(DATA) / data_set
    (priors,) = root.glob("priors_*")
    splits = root.parent / "splits.json"
    found = find_pairs(priors, root / "masks", pictures=root / "images", splits=splits, part="test")
    assert len(found.pairs) == count
    assert all(pair.picture for pair in found.pairs)


def test_missing_maps_of_every_method_are_named(tmp_path: Path) -> None:
    masks = fill(tmp_path / "masks", "1.png", "2.png", "3.png")
    folders = {
        "a": fill(tmp_path / "a", "1.png"),
        "b": fill(tmp_path / "b", "1.png", "2.png", "3.png"),
        "c": fill(tmp_path / "c", "2.png", "3.png"),
    }
    with pytest.raises(DataError, match=r"/a: 2 of 3 masks have no map \(2, 3\); maps .*/c: 1 of 3 .* \(1\)"):
        find_method_pairs(folders, masks)
    fill(folders["a"], "2.png", "3.png")
    found = find_method_pairs({"a": folders["a"], "b": folders["b"]}, masks)
    assert names(found["a"]) == names(found["b"]) == ["1", "2", "3"]
    assert found["b"].pairs[0].source == folders["b"] / "1.png"


def test_methods_are_called_as_their_folder_or_as_told(tmp_path: Path) -> None:
    plain, odd = tmp_path / "csnet", tmp_path / "k=3"
    for folder in (plain, odd):
        folder.mkdir()
    assert parse_methods([f"{plain}/", f"ours={plain}", str(odd)]) == {"csnet": plain, "ours": plain, "k=3": odd}
    with pytest.raises(DataError, match="has the name 'csnet' too; expected NAME=DIR"):
        parse_methods([str(plain), f"csnet={odd}"])
    for name in ("", "..", "a/b"):
        with pytest.raises(DataError, match="expected NAME=DIR"):
            parse_methods([f"{name}={plain}"])


def test_group_is_the_first_folder() -> None:
    named = [Pair(name, Path(), Path()) for name in ("a/b/c", "a/b", "a")]
    assert [pair.group for pair in named] == ["a", "a", "."]
