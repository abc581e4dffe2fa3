"""Masks of backward passes become nodes with kernels, where and only where they are what the node says."""

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from salience.export.graph import Graph
from salience.export.masks import name_masks
from salience.export.operators import DOMAIN
from salience.export.reverse_mode import value_and_gradient
from salience.export.tracing import trace
from salience.runtime.manifest import TensorSpec
from tests.export.test_rewrites import copy_of, model_of


class Score(nn.Module):
    """A network (N, 2, 8, 8) -> one number a sample."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), *layers)

    def forward(self, image: Tensor) -> Tensor:
        found: Tensor = self.layers(image)
        return (found.flatten(1) ** 2).sum(dim=1)


def traced(*layers: nn.Module, precision: Any = "fp32") -> tuple[nn.Module, ModelProto]:
    torch.manual_seed(0)
    module = value_and_gradient(Score(*layers).eval())
    image = TensorSpec(name="image", dtype="float32", shape=("batch", 2, 8, 8))
    graph = Graph(
        name="gradient",
        module=module,
        reference=module,
        inputs=(image,),
        outputs=(
            TensorSpec(name="value", dtype="float32", shape=("batch",)),
            image.model_copy(update={"name": "grad"}),
        ),
        takes_gradients=True,
    )
    return module, trace(graph, precision)


def masks(model: ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node if node.domain == DOMAIN)


@pytest.mark.parametrize(
    ("layers", "wanted"),
    [
        ([nn.ReLU(), nn.Conv2d(4, 3, 3)], {"ReluBackward": 1}),
        ([nn.ReLU6(), nn.Conv2d(4, 3, 3)], {"ClipBackward": 1}),
        ([nn.Hardtanh(-0.5, 0.5)], {"ClipBackward": 1}),
        ([nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 3, 3)], {"PoolReluBackward": 1}),
        (
            [nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 3, 2), nn.ReLU(), nn.MaxPool2d(3)],
            {"PoolReluBackward": 1, "ReluBackward": 1},
        ),
        ([nn.ReLU(), nn.MaxPool2d(3)], {"ReluBackward": 1}),
        ([nn.ReLU(), nn.MaxPool2d(3, 2, 1)], {"ReluBackward": 1}),
        ([nn.ReLU(), nn.Conv2d(4, 3, 2), nn.ReLU(), nn.MaxPool2d(2)], {"ReluBackward": 2}),
        ([nn.MaxPool2d(2)], {}),
        ([nn.LeakyReLU(0.1)], {}),
        ([nn.AvgPool2d(2)], {}),
    ],
    ids=str,
)  # fmt: skip
def test_named_masks_are_autograds(layers: list[nn.Module], wanted: dict[str, int]) -> None:
    module, model = traced(*layers)
    assert masks(model) == wanted
    assert sorted(function.name for function in model.functions) == sorted(wanted)
    # Whole numbers, so that windows have several largest elements and activations lie on the limits.
    image = torch.from_numpy(np.random.default_rng(0).integers(-2, 3, (3, 2, 8, 8)).astype(np.float32))
    expected = [values.detach().numpy() for values in module(image)]
    found = ReferenceEvaluator(model).run(None, {"image": image.numpy()})
    assert np.abs(expected[1]).max() > 0
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)


def test_half_precision_keeps_its_form() -> None:
    _, model = traced(nn.ReLU(), nn.MaxPool2d(2), precision="fp16")
    assert not masks(model)


MASK = """g (float[n, 3] grad, float[n, 3] activation) => (float[n, 3] result) {{
    closed = {compare} (activation, zero)
    result = Where (closed, {chosen})
}}"""


@pytest.mark.parametrize(
    ("text", "zero", "named"),
    [
        (MASK.format(compare="LessOrEqual", chosen="zero, grad"), 0.0, True),
        (MASK.format(compare="LessOrEqual", chosen="zero, grad"), 0.5, False),
        (MASK.format(compare="LessOrEqual", chosen="grad, zero"), 0.0, False),
        (MASK.format(compare="GreaterOrEqual", chosen="zero, grad"), 0.0, False),
        (
            MASK.format(compare="LessOrEqual", chosen="zero, grad").replace("float[n, 3] act", "float[1, 3] act"),
            0.0,
            False,
        ),
        (MASK.format(compare="LessOrEqual", chosen="zero, grad").replace("float[", "double["), 0.0, False),
    ],
)
def test_what_only_looks_like_a_mask_stays(text: str, zero: float, named: bool) -> None:
    kind = np.float64 if "double" in text else np.float32
    model = model_of(text, zero=np.array(zero, dtype=kind))
    changed = copy_of(model)
    name_masks(changed)
    onnx.checker.check_model(changed)
    assert masks(changed) == ({"ReluBackward": 1} if named else {})
    rng = np.random.default_rng(0)
    shape = (1, 3) if "[1, 3]" in text else (2, 3)
    feeds = {"grad": rng.normal(size=(2, 3)).astype(kind), "activation": rng.normal(size=shape).astype(kind)}
    (before,), (after,) = (ReferenceEvaluator(each).run(None, feeds) for each in (model, changed))
    np.testing.assert_array_equal(before, after)
