"""The gradient of every operator with a rule, against autograd, and all of them through the runtimes."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import ModelProto
from torch import Tensor, nn

from salience.export.compilers.trt import compile_tensorrt_rtx
from salience.export.reverse_mode import capture, value_and_gradient
from tests.export.test_reverse_mode import ROUNDING, by_autograd, openvino_runner, relative, run_onnx, to_onnx, unwanted

Function = Callable[[Tensor], Tensor]
# Of what the cases below take: (N, 4, 12, 9), of which the rows are no multiple of what most kernels take.
SHAPE = (4, 12, 9)


def resized(**options: Any) -> Function:
    return lambda x: F.interpolate(x, **options)


CONVOLUTIONS: dict[str, Function] = {
    "plain": nn.Conv2d(4, 6, 3, padding=1),
    "pointwise": nn.Conv2d(4, 6, 1),
    "not square": nn.Conv2d(4, 6, (2, 5), padding=(0, 2)),
    "even kernel": nn.Conv2d(4, 6, 4, padding=1),
    "dilated": nn.Conv2d(4, 6, 3, padding=2, dilation=(2, 1)),
    "padded beyond the kernel": nn.Conv2d(4, 6, 2, padding=3),
    "stride 2": nn.Conv2d(4, 6, 3, stride=2, padding=1),
    "stride 2 of 7": nn.Conv2d(4, 6, 7, stride=2, padding=3),
    "stride 4 of 11": nn.Conv2d(4, 6, 11, stride=4, padding=2),
    "stride beyond the kernel": nn.Conv2d(4, 6, 2, stride=3, padding=1),
    "pointwise stride 2": nn.Conv2d(4, 6, 1, stride=2),
    "unlike strides": nn.Conv2d(4, 6, (3, 2), stride=(2, 3), padding=(3, 4), dilation=(2, 1)),
    "stride 2 padded beyond": nn.Conv2d(4, 6, 2, stride=2, padding=4),
    "groups": nn.Conv2d(4, 6, 3, padding=1, groups=2),
    "depthwise": nn.Conv2d(4, 4, 3, padding=1, groups=4),
    "depthwise stride 2": nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=4),
    "same": nn.Conv2d(4, 6, (3, 5), padding="same"),
    "reflected": nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
    "transposed": nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1),
    "transposed in groups": nn.ConvTranspose2d(4, 6, (2, 3), stride=(2, 1), groups=2),
    "with batch norm": nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, bias=False), nn.BatchNorm2d(6), nn.Hardswish()),
    "transposed with batch norm": nn.Sequential(nn.ConvTranspose2d(4, 6, 2, 2), nn.BatchNorm2d(6), nn.ReLU()),
}
POOLS: dict[str, Function] = {
    "max 2": nn.MaxPool2d(2),
    "max 2 ceil": nn.MaxPool2d(2, ceil_mode=True),
    "max 3 by 2": nn.MaxPool2d((3, 2)),
    "max 3 stride 2": nn.MaxPool2d(3, 2),
    "max 3 stride 2 padded": nn.MaxPool2d(3, 2, padding=1),
    "max 3 stride 2 ceil": nn.MaxPool2d(3, 2, ceil_mode=True),
    "max 5 stride 1": nn.MaxPool2d(5, 1, padding=2),
    "max stride beyond the kernel": nn.MaxPool2d((2, 1), 3),
    "max dilated": nn.MaxPool2d(3, 2, padding=1, dilation=2),
    "max after relu": nn.Sequential(nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True)),
    "adaptive max": nn.AdaptiveMaxPool2d((4, 3)),
    "average 2": nn.AvgPool2d(2),
    "average 3 exact": nn.AvgPool2d(3),
    "average 3 stride 2": nn.AvgPool2d(3, 2, padding=1),
    "average 3 stride 2 without padding": nn.AvgPool2d(3, 2, padding=1, count_include_pad=False),
    "average ceil": nn.AvgPool2d((3, 2), 2, ceil_mode=True, count_include_pad=False),
    "average with divisor": nn.AvgPool2d(3, 2, padding=1, divisor_override=5),
    "average with divisor ceil": nn.AvgPool2d(3, 2, ceil_mode=True, divisor_override=4),
    "global": nn.AdaptiveAvgPool2d(1),
    "adaptive even": nn.AdaptiveAvgPool2d((4, 3)),
    "adaptive uneven": nn.AdaptiveAvgPool2d((5, 7)),
    "adaptive to larger": nn.AdaptiveAvgPool2d((14, 9)),
    "adaptive twice": nn.Sequential(nn.AdaptiveAvgPool2d((1, 3)), nn.AdaptiveAvgPool2d(1)),
    "adaptive same": nn.AdaptiveAvgPool2d(SHAPE[1:]),
    "1D max": lambda x: F.max_pool1d(x.flatten(2), 3, 2, 1),
    "1D average": lambda x: F.avg_pool1d(x.flatten(2), 4, 2, 1),
}
RESIZES: dict[str, Function] = {
    "nearest twice": resized(scale_factor=2),
    "nearest": resized(size=(7, 20)),
    "bilinear": resized(size=(7, 20), mode="bilinear"),
    "bilinear by scale": resized(scale_factor=(1.7, 0.6), mode="bilinear"),
    "bilinear by corners": resized(scale_factor=2.0, mode="bilinear", align_corners=True),
    "antialiased": resized(size=(5, 4), mode="bilinear", antialias=True),
    "bicubic": resized(size=(24, 5), mode="bicubic"),
    "1D linear": lambda x: F.interpolate(x.flatten(2), size=50, mode="linear"),
}
ACTIVATIONS: tuple[Function, ...] = (
    torch.sigmoid,
    torch.tanh,
    F.gelu,
    F.silu,
    F.hardsigmoid,
    F.leaky_relu,
    F.elu,
    F.softplus,
)
OTHERS: dict[str, Function] = {
    "relu6": F.relu6,
    "hardtanh": lambda x: F.hardtanh(x, -0.5, 1.0),
    "activations": lambda x: torch.cat([activation(x) for activation in ACTIVATIONS], dim=1),
    "prelu": nn.PReLU(4),
    "softmax": lambda x: x.softmax(dim=1),
    "log softmax": lambda x: F.log_softmax(x, dim=2),
    "layer norm": nn.LayerNorm(SHAPE),
    "group norm": nn.GroupNorm(2, 4),
    "instance norm": nn.InstanceNorm2d(4),
    "batch norm": nn.BatchNorm2d(4),
    "linear": nn.Sequential(nn.Flatten(), nn.Linear(4 * 12 * 9, 7)),
    "linear of rows": nn.Linear(9, 5),
    "attention": lambda x: F.scaled_dot_product_attention(x, x, x),
    "concatenation": lambda x: torch.cat([x, x.square(), x[:, :1]], dim=1),
    "parts": lambda x: x[:, 1:3] * x[:, -2:] + x[:, :1, 3:4],
    "every second": lambda x: x[..., 1:8:2],
    "one": lambda x: x[:, 2] * x.select(1, -1),
    "chunks": lambda x: x.chunk(2, dim=1)[1].square(),
    "cropped": lambda x: F.pad(x, (1, -2, -1, 0)),
    "mirrored": lambda x: F.pad(x, (2, 1, 0, 3), mode="reflect"),
    "continued": lambda x: F.pad(x, (2, 1, 0, 3), mode="replicate"),
    "mean": lambda x: x.mean(dim=(2, 3)),
    "maximum": lambda x: x.flatten(1).max(dim=1, keepdim=True).values,
    "gathered": lambda x: x.flatten(1).gather(1, x.flatten(1).argmax(1, keepdim=True)).square(),
    "pixel shuffle": lambda x: F.pixel_shuffle(x, 2),
    "norm": lambda x: (x + 0.1).flatten(1).norm(dim=1, keepdim=True),
}
CASES = {
    f"{kind}: {name}": function
    for kind, table in {"conv": CONVOLUTIONS, "pool": POOLS, "resize": RESIZES, "other": OTHERS}.items()
    for name, function in table.items()
}


class Case(nn.Module):
    """A function of the table, its results summed with fixed weights so that each counts."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function
        with torch.random.fork_rng():
            torch.manual_seed(3)
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    nn.init.uniform_(module.weight, 0.5, 1.5)
                    module.running_mean = torch.randn_like(module.weight).detach()
                    module.running_var = torch.rand_like(module.weight).detach() + 0.5
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        found = self.function(image)
        weights = torch.cos(torch.arange(found[0].numel(), dtype=found.dtype)).view(found.shape[1:])
        return (found * weights).flatten(1).sum(dim=1)


