from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from torch import nn

from salience.training.checkpoint import build_network
from salience.training.networks.multis import MultiScale, MultiScaleOutput, maxout_fusion
from salience.training.recipes.multis import MultiScaleRecipe, fused_cross_entropy, scale_labels


@pytest.fixture(scope="module")
def paper_network() -> nn.Module:
    return build_network("multis", {}).eval()


def test_shapes_and_widths_are_the_papers(paper_network: nn.Module) -> None:
    assert isinstance(paper_network, MultiScale)
    deconvolutions = [m for m in paper_network.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert {(m.kernel_size, m.stride) for m in deconvolutions} == {((4, 4), (2, 2))}
    # Top-down 512 -> 20 and twice 20 -> 20; heads of 3, 2 and 1 steps, each ending in one channel.
    assert [(m.in_channels, m.out_channels) for m in deconvolutions] == [
        (512, 20), (20, 20), (20, 20),
        (20, 20), (20, 20), (20, 1), (20, 20), (20, 1), (20, 1),
    ]  # fmt: skip
    assert [(m.in_channels, m.out_channels) for m in paper_network.laterals if isinstance(m, nn.Conv2d)] == [
        (512, 20), (256, 20), (128, 20),
    ]  # fmt: skip
    linear = [m for m in paper_network.scale_weights if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [(512, 256), (256, 3)]


def test_every_map_has_the_inputs_size(paper_network: nn.Module) -> None:
    with torch.no_grad():
        output = paper_network(torch.randn(2, 3, 32, 48))
    assert [tuple(m.shape) for m in output.maps] == [(2, 1, 32, 48)] * 3
    assert output.weights.shape == (2, 3)
    assert output.saliency.shape == (2, 1, 32, 48)
    assert bool(((output.saliency >= 0) & (output.saliency <= 1)).all())


def test_a_light_backbone_takes_one_more_step() -> None:
    network = build_network("multis", {"backbone": "mobilenet_v2"}).eval()
    steps = [sum(isinstance(m, nn.ConvTranspose2d) for m in head.modules()) for head in network.heads]  # type: ignore[union-attr]
    assert steps == [4, 3, 2]
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 64, 64)).saliency.shape == (1, 1, 64, 64)


def test_fusion_takes_the_largest_weighted_map_of_each_pixel() -> None:
    maps = [torch.tensor([[[[9.0, -9.0]]]]), torch.tensor([[[[0.0, 0.0]]]]), torch.tensor([[[[-9.0, 9.0]]]])]
    fused = maxout_fusion(maps, torch.tensor([[1.0, 0.8, 0.5]]))
    expected = [[torch.sigmoid(torch.tensor(9.0)), 0.5 * torch.sigmoid(torch.tensor(9.0))]]
    assert torch.allclose(fused[0, 0], torch.tensor(expected))


def test_weights_belong_to_scales_in_order() -> None:
    """weights[:, 0] scales maps[0], the finest; the labels use the same order."""
    ones = torch.full((1, 1, 2, 2), 50.0)
    for k in range(3):
        maps = tuple(ones if i == k else -ones for i in range(3))
        logits = torch.full((1, 3), -50.0)
        logits[0, k] = 50.0
        assert float(MultiScaleOutput(maps, logits).saliency.min()) == pytest.approx(1.0)  # type: ignore[arg-type]


def block(height: int, width: int, *boxes: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((height, width), dtype=np.bool_)
    for top, left, bottom, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


@pytest.mark.parametrize(
    ("mask", "labels"),
    [
        (block(10, 10), [0, 0, 0]),
        (block(10, 10, (0, 0, 5, 5)), [1, 0, 0]),  # .25 exactly: upper bounds belong to the scale
        (block(10, 10, (0, 0, 5, 6)), [0, 1, 0]),  # .30
        (block(10, 10, (0, 0, 5, 10)), [0, 1, 0]),  # .50 exactly
        (block(10, 10, (0, 0, 6, 10)), [0, 0, 1]),  # .60
        (block(10, 10, (0, 0, 10, 10)), [0, 0, 1]),
        (block(10, 10, (0, 0, 2, 2), (4, 0, 10, 10)), [1, 0, 1]),  # .04 and .60
        (block(10, 10, (0, 0, 5, 5), (5, 5, 10, 10)), [0, 1, 0]),  # touch at a corner: one region of .50
        (block(10, 10, (0, 0, 4, 4), (5, 5, 9, 9)), [1, 0, 0]),  # apart: two regions of .16
    ],
)
def test_scale_labels_of_hand_made_masks(mask: np.ndarray, labels: list[int]) -> None:
    assert scale_labels(mask).tolist() == labels


@given(npst.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))))
@settings(max_examples=60, deadline=None)
def test_scale_labels_do_not_change_under_flips(mask: np.ndarray) -> None:
    labels = scale_labels(mask)
    assert labels.any() == mask.any()
    assert np.array_equal(scale_labels(mask[:, ::-1]), labels)
    assert np.array_equal(scale_labels(mask.T), labels)


