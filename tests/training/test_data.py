import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from salience.runtime.errors import DataError, ImageError
from salience.training.data.dataset import Augmentation, SaliencyDataset
from salience.training.data.folders import check_sizes, merge_identical, split_by_file, split_by_seed
from salience.training.data.layouts import read_set
from salience.training.data.scenes import Scene, scenes
from salience.training.preprocessing import Preprocessing
from salience.training.recipes.lps import PromoterRecipe


def write_pair(root: Path, stem: str, image: np.ndarray, mask: np.ndarray, suffix: str = ".png") -> None:
    for kind, values, end in (("images", image, suffix), ("masks", mask, ".png")):
        path = root / kind / f"{stem}{end}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path)


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp"])
def test_pairs_are_found_at_any_depth(tmp_path: Path, noise: np.ndarray, suffix: str) -> None:
    write_pair(tmp_path / "set", "a/b/one", noise, np.zeros((12, 16), np.uint8), suffix)
    (sample,) = read_set(tmp_path / "set")
    assert sample.name == "set/a/b/one"
    image, mask = sample.load()
    assert image.shape == (12, 16, 3)
    assert not mask.any()


def test_images_without_masks_are_named(tmp_path: Path, noise: np.ndarray) -> None:
    write_pair(tmp_path, "one", noise, np.zeros((12, 16), np.uint8))
    Image.fromarray(noise).save(tmp_path / "images" / "two.png")
    with pytest.raises(DataError, match=r"1 of 2 images have no mask \(two\)"):
        read_set(tmp_path)


def test_a_mask_of_another_size_is_named(tmp_path: Path, noise: np.ndarray) -> None:
    write_pair(tmp_path, "one", noise, np.zeros((16, 12), np.uint8))
    with pytest.raises(DataError, match=r"one\.png: 16 x 12 .* 12 x 16"):
        read_set(tmp_path)[0].load()


def test_a_mask_of_zeros_and_ones_is_refused(tmp_path: Path, noise: np.ndarray) -> None:
    write_pair(tmp_path, "one", noise, np.ones((12, 16), np.uint8))
    with pytest.raises(ImageError, match=r"one\.png: holds the values 1, .*255"):
        read_set(tmp_path)[0].load()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_set(tmp_path / "nowhere")


def test_identical_pictures_become_one_with_the_union_of_their_masks(tmp_path: Path, noise: np.ndarray) -> None:
    left, right = np.zeros((12, 16), np.uint8), np.zeros((12, 16), np.uint8)
    left[:, :4], right[:, 12:] = 255, 255
    write_pair(tmp_path, "Bike/one", noise, left)
    write_pair(tmp_path, "Person/seven", noise, right)
    write_pair(tmp_path, "Person/other", noise[::-1], right)
    merged = merge_identical(read_set(tmp_path))
    assert len(merged) == 2
    _, mask = merged[0].load()
    assert mask[:, :4].all()
    assert mask[:, 12:].all()
    assert not mask[:, 4:12].any()


def test_a_split_file_decides(tmp_path: Path, noise: np.ndarray) -> None:
    root = tmp_path / "set"
    for stem in ("one", "two", "three"):
        write_pair(root, stem, noise, np.zeros((12, 16), np.uint8))
    splits = tmp_path / "splits.json"
    splits.write_text(json.dumps({"note": "kept", "set": {"train": ["one", "three"], "val": ["two"]}}))
    assert [s.name for s in split_by_file(read_set(root), splits, "train")] == ["set/one", "set/three"]
    with pytest.raises(DataError, match="'test'"):
        split_by_file(read_set(root), splits, "test")
    splits.write_text(json.dumps({"set": {"train": ["one", "four"]}}))
    with pytest.raises(DataError, match="set/four"):
        split_by_file(read_set(root), splits, "train")
    splits.write_text("{")
    with pytest.raises(DataError, match=r"splits\.json"):
        split_by_file(read_set(root), splits, "train")


def test_seeded_splits_repeat_and_do_not_overlap(tmp_path: Path, noise: np.ndarray) -> None:
    for index in range(10):
        write_pair(tmp_path, f"{index}", noise, np.zeros((12, 16), np.uint8))
    samples = read_set(tmp_path)
    first, again = (split_by_seed(samples, fraction=0.3, seed=5) for _ in range(2))
    assert first == again
    assert (len(first[0]), len(first[1])) == (7, 3)
    assert not {s.name for s in first[0]} & {s.name for s in first[1]}
    assert split_by_seed(samples, fraction=0.3, seed=6) != first


