import copy
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from salience.runtime.errors import CheckpointError
from salience.training.backbone import load_weights
from salience.training.checkpoint import CheckpointHeader, build_network, load_checkpoint, save_checkpoint
from salience.training.networks.lps import CascadeHead, Promoter, SubpixelConv, nearest_anchor, region_weights, shuffle
from salience.training.preprocessing import Preprocessing
from tests.released_lps import ReleasedForm

SIZE = (64, 96)
FORMS = [
    {"head": head, "region": region, "weighting": weighting}
    for head in ("linear", "nonlinear")
    for region in ("conv", "fc")
    for weighting in ("soft", "hard")
]


def lps(**settings: Any) -> Promoter:
    torch.manual_seed(0)
    network = build_network("lps", settings).eval()
    assert isinstance(network, Promoter)
    return network


@cache
def small(**settings: str) -> Promoter:
    """A small network whose batch norm has seen a few pictures: its maps follow the picture."""
    network = lps(backbone="mobilenet_v2", width=8, embedding=48, **settings).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network(torch.randn(4, 3, *SIZE), torch.rand(4, 1, *SIZE))
        if settings.get("region") == "fc":  # regions further apart than a new layer puts them
            network.region.weight *= 3
    return network.eval()


@pytest.fixture(scope="module")
def image() -> Tensor:
    """Two pictures of noise, each with a block that stands out."""
    values = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    values[0, :, 10:40, 20:60] += 3
    values[1, :, 30:60, 50:90] -= 3
    return values


@pytest.fixture(scope="module")
def prior() -> Tensor:
    """What a detector might say of `image`."""
    values = torch.full((2, 1, *SIZE), 0.05)
    values[0, :, 15:45, 10:50] = 0.95
    values[1, :, 20:50, 60:80] = 0.9
    return values


