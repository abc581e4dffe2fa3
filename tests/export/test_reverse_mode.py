"""Gradients as graphs: what `capture` and `value_and_gradient` give, and what they refuse."""

import copy
import re
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import ModelProto, TensorProto
from torch import Tensor, nn

from salience.export.opset import OPSET
from salience.export.reverse_mode import capture, value_and_gradient
from salience.runtime.backends.ov import openvino_core
from salience.runtime.errors import ExportError

onnxruntime = pytest.importorskip("onnxruntime")

# Convolutions and sums in another order: fp32 rounds at 6e-8 a step, measured 1e-7 to 6e-7.
ROUNDING = 1e-5


def to_onnx(module: nn.Module, examples: tuple[Tensor, ...], *, batched: Sequence[int] = (0,)) -> ModelProto:
    """As `export.tracing` calls PyTorch's exporter."""
    batch = torch.export.Dim("batch", min=1, max=1 << 16)
    free = tuple({0: batch} if index in batched else {} for index in range(len(examples)))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            examples,
            dynamo=True,
            opset_version=OPSET,
            input_names=[f"x{index}" for index in range(len(examples))],
            dynamic_shapes=(free,),
            optimize=True,
            verbose=False,
        )
    assert program is not None
    onnx.checker.check_model(program.model_proto)
    return program.model_proto


def run_onnx(model: ModelProto, *inputs: Tensor) -> list[Tensor]:
    """By ONNX Runtime on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {f"x{index}": tensor.numpy() for index, tensor in enumerate(inputs)}
    return [torch.from_numpy(found) for found in session.run(None, feeds)]


def openvino_runner(model: ModelProto, folder: Path) -> Callable[[Tensor], list[Tensor]]:
    """By OpenVINO on the CPU, in fp32 also where the processor has bf16."""
    pytest.importorskip("openvino")
    onnx.save(model, folder / "step.onnx")
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino_core().compile_model(folder / "step.onnx", "CPU", options)
    places = range(len(model.graph.output))

    def run(image: Tensor) -> list[Tensor]:
        found = compiled({0: image.numpy()})
        return [torch.from_numpy(np.array(found[place])) for place in places]

    return run


def relative(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference over norm of what is expected."""
    found, expected = found.detach().double(), expected.detach().double()
    return float((found - expected).norm() / expected.norm().clamp(min=1e-30))


def by_autograd(function: nn.Module, image: Tensor, *others: Tensor) -> Tensor:
    """Gradient of the summed objective with respect to the first input."""
    image = image.clone().requires_grad_()
    found = function(image, *others)
    objective = found if isinstance(found, Tensor) else found[0]
    return torch.autograd.grad(objective.sum(), image)[0]


