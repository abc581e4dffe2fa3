import copy

import pytest
import torch
from torch import nn

from salience.training.timm_backbone import SamePaddedConv2d
from salience.training.wide_backward import widen_backward


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8),
        nn.Conv2d(8, 8, 5, padding=2, groups=8, bias=False),
        nn.ConvTranspose2d(8, 4, 4, stride=2, padding=1),
        SamePaddedConv2d(8, 8, 3, stride=2, groups=8, bias=False),
    ],
    ids=["depthwise, stride", "depthwise, 5x5", "transposed", "same padding"],
)
def test_gradients_are_those_of_float32_rounded(layer: nn.Module) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 8, 16, 16)
    wide = nn.Sequential(copy.deepcopy(layer)).train()
    assert widen_backward(wide) == 1
    found = []
    for network, cast in ((wide, True), (nn.Sequential(layer), False)):
        given = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=cast):
            out = network(given)
        assert out.dtype == (torch.bfloat16 if cast else torch.float32)
        out.float().square().sum().backward()
        found.append([given.grad, *(p.grad for p in network.parameters())])
    for ours, exact in zip(*found, strict=True):
        assert ours is not None
        assert exact is not None
        assert ours.dtype == torch.float32
        assert float((ours - exact).norm() / exact.norm()) < 0.01


def test_other_convolutions_and_inference_stay_as_they_are() -> None:
    plain = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 1))
    assert widen_backward(plain) == 0
    layer = nn.ConvTranspose2d(4, 4, 4, stride=2, padding=1).eval()
    x = torch.randn(1, 4, 8, 8)
    expected = layer(x)
    widen_backward(layer)
    assert torch.equal(layer(x), expected)