def test_loss_is_both_cross_entropies(paper_network: nn.Module) -> None:
    batch = {
        "image": torch.randn(2, 3, 32, 32),
        "mask": (torch.rand(2, 1, 32, 32) > 0.5).float(),
        "scales": torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]]),
    }
    with torch.no_grad():
        loss, saliency = MultiScaleRecipe().loss(paper_network, batch)
        output = paper_network(batch["image"])
    maps = F.binary_cross_entropy(output.saliency, batch["mask"])
    # Equation 5 sums over the three weights.
    weights = F.binary_cross_entropy(output.weights.sigmoid(), batch["scales"], reduction="none").sum(dim=1).mean()
    assert float(loss) == pytest.approx(float(maps + 0.1 * weights), rel=1e-5)
    assert torch.equal(saliency, output.saliency)


@pytest.mark.parametrize("fusion", ["maxout", "mean", "product", "s2", "s3", "s4"])
@pytest.mark.parametrize("weighted", [True, False])
def test_the_loss_from_logits_is_that_of_the_fused_map(fusion: Any, weighted: bool) -> None:
    torch.manual_seed(0)
    maps = tuple(2 * torch.randn(2, 1, 5, 7, dtype=torch.float64) for _ in range(3))
    weights = torch.randn(2, 3, dtype=torch.float64) if weighted else None
    output = MultiScaleOutput(maps, weights, fusion)  # type: ignore[arg-type]
    mask = torch.rand(2, 1, 5, 7)
    expected = F.binary_cross_entropy(output.saliency.float(), mask)
    assert float(fused_cross_entropy(output, mask)) == pytest.approx(float(expected), rel=1e-4)


def test_confidently_wrong_pixels_keep_their_gradient() -> None:
    """A clamp of the map to [1e-6, 1 - 1e-6] gives them none."""
    maps = tuple(torch.full((1, 1, 2, 2), -40.0, requires_grad=True) for _ in range(3))
    output = MultiScaleOutput(maps, torch.zeros(1, 3))  # type: ignore[arg-type]
    fused_cross_entropy(output, torch.ones(1, 1, 2, 2)).backward()
    total = sum(float(m.grad.sum()) for m in maps if m.grad is not None)
    assert total == pytest.approx(-1.0, rel=1e-3)


def test_the_map_heads_start_small() -> None:
    """Large first logits would leave a third of the pixels confidently wrong."""
    torch.manual_seed(0)
    network = build_network("multis", {"backbone": "mobilenet_v2"})
    with torch.no_grad():
        output = network(torch.randn(2, 3, 64, 64))
    assert max(float(m.abs().max()) for m in output.maps) < 5


def test_the_heads_may_be_narrower_than_the_pyramid() -> None:
    network = build_network("multis", {"width": 24, "head_width": 8})
    heads = network.get_submodule("heads")
    found = [(m.in_channels, m.out_channels) for m in heads.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert found == [(24, 8), (8, 8), (8, 1), (24, 8), (8, 1), (24, 1)]


def test_dropout_acts_behind_every_layer_of_the_decoder_but_the_last() -> None:
    network = build_network("multis", {"decoder_dropout": 0.5})
    assert [m.p for m in network.get_submodule("heads").modules() if isinstance(m, nn.Dropout2d)] == [0.5] * 3
    assert network.get_submodule("dropout").p == 0.5
    pyramid = torch.zeros(0)

    def keep(module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        nonlocal pyramid
        pyramid = given[0]

    network.get_submodule("heads.0").register_forward_pre_hook(keep)
    network.train()(torch.randn(1, 3, 32, 32))
    assert float((pyramid == 0).all(dim=(2, 3)).float().mean()) > 0  # channels that both sides dropped


def test_the_papers_optimiser_is_the_default() -> None:
    defaults = MultiScaleRecipe().defaults()
    assert (defaults.optimiser, defaults.rate, defaults.momentum, defaults.decay) == ("sgd", 0.01, 0.9, 5e-4)
    assert (defaults.schedule, defaults.epochs, defaults.batch) == ("plateau", 80, 256)


def test_parts_of_the_method_can_be_left_out() -> None:
    small = {"backbone": "mobilenet_v2", "width": 4}
    image = torch.randn(2, 3, 64, 64)
    plain: MultiScaleOutput = build_network("multis", small | {"scale_weights": False})(image)
    assert plain.weights is None
    assert torch.equal(plain.saliency, torch.cat(plain.maps, dim=1).sigmoid().amax(dim=1, keepdim=True))
    mean: MultiScaleOutput = build_network("multis", small | {"fusion": "mean"})(image)
    weights = mean.shares[:, :, None, None]
    expected = (torch.cat(mean.maps, dim=1).sigmoid() * weights).sum(dim=1, keepdim=True) / weights.sum(dim=1)[:, None]
    assert torch.allclose(mean.saliency, expected, atol=1e-6)
    batch = {"image": image, "mask": torch.ones(2, 1, 64, 64), "scales": torch.zeros(2, 3)}
    network = build_network("multis", small | {"scale_weights": False})
    loss, _ = MultiScaleRecipe().loss(network, batch)
    assert torch.isfinite(loss)
