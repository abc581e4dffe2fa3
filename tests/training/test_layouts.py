"""Published layouts of saliency sets, each built tiny: none of the sets is here."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from salience.runtime.errors import DataError
from salience.training.data.folders import Sample, split_by_file
from salience.training.data.groups import class_groups
from salience.training.data.layouts import LAYOUTS, Layout, read_set
from salience.training.recipes.multis import MultiScaleRecipe

SIZE = (8, 8)


@dataclass(frozen=True)
class Tiny:
    """A set as it lies on disk: paths below its folder without suffix, and the names that its samples have."""

    images: str
    masks: str
    stems: tuple[str, ...] = ("a", "b")
    suffix: str = ".jpg"
    extra: tuple[str, ...] = field(default=())

    def write(self, root: Path) -> Path:
        for stem in self.stems:
            write(root / self.images / f"{stem}{self.suffix}")
            write(root / self.masks / f"{stem}.png", half())
        for name in self.extra:
            write(root / name)
        return root


GROUPS = ("cow/1", "cow/2", "horse/1", "horse/2")
SETS = {
    "own": Tiny("images", "masks", extra=("masks/lonely.png", "gt/a.png")),
    "DUTS-TR": Tiny("DUTS-TR-Image", "DUTS-TR-Mask"),
    "DUTS-TE": Tiny("DUTS-TE-Image", "DUTS-TE-Mask"),
    "DUT-OMRON": Tiny("DUT-OMRON-image", "pixelwiseGT-new-PNG"),
    "ECSSD": Tiny("images", "ground_truth_mask"),
    "HKU-IS": Tiny("imgs", "gt", suffix=".png"),
    "PASCAL-S": Tiny("datasets/imgs/pascal", "datasets/masks/pascal", extra=("datasets/imgs/imgsal/9.jpg",)),
    "MSRA10K": Tiny("Imgs", "Imgs"),
    "MSRA-B": Tiny(".", ".", extra=("results/9.jpg",)),
    "SOD": Tiny("Imgs", "GT"),
    "CoSal2015": Tiny("Image", "GroundTruth", GROUPS),
    "CoSal2015, renamed": Tiny("img", "gt", GROUPS),
    "CoCA": Tiny("image", "binary", GROUPS, extra=("instance/cow/1.png",)),
    "iCoseg": Tiny("images", "ground_truth", GROUPS),
    "a copy": Tiny("image", "mask", suffix=".bmp"),
    "another copy": Tiny("im", "gt"),
}


def write(path: Path, values: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*SIZE, 3), 99, np.uint8) if values is None else values).save(path)


def half() -> np.ndarray:
    """Salient in its left half."""
    return np.repeat(np.repeat(np.array([[255, 0]], np.uint8), 4, axis=1), 8, axis=0)


def error_of(root: Path) -> str:
    """What is wrong with a set, behind its folder's name."""
    with pytest.raises(DataError) as caught:
        read_set(root)
    subject, message = str(caught.value).split(": ", 1)
    assert subject == f"data {root}"
    assert message.endswith(".")
    return message


@pytest.mark.parametrize("name", SETS)
def test_a_published_layout_is_read(tmp_path: Path, name: str) -> None:
    tiny = SETS[name]
    root = tiny.write(tmp_path / "set")
    samples = read_set(root)
    assert [sample.name for sample in samples] == [f"set/{stem}" for stem in tiny.stems]
    assert [sample.image for sample in samples] == [root / tiny.images / f"{s}{tiny.suffix}" for s in tiny.stems]
    for sample in samples:
        image, mask = sample.load()
        assert np.abs(image.astype(int) - 99).max() < 3
        assert np.array_equal(mask, half() > 0)


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_found_one_level_down(tmp_path: Path, name: str) -> None:
    tiny = SETS[name]
    tiny.write(tmp_path / "parent" / "set")
    # Left by macOS in archives.
    tiny.write(tmp_path / "parent" / "__MACOSX")
    assert [sample.name for sample in read_set(tmp_path / "parent")] == [f"set/{stem}" for stem in tiny.stems]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_every_name_of_the_table_is_found(tmp_path: Path, layout: Layout) -> None:
    for images in layout.images:
        for masks in layout.masks or (images,):
            root = tmp_path / f"{images}-{masks}".replace("/", "-")
            for folder, suffix in ((images.upper(), ".jpg"), (masks.upper(), ".png")):
                write(root / folder / f"x{suffix}")
            (sample,) = read_set(root)
            assert sample == Sample(
                f"{root.name}/x", root / images.upper() / "x.jpg", (root / masks.upper() / "x.png",)
            )


