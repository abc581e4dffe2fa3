"""Priors on disk: which sample they belong to, and that they are varied with it."""

import json
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from salience.runtime.errors import DataError
from salience.training.checkpoint import load_checkpoint
from salience.training.data.dataset import Augmentation
from salience.training.data.folders import Sample
from salience.training.data.layouts import read_set
from salience.training.data.memory import keep_in_memory
from salience.training.data.priors import PriorSample, add_priors, degraded
from salience.training.preprocessing import Preprocessing
from salience.training.recipes.lps import PromoterRecipe
from salience.training.recipes.multis import MultiScaleRecipe

SIZE = (64, 96)


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


def object_mask(seed: int, shape: tuple[int, int] = (120, 160)) -> np.ndarray:
    """A rectangle at a random place."""
    random = np.random.default_rng(seed)
    top, left = random.integers(5, 50), random.integers(5, 60)
    mask = np.zeros(shape, dtype=np.uint8)
    mask[top : top + 50, left : left + 70] = 255
    return mask


def write_set(root: Path, names: tuple[str, ...], priors: dict[str, tuple[str, ...]]) -> Path:
    """A set whose image and priors both show the mask: .6 inside, .1 outside in the prior."""
    for index, name in enumerate(names):
        mask = object_mask(index)
        save(root / "masks" / f"{name}.png", mask)
        save(root / "images" / f"{name}.png", np.repeat(mask[..., None], 3, axis=2))
        for folder, known in priors.items():
            if name in known:
                save(root / folder / f"{name}.png", np.where(mask > 0, 153, 26))
    return root


def test_priors_beside_the_images_belong_to_their_set(tmp_path: Path) -> None:
    root = write_set(tmp_path / "one", ("a", "deep/b", "c"), {"priors": ("a", "deep/b")})
    other = write_set(tmp_path / "two", ("a",), {})
    found = add_priors([*read_set(root), *read_set(other)], [root / "priors"])
    assert [type(sample) for sample in found] == [PriorSample, Sample, PriorSample, Sample]
    assert [sample.name for sample in found] == ["one/a", "one/c", "one/deep/b", "two/a"]
    assert [path.name for path in found[0].priors] == ["a.png"]


def test_a_folder_may_hold_priors_of_several_sets(tmp_path: Path) -> None:
    roots = [write_set(tmp_path / name, ("a",), {"priors": ("a",)}) for name in ("one", "two")]
    for root in roots:
        (tmp_path / "maps").mkdir(exist_ok=True)
        (root / "priors").rename(tmp_path / "maps" / root.name)
    found = add_priors([sample for root in roots for sample in read_set(root)], [tmp_path / "maps"])
    assert [sample.priors[0].relative_to(tmp_path).as_posix() for sample in found] == [
        "maps/one/a.png",
        "maps/two/a.png",
    ]


def test_a_sample_may_have_maps_of_several_detectors(tmp_path: Path) -> None:
    root = write_set(tmp_path / "one", ("a", "b"), {"weak": ("a",), "strong": ("a", "b")})
    first, second = add_priors(read_set(root), [root / "weak", root / "strong"])
    assert (first.sources, second.sources) == ((0, 1), (1,))
    checks = PromoterRecipe().checks(None, [first, second], Preprocessing(size=SIZE))
    assert [int(checks[index]["source"]) for index in range(len(checks))] == [0, 1, 1]  # type: ignore[arg-type]


def test_folders_that_fit_nothing_and_sizes_that_differ_are_named(tmp_path: Path) -> None:
    root = write_set(tmp_path / "one", ("a",), {"priors": ("a",)})
    with pytest.raises(DataError, match="no such folder"):
        add_priors(read_set(root), [root / "nothing"])
    save(tmp_path / "elsewhere" / "maps" / "a.png", object_mask(0))
    with pytest.raises(DataError, match="no map has the name of a sample such as one/a"):
        add_priors(read_set(root), [tmp_path / "elsewhere" / "maps"])
    save(root / "priors" / "a.png", object_mask(0, (110, 160)))
    with pytest.raises(DataError, match=r"a\.png: has 110 x 160 pixels, its image has 120 x 160"):
        add_priors(read_set(root), [root / "priors"])
    with pytest.raises(DataError, match="only lps"):
        MultiScaleRecipe().with_priors([], [tmp_path])


@pytest.mark.parametrize("augmentation", get_args(Augmentation))
def test_priors_are_varied_with_their_image(tmp_path: Path, augmentation: Augmentation) -> None:
    names = tuple("abcdef")
    root = write_set(tmp_path / "one", names, {"priors": names})
    samples = add_priors(read_set(root), [root / "priors"])
    recipe = PromoterRecipe(real=1, degrade=0)
    data = recipe.dataset(
        None, samples, Preprocessing(size=SIZE), augmentation=augmentation, seed=0, workers=0
    )  # fmt: skip
    for index in range(len(names)):
        item = data[index]
        assert item["prior"].shape == item["mask"].shape == (1, *SIZE)
        salient, other = (item["prior"][item["mask"] == value] for value in (1, 0))
        # The border of the object is a gradual one.
        assert float((salient - 0.6).abs().median()) < 0.02
        assert float((other - 0.1).abs().median()) < 0.02
        assert float(((item["prior"] > 0.35) == (item["mask"] > 0)).float().mean()) > 0.97
        assert set(item["mask"].unique().tolist()) <= {0.0, 1.0}


