"""Labelled pictures: class folders, the layout of VOC, and what a classifier learns from them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from salience.runtime.errors import DataError
from salience.training.data.classes import (
    LAYOUTS,
    ClassDataset,
    LabelledPicture,
    class_names,
    read_class_folders,
    read_voc,
    without_repeats,
)
from salience.training.data.scenes import KINDS, scenes_of_kinds
from salience.training.networks.cgd import Classifier
from salience.training.preprocessing import Preprocessing

GREY_LEVELS = Preprocessing(size=(24, 32), **Classifier.input_scale)


def write(path: Path, seed: int = 0) -> Path:
    """A picture of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def labels(samples: list[LabelledPicture]) -> dict[str, str]:
    return {sample.name: sample.label for sample in samples}


@pytest.mark.parametrize("base", ["", "images"])
def test_class_folders(tmp_path: Path, base: str) -> None:
    root = tmp_path / "set"
    for name in ("dog/b.jpg", "dog/a.PNG", "cat/deep/er/c.webp", "Ä b/d.bmp"):
        write(root / base / name)
    for name in ("dog/.hidden.jpg", ".cache/e.jpg"):
        write(root / base / name)
    (root / base / "dog" / "notes.txt").write_text("no picture")
    (root / base / "empty").mkdir()
    write(root / base / "loose.jpg")
    found = read_class_folders(root)
    assert labels(found) == {"set/cat/deep/er/c": "cat", "set/dog/a": "dog", "set/dog/b": "dog", "set/Ä b/d": "Ä b"}
    assert [sample.name for sample in found] == sorted(sample.name for sample in found)
    image, mask = found[0].load()
    assert image.shape == (12, 16, 3)
    assert mask.shape == (12, 16)
    assert not mask.any()
    assert LAYOUTS["folders"](root) == found


def test_where_there_are_images_masks_are_no_class(tmp_path: Path) -> None:
    write(tmp_path / "images" / "cat" / "a.jpg")
    write(tmp_path / "masks" / "cat" / "a.png")
    assert {sample.label for sample in read_class_folders(tmp_path)} == {"cat"}


def test_folders_without_pictures_are_one_sentence(tmp_path: Path) -> None:
    write(tmp_path / "flat" / "a.jpg")
    (tmp_path / "empty" / "cat").mkdir(parents=True)
    for name in ("flat", "empty"):
        with pytest.raises(DataError, match=rf"{name}: no pictures in class folders; expected .*{name}/CLASS/\*\.jpg"):
            read_class_folders(tmp_path / name)
    with pytest.raises(DataError, match=r"gone: no such folder\."):
        read_class_folders(tmp_path / "gone")


def box(name: str, left: float, top: float, right: float, bottom: float, extra: str = "") -> str:
    corners = f"<xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>"
    return f"<object><name>{name}</name>{extra}<bndbox>{corners}</bndbox></object>"


def annotate(root: Path, stem: str, content: str, *, picture: bool = True) -> Path:
    """An annotation of VOC and its picture."""
    path = root / "Annotations" / f"{stem}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    (root / "JPEGImages").mkdir(exist_ok=True)
    if picture:
        write(root / "JPEGImages" / f"{stem}.jpg")
    return path


def test_voc_gives_the_class_of_the_largest_object(tmp_path: Path) -> None:
    root = tmp_path / "VOC"
    part = "<part><name>head</name><bndbox><xmin>0</xmin><ymin>0</ymin><xmax>999</xmax><ymax>999</ymax></bndbox></part>"
    annotate(root, "2", f"<annotation>{box('cat', 1, 1, 9, 9)}</annotation>")
    # The dog is larger than each of the two sheep and smaller than both together; parts of objects do not count.
    sheep = box("sheep", 0, 0, 10, 10) + box("sheep", 5, 5, 15, 15, extra=part)
    annotate(root, "1", f"<annotation>{sheep}{box('dog', 0, 0, 10, 15)}</annotation>")
    annotate(root, "3", f"<annotation>{box('dog', 0, 0, 9.5, 9.5)}{sheep}</annotation>")
    found = read_voc(root)
    assert labels(found) == {"VOC/1": "dog", "VOC/2": "cat", "VOC/3": "sheep"}
    assert [sample.name for sample in found] == ["VOC/1", "VOC/2", "VOC/3"]
    assert found[0].image == root / "JPEGImages" / "1.jpg"
    assert LAYOUTS["voc"](root) == found