def test_our_own_layout_comes_before_others(tmp_path: Path) -> None:
    root = Tiny("images", "masks", ("a/b/one", "two")).write(tmp_path)
    Tiny("images", "gt", ("two",)).write(tmp_path)
    assert [sample.masks for sample in read_set(root)] == [(root / f"masks/{stem}.png",) for stem in ("a/b/one", "two")]


@pytest.mark.parametrize("name", [name for name, tiny in SETS.items() if tiny.stems is GROUPS])
def test_groups_reach_the_groups_of_gicd(tmp_path: Path, name: str) -> None:
    samples = read_set(SETS[name].write(tmp_path / "set"))
    groups = class_groups(samples, least=2)
    assert list(groups) == ["set/cow", "set/horse"]
    assert [sample.name for sample in groups["set/horse"]] == ["set/horse/1", "set/horse/2"]


def test_a_set_is_named_by_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SETS["ECSSD"].write(tmp_path / "ECSSD")
    monkeypatch.chdir(tmp_path / "ECSSD")
    assert read_set(Path())[0].name == "ECSSD/a"


def test_split_files_name_a_set_of_any_layout(tmp_path: Path) -> None:
    samples = read_set(SETS["MSRA10K"].write(tmp_path / "MSRA10K_Imgs_GT"))
    splits = tmp_path / "splits.json"
    splits.write_text('{"MSRA10K_Imgs_GT": {"train": ["b"]}}')
    assert split_by_file(samples, splits, "train") == samples[1:]


def test_graded_masks_are_cut_at_half(tmp_path: Path) -> None:
    """12 people marked PASCAL-S: the levels are k / 12 of 255."""
    root = SETS["PASCAL-S"].write(tmp_path)
    grades = np.tile((np.arange(8) + 2) / 12 * 255, (8, 1)).round().astype(np.uint8)
    write(root / "datasets/masks/pascal/a.png", grades)
    _, mask = read_set(root)[0].load()
    assert mask[0].tolist() == [False] * 5 + [True] * 3


def test_compressed_masks_are_cut_at_half(tmp_path: Path) -> None:
    root = Tiny("Imgs", "GT").write(tmp_path)
    for stem in ("a", "b"):
        (root / "GT" / f"{stem}.png").unlink()
        Image.fromarray(half()).save(root / "GT" / f"{stem}.jpg", quality=30)
    levels = np.unique(np.asarray(Image.open(root / "GT" / "a.jpg")))
    assert len(levels) > 2
    assert np.array_equal(read_set(root)[0].load()[1], half() > 0)


def test_a_mask_of_another_size_is_named(tmp_path: Path) -> None:
    root = SETS["ECSSD"].write(tmp_path)
    write(root / "ground_truth_mask/a.png", np.zeros((4, 8), np.uint8))
    with pytest.raises(DataError, match=r"a\.png: 4 x 8 .* 8 x 8"):
        read_set(root)[0].load()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    message = error_of(tmp_path / "nowhere")
    assert "no such folder" in message
    assert "images/ and masks/" in message


