"""Whole classifiers forward and backward: against autograd, in the runtimes, and as TensorRT-RTX engines."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto
from torch import Tensor, nn

from salience.export.compilers.trt import compile_tensorrt_rtx
from salience.export.reverse_mode import capture, value_and_gradient
from salience.training.backbone import TIMM_PREFIX
from salience.training.timm_backbone import create_model
from tests.export.test_reverse_mode import (
    ROUNDING,
    by_autograd,
    openvino_runner,
    pictures,
    relative,
    run_onnx,
    to_onnx,
    unwanted,
)

models = pytest.importorskip("torchvision.models")
pytestmark = pytest.mark.slow

# Heights and widths that leave remainders in some of the pools and strides.
SIZES = {"vgg16": (48, 72), "squeezenet1_0": (80, 70), "mobilenet_v2": (64, 80)}
# Of timm's: "same" padding that differs between the sides, and a pooling that overlaps.
SIZES |= {"timm:tf_efficientnet_lite0": (64, 80), "timm:resnet18": (64, 72)}
# Where two elements of a window, or an element and the bend of a ReLU, are within rounding, another algorithm for the
# convolutions decides otherwise and the gradient takes another way. fp32 autograd itself is off by up to 5e-3 for it,
# and by 6e-7 where nothing flips. Most pictures are held to FLIPS and single ones to RARE; a wrong rule is off by .1.
FLIPS, RARE, AUTOGRADS = 3e-3, 3e-2, 3


class Scored(nn.Module):
    """All ten logits count, each differently."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier
        self.eval()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.classifier(image)
        return (logits * torch.linspace(-1, 1, 10, dtype=logits.dtype)).sum(dim=1), logits


def classifier(name: str) -> nn.Module:
    """Random weights, and batch norms that have seen images."""
    torch.manual_seed(0)
    network: nn.Module
    with torch.device("meta"):  # torchvision draws VGG's 120 million weights that go
        if name.startswith(TIMM_PREFIX):
            network = create_model(name.removeprefix(TIMM_PREFIX), num_classes=10)
        else:
            network = getattr(models, name)(weights=None, num_classes=10)
        if name == "vgg16":
            network.classifier = nn.Sequential(nn.Linear(512 * 7 * 7, 64), nn.ReLU(inplace=True), nn.Linear(64, 10))
    network.to_empty(device="cpu")
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            module.reset_parameters()
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    if name not in ("vgg16", "squeezenet1_0"):
        with torch.no_grad():
            network.train()(pictures(8, SIZES[name], seed=7))
    return network.eval()


@dataclass(frozen=True, eq=False)
class Expected:
    """Logits and gradient in double precision, and what autograd makes of the gradient in single."""

    image: Tensor
    logits: Tensor
    gradient: Tensor
    usual: Tensor


@dataclass(frozen=True, eq=False)
class Traced:
    network: Scored
    captured: nn.Module
    model: ModelProto
    cases: list[Expected]


@pytest.fixture(scope="module")
def traced() -> Callable[[str], Traced]:
    @cache
    def make(name: str) -> Traced:
        with torch.random.fork_rng():
            network = Scored(classifier(name))
        captured = capture(value_and_gradient(network), (torch.zeros(1, 3, *SIZES[name]),))
        model = to_onnx(captured, (torch.zeros(3, 3, *SIZES[name]),))
        exact, cases = copy.deepcopy(network).double(), []
        for batch, seed in ((1, 2), (4, 3)):
            image = pictures(batch, SIZES[name], seed)
            gradients = by_autograd(exact, image.double()), by_autograd(network, image)
            cases.append(Expected(image, exact(image.double())[1], *gradients))
        return Traced(network, captured, model, cases)

    return make


EACH = pytest.mark.parametrize("name", SIZES)


@EACH
def test_captured_equals_autograd(traced: Callable[[str], Traced], name: str) -> None:
    made = traced(name)
    for case in made.cases:
        objective, logits, gradient = made.captured(case.image)
        assert relative(objective, made.network(case.image)[0]) < ROUNDING
        assert relative(logits, case.logits) < ROUNDING
        assert relative(gradient, case.usual) < ROUNDING


def assert_gradient(made: Traced, run: Callable[[Tensor], list[Tensor]]) -> None:
    """Against autograd in double precision, since that in single precision flips decisions of its own."""
    errors = []
    for case in made.cases:
        _, logits, gradient = run(case.image)
        assert relative(logits, case.logits) < 1e-4
        errors += list(map(relative, gradient, case.gradient))
    usual = [relative(*pair) for case in made.cases for pair in zip(case.usual, case.gradient, strict=True)]
    assert float(np.median(errors)) <= max(FLIPS, AUTOGRADS * float(np.median(usual)))
    assert max(errors) <= max(RARE, AUTOGRADS * max(usual))


@EACH
def test_onnx_runtime_gives_the_gradient(traced: Callable[[str], Traced], name: str) -> None:
    made = traced(name)
    assert_gradient(made, lambda image: run_onnx(made.model, image))


@EACH
def test_openvino_gives_the_gradient(traced: Callable[[str], Traced], name: str, tmp_path: Path) -> None:
    made = traced(name)
    assert_gradient(made, openvino_runner(made.model, tmp_path))


@EACH
def test_the_file_is_plain_and_its_batch_free(traced: Callable[[str], Traced], name: str) -> None:
    made = traced(name)
    assert not unwanted(made.model)
    assert "BatchNormalization" not in {node.op_type for node in made.model.graph.node}
    for value in (*made.model.graph.input, *made.model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    # Forward and backward pass take one convolution each, and nothing is computed twice.
    layers = sum(isinstance(module, nn.Conv2d) for module in made.network.modules())
    assert sum(node.op_type == "Conv" for node in made.model.graph.node) == 2 * layers


@EACH
def test_the_file_holds_kernels_twice_and_matrices_once(traced: Callable[[str], Traced], name: str) -> None:
    made = traced(name)
    layers = list(made.network.modules())
    kernels = sum(layer.weight.numel() for layer in layers if isinstance(layer, nn.Conv2d))
    matrices = sum(layer.weight.numel() for layer in layers if isinstance(layer, nn.Linear))
    stored = sum(np.prod(weight.dims) for weight in made.model.graph.initializer)
    # Reversed kernels of stride 2 have some taps of 0 more; small matrices may be stored transposed as well.
    assert 2 * kernels + matrices <= stored < 2.1 * kernels + 1.1 * matrices + 50_000


@EACH
def test_tensorrt_builds_an_engine(traced: Callable[[str], Traced], name: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    onnx.save(traced(name).model, tmp_path / "step.onnx")
    engine = compile_tensorrt_rtx(tmp_path / "step.onnx", profile=(1, 2, 4), targets=("8.6",))
    assert engine.profile == (1, 2, 4)