def images(count: int, seed: int) -> Tensor:
    """In halves, so that many maxima tie and many values are at the bends of the activations."""
    random = torch.Generator().manual_seed(seed)
    return (torch.randn(count, *SHAPE, generator=random) * 2).round() / 2


@pytest.mark.parametrize("name", CASES)
def test_gradient_equals_autograd(name: str) -> None:
    case = Case(CASES[name])
    captured = capture(value_and_gradient(case), (torch.zeros(1, *SHAPE),))
    image = images(3, seed=1)
    value, gradient = captured(image)
    assert relative(value, case(image)) < ROUNDING
    assert relative(gradient, by_autograd(case, image)) < ROUNDING


# TensorRT's MaxPool has no dilation and its Resize no antialiasing, which the forward pass needs.
FORWARD_LACKS = ("pool: max dilated", "resize: antialiased")
# Of every rule the form that has most in it; all of them take a minute.
CHOSEN = (
    "conv: stride 2 of 7",
    "conv: unlike strides",
    "conv: stride beyond the kernel",
    "conv: depthwise stride 2",
    "conv: padded beyond the kernel",
    "conv: transposed with batch norm",
    "pool: max 2 ceil",
    "pool: max 3 stride 2 ceil",
    "pool: average 3 stride 2 without padding",
    "pool: adaptive uneven",
    "resize: nearest twice",
    "resize: bilinear by corners",
    "other: relu6",
    "other: parts",
    "other: cropped",
    "other: maximum",
)


