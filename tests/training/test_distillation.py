import json
import sys
from pathlib import Path

import pytest
import torch

from salience.runtime.errors import CheckpointError
from salience.training.checkpoint import CheckpointHeader, load_checkpoint
from salience.training.cli import main
from salience.training.data.scenes import Scene
from salience.training.distillation import Teachers, open_teachers
from tests.conftest import SIZE, small_checkpoint


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("teachers")
    return [small_checkpoint(folder, "multis"), small_checkpoint(folder, "arn")]


def test_the_target_lies_between_the_mask_and_the_mean_of_all_maps(files: list[Path]) -> None:
    (header, first), (_, second) = (load_checkpoint(path) for path in files)
    torch.manual_seed(0)
    image, mask = torch.randn(2, 3, *SIZE), (torch.rand(2, 1, *SIZE) > 0.5).float()
    with torch.no_grad():
        maps = [network(image).saliency for network in (first, second)]
        maps += [network(image.flip(3)).saliency.flip(3) for network in (first, second)]
    softened = Teachers(files, 0.25, header.preprocessing).soften({"image": image, "mask": mask, "more": mask})
    expected = 0.75 * mask + 0.25 * torch.stack(maps).mean(dim=0)
    assert torch.allclose(softened["mask"], expected, atol=1e-6)
    assert torch.equal(softened["more"], mask)


def test_a_teacher_of_another_kind_is_refused(tmp_path: Path, files: list[Path]) -> None:
    header, _ = load_checkpoint(files[0])
    with pytest.raises(CheckpointError, match=r"gicd.*expected multis or arn"):
        Teachers([small_checkpoint(tmp_path, "gicd")], 0.5, header.preprocessing)
    other = header.preprocessing.model_copy(update={"std": (1.0, 1.0, 1.0)})
    with pytest.raises(CheckpointError, match="normalised"):
        Teachers(files, 0.5, other)


def test_a_method_that_learns_no_single_maps_takes_no_teacher(files: list[Path]) -> None:
    header, _ = load_checkpoint(files[0])
    with pytest.raises(CheckpointError, match="gicd does not learn"):
        open_teachers("gicd", files, 0.5, header.preprocessing)


def test_a_run_with_teachers_learns_their_maps(
    tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the teachers' maps are all there is to learn, the masks make no difference."""

    def trained(name: str, share: str) -> CheckpointHeader:
        arguments = [
            "multis", "--synthetic", "6", "--backbone", "mobilenet_v2", "--size", "64", "64", "--batch", "2",
            "--epochs", "1", "--network", "width=4", "--recipe", "alpha=0",
            "--teacher", *map(str, files), "--teacher-share", share, "--output", str(tmp_path / name),
        ]  # fmt: skip
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        with pytest.raises(SystemExit) as done:
            main()
        assert done.value.code in (0, None)
        return load_checkpoint(tmp_path / name / "last.safetensors")[0]

    def first_loss(name: str) -> float:
        return float(json.loads((tmp_path / name / "history.json").read_text())[0]["loss"])

    header = trained("taught", "1")
    assert header.training["teachers"]["files"].keys() == {path.name for path in files}
    trained("masks", "0")
    taught = first_loss("taught")
    assert taught != first_loss("masks")
    monkeypatch.setattr(Scene, "load", lambda scene, load=Scene.load: (load(scene)[0], ~load(scene)[1]))
    trained("inverted", "1")
    assert first_loss("inverted") == pytest.approx(taught, rel=1e-5)
