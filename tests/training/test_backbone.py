from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from salience.runtime.errors import CheckpointError
from salience.training.backbone import (
    LEVELS,
    TorchvisionBackbone,
    build_backbone,
    build_classifier,
    check_size,
    load_weights,
    steps_up,
)
from salience.training.checkpoint import CheckpointHeader, build_network, save_checkpoint
from salience.training.preprocessing import Preprocessing


@pytest.mark.parametrize("name", sorted(LEVELS))
def test_levels_have_the_strides_and_channels_they_name(name: str) -> None:
    backbone = build_backbone(name).eval()
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
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in TorchvisionBackbone("vgg16").features) == 13


@pytest.mark.parametrize(
    ("name", "coarsest", "strides"),
    [
        ("vgg16", None, [1, 2, 4, 8, 16]),
        ("vgg16", 16, [1, 2, 4, 8, 16]),
        ("vgg16", 8, [1, 2, 4, 8, 8]),
        ("vgg16", 4, [1, 2, 4, 4, 4]),
        ("mobilenet_v2", None, [2, 4, 8, 16, 32]),
        ("mobilenet_v2", 8, [2, 4, 8, 8, 8]),
        ("mobilenet_v2", 4, [2, 4, 4, 4, 4]),
    ],
)
def test_no_level_is_coarser_than_asked_for(name: str, coarsest: int | None, strides: list[int]) -> None:
    backbone = build_backbone(name, coarsest=coarsest).eval()
    assert [level.stride for level in backbone.levels] == strides
    with torch.no_grad():
        found = backbone(torch.zeros(1, 3, 32, 64))
    assert [tuple(f.shape[1:]) for f in found] == [
        (level.channels, 32 // level.stride, 64 // level.stride) for level in backbone.levels
    ]
    assert backbone.state_dict().keys() == build_backbone(name).state_dict().keys()


@pytest.mark.parametrize(
    ("coarsest", "pools", "dilations"),
    [(None, 4, [1] * 13), (8, 3, [1] * 10 + [2] * 3), (4, 2, [1] * 7 + [2] * 3 + [4] * 3)],
)
def test_vgg16_is_dilated_as_the_release_and_the_text_have_it(
    coarsest: int | None, pools: int, dilations: list[int]
) -> None:
    """The last pool is never there; without pool4 conv5 is dilated by 2, without pool3 conv4 by 2 and conv5 by 4."""
    layers = list(TorchvisionBackbone("vgg16", coarsest=coarsest).features)
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    assert [layer.dilation for layer in convolutions] == [(d, d) for d in dilations]
    assert [layer.padding for layer in convolutions] == [(d, d) for d in dilations]
    assert sum(isinstance(layer, nn.MaxPool2d) for layer in layers) == pools


def twins(name: str, coarsest: int) -> tuple[TorchvisionBackbone, TorchvisionBackbone]:
    """A backbone and its dilated form with the same weights, their batch norm far from its initial state."""
    torch.manual_seed(0)
    strided = TorchvisionBackbone(name).train()
    with torch.no_grad():
        for _ in range(2):
            strided(torch.randn(2, 3, 64, 96))
    dilated = TorchvisionBackbone(name, coarsest=coarsest)
    dilated.load_state_dict(strided.state_dict())
    return strided.eval(), dilated.eval()


@pytest.mark.parametrize("coarsest", [2, 4, 8, 16])
def test_dilation_keeps_what_a_strided_backbone_finds(coarsest: int) -> None:
    """The dilated one has positions between those of the strided one, and at the same places the same values."""
    strided, dilated = twins("mobilenet_v2", coarsest)
    with torch.no_grad():
        image = torch.randn(2, 3, 64, 96)
        for few, many, level in zip(strided(image), dilated(image), strided.levels, strict=True):
            step = max(1, level.stride // coarsest)
            # The same sums in another order; the maps are of order 1.
            assert torch.allclose(many[:, :, ::step, ::step], few, atol=1e-5)
            assert float(few.std()) > 0.1


@pytest.mark.parametrize("coarsest", [4, 8])
def test_dilation_of_vgg16_reaches_as_far_as_before(coarsest: int) -> None:
    """With pools that take one of four values instead of the largest the two forms are comparable."""
    strided, dilated = twins("vgg16", coarsest)
    for index in (16, 23)[0 if coarsest == 4 else 1 :]:
        strided.features[index] = nn.MaxPool2d(1, 2)
    with torch.no_grad():
        image = torch.randn(1, 3, 32, 48)
        few, many = strided(image)[-1], dilated(image)[-1]
    step = 16 // coarsest
    # The same sums in another order, of up to 4608 terms.
    assert torch.allclose(many[:, :, ::step, ::step], few, rtol=1e-4, atol=1e-5 * float(few.max()))
    assert float(few.std()) > 0


def test_weights_of_a_classifier_file_give_its_features(tmp_path: Path) -> None:
    classifier = build_classifier("mobilenet_v2").eval()
    save_file(classifier.state_dict(), tmp_path / "weights.safetensors")
    backbone = build_backbone("mobilenet_v2", weights=tmp_path / "weights.safetensors").eval()
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = classifier.features[:18](image)  # type: ignore[index,operator]
        assert torch.equal(backbone(image)[-1], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_checkpoint_of_training_gives_its_backbone(tmp_path: Path, dtype: torch.dtype) -> None:
    network = build_network("multis", settings := {"backbone": "mobilenet_v2", "width": 4, "hidden": 8})
    header = CheckpointHeader(method="multis", network=settings, preprocessing=Preprocessing())
    save_checkpoint(tmp_path / "best.safetensors", network, header, dtype=dtype)
    backbone = build_backbone("mobilenet_v2", weights=tmp_path / "best.safetensors")
    trained = network.get_submodule("backbone").state_dict()
    for name, value in backbone.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, trained[name].to(dtype).float()), name


def test_a_checkpoint_over_another_backbone_is_refused(tmp_path: Path) -> None:
    network = build_network("multis", settings := {"backbone": "mobilenet_v2", "width": 4, "hidden": 8})
    header = CheckpointHeader(method="multis", network=settings, preprocessing=Preprocessing())
    save_checkpoint(tmp_path / "best.safetensors", network, header)
    with pytest.raises(CheckpointError, match=r"tensors of vgg16 are missing \(features\.0\.bias"):
        build_backbone("vgg16", weights=tmp_path / "best.safetensors")


@pytest.mark.parametrize("name", ["vgg16", "mobilenet_v2", "squeezenet1_0"])
def test_classifiers_give_a_thousand_logits(name: str) -> None:
    classifier = build_classifier(name).eval()
    with torch.no_grad():
        assert classifier(torch.zeros(1, 3, 224, 224)).shape == (1, 1000)


def test_missing_tensors_are_counted_and_named(tmp_path: Path) -> None:
    state = build_backbone("mobilenet_v2").state_dict()
    del state["features.0.0.weight"]
    save_file(state, tmp_path / "part.safetensors")
    with pytest.raises(CheckpointError, match=r"1 tensors .*features\.0\.0\.weight"):
        build_backbone("mobilenet_v2", weights=tmp_path / "part.safetensors")


def test_a_tensor_of_another_shape_is_named(tmp_path: Path) -> None:
    state = build_backbone("mobilenet_v2").state_dict() | {"features.0.0.weight": torch.zeros(1, 3, 3, 3)}
    save_file(state, tmp_path / "odd.safetensors")
    with pytest.raises(CheckpointError, match=r"features\.0\.0\.weight has shape \(1, 3, 3, 3\)"):
        build_backbone("mobilenet_v2", weights=tmp_path / "odd.safetensors")


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\xff" * 64])
def test_a_damaged_weight_file_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"bad\.safetensors"):
        build_backbone("mobilenet_v2", weights=path)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"expected a \.safetensors file"):
        build_backbone("mobilenet_v2", weights=tmp_path / "weights.pth")


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


def test_frozen_levels_neither_learn_nor_gather_statistics() -> None:
    backbone = build_backbone("mobilenet_v2")
    backbone.freeze(2)
    backbone.train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    sum(level.mean() for level in backbone(torch.randn(2, 3, 64, 64))).backward()
    end = backbone.levels[1].index + 1
    frozen = tuple(f"features.{index}." for index in range(end))
    assert {name.startswith(frozen) for name, p in backbone.named_parameters() if p.grad is None} == {True}
    changed = {name for name, value in backbone.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert not any(name.startswith(frozen) for name in changed)