@pytest.mark.parametrize(
    ("backbone", "stride", "strides"),
    [
        ("vgg16", 4, (1, 2, 4, 4, 4)),
        ("vgg16", 8, (1, 2, 4, 8, 8)),
        ("mobilenet_v2", 4, (2, 4, 4, 4, 4)),
        ("mobilenet_v2", 8, (2, 4, 8, 8, 8)),
    ],
)
def test_each_level_is_shuffled_up_to_the_inputs_size(backbone: str, stride: int, strides: tuple[int, ...]) -> None:
    network = lps(backbone=backbone, stride=stride)
    assert network.strides == strides
    with torch.no_grad():
        maps = network.maps(torch.zeros(1, 3, 32, 48))
        assert shuffle(maps, strides).shape == (1, 320, 32, 48)
    assert [tuple(m.shape[1:]) for m in maps] == [(64 * r * r, 32 // r, 48 // r) for r in strides]


def kinds(*modules: nn.Module) -> list[tuple[Any, ...]]:
    """Of each layer its type, and of a convolution or linear layer the widths, kernel and whether it has a bias."""
    found: list[tuple[Any, ...]] = []
    for layer in (m for module in modules for m in module.modules() if not list(m.children())):
        if isinstance(layer, nn.Conv2d):
            found.append((nn.Conv2d, layer.in_channels, layer.out_channels, *layer.kernel_size, layer.bias is not None))
        elif not isinstance(layer, nn.Identity):
            found.append((type(layer),))
    return found


def test_the_default_is_linear_from_the_backbone_on() -> None:
    network = lps()
    assert [kinds(head) for head in network.subpixel] == [
        [(nn.Conv2d, channels, 64 * r * r, 1, 1, False), (nn.BatchNorm2d,)]
        for channels, r in ((64, 1), (128, 2), (256, 4), (512, 4), (512, 4))
    ]
    assert kinds(network.project) == [(nn.Conv2d, 320, 512, 1, 1, True)]
    assert not hasattr(network, "region")


def test_the_nonlinear_head_is_the_papers_text() -> None:
    network = lps(head="nonlinear", stride=8)
    assert [kinds(head) for head in network.subpixel] == [
        [(nn.Conv2d, channels, 64 * r * r, 3, 3, False), (nn.BatchNorm2d,), (nn.ReLU,)]
        for channels, r in ((64, 1), (128, 2), (256, 4), (512, 8), (512, 8))
    ]
    embedding = [
        (nn.Conv2d, 320, 512, 3, 3, False), (nn.BatchNorm2d,), (nn.ReLU,),
        (nn.Conv2d, 512, 512, 3, 3, False), (nn.BatchNorm2d,), (nn.ReLU,),
    ]  # fmt: skip
    assert kinds(network.project) == kinds(network.region) == embedding
    assert network.region is not network.project


def test_the_nonlinear_head_embeds_regions_by_layers_of_their_own(image: Tensor, prior: Tensor) -> None:
    network = copy.deepcopy(small(head="nonlinear"))
    weights = region_weights(prior, "soft")
    with torch.no_grad():
        features = network.features(image)
        before, (logits, _) = network.anchors(features, weights), network.classify(features, prior)
        next(network.project.parameters()).mul_(1.5)
        assert torch.equal(network.anchors(features, weights), before)
        assert not torch.allclose(network.classify(features, prior)[0], logits)


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        # 14,714,688 VGG16; subpixel 64 x 64 + 128 x 256 + 256 x 1024 + 2 x 512 x 1024 and norms of 2 x 3,392;
        # the head's 320 x 512 + 512.
        ({}, 14_714_688 + 1_347_584 + 6_784 + 164_352),
        ({"region": "fc"}, 14_714_688 + 1_347_584 + 6_784 + 2 * 164_352),  # one Linear 320 -> 512 more
        # Levels 4 and 5 shuffle by 8: 2 x 512 x 4096, norms of 2 x 9,536.
        ({"stride": 8}, 14_714_688 + 4_493_312 + 19_072 + 164_352),
        # Nine times the subpixel weights; for pixels and regions 9 x (320 x 512 + 512 x 512) with two norms of 2 x 512.
        ({"head": "nonlinear"}, 14_714_688 + 9 * 1_347_584 + 6_784 + 2 * (3_833_856 + 2_048)),
        ({"head": "nonlinear", "region": "fc"}, 14_714_688 + 9 * 1_347_584 + 6_784 + 3_833_856 + 2_048 + 164_352),
    ],
)
def test_the_number_of_parameters_is_exact(settings: dict[str, Any], count: int) -> None:
    assert sum(p.numel() for p in lps(**settings).parameters()) == count


@pytest.mark.parametrize("head", ["linear", "nonlinear"])
def test_features_are_shuffled_convolutions_side_by_side(head: str, image: Tensor) -> None:
    """Channel c, offset (i, j) of an r x r block is channel c r^2 + i r + j before."""
    network = small(head=head)
    with torch.no_grad():
        taps = network.backbone(image)
        features = network.features(image)
        for k, (tap, layer) in enumerate(zip(taps, network.subpixel, strict=True)):
            assert isinstance(layer, SubpixelConv)
            maps = layer.norm(F.conv2d(tap, layer.conv.weight, padding=0 if head == "linear" else 1))
            if head == "nonlinear":
                maps = maps.relu()
            r, part = layer.stride, features[:, 8 * k : 8 * k + 8]
            for c, i, j in ((0, 0, 0), (3, 1, 0), (3, 0, 1), (7, r - 1, r - 1)):
                assert torch.allclose(part[:, c, i::r, j::r], maps[:, c * r * r + i * r + j], atol=1e-5)
    assert bool((features < 0).any()) == (head == "linear")


@pytest.mark.parametrize("settings", [{"stride": 5}, {"head": "round"}, {"region": ""}, {"weighting": 1}, {"depth": 3}])
def test_settings_out_of_range_are_named(settings: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=next(iter(settings))):
        build_network("lps", settings)


