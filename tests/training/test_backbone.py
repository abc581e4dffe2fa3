from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from salience.runtime.errors import CheckpointError
from salience.training.backbone import LEVELS, Backbone, build_classifier, check_size, load_weights, steps_up


@pytest.mark.parametrize("name", sorted(LEVELS))
def test_levels_have_the_strides_and_channels_they_name(name: str) -> None:
    backbone = Backbone(name).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        found = backbone(torch.zeros(1, 3, 64, 96))
    assert [tuple(f.shape[1:]) for f in found] == [
        (level.channels, 64 // level.stride, 96 // level.stride) for level in backbone.levels
    ]


def test_vgg16_levels_are_the_papers() -> None:
    assert [(level.stride, level.channels) for level in LEVELS["vgg16"]] == [
        (1, 64), (2, 128), (4, 256), (8, 512), (16, 512),
    ]  # fmt: skip
    layers = torchvision.models.vgg16(weights=None).features
    assert all(isinstance(layers[level.index], torch.nn.ReLU) for level in LEVELS["vgg16"])
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in Backbone("vgg16").features) == 13


def test_weights_of_a_classifier_file_give_its_features(tmp_path: Path) -> None:
    classifier = build_classifier("mobilenet_v2").eval()
    save_file(classifier.state_dict(), tmp_path / "weights.safetensors")
    backbone = Backbone("mobilenet_v2", weights=tmp_path / "weights.safetensors").eval()
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = classifier.features[:18](image)  # type: ignore[index,operator]
        assert torch.equal(backbone(image)[-1], expected)


@pytest.mark.parametrize("name", ["vgg16", "mobilenet_v2", "squeezenet1_0"])
def test_classifiers_give_a_thousand_logits(name: str) -> None:
    classifier = build_classifier(name).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        assert classifier(torch.zeros(1, 3, 224, 224)).shape == (1, 1000)


def test_missing_tensors_are_counted_and_named(tmp_path: Path) -> None:
    state = Backbone("mobilenet_v2").state_dict()
    del state["features.0.0.weight"]
    save_file(state, tmp_path / "part.safetensors")
    with pytest.raises(CheckpointError, match=r"1 tensors .*features\.0\.0\.weight"):
        Backbone("mobilenet_v2", weights=tmp_path / "part.safetensors")


def test_a_tensor_of_another_shape_is_named(tmp_path: Path) -> None:
    state = Backbone("mobilenet_v2").state_dict() | {"features.0.0.weight": torch.zeros(1, 3, 3, 3)}
    save_file(state, tmp_path / "odd.safetensors")
    with pytest.raises(CheckpointError, match=r"features\.0\.0\.weight has shape \(1, 3, 3, 3\)"):
        Backbone("mobilenet_v2", weights=tmp_path / "odd.safetensors")


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\xff" * 64])
def test_a_damaged_weight_file_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"bad\.safetensors"):
        Backbone("mobilenet_v2", weights=path)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"expected a \.safetensors file"):
        Backbone("mobilenet_v2", weights=tmp_path / "weights.pth")


def test_an_unreachable_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("network is unreachable")

    monkeypatch.setattr(torchvision.models._api.WeightsEnum, "get_state_dict", refuse)
    with pytest.raises(CheckpointError, match=r"unreachable.*\.safetensors"):
        load_weights(torch.nn.Linear(1, 1), "torchvision", architecture="mobilenet_v2")


@pytest.mark.parametrize("size", [(0, 32), (33, 32), (32, -32)])
def test_sizes_that_the_strides_do_not_divide_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(CheckpointError, match="multiples of 32"):
        check_size(LEVELS["mobilenet_v2"], size)


def test_steps_up_counts_doublings() -> None:
    assert [steps_up(level) for level in LEVELS["mobilenet_v2"]] == [1, 2, 3, 4, 5]


def test_imagenet_weights_recognise_a_cat(data_folder: Path) -> None:
    weights = data_folder.parent / "models" / "mobilenet_v2-imagenet.safetensors"
    if not weights.exists():
        pytest.skip("the ImageNet weights are not beside SALIENCE_DATA")
    chelsea = pytest.importorskip("skimage.data").chelsea()
    from salience.training.preprocessing import Preprocessing

    classifier = build_classifier("mobilenet_v2", weights=weights).eval()
    with torch.no_grad():
        logits = classifier(Preprocessing()(torch.from_numpy(chelsea).permute(2, 0, 1))[None])
    assert int(logits.argmax()) in (281, 282, 285)  # tabby, tiger cat, Egyptian cat