def test_an_unknown_layout_says_what_was_found_and_what_is_known(tmp_path: Path) -> None:
    write(tmp_path / "pictures/a.jpg")
    write(tmp_path / "segmentation/a.png")
    known = (
        "ECSSD (images/ and ground_truth_mask/)",
        "CoCA (image/GROUP/ and binary/GROUP/)",
        "Imgs/*.jpg beside *.png",
    )
    message = error_of(tmp_path)
    assert "got pictures/, segmentation/, expected" in message
    assert all(layout in message for layout in (*known, *map(str, LAYOUTS)))


def test_an_empty_folder_is_in_no_layout(tmp_path: Path) -> None:
    assert "got no folders" in error_of(tmp_path)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ("images", "called masks, ground_truth_mask, ground_truth, mask, gt, gts, GroundTruth."),
        ("DUTS-TR-Image", "called DUTS-TR-Mask."),
        ("datasets/imgs/pascal", "called datasets/masks/pascal."),
        ("Imgs", "called gt, mask, masks, gts, GroundTruth."),
    ],
)
@pytest.mark.parametrize("below", ["", "inner"])
def test_a_missing_folder_of_masks_is_named(tmp_path: Path, images: str, expected: str, below: str) -> None:
    write(tmp_path / below / images / "a.jpg")
    with pytest.raises(DataError, match=f"has pictures in {images}/ and no folder of their masks; .*{expected}"):
        read_set(tmp_path)


@pytest.mark.parametrize("name", ["ECSSD", "MSRA10K", "CoCA"])
def test_images_without_masks_are_counted_and_named(tmp_path: Path, name: str) -> None:
    root = SETS[name].write(tmp_path)
    for index in range(7):
        write(root / SETS[name].images / f"c{index}.jpg")
    count = 7 + len(SETS[name].stems)
    expected = f"7 of {count} images have no mask (c0, c1, c2, c3, c4, ...); expected {root / SETS[name].masks}/"
    assert expected in error_of(root)


def test_several_sets_are_not_mixed(tmp_path: Path) -> None:
    SETS["DUTS-TR"].write(tmp_path / "DUTS-TR")
    SETS["DUTS-TE"].write(tmp_path / "DUTS-TE")
    assert "holds 2 sets (DUTS-TE, DUTS-TR), expected one" in error_of(tmp_path)


def test_pictures_and_masks_in_one_folder_beside_another_are_refused(tmp_path: Path) -> None:
    """The masks would be taken for pictures."""
    root = SETS["MSRA10K"].write(tmp_path)
    write(root / "GT/a.png")
    with pytest.raises(DataError, match=r"Imgs: a\.jpg and a\.png differ in their suffix only"):
        read_set(root)


@pytest.mark.parametrize(("folder", "suffix"), [("images", ".txt"), ("ground_truth_mask", ".mat")])
def test_a_folder_without_pictures_is_named(tmp_path: Path, folder: str, suffix: str) -> None:
    root = SETS["ECSSD"].write(tmp_path)
    for path in (root / folder).iterdir():
        path.rename(path.with_suffix(suffix))
    with pytest.raises(DataError, match=rf"{folder}: no images; expected files ending in"):
        read_set(root)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    root = SETS["ECSSD"].write(tmp_path)
    (root / "masks").write_text("are in ground_truth_mask")
    assert len(read_set(root)) == 2


def test_hidden_files_are_no_pictures(tmp_path: Path) -> None:
    root = SETS["ECSSD"].write(tmp_path)
    (root / "images/._a.jpg").write_bytes(b"")
    (root / "images/.cache").mkdir()
    (root / "images/.cache/x.jpg").write_bytes(b"")
    assert len(read_set(root)) == 2


def test_recipes_read_published_layouts(tmp_path: Path) -> None:
    root = SETS["DUTS-TR"].write(tmp_path / "DUTS" / "DUTS-TR")
    assert MultiScaleRecipe().read(tmp_path / "DUTS") == read_set(root)