def test_the_stride_may_come_as_text() -> None:
    assert lps(backbone="mobilenet_v2", stride="8").strides == (2, 4, 8, 8, 8)


@pytest.mark.parametrize("iterations", [1, 3, 10])
def test_promote_is_the_released_form(iterations: int, image: Tensor, prior: Tensor) -> None:
    network = small()
    with torch.no_grad():
        found = network.promote(image, prior, iterations)
        expected = ReleasedForm(network)(image, prior, iterations)
    assert found.shape == prior.shape
    # Either is within 4e-6 of the same in fp64.
    assert float((found - expected).abs().max()) < 1e-5
    assert float(found.std()) > 0.05


def test_the_released_form_costs_what_its_layers_do() -> None:
    """At 256 x 256 the backbone takes 65 billion multiply-adds and each iteration 27: nothing is kept between them."""
    released = ReleasedForm(lps(), iterations=3).to("meta")
    image, prior = torch.empty(1, 3, 256, 256, device="meta"), torch.empty(1, 1, 256, 256, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        released(image, prior)
    doubled, subpixel = 640 * 512 * 256**2, 256**2 * (64 * 64 + 128 * 64 + (256 + 512 + 512) * 64)
    backbone = 65_343_062_016  # the thirteen convolutions, the last six at a quarter of the size
    assert counter.get_total_flops() / 2 == backbone + 3 * (doubled + subpixel)


@pytest.mark.parametrize("change", [{"head": "nonlinear"}, {"region": "fc"}, {"weighting": "hard"}])
def test_the_released_form_refuses_other_settings(change: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=next(iter(change.values()))):
        ReleasedForm(small(**change))


def step_by_pixels(
    network: Promoter, rows: Sequence[NDArray[np.float64]], prior: Tensor, t: int
) -> NDArray[np.float64]:
    """Iteration `t` for one image in fp64, from each pixel's features, embedding and region embedding, (P, C)."""
    settings, (features, embedding, regional) = network.settings, rows
    current = prior.flatten().double().numpy()
    salient = current if settings.weighting == "soft" else np.where(current > 0.5, 1.0, 0.0)
    if not 0 < salient.sum() < len(salient):
        return current.reshape(prior.shape)
    distances = []
    for weight in (salient, 1 - salient):
        if settings.region == "conv":
            anchor = (weight[:, None] * regional).sum(axis=0) / weight.sum()
        else:
            mean = (weight[:, None] * features).sum(axis=0) / weight.sum()
            linear = network.region
            anchor = linear.weight.detach().double().numpy() @ mean + linear.bias.detach().double().numpy()
        distances.append(np.sqrt(((embedding - anchor) ** 2).sum(axis=1)))
    likelihood = np.exp(-np.stack(distances) + np.min(distances))
    found = likelihood[0] / likelihood.sum(axis=0)
    following: NDArray[np.float64] = t / (t + 1) * current + 1 / (t + 1) * found
    return following.reshape(prior.shape)


@pytest.mark.parametrize(
    "form",
    [FORMS[0], *(pytest.param(form, marks=pytest.mark.slow) for form in FORMS[1:-1]), FORMS[-1]],
    ids=lambda form: "-".join(form.values()),
)
def test_every_form_is_what_one_computes_pixel_by_pixel(form: dict[str, str], image: Tensor, prior: Tensor) -> None:
    network = small(**form)
    with torch.no_grad():
        maps = [network.promote(image, prior, iterations) for iterations in range(4)]
        features = network.features(image)
        embedding = network.project(features)
        separate = form["head"] == "nonlinear" and form["region"] == "conv"
        regional = network.region(features) if separate else embedding
    for k in range(2):  # each image by itself: sums never cross the batch
        rows = [values[k].flatten(1).T.double().numpy() for values in (features, embedding, regional)]
        for t in range(3):
            expected = step_by_pixels(network, rows, maps[t][k], t)
            # The network is in fp32: the last digits of two distances of some 10 are about 1e-6 each.
            assert np.abs(maps[t + 1][k].numpy() - expected).max() < 1e-5
    assert float(maps[1].std()) > 0.03


def test_one_iteration_replaces_the_prior_and_two_are_averaged(image: Tensor, prior: Tensor) -> None:
    network = small()
    with torch.no_grad():
        first = network(image, prior).logits.sigmoid().view_as(prior)
        second = network(image, first).logits.sigmoid().view_as(prior)
        assert torch.equal(network.promote(image, prior, 0), prior)
        assert torch.equal(network.promote(image, prior, 1), first)
        assert torch.allclose(network.promote(image, prior, 2), (first + second) / 2, atol=1e-6)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(form.values()))
