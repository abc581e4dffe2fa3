"""Every method's graphs against PyTorch, on inputs and batches that were not traced, in every precision."""

from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
import pytest
import torch
from onnx import TensorProto

from salience.export.graph import Graph
from salience.export.graphs import GRAPHS
from salience.export.graphs.multis import graphs
from salience.export.operators import DOMAIN
from salience.export.tracing import check_precision, trace
from salience.export.verify import TENSOR_TOLERANCE
from salience.runtime.errors import ExportError
from salience.runtime.manifest import Precision, Verification
from salience.training.checkpoint import load_checkpoint
from salience.training.networks import NETWORKS
from salience.training.recipes import RECIPES

onnxruntime = pytest.importorskip("onnxruntime")
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "fp16-weights")


@pytest.fixture(scope="module")
def graph(checkpoint: Path) -> Graph:
    header, network = load_checkpoint(checkpoint)
    (found,) = graphs(network, header.preprocessing.size)  # type: ignore[arg-type]
    return found


@pytest.fixture(scope="module")
def models(bundle: Path) -> dict[Precision, onnx.ModelProto]:
    names: dict[Precision, str] = {
        "fp32": "saliency.onnx", "fp16": "saliency.fp16.onnx", "fp16-weights": "saliency.fp16-weights.onnx",
    }  # fmt: skip
    return {precision: onnx.load(bundle / name) for precision, name in names.items()}


def run(model: onnx.ModelProto, feed: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"input": feed})[0]
    return found


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_graphs_equal_pytorch(
    graph: Graph, models: dict[Precision, onnx.ModelProto], precision: Precision, batch: int
) -> None:
    shape = (batch, *(side for side in graph.inputs[0].shape[1:] if isinstance(side, int)))
    feed = np.random.default_rng(batch).standard_normal(shape, dtype=np.float32)
    with torch.no_grad():
        expected = graph.reference(torch.from_numpy(feed)).numpy()
    if batch > 1:
        assert expected.std(axis=0).mean() > 0.01, "maps that ignore the picture would agree with anything"
    error = np.linalg.norm(run(models[precision], feed) - expected) / np.linalg.norm(expected)
    assert error < TENSOR_TOLERANCE[precision]
    if precision != "fp32":
        assert error > 1e-6, "a half-precision file cannot be this exact: is it fp32?"


def test_precisions_are_in_the_file(models: dict[Precision, onnx.ModelProto]) -> None:
    for precision, model in models.items():
        check_precision(model, precision)
        kinds = {w.data_type for w in model.graph.initializer if len(w.dims) == 4}
        assert kinds == {TensorProto.FLOAT if precision == "fp32" else TensorProto.FLOAT16}
        assert {v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)} == {TensorProto.FLOAT}
    with pytest.raises(ExportError, match="not fp16"):
        check_precision(models["fp32"], "fp16")
    with pytest.raises(ExportError, match="not fp32"):
        check_precision(models["fp16"], "fp32")


def test_fp16_computes_in_fp16(models: dict[Precision, onnx.ModelProto]) -> None:
    """Between the casts at both ends no tensor is fp32."""
    model = onnx.shape_inference.infer_shapes(onnx.inliner.inline_local_functions(models["fp16"]), strict_mode=True)
    outside = {v.name for v in (*model.graph.input, *model.graph.output)}
    inner = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info if v.name not in outside}
    assert inner
    assert TensorProto.FLOAT not in inner.values()


def test_maxout_fusion_is_one_node_with_its_body(models: dict[Precision, onnx.ModelProto]) -> None:
    for model in models.values():
        assert [node.op_type for node in model.graph.node if node.domain == DOMAIN] == ["MaxoutFusion"]
        assert [(f.domain, f.name) for f in model.functions] == [(DOMAIN, "MaxoutFusion")]
        assert not [node for node in model.functions[0].node if node.domain not in ("", "ai.onnx")]


def test_the_batch_is_free_and_the_size_fixed(models: dict[Precision, onnx.ModelProto], graph: Graph) -> None:
    for model in models.values():
        for value, spec in ((model.graph.input[0], graph.inputs[0]), (model.graph.output[0], graph.outputs[0])):
            dims = [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
            assert dims == list(spec.shape)
            assert dims[0] == "batch"


def test_files_hold_no_paths_of_the_machine_that_made_them(bundle: Path) -> None:
    for file in bundle.iterdir():
        assert b"site-packages" not in file.read_bytes(), file.name
        assert str(Path.home()).encode() + b"/" not in file.read_bytes(), file.name


def test_every_comparison_of_the_build_is_recorded(bundle: Path) -> None:
    record = Verification.model_validate_json((bundle / "verification.json").read_bytes())
    assert record.passed
    found = {(c.precision, c.backend, c.batch) for c in record.tensors if c.graph == "saliency"}
    assert found == {(p, b, n) for p in PRECISIONS for b in ("onnxruntime", "openvino") for n in (1, 2, 5)}
    assert {c.graph for c in record.tensors} == {"preprocess", "postprocess", "saliency"}
    assert all(c.relative < 1e-4 for c in record.tensors if c.graph == "saliency" and c.precision == "fp32")


def test_an_exporter_failure_is_one_sentence(graph: Graph) -> None:
    class Impossible(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image if bool(image.sum() > 0) else -image

    broken = Graph("saliency", Impossible(), Impossible(), graph.inputs, graph.outputs)
    with pytest.raises(ExportError, match=r"graph saliency \(fp32\)"):
        trace(broken, "fp32")


def test_every_method_stands_in_every_table() -> None:
    from salience.runtime.methods import METHODS

    assert NETWORKS.keys() == RECIPES.keys() == GRAPHS.keys() == METHODS.keys()