def test_scenes_repeat_and_differ() -> None:
    (image, mask), (again, _) = (Scene(11).load() for _ in range(2))
    assert np.array_equal(image, again)
    assert image.shape == (240, 320, 3)
    assert mask.shape == (240, 320)
    assert not np.array_equal(image, Scene(12).load()[0])
    assert not {s.seed for s in scenes(50, seed=0)} & {s.seed for s in scenes(50, seed=1)}


def test_scenes_hold_objects_of_many_sizes() -> None:
    shares = [scene.load()[1].mean() for scene in scenes(60)]
    assert min(shares) > 0
    assert max(shares) < 0.95
    assert sum(share < 0.05 for share in shares) >= 5
    assert sum(share > 0.25 for share in shares) >= 5


def test_objects_of_scenes_differ_from_their_surroundings() -> None:
    for scene in scenes(20, seed=2):
        image, mask = scene.load()
        assert np.abs(image[mask].mean(axis=0) - image[~mask].mean(axis=0)).sum() > 20


def dataset(augmentation: Augmentation, *, seed: int = 0, epoch: int = 0) -> SaliencyDataset:
    return SaliencyDataset(
        scenes(3),
        Preprocessing(size=(64, 64)),
        lambda mask: {},
        augmentation,
        seed,
        epoch,
    )


@pytest.mark.parametrize("augmentation", get_args(Augmentation))
def test_image_and_mask_move_together(augmentation: Augmentation) -> None:
    """A picture that is its own mask stays so through every flip, crop and rescaling."""

    class Twin:
        name = "twin"

        def load(self) -> tuple[np.ndarray, np.ndarray]:
            mask = Scene(4).load()[1]
            return np.repeat(mask[:, :, None].astype(np.uint8) * 255, 3, axis=2), mask

    for epoch in range(6):
        data = SaliencyDataset(
            [Twin()],
            Preprocessing(size=(96, 96)),
            lambda mask: {},
            augmentation,
            0,
            epoch,
        )
        item = data[0]
        bright = item["image"].mean(dim=0) > item["image"].mean()
        # Edges are interpolated in the picture and not in the mask.
        assert (bright == (item["mask"][0] > 0.5)).float().mean() > 0.97


def test_augmentation_depends_on_seed_epoch_and_index_alone() -> None:
    first = dataset("strong", epoch=3)[1]
    torch.manual_seed(99)
    assert torch.equal(dataset("strong", epoch=3)[1]["image"], first["image"])
    assert not torch.equal(dataset("strong", epoch=4)[1]["image"], first["image"])
    assert not torch.equal(dataset("strong", seed=1, epoch=3)[1]["image"], first["image"])


def with_priors(*, seed: int = 0, epoch: int = 0) -> SaliencyDataset:
    """Six scenes whose labels are drawn too, some of them roughly."""
    recipe = PromoterRecipe(rough=0.5)
    return SaliencyDataset(scenes(6), Preprocessing(size=(64, 64)), recipe.labels, "strong", seed, epoch)


def prior_of(data: SaliencyDataset, index: int) -> Tensor:
    return data[index]["prior"]


def test_drawn_labels_depend_on_seed_epoch_and_index_alone() -> None:
    first = prior_of(with_priors(epoch=3), 1)
    torch.manual_seed(99)
    data = with_priors(epoch=3)
    data[4], data[0]
    assert torch.equal(prior_of(data, 1), first)
    assert not torch.equal(prior_of(with_priors(epoch=4), 1), first)
    assert not torch.equal(prior_of(with_priors(seed=1, epoch=3), 1), first)


def test_each_picture_draws_its_own_labels() -> None:
    scene = Scene(4)
    data = SaliencyDataset([scene, scene], Preprocessing(size=(64, 64)), PromoterRecipe().labels)
    assert torch.equal(data[0]["mask"], data[1]["mask"])
    assert not torch.equal(data[0]["prior"], data[1]["prior"])