def test_an_inverted_prior_gives_the_inverted_map(form: dict[str, str], image: Tensor, prior: Tensor) -> None:
    network = small(**form)
    # Later hard regions would hang on the rounding of pixels that come out at .5.
    iterations = 3 if form["weighting"] == "soft" else 1
    with torch.no_grad():
        found, inverted = (network.promote(image, p, iterations) for p in (prior, 1 - prior))
    assert float((found + inverted - 1).abs().max()) < 1e-5  # rounding, as above
    assert float((found - inverted).abs().max()) > 0.05


def test_hard_regions_are_those_of_the_prior_above_a_half(image: Tensor) -> None:
    soft, hard = small(), small(weighting="hard")
    prior = torch.rand(2, 1, *SIZE, generator=torch.Generator().manual_seed(2))
    prior[0, 0, 0] = 0.5  # not above it
    with torch.no_grad():
        assert torch.equal(hard(image, prior).logits, soft(image, (prior > 0.5).float()).logits)
        assert not torch.allclose(hard(image, prior).logits, soft(image, prior).logits, atol=1e-3)


@pytest.mark.parametrize("form", FORMS[::2], ids=lambda form: "-".join(form.values()))
def test_sampled_logits_are_those_of_the_full_map(form: dict[str, str], image: Tensor, prior: Tensor) -> None:
    network = small(**form)
    with torch.no_grad():
        full, none = network(image, prior)
        logits, pixels = network(image, prior, samples=500)
        everything, still_none = network(image, prior, samples=SIZE[0] * SIZE[1])
    assert none is still_none is None
    assert full.shape == (2, SIZE[0] * SIZE[1])
    assert torch.equal(full, everything)
    assert logits.shape == pixels.shape == (2, 500)
    assert all(len(set(row.tolist())) == 500 for row in pixels)
    # The same products summed in another order.
    assert torch.allclose(logits, full.gather(1, pixels), atol=1e-4)


def test_each_pass_samples_other_pixels(image: Tensor, prior: Tensor) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        first, second = (small()(image, prior, samples=500).pixels for _ in range(2))
    # Of 6144 pixels some 41 are expected to be in both draws, with a deviation of 6.
    assert len(set(first[0].tolist()) & set(second[0].tolist())) < 41 + 5 * 6


@pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(form.values()))
@pytest.mark.parametrize("content", ["nothing", "everything", "one pixel"])
def test_a_region_without_pixels_is_no_nan(form: dict[str, str], content: str, image: Tensor) -> None:
    network, image = small(**form), image[:, :, 16:48, 32:80]
    prior = torch.full((2, 1, 32, 48), float(content == "everything"))
    if content == "one pixel":
        prior[:, :, 5, 7] = 1
    network.zero_grad()
    logits = network(image, prior).logits
    F.binary_cross_entropy_with_logits(logits, (image[:, :1] > 0).float().flatten(1)).backward()
    assert bool(logits.isfinite().all())
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert len(gradients) == len(list(network.parameters()))
    assert all(bool(g.isfinite().all()) for g in gradients)
    with torch.no_grad():
        promoted = network.promote(image, prior, 3)
    assert bool(((promoted >= 0) & (promoted <= 1)).all())
    assert torch.equal(promoted, prior) == (content != "one pixel")


