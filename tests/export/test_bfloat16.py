"""bf16: bfloat16 inside, fp32 at the borders, and served by engines that have it."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from salience.export.bfloat16 import fold_norms
from salience.export.compilers.trt import compile_tensorrt_rtx
from salience.export.graph import Graph, MethodExport
from salience.export.graphs import GRAPHS
from salience.export.model_repository.configs import Serving
from salience.export.model_repository.repository import write_repository
from salience.export.pipeline import BuildSettings, build
from salience.export.reverse_pooling import max_pool2d_backward
from salience.export.tracing import trace
from salience.export.verify import reference_type, scene_inputs
from salience.runtime import load
from salience.runtime.backends.engine import EngineOptions
from salience.runtime.backends.ov import OpenVinoEngine
from salience.runtime.bundle import Bundle
from salience.runtime.errors import BackendUnavailableError, ExportError
from salience.runtime.manifest import TensorSpec
from salience.runtime.tables import entry
from salience.runtime.tuning import tune
from salience.training.checkpoint import load_checkpoint

pytest.importorskip("openvino")

Traced = Callable[[str, str], tuple[Graph, Path]]
SLOW = pytest.mark.slow
EACH_GRAPH = pytest.mark.parametrize(
    ("method", "name"),
    [
        ("multis", "saliency"),
        ("cgd", "descend"),
        ("lps", "refine"),
        ("gicd", "consensus"),
        ("gicd", "segment"),
        pytest.param("arn", "saliency", marks=SLOW),
        pytest.param("lps", "embed", marks=SLOW),
        pytest.param("gicd", "embed", marks=SLOW),
    ],
)


@pytest.fixture(scope="module")
def traced(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Traced:
    """A graph of the small network of a method, and its bf16 file."""
    folder = tmp_path_factory.mktemp("bf16")

    @cache
    def found(method: str, name: str) -> tuple[Graph, Path]:
        header, network = load_checkpoint(checkpoints[method])
        export: MethodExport = entry(GRAPHS, method, what="method")()
        graph = {graph.name: graph for graph in export.graphs(network, header.preprocessing.size)}[name]
        onnx.save(trace(graph, "bf16"), folder / f"{method}.{name}.onnx")
        return graph, folder / f"{method}.{name}.onnx"

    return found


def kinds(model: onnx.ModelProto) -> set[int]:
    """The types of the float tensors that nodes make, at the end of no graph."""
    outside = {value.name for value in model.graph.output}
    inferred = onnx.shape_inference.infer_shapes(onnx.inliner.inline_local_functions(model), strict_mode=True)
    inner = {v.type.tensor_type.elem_type for v in inferred.graph.value_info if v.name not in outside}
    return inner & {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16}


@EACH_GRAPH
def test_bf16_is_inside_and_fp32_at_the_borders(traced: Traced, method: str, name: str) -> None:
    graph, file = traced(method, name)
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    for values, specs in ((model.graph.input, graph.inputs), (model.graph.output, graph.outputs)):
        found = [onnx.helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type).name for v in values]
        assert found == [spec.dtype for spec in specs]
    matrices = {w.data_type for w in model.graph.initializer if sum(side > 1 for side in w.dims) > 1}
    assert TensorProto.FLOAT not in matrices
    # `refine` has no weights, and its sums are fp32 in every precision.
    assert (TensorProto.BFLOAT16 in matrices, TensorProto.BFLOAT16 in kinds(model)) == (name != "refine",) * 2
    assert TensorProto.FLOAT16 not in kinds(model)


@EACH_GRAPH
def test_openvino_gives_what_pytorch_gives_in_fp32(
    traced: Traced, checkpoints: dict[str, Path], method: str, name: str
) -> None:
    graph, file = traced(method, name)
    reference = reference_type(graph)(graph, scene_inputs(load_checkpoint(checkpoints[method])[0].preprocessing))
    engine = OpenVinoEngine.open_graph(file, graph.entry({"bf16": file.name}).at("bf16"), EngineOptions())
    found = reference.run(engine, 5)
    errors = [np.linalg.norm(found[n] - want) / np.linalg.norm(want) for n, want in reference.expected.items()]
    assert max(errors) <= reference.tolerance("bf16")
    if name != "refine":
        assert max(errors) > 1e-3, "8 bits cannot be this exact: is it another precision?"


@EACH_GRAPH
def test_tensorrt_rtx_builds_every_graph(traced: Traced, method: str, name: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    _, file = traced(method, name)
    assert len(compile_tensorrt_rtx(file, profile=(1, 1, 4), targets=("8.6",)).plan) > 1000


class Normed(nn.Module):
    """A convolution whose batch norm is in no row with it, one whose is, and a transposed one."""

    def __init__(self) -> None:
        super().__init__()
        self.apart, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.row = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.larger = nn.ConvTranspose2d(4, 2, 4, stride=2, padding=1)
        for norm in self.modules():
            if isinstance(norm, nn.BatchNorm2d):
                nn.init.uniform_(norm.weight, 0.5, 2)
                norm.running_mean, norm.running_var = torch.randn(4), torch.rand(4) + 0.5

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.larger(self.row(self.norm(self.apart(image))))
        return found


@pytest.fixture(scope="module")
def normed() -> tuple[Normed, onnx.ModelProto]:
    torch.manual_seed(3)
    module = Normed().eval()
    given = TensorSpec(name="input", dtype="float32", shape=("batch", 3, 16, 24))
    made = TensorSpec(name="output", dtype="float32", shape=("batch", 2, 32, 48))
    return module, trace(Graph("normed", module, module, (given,), (made,)), "bf16")


def test_batch_norms_are_folded_before_weights_are_rounded(normed: tuple[Normed, onnx.ModelProto]) -> None:
    module, model = normed
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    layer, norm = module.row[0], module.row[1]
    assert isinstance(layer, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_var is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    wanted = (layer.weight * scale[:, None, None, None]).bfloat16().float()
    layers = [node for node in model.graph.node if node.op_type == "Conv"]
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found = numpy_helper.to_array(constants[layers[1].input[1]]).astype(np.float32)
    np.testing.assert_array_equal(found, wanted.detach().numpy())
    # The one that the exporter folded is bfloat16 too.
    assert {constants[name].data_type for node in layers for name in node.input[1:]} == {TensorProto.BFLOAT16}


def test_folding_leaves_the_network_as_it_was() -> None:
    torch.manual_seed(4)
    module, image = Normed().eval(), torch.randn(2, 3, 16, 24)
    before = module(image)
    fold_norms(module)
    assert isinstance(module.row[1], nn.Identity)
    torch.testing.assert_close(module(image), before)


def test_transposed_convolutions_compute_in_fp32(normed: tuple[Normed, onnx.ModelProto]) -> None:
    _, model = normed
    makers = {name: node for node in model.graph.node for name in node.output}
    (layer,) = (node for node in model.graph.node if node.op_type == "ConvTranspose")
    casts = [makers[name] for name in layer.input]
    assert [(cast.op_type, cast.attribute[0].i) for cast in casts] == [("Cast", TensorProto.FLOAT)] * 3
    stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert [stored[cast.input[0]] for cast in casts[1:]] == [TensorProto.BFLOAT16] * 2


def test_places_of_a_large_window_are_told_apart() -> None:
    # All elements tie, so the first takes the gradient; bfloat16 would count 400 and 399 as one.
    image, grad = torch.ones(1, 1, 20, 20, dtype=torch.bfloat16), torch.ones(1, 1, 1, 1, dtype=torch.bfloat16)
    found = max_pool2d_backward(grad, image, [20, 20], [20, 20], [0, 0], [1, 1], False, torch.zeros(0))
    assert found.nonzero().tolist() == [[0, 0, 0, 0]]


class Steps:
    """What a build said."""

    def __init__(self) -> None:
        self.names: list[str] = []

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self.names.append(name)
        yield


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> tuple[Path, Steps]:
    output, steps = tmp_path_factory.mktemp("bundles") / "multis", Steps()
    build("multis", checkpoint, BuildSettings(output, ("bf16",), ("openvino",)), step=steps)
    return output, steps


def test_a_build_says_where_bf16_was_not_verified(built: tuple[Path, Steps]) -> None:
    bundle, steps = built
    assert "bf16 is not verified on onnxruntime, which cannot run it" in steps.names
    record = Bundle(bundle).verification()
    assert record is not None
    assert record.passed
    assert {check.backend for check in record.tensors if check.precision == "bf16"} == {"openvino"}


def test_a_build_that_could_verify_bf16_nowhere_is_refused(tmp_path: Path, checkpoint: Path) -> None:
    steps = Steps()
    with pytest.raises(ExportError, match=r"^precision bf16: .* on no engine named \(.*\); add --engine openvino\.$"):
        build("multis", checkpoint, BuildSettings(tmp_path / "bundle", ("fp32", "bf16")), step=steps)
    assert (steps.names, list(tmp_path.iterdir())) == ([], [])


def test_auto_takes_a_backend_that_has_bf16(built: tuple[Path, Steps]) -> None:
    detector = load(built[0], device="cpu")
    assert (detector.precision, detector.backend.partition(" ")[0]) == ("bf16", "openvino")
    values = detector.predict(np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)).values
    assert values.shape == (50, 70)
    assert values.std() > 0


def test_a_backend_without_bf16_says_what_to_choose(built: tuple[Path, Steps], tmp_path: Path) -> None:
    wanted = r"^onnxruntime: has no kernels in bf16 .*; choose precision fp16, or backend openvino"
    with pytest.raises(BackendUnavailableError, match=wanted):
        load(built[0], backend="onnxruntime", device="cpu")
    with pytest.raises(ExportError, match=wanted):
        write_repository(Bundle(built[0]), tmp_path / "models", Serving("multis", "bf16"))
    assert list(tmp_path.iterdir()) == []


def test_only_backends_with_bf16_are_timed_in_it(built: tuple[Path, Steps], tmp_path: Path) -> None:
    copy = shutil.copytree(built[0], tmp_path / "multis")
    tuning = tune(copy, ["onnxruntime", "openvino"], rounds=1)
    assert {(timing.precision, timing.backend) for timing in tuning.timings} == {("bf16", "openvino")}