def pictures(count: int, size: tuple[int, int], seed: int) -> Tensor:
    """(count, 3, *size) in quarters, so that maxima tie, with an even area in each and a black one in the first."""
    random = torch.Generator().manual_seed(seed)
    images = (torch.randn(count, 3, *size, generator=random) * 4).round() / 4
    images[:, :, size[0] // 4 : size[0] // 2, size[1] // 4 : -size[1] // 4] = 0.5
    images[0, :, :, : size[1] // 5] = 0
    return images


class Clamped(nn.Module):
    """An objective with a static setting: that of clamped descent, beside the logits."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(5)
            self.layers = nn.Sequential(
                nn.Conv2d(3, 8, 3, stride=2, padding=1),
                nn.BatchNorm2d(8),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(3, 2, ceil_mode=True),
                nn.Conv2d(8, 6, 3, padding=1),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(2),
                nn.Flatten(),
                nn.Linear(6 * 4 * 3, 5),
            )
            for _ in range(3):
                self.layers(torch.randn(8, 3, 32, 26))
        self.eval()

    def forward(self, image: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.layers(image)
        return logits[:, 0] + gamma / 2 * logits[:, 1:].square().sum(dim=1), logits


SIZE = (32, 26)
EXAMPLES = (torch.zeros(1, 3, *SIZE), torch.ones(1))


@pytest.fixture(scope="module")
def network() -> Clamped:
    return Clamped()


@pytest.fixture(scope="module")
def captured(network: Clamped) -> nn.Module:
    return capture(value_and_gradient(network), EXAMPLES, batched=[0])


@pytest.fixture(scope="module")
def model(captured: nn.Module) -> ModelProto:
    return to_onnx(captured, (torch.zeros(3, 3, *SIZE), torch.ones(1)))


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_it_gives_objective_others_and_gradient(network: Clamped, captured: nn.Module, batch: int) -> None:
    image, gamma = pictures(batch, SIZE, seed=batch), torch.tensor([0.3])
    objective, logits, gradient = captured(image, gamma)
    assert torch.allclose(objective, network(image, gamma)[0])
    assert torch.allclose(logits, network(image, gamma)[1])
    assert relative(gradient, by_autograd(network, image, gamma)) < ROUNDING


def test_eager_and_captured_are_the_same(network: Clamped, captured: nn.Module) -> None:
    feeds = pictures(2, SIZE, seed=9), torch.tensor([2.0])
    for eager, traced in zip(value_and_gradient(network)(*feeds), captured(*feeds), strict=True):
        assert relative(traced, eager) < ROUNDING


def test_the_file_holds_no_constant_gradient(network: Clamped, model: ModelProto) -> None:
    """A gradient frozen at the traced input would pass a test on that input, and fail this one."""
    images, gamma = [pictures(2, SIZE, seed=seed) for seed in (1, 2)], torch.tensor([0.3])
    found = [run_onnx(model, image, gamma)[2] for image in images]
    expected = [by_autograd(network, image, gamma) for image in images]
    assert relative(expected[0], expected[1]) > 0.5
    for one, other in zip(found, expected, strict=True):
        assert relative(one, other) < ROUNDING
    # And what the setting does to it.
    stronger = torch.tensor([3.0])
    assert relative(run_onnx(model, images[0], stronger)[2], by_autograd(network, images[0], stronger)) < ROUNDING
    assert relative(found[0], by_autograd(network, images[0], stronger)) > 0.1
    largest = max(np.prod(weight.dims) for weight in model.graph.initializer)
    assert largest < images[0][0].numel()


def test_the_files_batch_is_free(network: Clamped, model: ModelProto) -> None:
    dims = {value.name: value.type.tensor_type.shape.dim for value in (*model.graph.input, *model.graph.output)}
    assert [side.dim_param or side.dim_value for side in dims["x0"]] == ["batch", 3, *SIZE]
    assert [side.dim_param or side.dim_value for side in dims["x1"]] == [1]
    assert all(dims[value.name][0].dim_param == "batch" for value in model.graph.output)
    for batch in (1, 4):
        image = pictures(batch, SIZE, seed=3)
        assert relative(run_onnx(model, image, torch.ones(1))[2], by_autograd(network, image, torch.ones(1))) < ROUNDING


def test_the_file_has_plain_operators_only(model: ModelProto) -> None:
    assert not unwanted(model)
    operators = Counter(node.op_type for node in model.graph.node)
    assert operators["Conv"] == 4  # two forward, two back
    assert operators["MaxPool"] == 4  # two forward, one more for each to find out where the maxima are
    assert "BatchNormalization" not in operators


def unwanted(model: ModelProto) -> list[str]:
    """Nodes that TensorRT, OpenVINO or the standard lack."""
    names = {"ConvTranspose", "GatherElements", "GatherND", "MaxUnpool", "NonZero", "Loop", "If", "Scan"}
    return [
        node.op_type
        for node in model.graph.node
        if node.domain or node.op_type in names or "Scatter" in node.op_type
        or (node.op_type == "MaxPool" and len(node.output) > 1)
    ]  # fmt: skip


def test_weights_stay_weights(network: Clamped, captured: nn.Module, model: ModelProto) -> None:
    own, given = dict(captured.named_parameters()), dict(network.named_parameters())
    assert {name.removeprefix("traced.function.") for name in own} == set(given)
    assert all(own[f"traced.function.{name}"].data_ptr() == weight.data_ptr() for name, weight in given.items())
    weights = {weight.name: weight for weight in model.graph.initializer}
    assert {TensorProto.FLOAT} == {weight.data_type for weight in weights.values() if len(weight.dims) > 1}
    # The fully connected layer goes backwards through the very matrix that it goes forwards through.
    assert not any(72 in buffer.shape for buffer in captured.buffers())


def test_in_half_precision(network: Clamped) -> None:
    half = copy.deepcopy(network).half()
    captured = capture(value_and_gradient(half), (EXAMPLES[0].half(), EXAMPLES[1].half()), batched=[0])
    image, gamma = pictures(2, SIZE, seed=4), torch.tensor([0.5])
    expected = by_autograd(network, image, gamma)
    gradient = captured(image.half(), gamma.half())[2]
    assert gradient.dtype == torch.float16
    # A step of 5e-4 in every weight and activation, measured 2e-3 to 1e-2.
    assert relative(gradient, expected) < 3e-2
    model = to_onnx(captured, (torch.zeros(3, 3, *SIZE).half(), torch.ones(1).half()))
    kinds = {weight.data_type for weight in model.graph.initializer if len(weight.dims) > 1}
    assert kinds == {TensorProto.FLOAT16}
    assert relative(run_onnx(model, image.half(), gamma.half())[2], expected) < 3e-2


class Attended(nn.Module):
    """A gradient with respect to features on the way, that weights them, as in GICD and Grad-CAM."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.features = nn.Sequential(nn.Conv2d(3, 6, 5, 2, 2), nn.Sigmoid())
            self.head = nn.Sequential(nn.AvgPool2d(3, 2, 1), nn.Flatten(), nn.Linear(6 * 8 * 7, 4))

    def score(self, features: Tensor) -> Tensor:
        found: Tensor = self.head(features)
        return found.amax(dim=1)

    def forward(self, image: Tensor) -> Tensor:
        features = self.features(image)
        _, gradient = value_and_gradient(self.score)(features)
        weights: Tensor = gradient.relu().mean(dim=(2, 3), keepdim=True)
        weighed: Tensor = features * weights
        return weighed


def test_gradients_of_features_on_the_way() -> None:
    attended = Attended().eval()
    captured = capture(attended, (EXAMPLES[0],))
    image = pictures(3, SIZE, seed=6)
    features = attended.features(image).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(attended.score(features).sum(), features)
    expected = features * gradient.relu().mean(dim=(2, 3), keepdim=True)
    assert relative(captured(image), expected) < ROUNDING
    model = to_onnx(captured, (torch.zeros(2, 3, *SIZE),))
    assert not unwanted(model)
    assert relative(run_onnx(model, image)[0], expected) < ROUNDING


def test_several_inputs_in_any_order() -> None:
    class Match(nn.Module):
        def forward(self, first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
            return (F.cosine_similarity(first, second) * weight).sum(dim=1)

    module = value_and_gradient(Match(), inputs=(1, 0)).eval()
    shapes = (4, 5), (4, 5), (5,)
    examples = tuple(torch.zeros(shape if len(shape) == 1 else (1, *shape)) for shape in shapes)
    captured = capture(module, examples, batched=[0, 1])
    feeds = torch.randn(6, 4, 5), torch.randn(6, 4, 5), torch.rand(5)
    for traced, eager in zip(captured(*feeds), module(*feeds), strict=True):
        assert relative(traced, eager) < ROUNDING
    assert relative(module(*feeds)[2], by_autograd(Match(), *feeds)) < ROUNDING


class Refused(nn.Module):
    """One thing that cannot be exported."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.eval()

    def forward(self, image: Tensor, weight: Tensor) -> Tensor:
        match self.what:
            case "no rule":
                image = F.avg_pool3d(image[:, None], 2)[:, 0]
            case "random":
                image = image * torch.rand_like(image)
            case "batch":
                image = image * int(image.shape[0])
            case "values" if image.sum() > 0:
                image = image * 2
            case "uneven":
                image = F.adaptive_max_pool2d(image, (5, 2))
            case "weight":
                image = F.conv2d(image, weight)
        return image.square().sum(dim=(1, 2, 3))


@pytest.mark.parametrize(
    ("what", "inputs", "message"),
    [
        ("no rule", (0,), r"operator that has none here \(aten\.avg_pool3d_backward\), expected .*; add a rule"),
        ("random", (0,), r"got random numbers \(aten\.rand_like\.default\), expected a result of the inputs alone"),
        ("batch", (0,), r"fixes the batch to the size it was traced with .*, expected one that serves any"),
        ("values", (0,), r"cannot be traced \(.*\), expected a forward .* does not depend on their values"),
        ("uneven", (0,), r"adaptive max pool: got \(32, 26\) pooled to \(5, 2\), expected a size that divides evenly"),
        ("weight", (1,), r"convolution with weight \(2, 3, 3, 3\): got a gradient with respect to weight .*detach"),
        ("", (0, 2), r"got inputs \[2\] to differentiate, expected numbers below 2"),
    ],
)
def test_refusals_are_one_sentence(what: str, inputs: tuple[int, ...], message: str) -> None:
    module = value_and_gradient(Refused(what), inputs=inputs)
    with pytest.raises(ExportError, match=message) as caught:
        capture(module, (EXAMPLES[0], torch.zeros(2, 3, 3, 3)), batched=[0])
    assert "\n" not in str(caught.value)


def test_a_module_in_training_is_named(network: Clamped) -> None:
    training = copy.deepcopy(network).train()
    with pytest.raises(ExportError, match=r"got function\.layers\.1 in training mode, expected evaluation mode; call"):
        capture(value_and_gradient(training), EXAMPLES, batched=[0])


def test_results_other_than_tensors_are_named() -> None:
    class Named(nn.Module):
        def forward(self, image: Tensor) -> dict[str, Tensor]:
            return {"image": image}

    with pytest.raises(ExportError, match=r"got dict as its result, expected a tensor or a tuple of tensors"):
        capture(Named(), EXAMPLES[:1])


@pytest.mark.slow
def test_the_example_of_the_documentation_runs(repository: Path, tmp_path: Path) -> None:
    text = (repository / "export" / "REVERSE_MODE.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "gradcam.onnx").is_file()