def test_an_empty_region_of_one_image_leaves_the_others_alone(image: Tensor, prior: Tensor) -> None:
    one_empty = torch.cat([prior[:1], torch.zeros(1, 1, *SIZE)])
    with torch.no_grad():
        found, expected = (small().promote(image, p, 3) for p in (one_empty, prior))
    assert torch.allclose(found[0], expected[0], atol=1e-6)
    assert not found[1].any()


def test_a_pixel_on_its_anchor_has_a_gradient() -> None:
    anchors = torch.randn(1, 2, 4, requires_grad=True)
    rows = anchors.detach().repeat(1, 2, 1).requires_grad_()
    logits = nearest_anchor(rows, anchors)
    distance = float((anchors[0, 0] - anchors[0, 1]).detach().norm())
    assert logits.tolist()[0] == pytest.approx([distance, -distance] * 2)
    logits.sum().backward()
    assert rows.grad is not None
    assert anchors.grad is not None
    assert bool(rows.grad.isfinite().all() and anchors.grad.isfinite().all())


def test_distances_stay_exact_where_pixels_lie_far_from_the_origin() -> None:
    """|x|^2 - 2xy + |y|^2 would lose all digits here."""
    rows, anchors = torch.tensor([[[1e4, 0.0], [1e4, 1.0]]]), torch.tensor([[[1e4, 0.25], [1e4, 1.0]]])
    assert torch.allclose(nearest_anchor(rows, anchors), torch.tensor([[0.75, -0.75]]))


def test_mixed_precision_changes_the_logits_little(image: Tensor, prior: Tensor) -> None:
    network = small()
    with torch.no_grad():
        features = network.features(image)
        exact, _ = network.classify(features, prior)
        with torch.autocast("cpu", torch.bfloat16):
            mixed, _ = network.classify(features, prior)
    assert mixed.dtype == torch.float32
    assert not torch.equal(mixed, exact)
    # Embeddings are rounded to 1 in 256, in both anchors and all pixels, and are further off than anchors differ.
    assert float((mixed - exact).std() / exact.std()) < 0.03


def test_the_first_stage_does_not_see_the_prior(image: Tensor) -> None:
    network = lps(backbone="mobilenet_v2", width=8, stage="backbone")
    with torch.no_grad():
        found = [network(image, prior).logits for prior in (torch.zeros(2, 1, *SIZE), torch.ones(2, 1, *SIZE))]
    assert found[0].shape == (2, SIZE[0] * SIZE[1])
    assert torch.equal(*found)


def test_the_first_stages_head_is_the_released_one(image: Tensor) -> None:
    """Three coarsest levels, 32 channels each, every prediction with the one before: coarse to fine."""
    network = lps(stage="backbone")
    assert kinds(network.cascade) == [
        (nn.Conv2d, 512, 32, 1, 1, True), (nn.Conv2d, 512, 32, 1, 1, True), (nn.Conv2d, 256, 32, 1, 1, True),
        (nn.Conv2d, 32, 1, 1, 1, True), (nn.Conv2d, 33, 1, 1, 1, True), (nn.Conv2d, 33, 1, 1, 1, True),
    ]  # fmt: skip
    with torch.no_grad():
        reduced = [r(x) for r, x in zip(network.cascade.reduce, network.backbone(image)[:1:-1], strict=True)]
        first, second, third = network.cascade.predict
        logits = third(torch.cat([reduced[2], second(torch.cat([reduced[1], first(reduced[0])], 1))], 1))
        expected = F.interpolate(logits, scale_factor=4, mode="bilinear")
        assert torch.allclose(network(image, image[:, :1]).logits.view_as(expected), expected, atol=1e-5)


