"""Random small networks: the captured gradient is autograd's, ties included."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from salience.export.reverse_mode import capture, value_and_gradient
from tests.export.test_reverse_mode import by_autograd, relative, run_onnx, to_onnx

# Sums in another order, in double precision; measured up to 1e-15 a layer.
EXACT = 1e-11


class Residual(nn.Module):
    """Two ways that are joined, by concatenation or sum."""

    def __init__(self, way: nn.Module, *, joined: bool) -> None:
        super().__init__()
        self.way = way
        self.joined = joined

    def forward(self, image: Tensor) -> Tensor:
        found: Tensor = self.way(image)
        return torch.cat([found, image], dim=1) if self.joined else found + image


class Resize(nn.Module):
    def __init__(self, size: tuple[int, int], mode: str, corners: bool | None) -> None:
        super().__init__()
        self.size, self.mode, self.corners = size, mode, corners

    def forward(self, image: Tensor) -> Tensor:
        return F.interpolate(image, size=self.size, mode=self.mode, align_corners=self.corners)


def kernels(side: int) -> st.SearchStrategy[tuple[int, int, int, int]]:
    """Kernel, stride, padding and dilation that a convolution of so many places can have."""
    numbers = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(0, 4), st.integers(1, 2))
    return numbers.filter(lambda n: n[3] * (n[0] - 1) < side + 2 * n[2])


def pool_kernels(side: int) -> st.SearchStrategy[tuple[int, int, int, int]]:
    return kernels(side).filter(lambda n: 2 * n[2] <= n[0])


@st.composite
def convolutions(draw: st.DrawFn, shape: tuple[int, ...]) -> nn.Module:
    channels, *sides = shape
    kernel, stride, padding, dilation = zip(*(draw(kernels(side)) for side in sides), strict=True)
    groups = draw(st.sampled_from([g for g in (1, 2, channels) if channels % g == 0]))
    width = groups * draw(st.integers(1, 2))
    return nn.Conv2d(channels, width, kernel, stride, padding, dilation, groups)


@st.composite
def transposed(draw: st.DrawFn, shape: tuple[int, ...]) -> nn.Module:
    kernel, stride = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    padding = draw(st.integers(0, (kernel - 1) // 2))
    extra = draw(st.integers(0, stride - 1))
    return nn.ConvTranspose2d(shape[0], draw(st.integers(1, 3)), kernel, stride, padding, output_padding=extra)


@st.composite
def max_pools(draw: st.DrawFn, shape: tuple[int, ...]) -> nn.Module:
    kernel, stride, padding, dilation = zip(*(draw(pool_kernels(side)) for side in shape[1:]), strict=True)
    if draw(st.booleans()):
        stride, padding, dilation = kernel, (0, 0), (1, 1)
    return nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=draw(st.booleans()))


@st.composite
def average_pools(draw: st.DrawFn, shape: tuple[int, ...]) -> nn.Module:
    if draw(st.booleans()):
        return nn.AdaptiveAvgPool2d(draw(st.tuples(st.integers(1, 9), st.integers(1, 9))))
    kernel, stride, padding, _ = zip(*(draw(pool_kernels(side)) for side in shape[1:]), strict=True)
    divisor = draw(st.sampled_from([None, None, 3]))
    return nn.AvgPool2d(kernel, stride, padding, draw(st.booleans()), draw(st.booleans()), divisor)


@st.composite
def resizes(draw: st.DrawFn) -> nn.Module:
    size = draw(st.tuples(st.integers(1, 15), st.integers(1, 15)))
    mode = draw(st.sampled_from(["nearest", "bilinear", "bicubic"]))
    return Resize(size, mode, None if mode == "nearest" else draw(st.booleans()))


@st.composite
def layers(draw: st.DrawFn, shape: tuple[int, ...]) -> nn.Module:
    """One layer for (C, H, W) that is exact in numbers that are quarters."""
    ways = [
        convolutions(shape),
        transposed(shape),
        st.just(nn.BatchNorm2d(shape[0])),
        st.builds(Residual, st.just(nn.Conv2d(shape[0], shape[0], 3, padding=1)), joined=st.booleans()),
    ]
    layer: nn.Module = draw(st.one_of(*ways, max_pools(shape), st.just(nn.ReLU()), st.just(nn.ReLU6())))
    return layer


@st.composite
def smooth_layers(draw: st.DrawFn, shape: tuple[int, ...]) -> nn.Module:
    """One that rounds; before a ReLU or max pool the rounding would decide."""
    ways = [average_pools(shape), resizes(), st.just(nn.Sigmoid()), convolutions(shape), transposed(shape)]
    layer: nn.Module = draw(st.one_of(*ways))
    return layer


def quarter(network: nn.Module) -> None:
    """Weights in quarters and scales that are powers of two: sums are then exact in any order, so ties stay ties."""
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_((torch.randn_like(weight) * 4).round() / 4)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 0.0
                module.weight.copy_(2.0 ** torch.randint(-2, 2, module.weight.shape))
                module.running_mean = (torch.randn_like(module.weight) * 4).round().detach() / 4


@st.composite
def networks(draw: st.DrawFn, *, smooth: bool = True) -> tuple[nn.Module, Tensor]:
    """A network in double precision, of some exact and then some smooth layers, and images for it."""
    torch.manual_seed(draw(st.integers(0, 999)))
    shape = draw(st.tuples(st.integers(1, 4), st.integers(4, 13), st.integers(4, 13)))
    image = (torch.randn(3, *shape, dtype=torch.float64) * 2).round() / 2
    network = nn.Sequential().double().eval()
    kinds = [layers] * draw(st.integers(0, 3)) + [smooth_layers] * (draw(st.integers(0, 2)) if smooth else 0)
    for kind in kinds or [layers]:
        reached = network(image[:1]).shape[1:]
        if reached.numel() > 3000:
            break
        layer = draw(kind(tuple(reached))).double().eval()
        quarter(layer)
        network.append(layer)
    return Summed(network), image


class Summed(nn.Module):
    """One number per image."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        # The first layer may be in place.
        found: Tensor = self.network(image + 0.0)
        places = torch.arange(found[0].numel(), dtype=found.dtype).view(found.shape[1:])
        return (found * (places % 7 - 2)).sum(dim=(1, 2, 3))