class Together(nn.Module):
    """The gradients of several cases, in one graph."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(value_and_gradient(Case(CASES[name])) for name in names)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(step(image)[1] for step in self.steps)


@dataclass(frozen=True, eq=False)
class Written:
    names: Sequence[str]
    model: ModelProto

    def wrong(self, found: Sequence[Tensor], image: Tensor) -> dict[str, float]:
        expected = [by_autograd(Case(CASES[name]), image) for name in self.names]
        errors = {name: relative(*pair) for name, *pair in zip(self.names, found, expected, strict=True)}
        return {name: error for name, error in errors.items() if error > ROUNDING}


@pytest.fixture(scope="module", params=["chosen", pytest.param("all", marks=pytest.mark.slow)])
def written(request: pytest.FixtureRequest) -> Written:
    names = CHOSEN if request.param == "chosen" else [name for name in CASES if name not in FORWARD_LACKS]
    captured = capture(Together(names).eval(), (torch.zeros(1, *SHAPE),))
    return Written(names, to_onnx(captured, (torch.zeros(3, *SHAPE),)))


@pytest.mark.parametrize("batch", [1, 4])
def test_onnx_runtime_gives_the_same(written: Written, batch: int) -> None:
    image = images(batch, seed=2)
    assert not written.wrong(run_onnx(written.model, image), image)


def test_openvino_gives_the_same(written: Written, tmp_path: Path) -> None:
    image = images(2, seed=2)
    assert not written.wrong(openvino_runner(written.model, tmp_path)(image), image)


def test_the_file_has_plain_operators_only(written: Written) -> None:
    # What the forward pass has of its own: `gather`, and transposed convolutions.
    transposed = sum("transposed" in name for name in written.names)
    gathered = written.names.count("other: gathered")
    assert Counter(unwanted(written.model)) == Counter(ConvTranspose=transposed, GatherElements=gathered)


def test_tensorrt_builds_them(written: Written, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    onnx.save(written.model, tmp_path / "step.onnx")
    engine = compile_tensorrt_rtx(tmp_path / "step.onnx", profile=(1, 2, 4), targets=("8.6",))
    assert engine.profile == (1, 2, 4)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORWARD_LACKS)
def test_onnx_runtime_has_what_tensorrt_lacks(name: str) -> None:
    captured = capture(value_and_gradient(Case(CASES[name])), (torch.zeros(1, *SHAPE),))
    image = images(2, seed=2)
    found = run_onnx(to_onnx(captured, (torch.zeros(3, *SHAPE),)), image)
    assert relative(found[1], by_autograd(Case(CASES[name]), image)) < ROUNDING