def test_priors_of_the_checks_are_those_that_the_runtime_makes(tmp_path: Path) -> None:
    from onnx.reference import ReferenceEvaluator

    from salience.export.processing import prior_graph

    root = write_set(tmp_path / "one", ("a",), {"priors": ("a",)})
    values = np.random.default_rng(0).integers(0, 256, (120, 160), dtype=np.uint8)
    save(root / "priors" / "a.png", values)
    checks = PromoterRecipe().checks(None, add_priors(read_set(root), [root / "priors"]), Preprocessing(size=SIZE))
    (expected,) = ReferenceEvaluator(prior_graph(SIZE)).run(None, {"map": values.astype(np.float32) / 255})
    assert np.abs(checks[0]["prior"].numpy() - expected[0]).max() < 1e-4


def test_real_priors_spoilt_masks_and_degraded_ones_are_mixed(tmp_path: Path) -> None:
    root = write_set(tmp_path / "one", ("a",), {"priors": ("a",)})
    samples = add_priors(read_set(root), [root / "priors"]) * 200
    recipe = PromoterRecipe(real=0.4, degrade=0.5, flip=0)
    data = recipe.dataset(None, samples, Preprocessing(size=SIZE), augmentation="none", seed=0, workers=0)
    items = [data[index] for index in range(200)]
    exact = sum(bool((item["prior"] == item["mask"]).all()) for item in items)
    stored = torch.tensor([26 / 255, 153 / 255])
    plain = sum(torch.allclose(item["prior"].quantile(torch.tensor([0.2, 1.0])), stored) for item in items)
    # Five standard deviations of 200 draws.
    assert exact == pytest.approx(120, abs=35)
    assert plain == pytest.approx(40, abs=29)
    assert torch.equal(data[7]["prior"], items[7]["prior"])


def test_checks_use_spoilt_masks_only_where_no_prior_is_on_disk(tmp_path: Path) -> None:
    root = write_set(tmp_path / "one", ("a", "b", "c"), {"priors": ("b",)})
    recipe, size = PromoterRecipe(), Preprocessing(size=SIZE)
    assert len(recipe.checks(None, read_set(root), size)) == 3  # type: ignore[arg-type]
    checks = recipe.checks(None, add_priors(read_set(root), [root / "priors"]), size)
    assert len(checks) == 1  # type: ignore[arg-type]
    assert float(checks[0]["prior"].max()) == pytest.approx(0.6, abs=0.01)


def test_degraded_priors_stay_maps_and_differ() -> None:
    torch.manual_seed(0)
    prior = torch.from_numpy(object_mask(0)).float()[None] / 255
    draws = [degraded(prior) for _ in range(60)]
    assert all(draw.shape == prior.shape and 0 <= float(draw.min()) <= float(draw.max()) <= 1 for draw in draws)
    likeness = [float(torch.corrcoef(torch.stack([draw.flatten(), prior.flatten()]))[0, 1]) for draw in draws]
    assert min(likeness) > 0.3
    assert float(np.median(likeness)) > 0.7
    assert sum(not torch.equal(draw, prior) for draw in draws) > 40  # gamma alone leaves a mask of 0 and 1 unchanged


def test_the_command_line_trains_and_validates_with_priors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from salience.training.cli import main

    root = write_set(tmp_path / "one", tuple("abcd"), {"priors": ("a", "b", "d")})
    (tmp_path / "splits.json").write_text(json.dumps({"one": {"train": ["a", "c"], "val": ["b", "d"]}}))
    command = [
        "train.py", "lps", "--data", str(root), "--priors", str(root / "priors"),
        "--splits", str(tmp_path / "splits.json"),
        "--backbone", "mobilenet_v2", "--network", "stride=8", "width=4", "embedding=8", "--size", "32", "32",
        "--epochs", "1", "--batch", "2", "--accelerator", "cpu", "--output", str(tmp_path / "run"),
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as exit_info:
        main()
    assert exit_info.value.code == 0, capsys.readouterr().err
    header, _ = load_checkpoint(tmp_path / "run" / "best.safetensors")
    assert header.training["priors"] == {"folders": ["one/priors"], "images": 1}
    (record,) = json.loads((tmp_path / "run" / "history.json").read_text())
    assert [*record["scores"]] == ["gain", "f_max", "mae", "f_weighted", "s"]


def test_samples_kept_in_memory_keep_their_priors(tmp_path: Path) -> None:
    root = write_set(tmp_path / "one", ("a",), {"priors": ("a",)})
    (kept,) = keep_in_memory(add_priors(read_set(root), [root / "priors"]), 80)
    assert kept.load()[0].shape == (60, 80, 3)
    recipe = PromoterRecipe(real=1, degrade=0)
    data = recipe.dataset(None, [kept], Preprocessing(size=SIZE), augmentation="crop", seed=0, workers=0)
    item = data[0]
    assert float(((item["prior"] > 0.35) == (item["mask"] > 0)).float().mean()) > 0.95