def assert_captured_is_autograd(network: nn.Module, image: Tensor) -> None:
    captured = capture(value_and_gradient(network), (image[:1],))
    value, gradient = captured(image)
    assert relative(value, network(image)) < EXACT
    assert relative(gradient, by_autograd(network, image)) < EXACT


@settings(max_examples=20, deadline=None)
@given(networks())
def test_gradient_of_a_random_network(case: tuple[nn.Module, Tensor]) -> None:
    assert_captured_is_autograd(*case)


@pytest.mark.slow
@settings(max_examples=600, deadline=None)
@given(networks())
def test_gradient_of_many_random_networks(case: tuple[nn.Module, Tensor]) -> None:
    assert_captured_is_autograd(*case)


def assert_onnx_runtime_is_autograd(network: nn.Module, image: Tensor) -> None:
    """In single precision every number is exact here, so ONNX Runtime may not differ in a single tie."""
    network, image = network.float(), image.float()
    model = to_onnx(capture(value_and_gradient(network), (image[:1],)), (image,))
    assert relative(run_onnx(model, image)[1], by_autograd(network, image)) < 1e-6


@settings(max_examples=3, deadline=None)
@given(networks(smooth=False))
def test_onnx_runtime_of_a_random_network(case: tuple[nn.Module, Tensor]) -> None:
    assert_onnx_runtime_is_autograd(*case)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(networks(smooth=False))
def test_onnx_runtime_of_many_random_networks(case: tuple[nn.Module, Tensor]) -> None:
    assert_onnx_runtime_is_autograd(*case)
