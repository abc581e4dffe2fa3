"""Groups of a plain saliency set: draws that repeat, jigsaws with other classes, and what is kept of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from salience.runtime.errors import DataError
from salience.training.data.features import cached_groups
from salience.training.data.groups import (
    CheckGroups,
    GroupDataset,
    WholeGroups,
    class_by_name,
    class_groups,
    join_groups,
    named_class,
    relabelled,
)
from salience.training.data.scenes import KINDS, scenes, scenes_of_kinds
from salience.training.preprocessing import Preprocessing

# Network input that is the pixel values, so that a picture is known by its grey level.
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255, 1 / 255, 1 / 255)}


@dataclass
class Flat:
    """A picture of one grey level whose every pixel is object."""

    name: str
    level: int
    size: tuple[int, int] = (20, 30)
    loads: list[str] = field(default_factory=list)

    def load(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        self.loads.append(self.name)
        return np.full((*self.size, 3), self.level, np.uint8), np.ones(self.size, np.bool_)


def flats(**classes: int) -> list[Flat]:
    """Pictures by class; the tens of a grey level are the class, the units the picture."""
    return [
        Flat(f"set/{name}/{member}", 10 * (number + 1) + member)
        for number, (name, count) in enumerate(classes.items())
        for member in range(count)
    ]


def dataset(size: tuple[int, int] = (32, 48), **options: Any) -> GroupDataset:
    groups = class_groups(flats(cat=5, dog=3, cup=4), least=1)
    return GroupDataset(groups, Preprocessing(size=size, **PLAIN), **options)


def levels(image: Tensor) -> list[int]:
    """The grey levels in (3, H, W)."""
    return sorted({round(value) for value in image.unique().tolist()})


def test_classes_are_folders() -> None:
    samples = [*flats(cat=2, dog=1), Flat("set/loose", 1), Flat("other/cat/0", 2), Flat("set/a/b/c", 3)]
    found = class_groups(samples, least=1)
    assert {name: [sample.name for sample in members] for name, members in found.items()} == {
        "set/cat": ["set/cat/0", "set/cat/1"], "set/dog": ["set/dog/0"], "set": ["set/loose"],
        "other/cat": ["other/cat/0"], "set/a/b": ["set/a/b/c"],
    }  # fmt: skip
    assert set(class_groups(samples, least=2, classes=1)) == {"set/cat"}
    found = class_groups(samples, least=1, label=lambda sample: "cat" if "cat" in sample.name else "other")
    assert {name: len(members) for name, members in found.items()} == {"cat": 3, "other": 3}


@pytest.mark.parametrize(("least", "classes", "left"), [(4, 2, 1), (6, 1, 0), (1, 4, 3)])
def test_too_few_classes_are_named(least: int, classes: int, left: int) -> None:
    with pytest.raises(DataError, match=rf"{left} of 3 classes have at least {least} pictures.* {classes} or more"):
        class_groups(flats(cat=5, dog=3, cup=2), least=least, classes=classes)


def test_a_draw_depends_on_seed_epoch_and_index_alone() -> None:
    first = dataset(seed=1, epoch=2)[1]
    torch.manual_seed(99)
    again = dataset(seed=1, epoch=2)
    again[0]
    for name, values in again[1].items():
        assert torch.equal(values, first[name])
    for other in (dataset(seed=1, epoch=3), dataset(seed=2, epoch=2)):
        assert not torch.equal(other[1]["image"], first["image"])


def test_rounds_are_draws_of_their_own() -> None:
    data = dataset(rounds=3)
    assert len(data) == 9
    first, second = data[1], data[4]
    assert not torch.equal(first["image"], second["image"])


def test_drawing_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    dataset()[0]
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("workers", [1, 2])
def test_draws_do_not_depend_on_the_number_of_workers(workers: int) -> None:
    data = dataset(rounds=2, epoch=1)
    alone = join_groups([data[index] for index in range(len(data))])
    (found,) = DataLoader(data, batch_size=len(data), num_workers=workers, collate_fn=join_groups)
    assert all(torch.equal(found[name], values) for name, values in alone.items())


@pytest.mark.parametrize(("most", "sizes"), [(20, [5, 3, 4]), (4, [4, 3, 4]), (1, [1, 1, 1])])
def test_a_draw_is_of_one_class_without_repeats(most: int, sizes: list[int]) -> None:
    data = dataset(most=most, jigsaw=0)
    for index, size in enumerate(sizes):
        item = data[index]
        assert item["image"].shape == (size, 3, 32, 48)
        assert item["mask"].shape == (size, 1, 32, 48)
        found = [levels(image) for image in item["image"]]
        assert len({level for (level,) in found}) == size
        assert {level // 10 for (level,) in found} == {index + 1}
        assert bool((item["mask"] == 1).all())


def test_every_picture_of_a_class_is_drawn_sooner_or_later() -> None:
    seen = {levels(image)[0] for epoch in range(20) for image in dataset(most=2, jigsaw=0, epoch=epoch)[0]["image"]}
    assert seen == {10, 11, 12, 13, 14}


@pytest.mark.parametrize("size", [(32, 48), (31, 49), (2, 3)], ids=str)
def test_half_of_a_jigsaw_is_another_class_and_no_object(size: tuple[int, int]) -> None:
    data, shapes = dataset(size, jigsaw=1), set()
    for epoch in range(12):
        data.epoch = epoch
        for index in range(3):
            for image, mask in zip(*(data[index][name] for name in ("image", "mask")), strict=True):
                own, inside = image[:, mask[0] > 0], image[:, mask[0] == 0]
                (level,) = levels(own)
                assert level // 10 == index + 1
                (other,) = levels(inside)
                assert other // 10 != index + 1
                shapes.add((bool((mask[0].sum(0) > 0).all()), bool((mask[0].sum(1) > 0).all()), bool(mask[0, 0, 0])))
                rows, columns = mask[0].any(dim=1).sum(), mask[0].any(dim=0).sum()
                assert int(mask.sum()) == int(rows * columns)
                halves = {side // 2 for side in size} | {-(-side // 2) for side in size} | set(size)
                assert {int(rows), int(columns)} <= halves
    # Side by side and above each other, in either order.
    assert len(shapes) == 4


def test_three_of_four_are_jigsaws() -> None:
    data = dataset(rounds=40)
    jigsaws = [bool((mask == 0).any()) for index in range(len(data)) for mask in data[index]["mask"]]
    assert len(jigsaws) == 480
    # Five deviations of the share of independent draws.
    assert np.mean(jigsaws) == pytest.approx(0.75, abs=5 * (0.75 * 0.25 / 480) ** 0.5)


def test_every_picture_of_other_classes_is_a_partner() -> None:
    data, seen = dataset(jigsaw=1, rounds=30), set[int]()
    for index in range(0, len(data), 3):
        item = data[index]
        for image, mask in zip(item["image"], item["mask"], strict=True):
            seen.update(levels(image[:, mask[0] == 0]))
    assert seen == {20, 21, 22, 30, 31, 32, 33}


@dataclass
class Quarters:
    """An image whose quarters have a class and a number each, all of it object: orientations can be told apart."""

    name: str
    level: int

    def load(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        grid = self.level + np.array([[1, 2], [3, 4]], np.uint8)
        image = np.repeat(np.repeat(grid, 16, axis=0), 24, axis=1)
        return np.repeat(image[..., None], 3, axis=2), np.ones(image.shape, np.bool_)


def turned_dataset(jigsaw: float) -> GroupDataset:
    groups = {name: [Quarters(f"set/{name}/0", level)] for name, level in (("cat", 10), ("dog", 50))}
    return GroupDataset(groups, Preprocessing(size=(32, 48), **PLAIN), "flip+rotate90", jigsaw=jigsaw, rounds=60)


def test_flips_and_quarter_turns_keep_the_whole_image() -> None:
    data, seen = turned_dataset(0), dict[tuple[int, ...], int]()
    for index in range(0, len(data), 2):
        item = data[index]
        assert item["image"].shape == (1, 3, 32, 48)
        # Corners: nothing is cropped.
        corners = tuple(round(float(item["image"][0, 0, y, x])) - 10 for y in (0, 31) for x in (0, 47))
        seen[corners] = seen.get(corners, 0) + 1
        assert bool((item["mask"] == 1).all())
    upright, left, right = (1, 2, 3, 4), (2, 4, 1, 3), (3, 1, 4, 2)
    mirrored = {(b, a, d, c) for a, b, c, d in [upright]} | {(1, 3, 2, 4), (4, 2, 3, 1)}
    assert set(seen) == {upright, left, right} | mirrored
    # 60 draws of six equal chances: five deviations.
    assert min(seen.values()) > 0
    assert max(seen.values()) < 10 + 5 * (60 * 5 / 36) ** 0.5


def test_a_jigsaw_is_turned_as_a_whole() -> None:
    data, shapes = turned_dataset(1), set[tuple[int, int]]()
    for index in range(0, len(data), 2):
        item = data[index]
        image, mask = item["image"][0, 0], item["mask"][0, 0]
        assert image.shape == (32, 48)
        own = mask > 0
        assert int(own.sum()) == 32 * 48 // 2
        assert float(image[own].max()) < 20
        assert float(image[~own].min()) > 50
        # Each half holds all four quarters of its image.
        assert {round(value) for value in image[own].tolist()} >= {11, 12, 13, 14}
        shapes.add((int(own.any(dim=1).sum()), int(own.any(dim=0).sum())))
    assert shapes == {(16, 48), (32, 24)}


@pytest.mark.parametrize("augmentation", ["crop", "strong", "flip+rotate90"])
def test_augmented_jigsaws_have_the_size_asked_for(augmentation: Any) -> None:
    groups = class_groups(scenes_of_kinds(8), least=2)
    data = GroupDataset(groups, Preprocessing(size=(33, 47)), augmentation, jigsaw=0.5)
    item = data[0]
    assert item["image"].shape == (2, 3, 33, 47)
    assert set(item["mask"].unique().tolist()) <= {0.0, 1.0}


def test_whole_groups_are_as_they_are() -> None:
    data = WholeGroups(class_groups(flats(cat=30, dog=2), least=1), Preprocessing(size=(32, 48), **PLAIN))
    assert len(data) == 2
    first, second = data[0], data[1]
    assert [levels(image) for image in first["image"]] == [[10 + member] for member in range(30)]
    assert [levels(image) for image in second["image"]] == [[20], [21]]
    assert bool((first["mask"] == 1).all())


def test_validation_repeats_groups_as_fixed_jigsaws() -> None:
    groups = class_groups([*flats(cat=9, dog=2), Flat("set/alone/0", 90)], least=1)
    options = {"preprocessing": Preprocessing(size=(32, 48), **PLAIN), "seed": 3}
    data = CheckGroups(groups, **options)  # type: ignore[arg-type]
    # A group of one image is a partner of others and has no jigsaw.
    assert [len(data[index]["mask"]) for index in range(len(data))] == [9, 2, 1, 9, 2]
    assert [bool(data[index]["distractors"].any()) for index in range(len(data))] == [False, False, False, True, True]
    item = data[3]
    for member, (image, mask) in enumerate(zip(item["image"], item["mask"], strict=True)):
        assert levels(image[:, mask[0] > 0]) == [10 + member]
        (partner,) = levels(image[:, mask[0] == 0])
        assert partner in (20, 21, 90)
        assert int(mask.sum()) == 32 * 48 // 2
    torch.manual_seed(99)
    again = CheckGroups(groups, **options)  # type: ignore[arg-type]
    assert all(torch.equal(values, again[3][name]) for name, values in item.items())


@pytest.mark.parametrize(("classes", "distractors"), [({"cat": 4}, True), ({"cat": 4, "dog": 3}, False)], ids=str)
def test_validation_without_jigsaws(classes: dict[str, int], distractors: bool) -> None:
    groups = class_groups(flats(**classes), least=1, classes=1)
    data = CheckGroups(groups, Preprocessing(size=(8, 8), **PLAIN), distractors=distractors)
    assert len(data) == len(classes)
    assert not any(bool(data[index]["distractors"].any()) for index in range(len(data)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pets/Abyssinian_12", "abyssinian"),
        ("pets/american_bulldog_100", "american bulldog"),
        ("animals/elephant_mask_0003", "elephant"),
        ("video/drift-straight_00010", "drift straight"),
        ("horses/horse002", "horse"),
        ("coseg/Horse/img_1", "horse"),
        ("butterflies/train_butterfly", "butterfly"),
        ("butterflies/test_butterfly__100_", "butterfly"),
        ("cats/mask_cat.0", "cat"),
        ("yards/group0146_jpg", ""),
        ("flowers/image_0001", ""),
        ("street/COCO_train2014_000000000110", ""),
        ("street/0002", ""),
    ],
)
def test_classes_by_file_name(name: str, expected: str) -> None:
    assert class_by_name(name) == expected
    assert named_class(Flat(name, 0)) == (expected or name.partition("/")[0])


def test_equal_names_of_several_sets_are_one_class() -> None:
    names = ["coseg/Horse/1", "horses/horse002", "horses/horse003", "plain/1", "plain/2"]
    found = class_groups([Flat(name, 0) for name in names], least=2, label=named_class)
    assert {name: len(members) for name, members in found.items()} == {"horse": 3, "plain": 2}


def test_joined_groups_are_numbered() -> None:
    items = [{"image": torch.full((count, 2), float(count)), "mask": torch.ones(count, 1)} for count in (2, 1, 3)]
    joined = join_groups(items)
    assert joined["group"].tolist() == [0, 0, 1, 2, 2, 2]
    assert joined["group"].dtype == torch.int64
    assert joined["image"][:, 0].tolist() == [2, 2, 1, 3, 3, 3]
    assert set(joined) == {"image", "mask", "group"}


def test_a_scenes_kind_is_the_colour_of_its_objects() -> None:
    drawn = scenes_of_kinds(8, seed=2)
    assert [sample.label for sample in drawn] == list(KINDS) * 2
    assert [sample.name for sample in drawn[:2]] == ["scenes/red/2000000", "scenes/green/2000001"]
    for sample, plain in zip(drawn, scenes(8, seed=2), strict=True):
        image, mask = sample.load()
        colour = np.array(KINDS[sample.label])
        found = np.median(image[mask], axis=0)
        assert min(KINDS, key=lambda kind: float(np.abs(found - KINDS[kind]).sum())) == sample.label
        assert np.abs(found - colour).sum() < 60
        # The background is that of the scene of this number, but for noise.
        other, other_mask = plain.load()
        assert np.array_equal(mask, other_mask)
        assert np.abs(image[~mask].mean(axis=0) - other[~mask].mean(axis=0)).max() < 2
    assert set(class_groups(drawn, least=2)) == {f"scenes/{kind}" for kind in KINDS}


def by_level(images: Tensor) -> Tensor:
    """A classifier by the units of the grey level."""
    return images[:, 0, 0, 0].round().long() % 10


def test_only_pictures_in_no_folder_are_relabelled() -> None:
    samples = [*flats(cat=2), *(Flat(f"set/{index}", 40 + index % 2) for index in range(4)), Flat("far/0", 51)]
    groups = class_groups(samples, least=1, classes=1)
    data = GroupDataset(groups, Preprocessing(size=(8, 8), **PLAIN), seed=5, most=7, jigsaw=0.5)
    found = relabelled(data, by_level, least=1)
    assert {name: [sample.name for sample in members] for name, members in found.groups.items()} == {
        "set/cat": ["set/cat/0", "set/cat/1"],
        "class 0": ["set/0", "set/2"],
        "class 1": ["set/1", "set/3", "far/0"],
    }
    assert found.names == ["set/cat", "class 0", "class 1"]
    assert (found.seed, found.most, found.jigsaw) == (5, 7, 0.5)
    assert samples[0].loads == []
    with pytest.raises(DataError, match="1 of 3 classes have at least 3 pictures"):
        relabelled(data, by_level, least=3)


@pytest.mark.parametrize("workers", [0, 2])
def test_classes_are_asked_for_in_batches(workers: int) -> None:
    samples = [*flats(cat=2), *(Flat(f"set/{index}", 40 + index % 2) for index in range(9))]
    data = GroupDataset(class_groups(samples, least=1), Preprocessing(size=(8, 8), **PLAIN))
    sizes: list[int] = []

    def classify(images: Tensor) -> Tensor:
        sizes.append(len(images))
        return by_level(images)

    found = relabelled(data, classify, least=1, batch=4, workers=workers)
    assert sizes == [4, 4, 1]
    assert {name: len(members) for name, members in found.groups.items()} == {
        "set/cat": 2, "class 0": 5, "class 1": 4
    }  # fmt: skip
    alone = relabelled(data, by_level, least=1, batch=1)
    assert {name: [m.name for m in members] for name, members in alone.groups.items()} == {
        name: [m.name for m in members] for name, members in found.groups.items()
    }


def columns(calls: list[int]) -> Callable[[Tensor], dict[str, Tensor]]:
    """A network that makes of a picture its grey levels and a whole number."""

    def compute(images: Tensor) -> dict[str, Tensor]:
        calls.append(len(images))
        return {"feature": images[:, :1] / 7, "place": images.amax(dim=(1, 2, 3)).long()}

    return compute


@pytest.mark.parametrize("batch", [1, 5, 100])
@pytest.mark.parametrize("workers", [0, 2])
def test_each_draw_of_each_picture_is_computed_once(batch: int, workers: int) -> None:
    calls: list[int] = []
    kept = cached_groups(dataset(), columns(calls), draws=3, batch=batch, workers=workers)
    assert sum(calls) == 3 * 12
    assert max(calls) <= batch
    assert kept.columns["feature"].dtype == torch.float16
    assert kept.columns["mask"].dtype == torch.bool
    assert kept.columns["place"].dtype == torch.int64
    assert {name: len(column) for name, column in kept.columns.items()} == {"feature": 36, "mask": 36, "place": 36}
    reference = cached_groups(dataset(), columns([]), draws=3, batch=7, workers=0)
    assert all(torch.equal(column, reference.columns[name]) for name, column in kept.columns.items())


def test_kept_rows_are_those_of_their_pictures() -> None:
    kept = cached_groups(dataset(jigsaw=0), columns([]), draws=2, batch=5, workers=0)
    expected = [10, 11, 12, 13, 14, 20, 21, 22, 30, 31, 32, 33]
    assert kept.columns["place"].tolist() == expected * 2
    # fp16 has 11 bits.
    torch.testing.assert_close(kept.columns["feature"][:, 0, 0, 0].float() * 7, torch.tensor(expected * 2).float(),
                               rtol=5e-4, atol=0)  # fmt: skip


@pytest.mark.parametrize(("most", "sizes"), [(20, [5, 3, 4]), (2, [2, 2, 2])])
def test_items_of_what_is_kept_are_draws_of_one_class(most: int, sizes: list[int]) -> None:
    kept = cached_groups(dataset(most=most, rounds=2), columns([]), draws=3, batch=5, workers=0)
    assert len(kept) == 6
    draws: set[tuple[float, ...]] = set()
    for epoch in range(6):
        kept.epoch = epoch
        for index in range(6):
            item = kept[index]
            assert set(item) == {"feature", "mask", "place"}
            assert {len(values) for values in item.values()} == {sizes[index % 3]}
            assert all(values.dtype == torch.float32 for values in item.values())
            own = [levels(f * 7) for f, m in zip(item["feature"] * item["mask"], item["mask"], strict=True) if m.any()]
            units = [next(level for level in found if level) for found in own]
            assert {level // 10 for level in units} == {index % 3 + 1}
            assert len(set(units)) == len(units)
            draws.add((*item["place"].tolist(), *item["mask"].mean(dim=(1, 2, 3)).tolist()))
    assert len(draws) > 12, "rounds and epochs must differ"
    kept.epoch = 0
    first, again = kept[1], kept[1]
    assert all(torch.equal(values, again[name]) for name, values in first.items())


def test_draws_that_are_kept_differ() -> None:
    kept = cached_groups(dataset(), columns([]), draws=4, batch=5, workers=0)
    masks: Sequence[Tensor] = kept.columns["mask"].unflatten(0, (4, 12)).unbind()
    assert all(not torch.equal(masks[0], mask) for mask in masks[1:])
