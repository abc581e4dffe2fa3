import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from salience.runtime.errors import CheckpointError, DataError, SalienceError
from salience.runtime.images import decode_grey
from salience.training.checkpoint import CheckpointHeader, load_checkpoint
from salience.training.cli import main
from salience.training.data.memory import keep_in_memory
from salience.training.data.scenes import Scene, scenes
from salience.training.distillation import open_teacher, read_unlabelled, taught
from tests.conftest import small_checkpoint


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("teachers")
    return [small_checkpoint(folder, "multis"), small_checkpoint(folder, "arn")]


def map_of(path: Path, image: np.ndarray) -> np.ndarray:
    """The map of a checkpoint at its input's size."""
    header, network = load_checkpoint(path)
    with torch.no_grad():
        found = network(header.preprocessing(torch.from_numpy(image.transpose(2, 0, 1).copy()))[None])
    return np.asarray(found.saliency[0, 0])


def test_the_target_lies_between_the_mask_and_the_mean_of_all_maps(tmp_path: Path, files: list[Path]) -> None:
    (scene,) = scenes(1)
    image, mask = scene.load()
    (sample,) = taught([scene], files, share=0.25, folder=tmp_path)
    mirrored = np.ascontiguousarray(image[:, ::-1])
    maps = [map_of(path, image) for path in files] + [map_of(path, mirrored)[:, ::-1] for path in files]
    size = image.shape[1::-1]
    mean = np.asarray(Image.fromarray(np.mean(maps, axis=0).astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
    same, target = sample.load()
    assert sample.name == scene.name
    assert np.array_equal(same, image)
    assert target.dtype == np.uint8
    assert np.abs(target / 255 - (0.75 * mask + 0.25 * mean)).mean() < 0.004
    (kept,) = keep_in_memory([sample], 1000)
    assert np.array_equal(kept.load()[1], target)


def test_maps_are_computed_once_and_for_these_teachers(tmp_path: Path, files: list[Path]) -> None:
    computed: list[int] = []
    samples = scenes(3)

    def run(teachers: list[Path]) -> int:
        computed.clear()
        taught(samples, teachers, share=1, folder=tmp_path, progress=lambda done, total: computed.append(total))
        return len(computed)

    assert run(files[:1]) == 3
    assert run(files[:1]) == 0
    assert run(files) == 3
    next(tmp_path.rglob("*.png")).unlink()
    assert run(files[:1]) + run(files) == 1


def test_an_image_without_a_mask_has_the_map_alone(tmp_path: Path, files: list[Path]) -> None:
    (tmp_path / "free" / "images").mkdir(parents=True)
    Image.fromarray(Scene(1).load()[0]).save(tmp_path / "free" / "images" / "a.png")
    (image,) = read_unlabelled(tmp_path / "free")
    assert image.name == "free/a"
    (sample,) = taught([image], files[:1], share=0.25, folder=tmp_path / "maps")
    stored = decode_grey(next((tmp_path / "maps").rglob("a.png")))
    assert abs(float(sample.load()[1].mean()) - float(stored.mean())) < 1


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images"):
        read_unlabelled(tmp_path)


def test_a_bundle_is_a_teacher_too(tmp_path: Path, repository: Path) -> None:
    image = Scene(2).load()[0]
    (found,) = open_teacher(repository / "runtime" / "default_bundle")([image])
    assert found.shape == image.shape[:2]
    assert 0 <= float(found.min()) < float(found.max()) <= 1


def test_a_teacher_that_needs_more_than_an_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="gicd needs more than an image"):
        open_teacher(small_checkpoint(tmp_path, "gicd"))
    with pytest.raises(SalienceError, match="expected a checkpoint"):
        taught(scenes(1), [tmp_path / "gone.safetensors"], share=1, folder=tmp_path)


def trained(output: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch, share: str, *more: str) -> int | None:
    arguments = [
        "multis", "--synthetic", "6", "--backbone", "mobilenet_v2", "--size", "64", "64", "--batch", "2",
        "--epochs", "1", "--network", "width=4", "--recipe", "alpha=0",
        "--teacher", *map(str, files), "--teacher-share", share, "--output", str(output), *more,
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    with pytest.raises(SystemExit) as done:
        main()
    return done.value.code  # type: ignore[return-value]


def test_a_run_with_teachers_learns_their_maps(
    tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the teachers' maps are all there is to learn, the masks make no difference."""

    def first_loss(name: str, share: str) -> float:
        assert trained(tmp_path / name, files, monkeypatch, share) in (0, None)
        return float(json.loads((tmp_path / name / "history.json").read_text())[0]["loss"])

    loss = first_loss("taught", "1")
    header: CheckpointHeader = load_checkpoint(tmp_path / "taught" / "last.safetensors")[0]
    assert header.training["teachers"]["files"].keys() == {path.name for path in files}
    assert loss != first_loss("masks", "0")
    monkeypatch.setattr(Scene, "load", lambda scene, load=Scene.load: (load(scene)[0], ~load(scene)[1]))
    assert first_loss("inverted", "1") == pytest.approx(loss, rel=1e-5)


def test_methods_that_learn_no_maps_take_no_teacher(
    tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["gicd", "--synthetic", "8", "--backbone", "mobilenet_v2", "--teacher", str(files[0])]
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments, "--output", str(tmp_path)])
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 1
    assert "this method does not learn the map of a single image" in capsys.readouterr().err
