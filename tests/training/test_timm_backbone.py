from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from salience.runtime.errors import CheckpointError
from salience.training.backbone import build_backbone, build_classifier, load_weights, normalisation
from salience.training.checkpoint import build_network
from salience.training.timm_backbone import SamePaddedConv2d, create_model

LITE, RESNET = "timm:tf_efficientnet_lite0", "timm:resnet18"


@pytest.mark.parametrize("name", [LITE, RESNET, "timm:mobilenetv3_small_050"])
@pytest.mark.parametrize(("coarsest", "strides"), [(None, [2, 4, 8, 16, 32]), (8, [2, 4, 8, 8, 8])])
def test_levels_have_the_strides_and_channels_they_name(name: str, coarsest: int | None, strides: list[int]) -> None:
    backbone = build_backbone(name, coarsest=coarsest).eval()
    assert [level.stride for level in backbone.levels] == strides
    with torch.no_grad():
        found = backbone(torch.zeros(1, 3, 64, 96))
    assert [tuple(f.shape[1:]) for f in found] == [
        (level.channels, 64 // level.stride, 96 // level.stride) for level in backbone.levels
    ]


def test_channels_of_lite0_are_those_of_its_blocks() -> None:
    assert [level.channels for level in build_backbone(LITE).levels] == [16, 24, 40, 112, 320]


@pytest.mark.parametrize(("name", "channels"), [(LITE, 1280), (RESNET, 512)])
def test_with_its_head_a_backbone_gives_the_classifiers_logits(name: str, channels: int) -> None:
    torch.manual_seed(0)
    classifier = build_classifier(name).eval()
    backbone = build_backbone(name, head=True).eval()
    backbone.source.load_state_dict(classifier.state_dict())
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        *_, top = backbone(image)
        logits = backbone.classifier(top.mean(dim=(2, 3)))
        expected = classifier(image)
    assert top.shape[1] == backbone.levels[-1].channels == channels
    assert torch.allclose(logits, expected, atol=1e-4)


def test_the_normalisation_is_that_of_the_weights() -> None:
    assert normalisation(LITE) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert normalisation(RESNET) == normalisation("vgg16")
    assert build_backbone(LITE).mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("size", [(64, 64), (65, 50), (33, 47)])
def test_padding_is_that_of_timms_own_layer(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model("tf_efficientnet_lite0").eval()
    ours = create_model("tf_efficientnet_lite0").eval()
    ours.load_state_dict(theirs.state_dict())
    assert any(isinstance(module, SamePaddedConv2d) for module in ours.modules())
    image = torch.randn(1, 3, *size)
    with torch.no_grad():
        assert torch.equal(ours(image), theirs(image))


def test_frozen_levels_neither_learn_nor_gather_statistics() -> None:
    backbone = build_backbone(LITE)
    backbone.freeze(2)
    backbone.train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    sum(level.mean() for level in backbone(torch.randn(2, 3, 64, 64))).backward()
    frozen = ("model.conv_stem.", "model.bn1.", "model.blocks.0.", "model.blocks.1.")
    assert {name for name, p in backbone.named_parameters() if p.grad is None} == {
        name for name, _ in backbone.named_parameters() if name.startswith(frozen)
    }
    changed = {name for name, value in backbone.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert not any(name.startswith(frozen) for name in changed)


@pytest.mark.parametrize("head", [False, True])
def test_weights_of_timm_and_of_our_own_checkpoints_load(tmp_path: Path, head: bool) -> None:
    torch.manual_seed(0)
    classifier = build_classifier(LITE)
    save_file(classifier.state_dict(), tmp_path / "timm.safetensors")
    backbone = build_backbone(LITE, head=head, weights=tmp_path / "timm.safetensors")
    save_file(
        {f"backbone.{name}": value for name, value in backbone.state_dict().items()}, tmp_path / "own.safetensors"
    )
    again = build_backbone(LITE, head=head, weights=tmp_path / "own.safetensors")
    stem = classifier.state_dict()["conv_stem.weight"]
    assert torch.equal(backbone.state_dict()["model.conv_stem.weight"], stem)
    assert torch.equal(again.state_dict()["model.conv_stem.weight"], stem)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    save_file({"conv_stem.weight": torch.zeros(32, 3, 3, 3)}, tmp_path / "part.safetensors")
    with pytest.raises(CheckpointError, match="timm's parameter names"):
        load_weights(build_backbone(LITE), tmp_path / "part.safetensors", architecture=LITE)


@pytest.mark.parametrize(
    ("name", "message"),
    [("timm:tf_efficientnet_lite00", "no such network"), ("timm:vit_tiny_patch16_224", "levels|cannot be built")],
)
def test_networks_that_do_not_fit_are_refused(name: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        build_backbone(name)


def test_a_classifier_that_gicd_cannot_use_is_refused() -> None:
    with pytest.raises(CheckpointError, match="one linear layer behind average pooling"):
        build_backbone("timm:mobilenetv3_small_050", head=True)


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("multis", {"width": 4}),
        ("arn", {"width": 32}),
        ("lps", {"width": 4, "embedding": 16, "stride": 8}),
        ("gicd", {"width": 8}),
    ],
)
@pytest.mark.parametrize("backbone", [LITE, RESNET])
def test_every_method_runs_on_a_backbone_of_timms(method: str, settings: dict[str, object], backbone: str) -> None:
    network: nn.Module = build_network(method, {"backbone": backbone, **settings}).eval()
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        output = network(image, torch.rand(2, 1, 64, 64)) if method == "lps" else network(image)
    found = output.logits.sigmoid() if method == "lps" else output.saliency
    assert found.numel() == 2 * 64 * 64


def test_the_classifier_of_cgd_takes_the_normalisation_of_its_weights() -> None:
    network = build_network("cgd", {"backbone": LITE})
    assert network.settings.mean == (0.5, 0.5, 0.5)
    assert network.settings.std == (0.5, 0.5, 0.5)


def test_imagenet_weights_recognise_a_cat(data_folder: Path) -> None:
    weights = data_folder.parent / "models" / "efficientnet_lite0-imagenet.safetensors"
    if not weights.exists():
        pytest.skip("the ImageNet weights are not beside SALIENCE_DATA")
    chelsea = pytest.importorskip("skimage.data").chelsea()
    from salience.training.preprocessing import Preprocessing

    classifier = build_classifier(LITE, weights=weights).eval()
    mean, std = normalisation(LITE)
    with torch.no_grad():
        logits = classifier(Preprocessing(mean=mean, std=std)(torch.from_numpy(chelsea).permute(2, 0, 1))[None])
    assert int(logits.argmax()) in (281, 282, 285)  # tabby, tiger cat, Egyptian cat