BOMB = """<?xml version="1.0"?>
<!DOCTYPE lolz [<!ENTITY a0 "dog">{entities}]>
<annotation><object><name>&a9;</name>
<bndbox><xmin>0</xmin><ymin>0</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>
""".format(entities="".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 30}">' for i in range(1, 10)))
OUTSIDE = """<!DOCTYPE x [<!ENTITY secret SYSTEM "file:///etc/passwd">]>
<annotation><object><name>&secret;</name>
<bndbox><xmin>0</xmin><ymin>0</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<annotation><object>", r"is not in VOC's form \(no element found"),
        ("", "is not in VOC's form"),
        ("\0\1\2", "is not in VOC's form"),
        ("<annotation><size/></annotation>", "names no object"),
        ("<annotation><object><name>cat</name></object></annotation>", "an object without bndbox"),
        (f"<annotation>{box('', 0, 0, 9, 9)}</annotation>", "an object without a name"),
        (f"<annotation>{box('cat', 0, 0, 9, 9)}</annotation>".replace("9</y", "low</y"), "is not in VOC's form"),
        (f"<annotation>{box('cat', 0, 0, float('inf'), 9)}</annotation>", "is not in VOC's form"),
        (f"<annotation>{box('cat', 0, 0, float('nan'), 9)}</annotation>", "is not in VOC's form"),
        ("<?xml version='1.0' encoding='nonsense'?><annotation/>", "is not in VOC's form"),
        (f"<annotation>{' ' * (1 << 20)}</annotation>", "larger than 1024 KB"),
        (BOMB, "is not in VOC's form"),
        (OUTSIDE, "is not in VOC's form|an object without a name"),
    ],
    ids=[
        "cut", "empty", "binary", "no object", "no box", "no name", "word", "inf", "nan", "encoding", "huge", "bomb",
        "outside",
    ],
)  # fmt: skip
def test_what_is_no_annotation_is_one_sentence(tmp_path: Path, content: str, message: str) -> None:
    path = annotate(tmp_path, "1", content)
    with pytest.raises(DataError, match=message) as caught:
        read_voc(tmp_path)
    assert str(caught.value).startswith(f"annotation {path}: ")
    assert "\n" not in str(caught.value)
    assert "root:" not in str(caught.value)


def test_a_missing_picture_or_folder_is_one_sentence(tmp_path: Path) -> None:
    annotate(tmp_path / "a", "1", f"<annotation>{box('cat', 1, 1, 9, 9)}</annotation>", picture=False)
    with pytest.raises(DataError, match=r"1\.xml has no picture .*JPEGImages/1\.jpg\.$"):
        read_voc(tmp_path / "a")
    (tmp_path / "b" / "Annotations").mkdir(parents=True)
    for name in ("b", "gone"):
        with pytest.raises(DataError, match=r"expected Annotations/\*\.xml and JPEGImages/\*\.jpg"):
            read_voc(tmp_path / name)


def test_a_picture_that_comes_twice_is_one(tmp_path: Path) -> None:
    for name, seed in (("cat/a", 1), ("cat/b", 2), ("dog/a", 1), ("dog/c", 3)):
        write(tmp_path / f"{name}.png", seed)
    found = without_repeats(read_class_folders(tmp_path))
    assert [sample.name.split("/", 1)[1] for sample in found] == ["cat/a", "cat/b", "dog/c"]


def test_items_are_pictures_and_their_classes_number() -> None:
    samples, classes = scenes_of_kinds(8, seed=3), tuple(sorted(KINDS))
    data = ClassDataset(samples, classes, GREY_LEVELS)
    assert len(data) == 8
    for index, sample in enumerate(samples):
        item = data[index]
        assert item.keys() == {"image", "label"}
        assert (item["label"].dtype, item["label"].shape) == (torch.int64, ())
        assert classes[int(item["label"])] == sample.label
        expected = GREY_LEVELS.resize(torch.from_numpy(sample.load()[0].transpose(2, 0, 1).copy()))
        # Grey levels, which the network normalises; through / 255 and back in fp32.
        torch.testing.assert_close(item["image"], expected.float(), rtol=1e-6, atol=1e-4)
    batch = next(iter(DataLoader(data, batch_size=8)))
    assert batch["image"].shape == (8, 3, 24, 32)
    assert batch["label"].shape == (8,)


def test_draws_depend_on_seed_epoch_and_number_alone() -> None:
    samples, classes = scenes_of_kinds(3, seed=0), tuple(KINDS)

    def item(index: int = 0, *, seed: int = 0, epoch: int = 0) -> torch.Tensor:
        torch.manual_seed(np.random.default_rng().integers(1 << 30))
        return ClassDataset(samples, classes, GREY_LEVELS, "strong", seed=seed, epoch=epoch)[index]["image"]

    assert torch.equal(item(), item())
    assert torch.equal(item(2, seed=4, epoch=5), item(2, seed=4, epoch=5))
    for other in (item(seed=1), item(epoch=1), item(1)):
        assert not torch.equal(item(), other)
    state = torch.get_rng_state()
    ClassDataset(samples, classes, GREY_LEVELS, "strong")[0]
    assert torch.equal(torch.get_rng_state(), state)


def test_classes_are_sorted_and_at_least_two(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        write(tmp_path / name / "x.jpg")
    samples = read_class_folders(tmp_path)
    assert class_names(reversed(samples)) == ("a", "b", "c")
    for few, got in ((samples[:1], "got a,"), ([], "got none,")):
        with pytest.raises(DataError, match=f"classes: {got} expected at least two"):
            class_names(few)


def test_a_picture_of_a_class_that_is_not_trained_is_one_sentence() -> None:
    """Such as the only one of its class, which the split puts into the part that validates."""
    samples = scenes_of_kinds(8, seed=0)
    with pytest.raises(DataError, match=r"image scenes/\w+/\d+: is of class \w+, expected one of 2 .*\(bird, cat\)\.$"):
        ClassDataset(samples, ("bird", "cat"), GREY_LEVELS)