def test_the_first_stages_head_takes_levels_of_different_strides() -> None:
    levels = lps(backbone="mobilenet_v2", stage="backbone").backbone.levels
    head = CascadeHead((*levels[:3], replace(levels[3], stride=16), replace(levels[4], stride=32)))
    sizes = (32, 16, 8, 4, 2)
    found = head([torch.randn(1, v.channels, s, s) for v, s in zip(levels, sizes, strict=True)], (64, 64))
    assert found.shape == (1, 1, 64, 64)


@pytest.mark.parametrize("backbone", ["timm:tf_efficientnet_lite0", "timm:resnet18"])
def test_backbones_of_timm_promote(backbone: str, image: Tensor, prior: Tensor) -> None:
    network = lps(backbone=backbone, stride=8, width=4, embedding=8)
    assert network.strides == (2, 4, 8, 8, 8)
    with torch.no_grad():
        assert network.features(image).shape == (2, 20, *SIZE)
        assert network.promote(image, prior, 2).shape == prior.shape


def test_votes_of_the_prior_stay_in_the_mean(image: Tensor, prior: Tensor) -> None:
    network = copy.deepcopy(small())
    with torch.no_grad():
        first = network.promote(image, prior, 1)
        network.settings = network.settings.model_copy(update={"prior_votes": 2.0})
        found = network.promote(image, prior, 1)
        assert torch.allclose(found, (2 * prior + first) / 3, atol=1e-6)
        following = network(image, found).logits.sigmoid().view_as(prior)
        assert torch.allclose(network.promote(image, prior, 2), (3 * found + following) / 4, atol=1e-6)


@pytest.mark.parametrize(("dtype", "exact"), [(torch.float32, True), (torch.float16, False)])
def test_the_first_stages_checkpoint_is_the_seconds_weights(tmp_path: Path, dtype: torch.dtype, exact: bool) -> None:
    first = lps(backbone="mobilenet_v2", width=8, stage="backbone")
    with torch.no_grad():
        for p in first.parameters():
            p.add_(0.01)
    header = CheckpointHeader(method="lps", network=first.settings.model_dump(), preprocessing=Preprocessing(size=SIZE))
    save_checkpoint(tmp_path / "best.safetensors", first, header, dtype=dtype)
    second = lps(backbone="mobilenet_v2", width=8, stride=8)  # the taps differ in stride, the weights do not
    load_weights(second.backbone, tmp_path / "best.safetensors", architecture="mobilenet_v2")
    for name, value in first.backbone.state_dict().items():
        found = second.backbone.state_dict()[name]
        assert torch.equal(found, value if exact else value.to(dtype).to(value.dtype)), name


def test_the_two_stages_follow_each_other_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from salience.training.cli import main

    def train(output: Path, *arguments: str) -> Path:
        command = [
            "train.py", "lps", "--synthetic", "4", "--backbone", "mobilenet_v2", "--size", "32", "32", "--epochs", "1",
            "--batch", "2", "--accelerator", "cpu", "--output", str(output), *arguments,
        ]  # fmt: skip
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as exit_info:
            main()
        assert exit_info.value.code == 0, capsys.readouterr().err
        return output / "best.safetensors"

    first = train(tmp_path / "first", "--network", "stage=backbone", "width=4")
    # At this rate the second stage leaves the weights where they are, but for what is 0.
    settings = ["--network", "width=4", "embedding=8", "--weights", str(first), "--rate", "1e-30"]
    second = train(tmp_path / "second", *settings)
    (_, before), (header, after) = load_checkpoint(first), load_checkpoint(second)
    trained, kept = (dict(network.get_submodule("backbone").named_parameters()) for network in (before, after))
    assert max(float((trained[name] - kept[name]).detach().abs().max()) for name in trained) < 1e-20
    assert header.training["backbone_weights"] == "best.safetensors"
    assert not any(name.startswith("cascade") for name in after.state_dict())