@pytest.mark.parametrize("workers", [1, 2])
def test_drawn_labels_do_not_depend_on_the_number_of_workers(workers: int) -> None:
    data = with_priors(epoch=2)
    alone = torch.stack([prior_of(data, index) for index in range(len(data))])
    batches = DataLoader(data, batch_size=2, num_workers=workers)
    assert torch.equal(torch.cat([batch["prior"] for batch in batches]), alone)


def test_loading_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    dataset("strong")[0]
    with_priors()[0]
    assert torch.equal(torch.rand(3), expected)


def test_masks_stay_zeros_and_ones() -> None:
    for augmentation in get_args(Augmentation):
        mask = dataset(augmentation)[0]["mask"]
        assert mask.shape == (1, 64, 64)
        assert set(mask.unique().tolist()) <= {0.0, 1.0}


def test_turned_samples_are_turned_by_a_quarter() -> None:
    class Corner:
        name = "corner"

        def load(self) -> tuple[np.ndarray, np.ndarray]:
            mask = np.zeros((64, 64), dtype=np.bool_)
            mask[:16, :16] = True
            return np.repeat(mask[:, :, None].astype(np.uint8) * 255, 3, axis=2), mask

    places = set()
    for epoch in range(40):
        data = SaliencyDataset([Corner()], Preprocessing(size=(64, 64)), lambda mask: {}, "flip+rotate90", 0, epoch)
        mask = data[0]["mask"][0]
        assert float(mask.sum()) == 256
        places.add((bool(mask[0, 0]), bool(mask[0, -1]), bool(mask[-1, 0]), bool(mask[-1, -1])))
    assert len(places) == 4


def test_the_crop_of_lps_shows_nine_tenths_of_each_side() -> None:
    class Ramp:
        name = "ramp"

        def load(self) -> tuple[np.ndarray, np.ndarray]:
            levels = np.tile(np.linspace(0, 250, 200).astype(np.uint8), (200, 1))
            return np.repeat(levels[:, :, None], 3, axis=2), levels > 125

    plain = Preprocessing(size=(90, 90), mean=(0, 0, 0), std=(1, 1, 1))
    for epoch in range(5):
        image = SaliencyDataset([Ramp()], plain, lambda mask: {}, "flip+crop0.9", 0, epoch)[0]["image"]
        reach = float(image[0, 0].max() - image[0, 0].min()) * 255
        assert reach == pytest.approx(0.9 * 250, abs=6)


def test_graded_masks_stay_graded() -> None:
    class Graded:
        name = "graded"

        def load(self) -> tuple[np.ndarray, np.ndarray]:
            return np.zeros((8, 8, 3), dtype=np.uint8), np.full((8, 8), 51, dtype=np.uint8)

    item = SaliencyDataset([Graded()], Preprocessing(size=(8, 8)), lambda mask: {}, "flip")[0]
    assert torch.allclose(item["mask"], torch.full((1, 8, 8), 0.2))


def test_masks_of_another_size_are_found_in_the_headers(tmp_path: Path, noise: np.ndarray) -> None:
    mask = np.zeros(noise.shape[:2], dtype=np.uint8)
    for stem in ("a", "b", "c"):
        write_pair(tmp_path / "set", stem, noise, mask if stem == "a" else mask[1:])
    samples = read_set(tmp_path / "set")
    check_sizes(samples[:1])
    with pytest.raises(DataError, match=r"masks: 2 differ in size .*b\.png"):
        check_sizes(samples)


def test_sets_that_a_split_file_does_not_list_all_train(tmp_path: Path, noise: np.ndarray) -> None:
    mask = np.zeros(noise.shape[:2], dtype=np.uint8)
    for name in ("listed", "free"):
        for stem in ("a", "b"):
            write_pair(tmp_path / name, stem, noise, mask)
    samples = [*read_set(tmp_path / "listed"), *read_set(tmp_path / "free")]
    splits = tmp_path / "splits.json"
    splits.write_text(json.dumps({"listed": {"train": ["a"], "val": ["b"]}}))
    train, validation = (split_by_file(samples, splits, part) for part in ("train", "val"))
    assert [sample.name for sample in train] == ["listed/a", "free/a", "free/b"]
    assert [sample.name for sample in validation] == ["listed/b"]
